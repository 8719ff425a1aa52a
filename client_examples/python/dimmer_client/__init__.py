"""A small client of dimmer-server, to copy from."""

from .admin import Operator
from .aio import AsyncClient
from .client import Client, describe
from .retry import Backoff, GaveUp, call_with_retry, call_with_retry_async, retry_delay

__all__ = [
    "AsyncClient",
    "Backoff",
    "Client",
    "GaveUp",
    "Operator",
    "call_with_retry",
    "call_with_retry_async",
    "describe",
    "retry_delay",
]
