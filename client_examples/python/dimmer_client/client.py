"""Texts in, labels, further text and usage out."""

from collections.abc import Callable, Iterator, Sequence

import grpc
from dimmer.v1 import inference_pb2, inference_pb2_grpc

from .retry import DEFAULT, Backoff, call_with_retry


class Client:
    """One connection to the gRPC port. May be shared by threads; a context manager."""

    def __init__(self, target: str = "127.0.0.1:8001", backoff: Backoff = DEFAULT):
        self._channel = grpc.insecure_channel(target)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)
        self._backoff = backoff

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def classify(
        self,
        model: str,
        texts: Sequence[str],
        budget: inference_pb2.Budget | None = None,
        timeout: float = 30.0,
        on_retry: Callable[[float, float | None], None] = lambda delay, asked: None,
    ) -> inference_pb2.ClassifyResponse:
        """Waits and tries again while the server is full, within `timeout` seconds in all.

        No budget: the default that the operator has set. Raises grpc.RpcError, or GaveUp.
        """
        request = inference_pb2.ClassifyRequest(model=model, texts=texts, budget=budget)
        return call_with_retry(
            lambda seconds: self._stub.Classify(request, timeout=seconds),
            timeout,
            self._backoff,
            on_retry,
        )

    def generate(
        self, request: inference_pb2.GenerateRequest, timeout: float = 60.0
    ) -> Iterator[inference_pb2.GenerateResponse]:
        """The messages of one stream as they come; `usage` is in the last.

        Waits and tries again while the server is full; `timeout` bounds that and the whole stream.
        To stop early, leave the loop and close() the iterator: that cancels the call.
        """

        def start(seconds: float):
            stream = self._stub.Generate(request, timeout=seconds)
            return stream, next(stream, None)  # a refusal comes in place of the first message

        stream, first = call_with_retry(start, timeout, self._backoff)
        try:
            if first is not None:
                yield first
            yield from stream
        finally:
            stream.cancel()  # does nothing after the end


def describe(usage: inference_pb2.Usage) -> str:
    """One line: the share of the dense model's FLOPs, and how it came to that."""
    tokens = str(usage.prompt_tokens)
    if usage.output_tokens:
        tokens += f" + {usage.output_tokens}"
    share = 100 * usage.flops / max(usage.dense_flops, 1)
    notes = [name for name in ("budget_clamped", "degraded", "truncated") if getattr(usage, name)]
    return (
        f"{usage.flops / 1e6:.1f} of {usage.dense_flops / 1e6:.1f} MFLOPs, {share:.1f}%, "
        f"tau {usage.tau:.3f}, {tokens} tokens" + "".join(f", {n}" for n in notes)
    )
