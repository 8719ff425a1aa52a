#!/usr/bin/env python3
"""Sets a model's default tau as an operator, shows it in the next answer, and puts it back.

Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
"""

import argparse
import sys

import grpc
from dimmer_client import Client, GaveUp, Operator, describe

TEXT = "i feel so happy and loved today"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tau", type=float, help="the new default, in [0, 1]")
    parser.add_argument("--admin", default="127.0.0.1:8003", help="HOST:PORT (%(default)s)")
    parser.add_argument("--target", default="127.0.0.1:8001", help="HOST:PORT (%(default)s)")
    parser.add_argument("--model", default="emotion", help="a classifier (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="stop after the prediction")
    parser.add_argument("--keep", action="store_true", help="leave the new default in force")
    options = parser.parse_args()
    try:
        with Operator(options.admin) as operator, Client(options.target) as client:
            run(operator, client, options)
    except GaveUp as error:
        print(f"set_tau: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"set_tau: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


def run(operator: Operator, client: Client, options: argparse.Namespace) -> None:
    model, tau = options.model, options.tau
    before = operator.settings(model)
    print(f"before: default_tau {before.default_tau:g}, revision {before.revision}")

    tried = operator.set_default_tau(model, tau, before.revision, dry_run=True)
    if tried.HasField("predicted"):
        told = tried.predicted
        print(
            f"predicted at {tau:g}: {100 * told.flop_fraction:.1f}% of the dense FLOPs, "
            f"{told.metric} {told.quality:.4f} [{told.quality_low:.4f}, {told.quality_high:.4f}]"
        )
    if options.dry_run:
        return

    # If this program dies before it puts things back, the ttl does.
    ttl = 0.0 if options.keep else 60.0
    now = operator.set_default_tau(model, tau, before.revision, ttl).settings
    print(f"set: default_tau {now.default_tau:g}, revision {now.revision}")
    try:
        answer = client.classify(model, [TEXT])  # no budget: the default
        print(f"next answer: {answer.results[0].labels[0].name}, {describe(answer.usage)}")
    finally:
        if not options.keep:
            after = operator.put_back(model, before, now.revision)
            print(f"put back: default_tau {after.default_tau:g}, revision {after.revision}")


if __name__ == "__main__":
    sys.exit(main())
