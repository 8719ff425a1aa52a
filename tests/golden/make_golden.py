#!/usr/bin/env python3
"""Makes the models and answers in this folder with `transformers`, an independent implementation.

    build/python/bin/python tests/golden/make_golden.py

Weights are random, rounded to fp16 and stored so; the answers are computed in fp32 from the rounded
weights. Shapes are odd on purpose: no width is a multiple of a vector.
"""

import json
import pathlib

import torch
import transformers

FOLDER = pathlib.Path(__file__).resolve().parent
LENGTHS = [1, 2, 7, 16, 23, 40]

COMMON = {"vocab_size": 61, "max_position_embeddings": 40, "initializer_range": 0.25}
MODELS = {
    "classifier_gelu": {
        "hidden_size": 36,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 53,
        "num_labels": 5,
    },
    "multi_label_relu": {
        "hidden_size": 40,
        "num_attention_heads": 5,
        "num_hidden_layers": 1,
        "intermediate_size": 80,
        "num_labels": 3,
        "hidden_act": "relu",
        "problem_type": "multi_label_classification",
    },
    "encoder_gelu_new": {
        "hidden_size": 22,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 30,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    },
    "classifier_silu": {
        "hidden_size": 17,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "intermediate_size": 19,
        "num_labels": 2,
        "hidden_act": "silu",
    },
}


def main():
    for seed, (name, settings) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**COMMON, **settings)
        encoder = name.startswith("encoder")
        kind = transformers.BertModel if encoder else transformers.BertForSequenceClassification
        model = kind(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # norms and biases are all ones and zeros when fresh
                    parameter.add_(0.1 * torch.randn_like(parameter))
                parameter.copy_(parameter.half().float())
        cases = [answer(model, encoder, length) for length in LENGTHS]
        directory = FOLDER / name
        model.half().save_pretrained(directory, safe_serialization=True)
        (directory / "answers.json").write_text(json.dumps({"cases": cases}) + "\n")


def answer(model, encoder, length):
    ids = torch.randint(model.config.vocab_size, (1, length))
    type_ids = (torch.arange(length) * 2 >= length).long()[None]
    case = {"ids": ids[0].tolist(), "type_ids": type_ids[0].tolist()}
    with torch.no_grad():
        body = model if encoder else model.bert
        hidden = body(input_ids=ids, token_type_ids=type_ids).last_hidden_state[0]
        case["embedding"] = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).tolist()
        if not encoder:
            case["logits"] = model(input_ids=ids, token_type_ids=type_ids).logits[0].tolist()
    return case


if __name__ == "__main__":
    main()
