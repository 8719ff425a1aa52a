#!/usr/bin/env python3
"""Makes many calls at once and backs off while the server is full, until every call is answered.

Exit status: 0 if all were answered; 1 if not; 2 where it was called wrongly.
"""

import argparse
import collections
import concurrent.futures
import sys

import grpc
from dimmer_client import Backoff, Client, GaveUp

TEXT = "i feel so happy and loved today"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="127.0.0.1:8001", help="HOST:PORT (%(default)s)")
    parser.add_argument("--model", default="emotion", help="a classifier (%(default)s)")
    parser.add_argument("--text", default=TEXT, help="what every call asks (%(default)s)")
    parser.add_argument("--texts", type=int, default=1, help="in each call (%(default)s)")
    parser.add_argument("--calls", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="at a time (%(default)s)")
    parser.add_argument("--attempts", type=int, default=8, help="for one call (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds for one call, waits too (%(default)s)"
    )
    options = parser.parse_args()
    for name in ("texts", "calls", "parallel", "attempts"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: found {getattr(options, name)}, expected at least 1")
    return run(options)


def run(options: argparse.Namespace) -> int:
    texts = [options.text] * options.texts
    waits: list[float] = []
    asked_for: list[float] = []

    def on_retry(delay: float, asked: float | None) -> None:
        waits.append(delay)
        if asked is not None:
            asked_for.append(asked)

    def one_call(client: Client, _: int) -> str:
        try:
            answer = client.classify(
                options.model, texts, timeout=options.timeout, on_retry=on_retry
            )
            return f"answered {answer.results[0].labels[0].name}"
        except GaveUp as error:
            return f"gave up after attempt {error.attempts}, {error.why}"
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"

    with Client(options.target, Backoff(max_attempts=options.attempts)) as client:
        with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
            ends = list(pool.map(lambda i: one_call(client, i), range(options.calls)))

    answered = sum(end.startswith("answered") for end in ends)
    print(f"calls: {options.calls}, answered: {answered}, failed: {options.calls - answered}")
    print(f"retries: {len(waits)}, with RetryInfo: {len(asked_for)}")
    if waits:
        print(f"waits: {min(waits):.3f} to {max(waits):.3f} s")
    for end, count in collections.Counter(ends).most_common():
        print(f"  {count} {end}")
    return 0 if answered == options.calls else 1


if __name__ == "__main__":
    sys.exit(main())
