#!/usr/bin/env python3
"""Makes the models and answers in this folder with `transformers`, an independent implementation.

    build/python/bin/python tests/golden/make_golden.py

Weights are random, rounded to fp16 and stored so; the answers are computed in fp32 from the rounded
weights. Shapes are odd on purpose: no width is a multiple of a vector.
"""

import json
import pathlib

import safetensors.torch
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


# Language models. Own settings, not of transformers' configuration:
#   linear: "in_out" as transformers stores GPT-2's linear layers, or "out_in" as others do;
#   biases: whether the file has those of linear layers (else they are zero);
#   num_key_value_heads: this transformers knows no grouped-query attention for Llama; the answers
#   are those of the same model with every key and value head repeated, which is what it means.
DECODER_LENGTHS = [1, 2, 16, 33, 64, 65, 130]
NEW_TOKENS = 12
DECODERS = {
    "gpt2_tied": {
        "n_embd": 36,
        "n_head": 3,
        "n_layer": 2,
        "n_inner": 53,
        "linear": "in_out",
        "biases": True,
    },
    "gpt2_own_head": {
        "n_embd": 40,
        "n_head": 5,
        "n_layer": 2,
        "activation_function": "relu",
        "tie_word_embeddings": False,
        "linear": "out_in",
        "biases": False,
    },
    "llama_grouped": {
        "hidden_size": 40,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 53,
        "tie_word_embeddings": False,
    },
    "llama_tied": {
        "hidden_size": 36,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 72,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
}


def main():
    make_encoders()
    for seed, (name, settings) in enumerate(DECODERS.items()):
        make_decoder(100 + seed, name, dict(settings))


def make_encoders():
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


def make_decoder(seed, name, settings):
    torch.manual_seed(seed)
    linear = settings.pop("linear", "out_in")
    biases = settings.pop("biases", True)
    kv_heads = settings.pop("num_key_value_heads", None)
    common = {"vocab_size": 61, "initializer_range": 0.25}
    if name.startswith("gpt2"):
        config = transformers.GPT2Config(n_positions=160, **common, **settings)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            max_position_embeddings=160, eos_token_id=None, pad_token_id=None, **common, **settings
        )
        model = transformers.LlamaForCausalLM(config)
    model = model.eval().float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            if not biases and key.endswith(".bias") and ".ln_" not in key:
                parameter.zero_()
            parameter.copy_(parameter.half().float())
        if kv_heads is not None:
            share_heads(model, kv_heads)

    directory = FOLDER / name
    directory.mkdir(exist_ok=True)
    safetensors.torch.save_file(
        stored_tensors(model, linear, biases, kv_heads),
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    stated = {**config.to_diff_dict(), "architectures": [type(model).__name__]}
    stated["tie_word_embeddings"] = config.tie_word_embeddings
    if kv_heads is not None:
        stated["num_key_value_heads"] = kv_heads
    (directory / "config.json").write_text(json.dumps(stated, indent=2, sort_keys=True) + "\n")
    cases = [answer_decoder(model, length) for length in DECODER_LENGTHS]
    (directory / "answers.json").write_text(json.dumps({"cases": cases}) + "\n")


def share_heads(model, kv_heads):
    """Every group of query heads gets the keys and values of its first head."""
    heads = model.config.num_attention_heads
    for layer in model.model.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            per_head = projection.weight.unflatten(0, (heads, -1))[:: heads // kv_heads]
            projection.weight.copy_(per_head.repeat_interleave(heads // kv_heads, 0).flatten(0, 1))


def stored_tensors(model, linear, biases, kv_heads):
    tensors = {}
    for key, parameter in model.named_parameters():  # a tied head comes once
        value = parameter.detach().half()
        conv1d = any(part in key for part in (".c_attn.", ".c_proj.", ".c_fc."))
        if conv1d and key.endswith(".bias") and not biases:
            continue
        if conv1d and key.endswith(".weight") and linear == "out_in":
            value = value.T
        if kv_heads is not None and (".k_proj." in key or ".v_proj." in key):
            heads = model.config.num_attention_heads
            value = value.unflatten(0, (heads, -1))[:: heads // kv_heads].flatten(0, 1)
        tensors[key] = value.contiguous()
    return tensors


def answer_decoder(model, length):
    ids = torch.randint(model.config.vocab_size, (1, length))
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0].double().log_softmax(-1)
        token_logprobs = logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0]
        greedy = []
        grown = ids
        for _ in range(NEW_TOKENS):
            best = model(input_ids=grown).logits[0, -1].topk(2)
            assert best.values[0] - best.values[1] > 2e-4, "too close a call: change the seed"
            greedy.append(int(best.indices[0]))
            grown = torch.cat([grown, best.indices[None, :1]], dim=1)
    return {"ids": ids[0].tolist(), "token_logprobs": token_logprobs.tolist(), "greedy": greedy}


if __name__ == "__main__":
    main()
