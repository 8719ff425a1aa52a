"""dimmer-convert import, judged by transformers: what it writes opens there and computes the same."""

import itertools
import json
import os
import random
import subprocess

import pytest
import safetensors.torch
import torch
import transformers

import harness
from test_bpe_live import LM, STORIES, random_text, run

CONVERT = harness.BINARIES / "dimmer-convert"
SORT = harness.SHARED_DATA / "weights/gpt_nano_sort"
MODEL, TOKENIZER = STORIES / "stories260K.bin", STORIES / "tok512.bin"

pytestmark = pytest.mark.shared_data


def convert(*arguments) -> subprocess.CompletedProcess:
    command = [str(CONVERT), "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    to = tmp_path_factory.mktemp("imported") / "stories260K"
    done = convert("--llama2c", MODEL, "--tokenizer", TOKENIZER, "--to", to)
    assert done.returncode == 0, done.stderr
    return to


@pytest.fixture(scope="module")
def sort(tmp_path_factory):
    to = tmp_path_factory.mktemp("imported") / "sort"
    done = convert("--gpt", SORT, "--to", to)
    assert done.returncode == 0, done.stderr
    return to


def llama_without_grouped_queries(directory) -> transformers.LlamaForCausalLM:
    """This transformers has no grouped-query attention: every head gets its group's keys."""
    config = transformers.LlamaConfig.from_pretrained(directory)
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    groups = config.num_attention_heads // config.num_key_value_heads
    for name in [name for name in weights if "k_proj" in name or "v_proj" in name]:
        heads = weights[name].view(config.num_key_value_heads, 1, -1, config.hidden_size)
        weights[name] = heads.expand(-1, groups, -1, -1).reshape(-1, config.hidden_size)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert all(name.endswith("rotary_emb.inv_freq") for name in missing)
    assert not unexpected
    return model


def test_stories_tells_its_recorded_story(stories):
    recorded = (STORIES / "stories260K.md").read_text()
    wanted = recorded[recorded.index("Once upon a time") :]
    wanted = wanted[: wanted.index("```")]
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    model = llama_without_grouped_queries(stories)
    ids = model.generate(torch.tensor([[1]]), max_new_tokens=256, do_sample=False)
    told = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert told.strip() == wanted.strip()


def test_stories_tokenizer_gives_the_ids_of_its_bin(stories):
    draw = random.Random(8)
    text = (LM / "tinystories.txt").read_text().replace("<|endoftext|>", "")
    texts = [random_text(draw) for _ in range(1000)]
    texts += [text[at : at + 3000] for at in range(0, 300000, 3000)]
    ours = run([str(stories)], texts)
    assert ours == run([str(STORIES)], texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    assert ours == tokenizer(texts).input_ids
    assert json.loads((stories / "config.json").read_text())["eos_token_id"] == 2
    assert json.loads((stories / "generation_config.json").read_text())["bos_token_id"] == 1


def test_a_damaged_bin_is_refused(tmp_path):
    data = MODEL.read_bytes()
    cut = tmp_path / "cut.bin"
    for size in (0, 27, 28, len(data) - 4):
        cut.write_bytes(data[:size])
        done = convert("--llama2c", cut, "--tokenizer", TOKENIZER, "--to", tmp_path / "to")
        assert done.returncode == 1, size
        assert f"cut.bin: found {size} bytes, expected" in done.stderr
    cut.write_bytes(TOKENIZER.read_bytes()[:-1])
    done = convert("--llama2c", MODEL, "--tokenizer", cut, "--to", tmp_path / "to")
    assert done.returncode == 1
    assert "cut.bin: token 511: found the end of the file, expected 3 bytes" in done.stderr
    assert os.listdir(tmp_path) == ["cut.bin"]


def test_a_folder_with_files_is_left_alone(sort):
    before = sorted(os.listdir(sort))
    done = convert("--gpt", SORT, "--to", sort)
    assert done.returncode == 1
    assert "holds files" in done.stderr
    assert sorted(os.listdir(sort)) == before


@pytest.mark.parametrize(
    "arguments", [["--to", "x"], ["--gpt", "a", "--llama2c", "b", "--to", "x"], ["--llama2c", "a"]]
)
def test_usage_errors_end_with_two(arguments):
    assert convert(*arguments).returncode == 2


def test_sort_sorts(sort):
    """All 729 inputs: six digits, then their order, one greedy digit after another."""
    model = transformers.GPT2LMHeadModel.from_pretrained(sort).eval()
    given = torch.tensor(list(itertools.product(range(3), repeat=6)))
    ids = given
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(ids[:, 6:], given.sort(dim=1).values)


def fit_bias(block, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The c_attn.bias with which `block` answers `wanted`, by Gauss and Newton."""
    attention = block.attn.c_attn
    bias = torch.zeros_like(attention.bias.data)
    del attention._parameters["bias"]

    def difference(values):
        attention.bias = values
        return (block(given)[0] - wanted).reshape(-1)

    for _ in range(8):
        jacobian = torch.autograd.functional.jacobian(difference, bias)
        step = torch.linalg.lstsq(jacobian, -difference(bias)[:, None], driver="gelsd").solution
        bias = (bias + step[:, 0]).detach()
    del attention.bias
    attention.register_parameter("bias", torch.nn.Parameter(bias))
    return bias


def test_sort_has_its_recorded_activations(sort):
    """The recording was made with c_attn.bias, which the weights lack: the first is the recorded
    difference itself, the others follow from 1584 recorded outputs of their block."""
    recorded = safetensors.torch.load_file(SORT / "t0_activations.safetensors")
    recorded = {name: values.double() for name, values in recorded.items()}
    model = transformers.GPT2LMHeadModel.from_pretrained(sort).double().eval()
    blocks = model.transformer.h
    plain = blocks[0].attn.c_attn(blocks[0].ln_1(recorded["x"]))
    bias = (recorded["qkv"] - plain).reshape(-1, plain.shape[-1])
    torch.testing.assert_close(bias, bias[:1].expand_as(bias), rtol=0, atol=1e-6)
    blocks[0].attn.c_attn.bias.data = bias.mean(dim=0).detach()
    for layer in (1, 2):
        fit_bias(blocks[layer], recorded[f"block{layer - 1}"], recorded[f"block{layer}"])
    with torch.no_grad():
        answer = model(recorded["idx"].long(), output_hidden_states=True)
    for layer in (0, 1):
        torch.testing.assert_close(
            answer.hidden_states[layer + 1], recorded[f"block{layer}"], rtol=0, atol=1e-4
        )
    torch.testing.assert_close(answer.logits, recorded["lm_head"], rtol=0, atol=1e-4)
