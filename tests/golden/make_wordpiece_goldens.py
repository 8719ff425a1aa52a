"""Writes wordpiece.json: hard texts with the ids that Hugging Face's `tokenizers` gives them.

The vocabulary and the texts are made up here. Run with the environment of tests/python:
    build/python/bin/python tests/golden/make_wordpiece_goldens.py
"""

import json
import pathlib

from tokenizers import BertWordPieceTokenizer

VOCAB = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the light un ##aff ##able ##s ##ing dim ##mer a b c ##a ##b ##c"
    " naive cafe e ##e ss ß straße strasse strass é É ##é Caf caf ##é ##e i ı ##̇ . , ! ? - _ ' \" $"
    " ( ) [ ] ~ ` ^ + < = > | 中 文 字 你 好 한 국 어 ᄒ ##ᅡ ##ᆫ ᄀ ##ᅮ ##ᆨ ᄋ ##ᅥ あ い か ##゙ が 𠀀 😀"
    " ##😀 🏽 🇩 ##🇪 مرحبا ##ا शब्द ##द fi fi ² ① Å å o ##k don t ; ; Ω ω α ##ς σ ##σ ‘ ’ “ ” … — 、 。"
    " ｆ ##ｕ ##ｌ ##ｌ ffi mask cls 0 ##1 ##2 3 ##4 10 ##0 ## ###"
).split()

TEXTS = [
    "",
    " ",
    "\t\n\r ",
    "the light",
    "  The   LIGHT\tdimmer\nlights\rdimming ",
    "unaffable unaffables unaffablez",
    "light.dimmer,light!?(the)[a]-b_c'a\"b",
    "$+<=>^`|~ a+b=c",
    "don't",
    "...!!!",
    "a\u0000b a\ufffdb a\u0001b a\u007fb a\u0085b a\u000bb a\u000cb",
    "a\u200bb a\u200db a\ufeffb a\u00adb a\u2060b",
    "a\u00a0b a\u3000b a\u2003b a\u2028b a\u2029b a\u202fb a\u1680b a\u180eb",
    "a\ue000b a\U000f0000b a\U0010ffffb a\u0378b",
    "naïve café Café CAFÉ cafe\u0301 e\u0301\u0302\u0323",
    "straße STRASSE ẞ",
    "İ I ı i̇",
    "Å \u212b å A\u030a",
    "Ω \u2126 ω ΑΣ Σ ς",
    "\u037e ; \u1fef `",
    "\u0301 \u0301a a\u0301",
    "中文字 the中文light 中a文",
    "你好、。",
    "𠀀𠀀 a𠀀b",
    "한국어 한 국",
    "あい が か\u3099 カ",
    "😀 😀😀 a😀 👍🏽 🇩🇪",
    "مرحبا مَرْحَبًا",
    "शब्द हिन्दी",
    "ﬁ ﬃ ² ① ｆｕｌｌ",
    "‘the’ “light” … —",
    "[MASK] [SEP] [CLS] [PAD] [UNK]",
    "the [MASK] light[SEP]dimmer [mask] [ MASK ] [MASK",
    "[[MASK]] [MASK][MASK] [CLS]a[CLS]",
    "\u0130[MASK]\u0130 [MA\u0301SK] [MAS\u200bK]",
    "## ### ##s #",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "é" * 100,
    "é" * 101,
    "e\u0301" * 101,
    "a" * 50 + "." + "a" * 101 + " b",
    "012 34 100",
    "a\u0301\u0323\u0302b \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\U0001d7d8 \U00011938 \u1734 \u166d \U000111c9 \u2e52 \u08e2",
    "x",
    "the x light",
]
PAIRS = [
    ("the light", "dimmer"),
    ("", "dimmer"),
    ("the light", ""),
    ("", ""),
    ("a b c a b c a b", "a b c"),
    ("a b c", "a b c a b c a b"),
    ("a b c a", "c b a c"),
    ("the [SEP] light", "[CLS] a"),
]
OPTIONS = [{"lowercase": True}, {"lowercase": False}, {"lowercase": True, "strip_accents": False}]
OPTIONS += [{"lowercase": False, "strip_accents": True}, {"handle_chinese_chars": False}]


def main():
    vocab = {}
    for word in VOCAB:
        vocab.setdefault(word, len(vocab))
    cases = []
    for options in OPTIONS:
        tokenizer = BertWordPieceTokenizer(dict(vocab), **options)
        for text in TEXTS:
            cases.append((options, text, None, 0, tokenizer.encode(text)))
    tokenizer = BertWordPieceTokenizer(dict(vocab), **OPTIONS[0])
    for pair in PAIRS:
        cases.append((OPTIONS[0], *pair, 0, tokenizer.encode(*pair)))
    for room in range(3, 16):
        tokenizer.enable_truncation(room, strategy="longest_first")
        for pair in PAIRS:
            cases.append((OPTIONS[0], *pair, room, tokenizer.encode(*pair)))
        for text in (TEXTS[4], TEXTS[6]):
            cases.append((OPTIONS[0], text, None, room, tokenizer.encode(text)))
    rows = []
    for options, text, pair, room, encoding in cases:
        row = {"options": options, "text": text, "ids": encoding.ids}
        if pair is not None:
            row |= {"pair": pair, "type_ids": encoding.type_ids}
        if room:
            row["max_tokens"] = room
        rows.append(json.dumps(row))
    body = ",\n".join(rows)
    text = f'{{"vocab": {json.dumps(list(vocab))},\n"cases": [\n{body}\n]}}\n'
    (pathlib.Path(__file__).parent / "wordpiece.json").write_text(text)


if __name__ == "__main__":
    main()
