#!/usr/bin/env python3
"""Classifies texts at three budgets and shows what each answer cost.

Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
"""

import argparse
import sys

import grpc
from dimmer.v1.inference_pb2 import Budget, ClassifyResponse
from dimmer_client import Client, GaveUp, describe

TEXTS = ["i feel so happy and loved today", "i am scared of what the doctor will say"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", default=TEXTS, help="default: two that it brings")
    parser.add_argument("--target", default="127.0.0.1:8001", help="HOST:PORT (%(default)s)")
    parser.add_argument("--model", default="emotion", help="a classifier (%(default)s)")
    parser.add_argument("--tau", type=float, default=0.1, help="0: dense, 1: least (%(default)s)")
    parser.add_argument(
        "--flop-fraction", type=float, default=0.5, help="of each text's dense FLOPs (%(default)s)"
    )
    parser.add_argument(
        "--max-flops", type=int, help="for the whole call (60%% of the dense model's)"
    )
    options = parser.parse_args()
    try:
        with Client(options.target) as client:
            run(client, options)
    except GaveUp as error:
        print(f"classify: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"classify: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


def run(client: Client, options: argparse.Namespace) -> None:
    by_tau = client.classify(options.model, options.texts, Budget(tau=options.tau))
    show(f"tau {options.tau:g}", options.texts, by_tau)

    share = Budget(flop_fraction=options.flop_fraction)
    by_share = client.classify(options.model, options.texts, share)
    show(f"flop_fraction {options.flop_fraction:g}", options.texts, by_share)

    # Every answer says what the dense model would have cost: a measure for the hard limit.
    limit = options.max_flops or by_tau.usage.dense_flops * 6 // 10
    by_limit = client.classify(options.model, options.texts, Budget(max_flops=limit))
    show(f"max_flops {limit}", options.texts, by_limit)


def show(budget: str, texts: list[str], answer: ClassifyResponse) -> None:
    print(budget)
    for text, result in zip(texts, answer.results, strict=True):
        best = result.labels[0]
        layers = " ".join(f"{layer.experts_run:.1f}" for layer in result.usage.layers)
        print(f'  "{text}": {best.name} {best.score:.4f}')
        print(f"    used: {describe(result.usage)}")
        if layers:
            print(f"    experts per token, by layer: {layers} of {result.usage.layers[0].experts}")
    usage = answer.usage
    times = f"queued {usage.queue_us} us, computed {usage.compute_us} us"
    print(f"  call: {describe(usage)}; {times}")


if __name__ == "__main__":
    sys.exit(main())
