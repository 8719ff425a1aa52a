#!/usr/bin/env python3
"""Streams a text at several budgets, all at once, and shows what each cost.

Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
"""

import argparse
import asyncio
import sys
import time

import grpc
from dimmer.v1.inference_pb2 import Budget, FinishReason, GenerateRequest
from dimmer_client import AsyncClient, GaveUp, describe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default="Once upon a time", help="(%(default)s)")
    parser.add_argument("--target", default="127.0.0.1:8001", help="HOST:PORT (%(default)s)")
    parser.add_argument("--model", default="stories", help="a language model (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each text (%(default)s)")
    parser.add_argument(
        "--tau", type=float, nargs="+", default=[0.0, 0.1, 0.3], help="one text each (%(default)s)"
    )
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except GaveUp as error:
        print(f"generate_async: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"generate_async: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


async def run(options: argparse.Namespace) -> None:
    async with AsyncClient(options.target) as client:
        texts = await asyncio.gather(*(generate(client, options, tau) for tau in options.tau))
    for text in texts:
        print(text)


async def generate(client: AsyncClient, options: argparse.Namespace, tau: float) -> str:
    request = GenerateRequest(
        model=options.model,
        prompt=options.prompt,
        budget=Budget(tau=tau),
        max_tokens=options.max_tokens,
    )
    begin = time.monotonic()
    arrivals = []
    text = options.prompt
    async for message in client.generate(request):
        if message.token_ids:
            arrivals.append(1e3 * (time.monotonic() - begin))
        text += message.text
    ended = FinishReason.Name(message.finish_reason)
    lines = [f"tau {tau:g}", text, f"  {ended}, seed {message.seed}: {describe(message.usage)}"]
    if arrivals:
        lines.append(f"  first token after {arrivals[0]:.1f} ms, last after {arrivals[-1]:.1f} ms")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
