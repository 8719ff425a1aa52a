"""dimmer.v1.Admin: the operator's hand on the light, live."""

import grpc
import pytest

import harness

TEXT = ["i feel so happy and loved today"]


@pytest.fixture
def light(stubs):
    """A server of its own, since these tests change it."""
    with harness.Server(harness.MODELS) as server:
        with (
            grpc.insecure_channel(server.target()) as channel,
            grpc.insecure_channel(server.target("admin")) as admin_channel,
        ):
            yield Light(stubs, channel, admin_channel)


class Light:
    def __init__(self, stubs, channel, admin_channel):
        self.stubs = stubs
        self.inference = stubs.inference_grpc.InferenceStub(channel)
        self.admin = stubs.admin_grpc.AdminStub(admin_channel)

    def set(self, **fields):
        return self.admin.SetTau(self.stubs.admin.SetTauRequest(model="emotion", **fields))

    def usage(self, budget=None):
        request = self.stubs.inference.ClassifyRequest(model="emotion", texts=TEXT, budget=budget)
        return self.inference.Classify(request).usage

    def refused(self, **fields):
        with pytest.raises(grpc.RpcError) as caught:
            self.set(**fields)
        return caught.value


def test_list_and_get(admin, stubs):
    models = {
        model.name: model for model in admin.ListModels(stubs.admin.ListModelsRequest()).models
    }
    assert models.keys() >= {"emotion", "minilm", "tiny", "broken"}
    assert models["emotion"].ready
    assert not models["broken"].ready
    got = admin.GetModel(stubs.admin.GetModelRequest(model="emotion"))
    assert got.model.name == "emotion"
    with pytest.raises(grpc.RpcError) as caught:
        admin.GetModel(stubs.admin.GetModelRequest(model="void"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_default_holds_at_once_for_those_who_ask_for_nothing(light):
    before = light.usage()
    answer = light.set(default_tau=0.5)
    assert answer.settings.default_tau == 0.5
    after = light.usage()
    assert after.tau == pytest.approx(0.5)
    assert after.flops < before.flops
    assert light.usage({"tau": 0}).flops == before.dense_flops


def test_the_answer_predicts(light):
    low, high = (light.set(default_tau=tau).predicted for tau in (0.0, 0.5))
    assert low.flop_fraction == pytest.approx(1)
    assert 0.2 < high.flop_fraction < 0.6
    assert high.quality < low.quality <= 1


def test_bounds_clamp_and_say_so(light):
    light.set(default_tau=0.1, min_tau=0.05, max_tau=0.2)
    for asked, used in ((0.0, 0.05), (0.9, 0.2)):
        usage = light.usage({"tau": asked})
        assert usage.tau == pytest.approx(used)
        assert usage.budget_clamped
    usage = light.usage({"tau": 0.15})
    assert usage.tau == pytest.approx(0.15)
    assert not usage.budget_clamped


def test_compare_and_set(light):
    revision = light.set(default_tau=0.1).settings.revision
    following = light.set(default_tau=0.2, if_revision=revision).settings.revision
    assert following > revision
    error = light.refused(default_tau=0.3, if_revision=revision)
    assert error.code() == grpc.StatusCode.ABORTED
    assert str(revision) in error.details() and str(following) in error.details()
    assert light.set(dry_run=True).settings.default_tau == 0.2


def test_dry_run_changes_nothing(light):
    before = light.set(dry_run=True).settings
    assert light.set(default_tau=0.77, dry_run=True).settings.default_tau == 0.77
    after = light.set(dry_run=True).settings
    assert (after.default_tau, after.revision) == (before.default_tau, before.revision)


def test_one_layer_alone(light):
    light.set(default_tau=0)
    light.set(layers=[{"layer": 2, "module": "ffn", "tau": 0.5}])
    ran = {layer.layer: layer.experts_run / layer.experts for layer in light.usage().layers}
    assert ran.pop(2) < 1
    assert set(ran.values()) == {1.0}


@pytest.mark.parametrize(
    "fields",
    [
        {"default_tau": -1},
        {"default_tau": 2},
        {"default_tau": float("nan")},
        {"min_tau": 0.6, "max_tau": 0.4},
        {"max_tau": float("inf")},
        {"layers": [{"layer": 99, "module": "ffn", "tau": 0.5}]},
        {"layers": [{"layer": 0, "module": "nose", "tau": 0.5}]},
        {"layers": [{"layer": 0, "module": "ffn", "tau": 7}]},
    ],
)
def test_bad_settings_are_refused_whole(light, fields):
    before = light.set(dry_run=True).settings
    assert light.refused(**fields).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert light.set(dry_run=True).settings == before


def test_a_plain_checkpoint_has_no_light_to_turn(admin, stubs):
    with pytest.raises(grpc.RpcError) as caught:
        admin.SetTau(stubs.admin.SetTauRequest(model="tiny", default_tau=0.1))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_unknown_model(admin, stubs):
    with pytest.raises(grpc.RpcError) as caught:
        admin.SetTau(stubs.admin.SetTauRequest(model="void", default_tau=0.1))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_each_change_leaves_one_audit_line(stubs):
    with harness.Server(harness.MODELS) as server:
        with grpc.insecure_channel(server.target("admin")) as channel:
            admin = stubs.admin_grpc.AdminStub(channel)
            layers = [{"layer": 2, "module": "ffn", "tau": 0.5}]
            admin.SetTau(
                stubs.admin.SetTauRequest(model="emotion", default_tau=0.25, layers=layers)
            )
        ended = server.terminate()
    lines = [line for line in ended.output.splitlines() if "audit:" in line]
    assert len(lines) == 1, ended.output
    for part in (
        "SetTau model=emotion peer=",
        "from=(default_tau=",
        "to=(default_tau=0.25 min_tau=0 max_tau=1 layer2.ffn=0.5)",
        "revision=2",
    ):
        assert part in lines[0]
