"""The server against transformers on the same weights: an independent implementation of BERT.

The bound of 1e-4 is on logits of order one and on embeddings of unit length. Both sides compute in
fp32; what is left between them is the order of sums (observed: some 1e-6).
"""

import json

import grpc
import numpy as np
import pytest
import safetensors.torch
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
    pairs = ["not so sad", "i", "love ? joy !", "the fear of it"]  # transformers drops empty ones
    wanted = reference_logits(root / "gelu" / "1", TINY_TEXTS, pairs)
    got = served(server, "gelu", "logits", TINY_TEXTS, pairs)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


class GatedFfn(torch.nn.Module):
    """The FFN of one layer with dynamic-k gating, written out by token and expert."""

    def __init__(self, layer, routers, name, experts, tau):
        super().__init__()
        self.up, self.act = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
        self.down = layer.output.dense
        self.w1, self.w2 = routers[f"{name}.w1"].float(), routers[f"{name}.w2"].float()
        self.experts, self.tau = experts, tau
        self.runs = 0

    def forward(self, z):
        size = self.up.out_features // self.experts
        out = torch.zeros_like(z)
        for index, token in enumerate(z[0]):
            scores = (self.w2 @ torch.relu(self.w1 @ token)).abs()
            for expert in (scores >= self.tau * scores.max()).nonzero().flatten().tolist():
                slab = slice(expert * size, (expert + 1) * size)
                hidden = self.act(self.up.weight[slab] @ token + self.up.bias[slab])
                out[0, index] += self.down.weight[:, slab] @ hidden
                self.runs += 1
        return out + self.down.bias


def gated_reference(directory, tau):
    """transformers' model with every FFN gated as dimmer.json and routers.safetensors say."""
    model = transformers.BertForSequenceClassification.from_pretrained(
        directory, torch_dtype=torch.float32
    ).eval()
    routers = safetensors.torch.load_file(directory / "routers.safetensors")
    modules = json.loads((directory / "dimmer.json").read_text())["modules"]
    gates = []
    for spec, layer in zip(modules, model.bert.encoder.layer, strict=True):
        name = f"layers.{spec['layer']}.ffn.router"
        gates.append(GatedFfn(layer, routers, name, spec["experts"], tau))
        # transformers splits the FFN over two modules: all of it runs in the first.
        layer.intermediate = gates[-1]
        layer.output.dense = torch.nn.Identity()
    return model, gates


@pytest.mark.parametrize("tau", [0.05, 0.2, 0.5, 1.0])
def test_dimmed_logits_match_gates_written_out(converted, stubs, tau):
    directory, server = converted
    model, gates = gated_reference(directory, tau)
    wanted = run_alone(model, tokenizer_of(directory), TINY_TEXTS, None, lambda o, _: o.logits[0])
    got = served(server, "converted", "logits", TINY_TEXTS, tau=tau)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)
    with grpc.insecure_channel(server.target()) as channel:
        usage = (
            stubs.inference_grpc.InferenceStub(channel)
            .Classify(
                stubs.inference.ClassifyRequest(
                    model="converted", texts=TINY_TEXTS, budget={"tau": tau}
                )
            )
            .usage
        )
    for layer, gate in zip(usage.layers, gates, strict=True):
        assert layer.experts_run * usage.prompt_tokens == pytest.approx(gate.runs)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp("converted")
    directory = packages.convert(packages.tiny_classifier(root, "converted", seed=11))
    with harness.Server(root) as server:
        yield directory, server


def test_flops_are_counted_exactly(converted, stubs):
    """The cost model of a dense and of a dimmed run, written out."""
    directory, server = converted
    d, hidden, layers, width, experts, labels = 64, 192, 2, 16, 12, 3
    with grpc.insecure_channel(server.target()) as channel:
        classify = stubs.inference_grpc.InferenceStub(channel).Classify

        def usage_at(tau):
            request = stubs.inference.ClassifyRequest(
                model="converted", texts=["i feel so happy today"], budget={"tau": tau}
            )
            return classify(request).usage

        dense, dimmed = usage_at(0), usage_at(0.3)
    t = dense.prompt_tokens
    assert t == 7
    attention = layers * (2 * t * 4 * d * d + 2 * 2 * t * t * d)
    head = 2 * d * d + 2 * d * labels  # pooler and classifier, on the first token alone
    ffn = layers * 2 * t * 2 * d * hidden
    assert dense.flops == dense.dense_flops == attention + ffn + head
    pairs = sum(round(layer.experts_run * t) for layer in dimmed.layers)
    assert 0 < pairs < layers * t * experts
    gated = pairs * 2 * 2 * d * (hidden // experts)
    routers = layers * 2 * t * (d * width + width * experts)
    assert dimmed.flops == attention + gated + routers + head
    assert dimmed.dense_flops == dense.dense_flops


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
