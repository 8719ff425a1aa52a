"""The same with asyncio: many streams at once in one thread."""

from collections.abc import AsyncIterator

import grpc
from dimmer.v1 import inference_pb2, inference_pb2_grpc

from .retry import DEFAULT, Backoff, call_with_retry_async


class AsyncClient:
    """One connection to the gRPC port, for one event loop; an asynchronous context manager."""

    def __init__(self, target: str = "127.0.0.1:8001", backoff: Backoff = DEFAULT):
        self._channel = grpc.aio.insecure_channel(target)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)
        self._backoff = backoff

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def generate(
        self, request: inference_pb2.GenerateRequest, timeout: float = 60.0
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """As Client.generate. A task that is cancelled cancels its call."""

        async def start(seconds: float):
            stream = self._stub.Generate(request, timeout=seconds)
            return stream, await stream.read()

        stream, message = await call_with_retry_async(start, timeout, self._backoff)
        try:
            while message is not grpc.aio.EOF:
                yield message
                message = await stream.read()
        finally:
            stream.cancel()  # does nothing after the end
