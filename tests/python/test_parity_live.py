"""The engine alone, without server and tokenizer, against transformers on real weights.

dimmer-bench logits takes token ids and answers what the engine computes. See test_parity.py for the
bound and for the same through the whole server.
"""

import json
import subprocess

import numpy as np
import pytest
import torch
import transformers

import harness
import packages

TOLERANCE = 1e-4
# Lengths around the heights and widths of the kernels' tiles, up to the position limit.
LENGTHS = [1, 2, 11, 12, 13, 16, 17, 22, 33, 64, 129, 512]


def answers(threads: int, *requests: dict) -> list[list[dict]]:
    command = [harness.BINARIES / "dimmer-bench", "logits", "--threads", str(threads)]
    command += ["--model", packages.minilm_directory()]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line)["results"] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def ids():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(30522, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.fixture(scope="module")
def type_ids():
    return [[int(2 * t >= n) for t in range(n)] for n in LENGTHS]


def test_embeddings_of_token_ids(ids, type_ids):
    model = transformers.BertModel.from_pretrained(
        packages.minilm_directory(), torch_dtype=torch.float32
    ).eval()
    [rows] = answers(1, {"ids": ids, "type_ids": type_ids})
    for row, own_ids, own_types in zip(rows, ids, type_ids, strict=True):
        with torch.no_grad():
            hidden = model(
                input_ids=torch.tensor([own_ids]), token_type_ids=torch.tensor([own_types])
            ).last_hidden_state[0]
        wanted = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()
        np.testing.assert_allclose(row["embedding"], wanted, rtol=0, atol=TOLERANCE)


def test_bits_do_not_depend_on_batch_and_threads(ids, type_ids):
    alone = [
        result
        for [result] in answers(
            1, *({"ids": [a], "type_ids": [b]} for a, b in zip(ids, type_ids, strict=True))
        )
    ]
    for threads in (1, 2, 3):
        [together] = answers(threads, {"ids": ids, "type_ids": type_ids})
        assert together == alone
