"""GPT-2's and Llama's tokenizers against Hugging Face's `tokenizers`, which runs beside ours."""

import json
import random
import struct

import pytest
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

import harness
from test_wordpiece_live import SURROGATES, random_text, run

GPT2 = harness.SHARED_DATA / "tokenizers/gpt2"
STORIES = harness.SHARED_DATA / "weights/stories260K"
LM = harness.SHARED_DATA / "lm"
SEED = 5
TEXTS = 3000
END = "<|endoftext|>"
TO_BREAK = (
    "'s",
    "'ll",
    "'",
    "  ",
    "\n",
    " \n ",
    "\t",
    "\u00a0",
    "\u3000",
    "1984",
    "½",
    "▁",
    "<0x0A>",
    "😶\u200d🌫️",
)
TRAINED_ON = (
    "the cat sat on the mat and then the other cats' mats were the bats' hats, 1984 times\n"
)


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(SEED)

    def text():
        parts = [random_text(draw) if draw.random() < 0.5 else draw.choice(TO_BREAK)]
        parts += draw.choices(TO_BREAK, k=draw.randint(0, 6))
        parts += draw.choices(TRAINED_ON.split(" "), k=draw.randint(0, 6))
        draw.shuffle(parts)
        return "".join(parts)

    return [text() for _ in range(TEXTS)]


def byte_level(model: models.BPE, add_prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def trained(add_prefix_space: bool = False) -> Tokenizer:
    """A small byte-level tokenizer with all 256 bytes."""
    tokenizer = byte_level(models.BPE(), add_prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINED_ON * 3], trainer)
    return tokenizer


def assert_same_ids(directory, tokenizer, texts):
    for text, ids in zip(texts, run([str(directory)], texts), strict=True):
        assert ids == tokenizer.encode(text).ids, repr(text)


def test_every_code_point_is_split_alike():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = bytes_to_unicode()
    characters = [chr(point) for point in range(0x110000) if point not in SURROGATES]
    texts = [f"a{c}1{c}!{c} {c}" for c in characters]
    different = []
    for text, words in zip(texts, run(["--gpt2-words"], texts), strict=True):
        theirs = [word for word, _ in split.pre_tokenize_str(text)]
        if ["".join(letters[byte] for byte in word.encode()) for word in words] != theirs:
            different.append(f"U+{ord(text[1]):04X}")
    assert not different


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_random_texts_have_the_same_ids(texts, tmp_path, add_prefix_space):
    tokenizer = trained(add_prefix_space)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert_same_ids(tmp_path, tokenizer, [*texts, f"the{END} cat{END}{END}"])


def test_vocab_and_merges_give_the_same_ids(texts, tmp_path):
    tokenizer = trained()
    tokenizer.model.save(str(tmp_path))
    assert_same_ids(tmp_path, tokenizer, texts)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "tinystories.txt", "wikitext2_valid.txt"])
def test_whole_corpora_have_gpt2s_ids(name):
    tokenizer = byte_level(
        models.BPE.from_file(str(GPT2 / "encoder.json"), str(GPT2 / "vocab.bpe"))
    )
    tokenizer.add_special_tokens([END])
    assert_same_ids(GPT2, tokenizer, [(LM / name).read_text()])


@pytest.mark.shared_data
def test_random_texts_have_gpt2s_ids(texts):
    tokenizer = byte_level(
        models.BPE.from_file(str(GPT2 / "encoder.json"), str(GPT2 / "vocab.bpe"))
    )
    tokenizer.add_special_tokens([END])
    assert_same_ids(GPT2, tokenizer, texts)


def read_llama2c(path) -> list[tuple[float, bytes]]:
    data = path.read_bytes()
    at, pieces = 4, []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        pieces.append((score, data[at + 8 : at + 8 + length]))
        at += 8 + length
    return pieces


def run_c_encode(text: str, pieces: list[tuple[float, bytes]]) -> list[int]:
    """run.c's encode(), after github.com/karpathy/llama2.c, with the start token."""
    ids_of = {piece: index for index, (_, piece) in enumerate(pieces)}
    tokens = [1] + ([ids_of[b" "]] if text else [])
    for character in text:
        piece = character.encode()
        tokens += [ids_of[piece]] if piece in ids_of else [byte + 3 for byte in piece]
    while True:
        best, at, merged = -1e10, -1, -1
        for index in range(len(tokens) - 1):
            pair = pieces[tokens[index]][1] + pieces[tokens[index + 1]][1]
            if pair in ids_of and pieces[ids_of[pair]][0] > best:
                best, at, merged = pieces[ids_of[pair]][0], index, ids_of[pair]
        if at < 0:
            return tokens
        tokens[at : at + 2] = [merged]


@pytest.mark.shared_data
def test_tok512_gives_the_ids_of_llama2c(texts):
    pieces = read_llama2c(STORIES / "tok512.bin")
    stories = (LM / "tinystories.txt").read_text()
    samples = [text for text in texts if "▁" not in text]
    samples += [stories[at : at + 500] for at in range(0, len(stories), 20000)]
    for text, ids in zip(samples, run([str(STORIES)], samples), strict=True):
        assert ids == run_c_encode(text, pieces), repr(text)


def llama(byte_fallback: bool, metaspace: bool) -> Tokenizer:
    """A small tokenizer of Llama's kind, trained without bytes or given all of them."""
    base = Tokenizer(models.BPE(unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    base.train_from_iterator([TRAINED_ON * 3], trainer)
    model = json.loads(base.to_str())["model"]
    vocab = model["vocab"]
    if byte_fallback:
        for byte in range(256):
            vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = [tuple(merge.split(" ")) for merge in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
    )
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A",
        pair="<s> $A <s> $B:1",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
    )
    return tokenizer


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_llama_texts_have_the_same_ids(texts, tmp_path, byte_fallback, metaspace):
    tokenizer = llama(byte_fallback, metaspace)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    samples = [*texts, "</s>the cat<s> <s>mat", "the   cat ", "▁▁the"]
    assert_same_ids(tmp_path, tokenizer, samples)


def test_transformers_adds_the_same_tokens(tmp_path):
    llama(True, False).save(str(tmp_path / "tokenizer.json"))
    for config in (
        {"tokenizer_class": "LlamaTokenizer"},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True},
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False},
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        [ours] = run([str(tmp_path)], ["the cat"])
        assert ours == theirs("the cat").input_ids, config
