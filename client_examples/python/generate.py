#!/usr/bin/env python3
"""Streams a text at three budgets and shows what each cost.

Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
"""

import argparse
import sys
import time

import grpc
from dimmer.v1.inference_pb2 import Budget, FinishReason, GenerateRequest, Usage
from dimmer_client import Client, GaveUp, describe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default="Once upon a time", help="(%(default)s)")
    parser.add_argument("--target", default="127.0.0.1:8001", help="HOST:PORT (%(default)s)")
    parser.add_argument("--model", default="stories", help="a language model (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each text (%(default)s)")
    parser.add_argument("--tau", type=float, default=0.1, help="0: dense, 1: least (%(default)s)")
    parser.add_argument(
        "--flop-fraction", type=float, default=0.6, help="of the dense FLOPs (%(default)s)"
    )
    parser.add_argument(
        "--max-flops", type=int, help="of prompt and output (60%% of the dense model's)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="0: a fresh one (%(default)s)")
    parser.add_argument("--stop", action="append", default=[], help="end before it; repeatable")
    options = parser.parse_args()
    try:
        with Client(options.target) as client:
            run(client, options)
    except GaveUp as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"generate: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


def run(client: Client, options: argparse.Namespace) -> None:
    print(f"tau {options.tau:g}")
    by_tau = stream(client, options, Budget(tau=options.tau))

    print(f"flop_fraction {options.flop_fraction:g}")
    stream(client, options, Budget(flop_fraction=options.flop_fraction))

    # A hard limit: the text ends where the next token could pass it (finish_reason BUDGET).
    limit = options.max_flops or by_tau.dense_flops * 6 // 10
    print(f"max_flops {limit}")
    stream(client, options, Budget(max_flops=limit))


def stream(client: Client, options: argparse.Namespace, budget: Budget) -> Usage:
    request = GenerateRequest(
        model=options.model,
        prompt=options.prompt,
        budget=budget,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        stop=options.stop,
    )
    print(options.prompt, end="", flush=True)
    begin = time.monotonic()
    first = None
    for message in client.generate(request):
        if message.token_ids and first is None:
            first = time.monotonic() - begin
        print(message.text, end="", flush=True)
    # The last message: how it ended, the seed, the usage.
    ended = FinishReason.Name(message.finish_reason)
    print(f"\n  {ended}, seed {message.seed}: {describe(message.usage)}")
    if first is not None:
        print(f"  first token after {1e3 * first:.1f} ms")
    return message.usage


if __name__ == "__main__":
    sys.exit(main())
