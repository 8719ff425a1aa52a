#!/usr/bin/env python3
"""Makes tests/golden/trainee_gpt2 with `transformers`: logits, loss and gradients of a GPT-2.

    build/python/bin/python tests/golden/make_trainee_gpt2.py

Weights are random, rounded to fp16 and stored so; everything is computed in fp32 from the rounded
weights, without dropout. Shapes are odd on purpose. Gradients are of the mean loss of the next token
over all predictions of all texts, by parameter, as their norm and their product with a fixed
direction (1, -1, 1, -1, ... in storage order).
"""

import json
import pathlib

import torch
import transformers

FOLDER = pathlib.Path(__file__).resolve().parent / "trainee_gpt2"
LENGTHS = [2, 7, 16, 17, 33, 40]


def main():
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=61,
        n_positions=40,
        n_embd=36,
        n_head=3,
        n_layer=2,
        n_inner=53,
        activation_function="relu",
        initializer_range=0.25,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases are all ones and zeros when fresh
                parameter.add_(0.1 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
    model.train()
    texts = [torch.randint(0, 61, (1, n)) for n in LENGTHS]
    total, predicted, answers = 0, 0, []
    for ids in texts:
        logits = model(ids).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        total = total + losses.sum()
        predicted += len(losses)
        answers.append(
            {"ids": ids[0].tolist(), "losses": losses.tolist(), "last_logits": logits[-1].tolist()}
        )
    (total / predicted).backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        flat = parameter.grad.flatten()
        signs = torch.ones_like(flat)
        signs[1::2] = -1
        gradients[name] = {"norm": flat.norm().item(), "product": (flat @ signs).item()}
    model.half().save_pretrained(FOLDER, safe_serialization=True)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    (FOLDER / "answers.json").write_text(
        json.dumps({"texts": answers, "gradients": gradients}) + "\n"
    )


if __name__ == "__main__":
    main()
