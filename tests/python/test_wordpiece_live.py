"""The tokenizer against Hugging Face's `tokenizers`, which this process runs beside it."""

import json
import random
import subprocess

import pytest
from tokenizers import BertWordPieceTokenizer, Tokenizer, normalizers, pre_tokenizers

import harness
import packages

TOKENIZE_LINES = harness.BINARIES.parent / "tests/tokenize_lines"
SURROGATES = range(0xD800, 0xE000)
SEED = 11
TEXTS = 3000

# Where the interesting code points live: clean-up, accents, scripts, symbols, planes.
BLOCKS = (
    (0x20, 0x7E),
    (0x00, 0x1F),
    (0x7F, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0x1E00, 0x1FFF),
    (0x2000, 0x206F),
    (0x2E00, 0x2E7F),
    (0x3000, 0x30FF),
    (0x4E00, 0x4FFF),
    (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF),
    (0xF900, 0xFAFF),
    (0xFE00, 0xFFFF),
    (0x1F300, 0x1F6FF),
    (0x20000, 0x200FF),
    (0xE0000, 0xE01FF),
)
PIECES = (
    " ",
    "the ",
    "[MASK]",
    "[SEP]",
    "[CLS]",
    "[mask]",
    "[",
    "don't",
    "unaffable",
    "Zürich",
    "ﬁ",
)


def run(arguments, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [str(TOKENIZE_LINES), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def random_text(draw: random.Random) -> str:
    parts = []
    for _ in range(draw.randint(0, 30)):
        if draw.random() < 0.3:
            parts.append(draw.choice(PIECES))
            continue
        first, last = draw.choice(BLOCKS)
        parts += [chr(draw.randint(first, last)) for _ in range(draw.choice((1, 1, 3, 120)))]
    return "".join(parts)


@pytest.mark.parametrize("flags", ["clean,chinese,lower,strip", "clean,chinese", "lower", "strip"])
def test_every_code_point_is_normalized_and_split_alike(flags):
    normalizer = normalizers.BertNormalizer(
        clean_text="clean" in flags,
        handle_chinese_chars="chinese" in flags,
        strip_accents="strip" in flags,
        lowercase="lower" in flags,
    )
    split = pre_tokenizers.BertPreTokenizer()
    points = [point for point in range(0x110000) if point not in SURROGATES]
    texts = [f"a{chr(point)}B" for point in points]
    different = []
    for point, text, ours in zip(points, texts, run(["--words", flags], texts), strict=True):
        theirs = [word for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))]
        if ours != theirs:
            different.append(f"U+{point:04X}: {ours} instead of {theirs}")
    assert not different


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(SEED)
    return [random_text(draw) for _ in range(TEXTS)]


def reference(directory) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def test_random_texts_have_the_same_ids(texts):
    directory = packages.minilm_directory()
    tokenizer = reference(directory)
    ours = run([str(directory)], texts)
    for text, ids in zip(texts, ours, strict=True):
        assert ids == tokenizer.encode(text).ids, repr(text)


def test_random_pairs_have_the_same_ids(texts):
    directory = packages.minilm_directory()
    tokenizer = reference(directory)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for pair, ids in zip(pairs, run([str(directory)], pairs), strict=True):
        assert ids == tokenizer.encode(*pair).ids, repr(pair)


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_gives_the_same_ids(texts, tmp_path, lowercase):
    vocab = packages.minilm_directory() / "vocab.txt"
    (tmp_path / "vocab.txt").symlink_to(vocab)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    tokenizer = BertWordPieceTokenizer(str(vocab), lowercase=lowercase)
    for text, ids in zip(texts, run([str(tmp_path)], texts), strict=True):
        assert ids == tokenizer.encode(text).ids, repr(text)
