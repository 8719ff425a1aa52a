"""dimmer-convert tokenizer against the trainer of Hugging Face's `tokenizers`."""

import json
import os
import random
import subprocess

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import harness
from test_bpe_live import END, LM, random_text, run

CONVERT = harness.BINARIES / "dimmer-convert"
FILES = ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


def train(to, *data, vocab_size: int) -> subprocess.CompletedProcess:
    command = [str(CONVERT), "tokenizer", "--vocab-size", str(vocab_size), "--to", str(to)]
    return subprocess.run([*command, "--data", *map(str, data)], capture_output=True, text=True)


def reference(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([part for text in texts for part in text.split(END)], trainer)
    return tokenizer


def assert_same_model(directory, wanted: Tokenizer):
    model = json.loads(wanted.to_str())["model"]
    ours = json.loads((directory / "tokenizer.json").read_text())["model"]
    assert ours["merges"] == model["merges"]
    assert ours["vocab"] == model["vocab"]


@pytest.mark.parametrize("seed", range(4))
def test_made_up_corpora_train_the_same(tmp_path, seed):
    """Few letters and many ties: equally frequent pairs are everywhere."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcé ", k=draw.randint(1, 12))) for _ in range(400)]
    texts = ["\n".join(words[:200]) + END + "aaaa aaaaa aaaaaa", "'s".join(words[200:])]
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    to = tmp_path / "to"
    done = train(to, *files, vocab_size=600)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(to)) == FILES
    assert_same_model(to, reference(texts, 600))


@pytest.mark.shared_data
def test_stories_train_the_same_and_load_everywhere(tmp_path):
    corpus = LM / "tinystories.txt"
    to = tmp_path / "to"
    done = train(to, corpus, vocab_size=2048)
    assert done.returncode == 0, done.stderr
    assert "2048 tokens from" in done.stderr
    assert_same_model(to, reference([corpus.read_text()], 2048))

    draw = random.Random(2)
    texts = [corpus.read_text()[:20000], f"a{END}b", *(random_text(draw) for _ in range(500))]
    ours = run([str(to)], texts)
    theirs = transformers.AutoTokenizer.from_pretrained(to)
    assert isinstance(theirs, transformers.GPT2TokenizerFast)
    assert theirs.eos_token_id == theirs.bos_token_id == 0
    assert ours == theirs(texts).input_ids
    # The same from the other pair of files.
    (to / "tokenizer.json").unlink()
    assert ours == run([str(to)], texts)
    slow = transformers.GPT2Tokenizer.from_pretrained(to)
    assert ours[:2] == slow(texts[:2]).input_ids


def test_says_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"abc\xff")
    done = train(tmp_path / "to", bad, vocab_size=300)
    assert done.returncode == 1
    assert "bad.txt is not valid UTF-8: found byte 0xff at offset 3" in done.stderr
    done = train(tmp_path / "to", tmp_path / "none.txt", vocab_size=300)
    assert done.returncode == 1
    assert "none.txt" in done.stderr
    assert train(tmp_path / "to", bad, vocab_size=256).returncode == 2
    assert os.listdir(tmp_path) == ["bad.txt"]


def test_a_small_corpus_ends_early(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("ab ab cd\n")
    done = train(tmp_path / "to", data, vocab_size=1000)
    assert done.returncode == 0
    assert "fewer than the 1000 asked for: no other pair occurs 2 times" in done.stderr
    merges = (tmp_path / "to/merges.txt").read_text()
    assert merges == "#version: 0.2\na b\n"
