"""The server against transformers on the same weights: an independent implementation of BERT.

The bound of 1e-4 is on logits of order one and on embeddings of unit length. Both sides compute in
fp32; what is left between them is the order of sums (observed: some 1e-6).
"""

import grpc
import numpy as np
import pytest
import torch
import transformers
import tritonclient.grpc as triton

import harness
import packages

TOLERANCE = 1e-4

SENTENCES = [
    "i feel so happy and loved today",
    "i was terrified of the dark",
    "I CAN'T believe how angry this makes me!!!",
    "naïve café, garçon — déjà vu…",
    "中文字符 and ελληνικά and עברית",
    "emoji 😀 and a zero\u200bwidth space and a tab\there",
    "unbelievably antidisestablishmentarianistic",
    "",
    "a",
    "1,234.56 dollars & 50% off @ the #store",
    "i didnt feel humiliated",
    "im updating my blog because i feel shitty",
    " ".join(["long"] * 300),
    " ".join("abcdefghij"[i % 10] * (i % 7 + 1) for i in range(200)),
]


def shared_sentences(rows):
    path = harness.SHARED_DATA / "emotion/val.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.rsplit(";", 1)[0] for line in lines[:: len(lines) // rows]]


def served(server, model, output, texts, pairs=None, tau=0.0):
    with triton.InferenceServerClient(server.target()) as client:
        tensors = []
        for name, values in (("text", texts), ("text_pair", pairs)):
            if values is not None:
                tensors.append(triton.InferInput(name, [len(values)], "BYTES"))
                array = np.array([value.encode() for value in values], dtype=np.object_)
                tensors[-1].set_data_from_numpy(array)
        return client.infer(model, tensors, parameters={"tau": tau}).as_numpy(output)


def reference_logits(directory, texts, pairs=None):
    model = transformers.BertForSequenceClassification.from_pretrained(
        directory, torch_dtype=torch.float32
    ).eval()
    return run_alone(model, tokenizer_of(directory), texts, pairs, lambda out, _: out.logits[0])


def reference_embeddings(directory, texts):
    model = transformers.BertModel.from_pretrained(directory, torch_dtype=torch.float32).eval()

    def pool(out, _):
        return torch.nn.functional.normalize(out.last_hidden_state[0].mean(dim=0), dim=0)

    return run_alone(model, tokenizer_of(directory), texts, None, pool)


def tokenizer_of(directory):
    return transformers.BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=True)


def run_alone(model, tokenizer, texts, pairs, head):
    """One text at a time, without padding."""
    rows = []
    with torch.no_grad():
        for index, text in enumerate(texts):
            pair = pairs[index] if pairs else None
            inputs = tokenizer(text, pair, return_tensors="pt")
            rows.append(head(model(**inputs), inputs).numpy())
    return np.stack(rows)


def test_the_converted_package_opens_in_transformers_as_the_dense_model(server):
    directory = harness.MODELS / "emotion/1"
    wanted = reference_logits(directory, SENTENCES)
    np.testing.assert_allclose(
        served(server, "emotion", "logits", SENTENCES), wanted, rtol=0, atol=TOLERANCE
    )


@pytest.mark.shared_data
def test_the_converted_package_on_real_rows(server):
    texts = shared_sentences(50)
    wanted = reference_logits(harness.MODELS / "emotion/1", texts)
    np.testing.assert_allclose(
        served(server, "emotion", "logits", texts), wanted, rtol=0, atol=TOLERANCE
    )
    dimmed = served(server, "emotion", "logits", texts, tau=0.3)
    assert np.abs(dimmed - wanted).max() > 100 * TOLERANCE, "the bound tells models apart"


def test_real_embeddings(server):
    wanted = reference_embeddings(packages.minilm_directory(), SENTENCES)
    np.testing.assert_allclose(
        served(server, "minilm", "embedding", SENTENCES), wanted, rtol=0, atol=TOLERANCE
    )


def test_tokens_of_hard_strings(inference, stubs):
    tokenizer = tokenizer_of(packages.minilm_directory())
    request = stubs.inference.TokenizeRequest(
        model="minilm", texts=SENTENCES, add_special_tokens=True
    )
    for text, row in zip(SENTENCES, inference.Tokenize(request).results, strict=True):
        assert list(row.ids) == tokenizer(text)["input_ids"], text


VARIANTS = {
    "gelu": {},
    "relu": {"hidden_act": "relu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "odd sizes": {"hidden_size": 60, "num_attention_heads": 3, "intermediate_size": 100},
    "one layer, two labels": {
        "num_hidden_layers": 1,
        "id2label": {0: "no", 1: "yes"},
        "label2id": {"no": 0, "yes": 1},
    },
    "large epsilon": {"layer_norm_eps": 1e-3},
}
TINY_TEXTS = ["i feel so happy today", "the and of , . !", "", "so very very sad ? not i 1 2 3"]


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """One server on all variants of the tiny model, and on it in half precisions and shards."""
    root = tmp_path_factory.mktemp("variants")
    for index, (name, changes) in enumerate(VARIANTS.items()):
        packages.tiny_classifier(root, name.replace(" ", "-").replace(",", ""), index, **changes)
    for dtype in (torch.float16, torch.bfloat16):
        directory = packages.tiny_classifier(root, f"full-{dtype}"[11:], seed=7)
        model = transformers.BertForSequenceClassification.from_pretrained(directory).to(dtype)
        model.save_pretrained(directory, safe_serialization=True)
    with harness.Server(root) as server:
        yield root, server


@pytest.mark.parametrize("name", [*VARIANTS, "float16", "bfloat16"])
def test_variants_of_the_architecture(variants, name):
    root, server = variants
    name = name.replace(" ", "-").replace(",", "")
    wanted = reference_logits(root / name / "1", TINY_TEXTS)
    got = served(server, name, "logits", TINY_TEXTS)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def test_sentence_pairs(variants):
    root, server = variants
    pairs = list(reversed(TINY_TEXTS))
    wanted = reference_logits(root / "gelu" / "1", TINY_TEXTS, pairs)
    got = served(server, "gelu", "logits", TINY_TEXTS, pairs)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def test_an_unknown_activation_is_refused_and_named(tmp_path, stubs):
    packages.tiny_classifier(tmp_path, "tiny")
    config = packages.tiny_classifier(tmp_path, "odd") / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"squeak"'))
    with harness.Server(tmp_path) as server, grpc.insecure_channel(server.target()) as channel:
        classify = stubs.inference_grpc.InferenceStub(channel).Classify
        with pytest.raises(grpc.RpcError) as caught:
            classify(stubs.inference.ClassifyRequest(model="odd", texts=["i"]))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "squeak" in caught.value.details()
