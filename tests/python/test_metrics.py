"""/metrics, read by Prometheus' own parser and by a real Prometheus."""

import threading

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

import harness
import prometheus

TEXTS = ["i feel so happy and loved today", "i was terrified of the dark"]


class Scrape:
    """One reading of /metrics."""

    def __init__(self, text):
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def samples(self, name, **labels):
        return [
            sample
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name
            and all(sample.labels.get(key) == value for key, value in labels.items())
        ]

    def sum(self, name, **labels):
        return sum(sample.value for sample in self.samples(name, **labels))


@pytest.fixture
def traffic(repository, stubs):
    """A fresh server after 5 good calls of 2 texts, a bad budget and an unknown model."""
    with harness.Server(harness.MODELS, repository) as server:
        with grpc.insecure_channel(server.target()) as channel:
            classify = stubs.inference_grpc.InferenceStub(channel).Classify
            make = stubs.inference.ClassifyRequest
            budgets = [{"tau": 0}, {"tau": 0.1}, {"tau": 0.3}, {"flop_fraction": 0.5}, None]
            answers = [classify(make(model="emotion", texts=TEXTS, budget=b)) for b in budgets]
            for bad in (make(model="void", texts=TEXTS), make(model="emotion", budget={"tau": 2})):
                with pytest.raises(grpc.RpcError):
                    classify(bad)
        yield server, answers


def test_counts_after_known_traffic(traffic):
    server, answers = traffic
    scrape = Scrape(server.metrics())
    of_model = {"model": "emotion", "version": "1"}
    requests = {"rpc": "Classify", "code": "OK", **of_model}
    assert scrape.sum("dimmer_requests_total", **requests) == 5
    assert scrape.sum("dimmer_requests_total", code="NOT_FOUND") == 1
    assert scrape.sum("dimmer_requests_total", code="INVALID_ARGUMENT") == 1
    usages = [answer.usage for answer in answers]
    assert scrape.sum("dimmer_flops_total", **of_model) == sum(u.flops for u in usages)
    assert scrape.sum("dimmer_dense_flops_total", **of_model) == sum(u.dense_flops for u in usages)
    tokens = sum(usage.prompt_tokens for usage in usages)
    assert scrape.sum("dimmer_tokens_total", kind="prompt", **of_model) == tokens
    assert scrape.sum("dimmer_batch_tokens_sum", **of_model) == tokens
    assert scrape.sum("dimmer_pending_requests", **of_model) == 0
    assert scrape.sum("dimmer_running_requests", **of_model) == 0
    assert scrape.sum("dimmer_model_ready", **of_model) == 1
    assert scrape.samples("dimmer_model_ready", model="broken")[0].value == 0
    assert 0 < scrape.sum("dimmer_model_load_seconds", **of_model) < 60
    assert 0 <= scrape.sum("dimmer_default_tau", **of_model) <= 1
    assert scrape.sum("dimmer_non_finite_scores_total") == 0
    assert scrape.sum("process_resident_memory_bytes") > 1e6


def test_histograms_hold_what_was_sent(traffic):
    server, answers = traffic
    scrape = Scrape(server.metrics())
    for name, count in {
        "dimmer_request_duration_seconds": 5,
        "dimmer_queue_duration_seconds": 5,
        "dimmer_compute_duration_seconds": 5,
        "dimmer_request_tau": 5,
    }.items():
        assert scrape.sum(f"{name}_count", model="emotion") >= count, name
        assert scrape.sum(f"{name}_sum", model="emotion") >= 0, name
        buckets = [sample.value for sample in scrape.samples(f"{name}_bucket", model="emotion")]
        assert max(buckets) == scrape.sum(f"{name}_count", model="emotion") or len(buckets) > 20
    bounds = {
        float(sample.labels["le"])
        for sample in scrape.samples("dimmer_request_duration_seconds_bucket", model="emotion")
    }
    assert any(bound < 0.001 for bound in bounds), "buckets below a millisecond"
    error = scrape.sum("dimmer_budget_error_ratio_sum", model="emotion")
    assert scrape.sum("dimmer_budget_error_ratio_count", model="emotion") >= 1
    assert abs(error) < 0.2


def test_experts_run_by_layer(traffic):
    server, answers = traffic
    scrape = Scrape(server.metrics())
    runs = {}
    for answer in answers:
        for result in answer.results:
            for layer in result.usage.layers:
                run = layer.experts_run * result.usage.prompt_tokens
                runs[layer.layer] = runs.get(layer.layer, 0) + run
    assert len(runs) == 6
    for layer, run in runs.items():
        labels = {"model": "emotion", "layer": str(layer), "module": "ffn"}
        assert scrape.sum("dimmer_experts_run_sum", **labels) == pytest.approx(run, rel=1e-3)
        by_expert = scrape.samples("dimmer_expert_tokens_total", **labels)
        assert sum(sample.value for sample in by_expert) == pytest.approx(run, rel=1e-3)


def test_names_and_help_are_well_formed(server):
    for family in Scrape(server.metrics()).families.values():
        assert family.name.startswith(("dimmer_", "process_")), family.name
        assert family.documentation, family.name


def test_a_client_that_leaves_is_counted(repository, stubs):
    """Its call ends CANCELLED, nothing of it stays in the queue, and the server still drains."""
    with harness.Server(harness.MODELS, repository) as server:
        with grpc.insecure_channel(server.target()) as channel:
            classify = stubs.inference_grpc.InferenceStub(channel).Classify
            request = stubs.inference.ClassifyRequest(
                model="emotion", texts=["so very happy " * 150] * 64, budget={"tau": 0}
            )
            call = classify.future(request)
            done = threading.Event()
            call.add_done_callback(lambda _: done.set())
            while not Scrape(server.metrics()).sum("dimmer_running_requests", model="emotion"):
                assert not done.is_set(), "answered before it was seen to run"
            call.cancel()
            counted = 0
            while not counted:  # the suite's limit ends a wait in vain
                counted = Scrape(server.metrics()).sum("dimmer_requests_total", code="CANCELLED")
            assert counted == 1


def test_a_real_prometheus_scrapes_and_answers_a_query(server, tmp_path):
    targets = {"dimmer": server.target("metrics")}
    with prometheus.Prometheus(tmp_path, targets, interval="100ms") as reader:
        answers = []
        while not answers:  # the suite's limit ends a wait in vain
            answers = reader.query('dimmer_model_ready{model="emotion"} and on(job) up == 1')
        assert answers[0][1] == 1
