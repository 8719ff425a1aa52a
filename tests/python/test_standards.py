"""grpc.health.v1 and server reflection, as probes and tools use them."""

import threading

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import harness

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("service", ["", "dimmer.v1.Inference", "inference.GRPCInferenceService"])
def test_health_check(health, service):
    assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_health_check_of_an_unknown_service(health):
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_watch_answers_at_once_and_for_unknown_services_too(health):
    for service, wanted in (("", SERVING), ("no.such.Service", SERVICE_UNKNOWN)):
        stream = health.Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(stream).status == wanted
        stream.cancel()


def test_health_watch_sees_the_drain(repository):
    with harness.Server(repository) as server, grpc.insecure_channel(server.target()) as channel:
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(stream).status == SERVING
        statuses = []

        def read():
            try:
                statuses.extend(answer.status for answer in stream)
            except grpc.RpcError as error:
                statuses.append(error.code())

        reader = threading.Thread(target=read)
        reader.start()
        ended = server.terminate()
        reader.join()
        assert statuses[0] == NOT_SERVING
        assert statuses[1:] in ([], [grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.CANCELLED])
        assert ended.status == 0


def test_reflection_lists_and_describes(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert services >= {
        "dimmer.v1.Inference",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    }
    service = DescriptorPool(database).FindServiceByName("dimmer.v1.Inference")
    request = service.FindMethodByName("Classify").input_type
    assert [oneof.name for oneof in request.fields_by_name["budget"].message_type.oneofs] == [
        "limit"
    ]


def test_admin_is_on_its_own_port_only(channel, server):
    assert "dimmer.v1.Admin" not in ProtoReflectionDescriptorDatabase(channel).get_services()
    with grpc.insecure_channel(server.target("admin")) as own:
        assert "dimmer.v1.Admin" in ProtoReflectionDescriptorDatabase(own).get_services()


def test_http_health(server):
    assert server.get("http", "/v2/health/live")[0] == 200
    assert server.get("http", "/v2/health/ready")[0] == 200
    assert server.get("http", "/v2/health/lively")[0] == 404
