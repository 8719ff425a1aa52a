"""Tries a call again while the server is full: RESOURCE_EXHAUSTED, usually with a RetryInfo."""

import asyncio
import dataclasses
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Backoff:
    """When to try again, and how often. Times in seconds."""

    initial: float = 0.1
    multiplier: float = 2.0
    maximum: float = 5.0
    max_attempts: int = 8

    def delay(self, failures: int, asked: float | None, jitter: float) -> float:
        """The wait after so many failures, at least 1. `jitter` is a random number in [0, 1).

        Never less than what the server asked for. The part on top grows and is random, so that
        clients that were refused together do not come back together.
        """
        # The exponent is bounded since 2.0**1024 is an error.
        ceiling = min(self.maximum, self.initial * self.multiplier ** min(failures - 1, 100))
        return (asked or 0.0) + jitter * ceiling


DEFAULT = Backoff()


class GaveUp(Exception):
    """The server was still full when attempts or time ran out. The last error is __cause__."""

    def __init__(self, why: str, attempts: int, error: grpc.RpcError):
        super().__init__(f"gave up after attempt {attempts}, {why}: {error.details()}")
        self.why = why
        self.attempts = attempts


def retry_delay(error: grpc.RpcError) -> float | None:
    """What the server asks for in google.rpc.RetryInfo, in seconds; None where it does not."""
    status = rpc_status.from_call(error)  # from the trailing metadata grpc-status-details-bin
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return max(0.0, info.retry_delay.ToTimedelta().total_seconds())
    return None


OnRetry = Callable[[float, float | None], None]


def call_with_retry(
    call: Callable[[float], Answer],
    timeout: float,
    backoff: Backoff = DEFAULT,
    on_retry: OnRetry = lambda delay, asked: None,
) -> Answer:
    """`call(seconds)` until it answers; `timeout` bounds all attempts and waits together.

    Each attempt is given what is left of the time. Other errors than RESOURCE_EXHAUSTED are
    raised as they are. `on_retry` hears of each wait and what the server had asked for.
    """
    deadline = time.monotonic() + timeout
    for attempt in itertools.count(1):
        try:
            return call(max(0.0, deadline - time.monotonic()))
        except grpc.RpcError as error:
            delay, asked = _next_wait(backoff, attempt, deadline, error)
        on_retry(delay, asked)
        time.sleep(delay)
    raise AssertionError("never")


async def call_with_retry_async(
    call: Callable[[float], Awaitable[Answer]],
    timeout: float,
    backoff: Backoff = DEFAULT,
    on_retry: OnRetry = lambda delay, asked: None,
) -> Answer:
    """The same for grpc.aio."""
    deadline = time.monotonic() + timeout
    for attempt in itertools.count(1):
        try:
            return await call(max(0.0, deadline - time.monotonic()))
        except grpc.RpcError as error:
            delay, asked = _next_wait(backoff, attempt, deadline, error)
        on_retry(delay, asked)
        await asyncio.sleep(delay)
    raise AssertionError("never")


def _next_wait(
    backoff: Backoff, attempt: int, deadline: float, error: grpc.RpcError
) -> tuple[float, float | None]:
    """The wait before the next attempt, and what the server asked for; raises if there is none."""
    if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise error
    asked = retry_delay(error)
    delay = backoff.delay(attempt, asked, random.random())
    if attempt >= backoff.max_attempts:
        raise GaveUp("no attempts left", attempt, error) from error
    if delay >= deadline - time.monotonic():
        raise GaveUp("the deadline comes before the next", attempt, error) from error
    return delay, asked
