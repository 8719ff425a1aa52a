"""Memory and start-up of dimmer-server with one model, as JSON.

    build/python/bin/python bench/measure_footprint.py --model models/emotion

Memory: resident bytes after traffic, less those of a server without any model, over the weights'
size in fp32. Start: from exec to the first 200 on /v2/health/ready, median over --runs.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import struct
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/python"))
import numpy as np
import tritonclient.grpc as triton

import harness
import machine


def fp32_bytes(path: pathlib.Path) -> int:
    """Four times the elements that a safetensors file's header lists."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(
        4 * int(np.prod(tensor["shape"], dtype=np.int64))
        for name, tensor in header.items()
        if name != "__metadata__"
    )


def classify(server: harness.Server, model: str, calls: int) -> None:
    """Traffic of both extremes: single short texts and full batches, dense and dimmed."""
    with triton.InferenceServerClient(server.target()) as client:
        for call in range(calls):
            texts = ["i feel so very happy and loved today"] * (1 if call % 2 else 32)
            tensor = triton.InferInput("text", [len(texts)], "BYTES")
            tensor.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=np.object_))
            client.infer(model, [tensor], parameters={"tau": 0.1 * (call % 4)})


def start_seconds(repository: pathlib.Path) -> float:
    start = time.perf_counter()
    with harness.Server(repository) as server:
        while server.get("http", "/v2/health/ready")[0] != 200:
            time.sleep(0.001)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=harness.MODELS / "emotion")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()

    weights = fp32_bytes(harness.newest_version(options.model) / "model.safetensors")
    with tempfile.TemporaryDirectory() as root:
        empty, one = pathlib.Path(root, "empty"), pathlib.Path(root, "one")
        empty.mkdir()
        shutil.copytree(options.model, one / options.model.name)
        with harness.Server(empty) as server:
            without = server.resident_bytes()
        with harness.Server(one) as server:
            loaded = server.resident_bytes()
            classify(server, options.model.name, options.calls)
            after = server.resident_bytes()
        starts = [start_seconds(one) for _ in range(options.runs)]

    print(
        json.dumps(
            {
                "machine": machine.describe(),
                "weights_fp32_bytes": weights,
                "resident_bytes_without_model": without,
                "resident_bytes_loaded": loaded,
                "resident_bytes_after_traffic": after,
                "memory_over_weights": round((after - without) / weights, 3),
                "start_to_ready_seconds_median": round(statistics.median(starts), 3),
                "start_to_ready_seconds_max": round(max(starts), 3),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
