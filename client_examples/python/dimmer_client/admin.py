"""The operator's side: a model's default tau, changed while the server runs."""

import datetime

import grpc
from dimmer.v1 import admin_pb2, admin_pb2_grpc

SECONDS = 10.0  # for one call


class Operator:
    """One connection to the Admin port, which listens on the server's loopback interface only."""

    def __init__(self, target: str = "127.0.0.1:8003"):
        self._channel = grpc.insecure_channel(target)
        self._stub = admin_pb2_grpc.AdminStub(self._channel)

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def settings(self, model: str) -> admin_pb2.TauSettings:
        request = admin_pb2.GetModelRequest(model=model)
        return self._stub.GetModel(request, timeout=SECONDS).model.settings

    def set_default_tau(
        self, model: str, tau: float, revision: int, ttl: float = 0.0, dry_run: bool = False
    ) -> admin_pb2.SetTauResponse:
        """Compare-and-set: ABORTED if the settings are no longer those of `revision`.

        `ttl`: seconds until the settings before return by themselves; 0: for good. `dry_run`
        changes nothing; the answer's `predicted` is what the calibration expects.
        """
        request = admin_pb2.SetTauRequest(
            model=model, default_tau=tau, if_revision=revision, dry_run=dry_run
        )
        if ttl > 0:
            request.ttl.FromTimedelta(datetime.timedelta(seconds=ttl))
        return self._stub.SetTau(request, timeout=SECONDS)

    def put_back(
        self, model: str, before: admin_pb2.TauSettings, revision: int
    ) -> admin_pb2.TauSettings:
        """Sets the default tau of `before` again; answers what is in force then.

        ABORTED if somebody else has changed the settings since `revision`: theirs then stay. A
        default that was temporary stays so, until the same time.
        """
        request = admin_pb2.SetTauRequest(
            model=model, default_tau=before.default_tau, if_revision=revision
        )
        if before.HasField("expires"):
            left = before.expires.ToDatetime(datetime.UTC) - datetime.datetime.now(datetime.UTC)
            request.ttl.FromTimedelta(max(left, datetime.timedelta(milliseconds=1)))
        return self._stub.SetTau(request, timeout=SECONDS).settings
