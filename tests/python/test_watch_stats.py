"""Admin's WatchStats, read as any client in Python would."""

import signal

import grpc
import pytest

import harness

TEXTS = ["i feel so happy and loved today", "i was terrified of the dark"]


def request(stubs, model="", millis=100):
    interval = {"seconds": millis // 1000, "nanos": millis % 1000 * 1_000_000}
    return stubs.admin.WatchStatsRequest(model=model, interval=interval)


def test_all_models_by_name_at_once(admin, stubs):
    stream = admin.WatchStats(request(stubs, millis=60_000))
    models = {model.model: model for model in next(stream).models}
    stream.cancel()
    assert list(models) == sorted(models)
    assert models.keys() >= {"emotion", "minilm", "tiny", "broken", "dimmable"}
    assert not models["broken"].ready
    assert models["emotion"].converted and len(models["emotion"].modules) == 6
    assert not models["tiny"].converted and not models["tiny"].modules


def test_the_difference_of_two_messages_is_what_was_answered(admin, inference, stubs):
    stream = admin.WatchStats(request(stubs, "emotion"))
    before = next(stream).models[0]
    usage = inference.Classify(
        stubs.inference.ClassifyRequest(model="emotion", texts=TEXTS, budget={"tau": 0.3})
    ).usage
    for message in stream:
        now = message.models[0]
        if now.answers > before.answers:
            break
    stream.cancel()
    assert now.answers - before.answers == 1
    assert now.texts - before.texts == 2
    assert now.tokens - before.tokens == usage.prompt_tokens
    assert now.flops - before.flops == usage.flops
    assert now.dense_flops - before.dense_flops == usage.dense_flops
    assert now.tau_sum - before.tau_sum == pytest.approx(usage.tau)
    timed = sum(now.request_seconds.counts) - sum(before.request_seconds.counts)
    assert timed == now.requests["OK"] - before.requests["OK"] == 1
    for old, new, layer in zip(before.modules, now.modules, usage.layers, strict=True):
        assert new.tokens - old.tokens == usage.prompt_tokens
        runs = layer.experts_run * usage.prompt_tokens
        assert new.expert_runs - old.expert_runs == pytest.approx(runs)


@pytest.mark.parametrize("millis", [1, 99, 60_001, -1000])
def test_a_bad_interval_is_named(admin, stubs, millis):
    with pytest.raises(grpc.RpcError) as caught:
        next(admin.WatchStats(request(stubs, millis=millis)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "interval" in caught.value.details()


def test_an_unknown_model_is_named(admin, stubs):
    with pytest.raises(grpc.RpcError) as caught:
        next(admin.WatchStats(request(stubs, "void")))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "void" in caught.value.details()


def test_clients_that_leave_make_room(server, stubs):
    """Far more of them than may watch at the same time; half leave without a word."""
    for i in range(150):
        with grpc.insecure_channel(server.target("admin")) as channel:
            opened = False
            while not opened:  # the server may not have noticed yet that others have left
                stream = stubs.admin_grpc.AdminStub(channel).WatchStats(request(stubs))
                try:
                    opened = bool(next(stream).models)
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            if i % 2:
                stream.cancel()


def test_a_drain_ends_the_stream_with_its_reason(repository, stubs):
    server = harness.Server(repository).wait_for_ports()
    with grpc.insecure_channel(server.target("admin")) as channel:
        stream = stubs.admin_grpc.AdminStub(channel).WatchStats(request(stubs, millis=60_000))
        assert next(stream).models
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "GRPC server is shutting down"
    assert server.wait().status == 0
