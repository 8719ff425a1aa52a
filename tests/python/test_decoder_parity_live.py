"""The engine's decoders, without server and tokenizer, against transformers on random checkpoints.

tests/models/score_lines.cc takes token ids and answers log-probabilities and greedy texts. See
tests/golden for the same with committed answers; shapes here are of common proportions.
"""

import json
import subprocess

import pytest
import safetensors.torch
import torch
import transformers

import harness
from test_import import SORT, fit_bias

TOLERANCE = 1e-4
# Lengths around pages of keys, chunks of prompts, and the position limit.
LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65, 128, 129, 200, 250]
NEW_TOKENS = 6
VOCABULARY = 307

GPT2 = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 3},
    "gpt2_wide_heads": {"n_embd": 160, "n_head": 2, "n_layer": 2, "n_inner": 200},
    "gpt2_gelu_own_head": {
        "n_embd": 48,
        "n_head": 6,
        "n_layer": 2,
        "activation_function": "gelu",
        "tie_word_embeddings": False,
    },
}
LLAMA = {
    "llama": {
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_hidden_layers": 3,
        "intermediate_size": 172,
    },
    "llama_tied": {
        "hidden_size": 96,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 130,
        "tie_word_embeddings": True,
    },
}


def answers(directory, threads: int, texts, new_tokens: int = NEW_TOKENS) -> list[dict]:
    command = [harness.BINARIES.parent / "tests/score_lines", directory, str(threads)]
    line = json.dumps({"texts": texts, "new_tokens": new_tokens}) + "\n"
    done = subprocess.run(command, input=line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["texts"]


def random_model(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(7)
    common = {"vocab_size": VOCABULARY, "initializer_range": 0.15}
    if name in GPT2:
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_positions=256, **common, **GPT2[name])
        )
    else:
        config = transformers.LlamaConfig(
            max_position_embeddings=256, eos_token_id=None, **common, **LLAMA[name]
        )
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases are all ones and zeros when fresh
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=[*GPT2, *LLAMA])
def checkpoint(request, tmp_path_factory):
    model = random_model(request.param)
    directory = tmp_path_factory.mktemp("checkpoint") / request.param
    model.save_pretrained(directory, safe_serialization=True)
    return model, directory


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]


def wanted_scores(model, ids) -> torch.Tensor:
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return logprobs[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]


def test_scores(checkpoint, texts):
    model, directory = checkpoint
    got = answers(directory, 2, texts)
    for ids, answer in zip(texts, got, strict=True):
        scores = torch.tensor(answer["token_logprobs"], dtype=torch.double)
        torch.testing.assert_close(scores, wanted_scores(model, ids), rtol=0, atol=TOLERANCE)


def test_greedy_texts(checkpoint, texts):
    """Each token is one that transformers likes best after the text so far, to a rounding."""
    model, directory = checkpoint
    got = answers(directory, 1, texts)
    for ids, answer in zip(texts, got, strict=True):
        assert len(answer["greedy"]) == NEW_TOKENS
        with torch.no_grad():
            logits = model(torch.tensor([ids + answer["greedy"]])).logits[0].double()
        shares = logits[len(ids) - 1 : -1].log_softmax(-1)
        chosen = shares.gather(1, torch.tensor(answer["greedy"])[:, None])[:, 0]
        torch.testing.assert_close(chosen, shares.max(dim=1).values, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(
            torch.tensor(answer["logprobs"], dtype=torch.double), chosen, rtol=0, atol=TOLERANCE
        )


def test_bits_do_not_depend_on_batch_and_threads(checkpoint, texts):
    _, directory = checkpoint
    alone = [answer for ids in texts for answer in answers(directory, 1, [ids])]
    for threads in (1, 2, 3):
        assert answers(directory, threads, texts) == alone


@pytest.fixture(scope="module")
def sort_with_biases(tmp_path_factory):
    """gpt_nano_sort with the biases of its recording, which the weights lack (test_import.py)."""
    recorded = safetensors.torch.load_file(SORT / "t0_activations.safetensors")
    recorded = {name: values.double() for name, values in recorded.items()}
    stored = json.loads((SORT / "config.json").read_text())
    config = transformers.GPT2Config(
        vocab_size=stored["vocab_size"],
        n_positions=stored["block_size"],
        n_embd=stored["n_embd"],
        n_layer=stored["n_layer"],
        n_head=stored["n_head"],
        tie_word_embeddings=False,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    weights = safetensors.torch.load_file(SORT / "model.safetensors")
    for name in weights:
        if any(f"{part}.weight" in name for part in ("c_attn", "c_proj", "c_fc")):
            weights[name] = weights[name].T
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert all(name.endswith(("c_attn.bias", "attn.masked_bias", "attn.bias")) for name in missing)
    assert not unexpected
    model = model.double()
    blocks = model.transformer.h
    plain = torch.nn.functional.linear(
        blocks[0].ln_1(recorded["x"]), blocks[0].attn.c_attn.weight.T
    )
    bias = (recorded["qkv"] - plain).flatten(0, 1).mean(dim=0)
    blocks[0].attn.c_attn.bias.data = bias.detach()
    for layer in (1, 2):
        fit_bias(blocks[layer], recorded[f"block{layer - 1}"], recorded[f"block{layer}"])
    directory = tmp_path_factory.mktemp("checkpoint") / "sort"
    model.float().save_pretrained(directory, safe_serialization=True)
    return recorded, directory


@pytest.mark.shared_data
def test_sort_has_its_recorded_logits(sort_with_biases):
    """Every logit of every position, as the score of that token after that prefix."""
    recorded, directory = sort_with_biases
    rows = recorded["idx"].long().tolist()
    prefixes = [row[: t + 1] for row in rows for t in range(len(row))]
    texts = [[*prefix, token] for prefix in prefixes for token in range(3)]
    got = torch.tensor(
        [answer["token_logprobs"][-1] for answer in answers(directory, 2, texts, new_tokens=0)],
        dtype=torch.double,
    ).view(recorded["lm_head"].shape)
    wanted = recorded["lm_head"].log_softmax(-1)
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(got.exp(), recorded["probs"], rtol=0, atol=TOLERANCE)
