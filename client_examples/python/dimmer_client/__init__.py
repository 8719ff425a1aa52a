"""A small client of dimmer-server, to copy from."""

from .admin import Operator
from .client import Client, describe
from .retry import Backoff, GaveUp, call_with_retry, retry_delay

__all__ = [
    "Backoff",
    "Client",
    "GaveUp",
    "Operator",
    "call_with_retry",
    "describe",
    "retry_delay",
]
