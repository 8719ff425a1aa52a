"""What deploy/ ships for operators: every query of the dashboard has data under real load, the alerts
are tested by promtool, and the compose file fits its schema and the files that it mounts."""

import collections
import json
import math
import re
import subprocess
import sys
import time
import types

import grpc
import pytest
import yaml

import harness
from prometheus import Prometheus

DEPLOY = harness.ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/dimmer.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Of these only language models have data.
GENERATION = ("Time to first token", "Time per output token", "Key-value pages in use")
QUERIES = [
    pytest.param(panel, target, id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
SCRAPE = 0.25  # seconds
# As Grafana computes it from the scrape interval and a step of one second.
RATE_INTERVAL = f"{math.ceil(max(1 + SCRAPE, 4 * SCRAPE) * 1000)}ms"
WHOLE = "10m"  # longer than the test: a rate over it sees every sample

QUEUE = 48
TEXTS = [
    "i feel so happy and loved today",
    "i was terrified of the dark and i still am",
    "i am furious that nobody told me",
    "i did not expect a party at all and i am amazed",
]
BUDGETS = [None, *({"tau": tau} for tau in (0, 0.02, 0.05, 0.2, 1))]
BUDGETS += [{"flop_fraction": fraction} for fraction in (0.5, 0.7)]
MAX_FLOPS_SHARE = 0.6
ROUNDS = 400  # a limit against hanging


def substitute(expression: str, model: str = ".*", rate_interval: str = RATE_INTERVAL) -> str:
    """The expression as Grafana sends it."""
    values = {"__rate_interval": rate_interval, "model": model, "module": ".*"}
    for name, value in values.items():
        expression = re.sub(rf"\${name}\b|\${{{name}}}", lambda _, v=value: v, expression)
    assert "$" not in expression, f"a variable that Grafana would not know: {expression}"
    return expression


def panel_query(title: str, **options) -> str:
    """The first query of a panel, over the whole load."""
    panel = next(panel for panel in PANELS if panel["title"] == title)
    return substitute(panel["targets"][0]["expr"], rate_interval=WHOLE, **options)


def panel_targets(title: str, **options) -> dict[str, str]:
    """A panel's queries by legend."""
    panel = next(panel for panel in PANELS if panel["title"] == title)
    return {
        target["legendFormat"]: substitute(target["expr"], **options) for target in panel["targets"]
    }


class Load:
    """What clients sent and what came back, counted on their side."""

    def __init__(self, stub, messages):
        self._stub = stub
        self._messages = messages
        self.codes = collections.Counter()
        self.generated = 0  # OK, and not in `codes`
        self.flops = self.dense_flops = self.tokens = 0
        self.tau = []
        self.experts = collections.Counter()  # by layer: (token, expert) pairs
        self._dense_call = None

    def _request(self, budget=None, texts=TEXTS, model="emotion"):
        return self._messages.ClassifyRequest(model=model, texts=texts, budget=budget)

    def _count(self, call):
        try:
            usage = call.result().usage
        except grpc.RpcError as error:
            self.codes[error.code().name] += 1
            return None
        self.codes["OK"] += 1
        self.flops += usage.flops
        self.dense_flops += usage.dense_flops
        self.tokens += usage.prompt_tokens
        self.tau.append(usage.tau)
        for layer in usage.layers:
            self.experts[str(layer.layer)] += layer.experts_run * usage.prompt_tokens
        return usage

    def _count_stream(self, stream):
        try:
            *_, last = stream
        except grpc.RpcError as error:
            self.codes[error.code().name] += 1
            return
        self.generated += 1
        self.flops += last.usage.flops
        self.dense_flops += last.usage.dense_flops
        self.tau.append(last.usage.tau)

    def _stories(self):
        """Of two models; one is told long enough that a scrape sees its pages."""
        make = self._messages.GenerateRequest
        return [
            self._stub.Generate(
                make(model="dimteller", prompt="once", max_tokens=48, budget=budget)
            )
            for budget in (None, {"tau": 0.5}, {"flop_fraction": 0.9})
        ] + [self._stub.Generate(make(model="endless", prompt="once", max_tokens=1000))]

    def round(self):
        """Calls at every budget, all at once, and one of each way to fail."""
        send = self._stub.Classify.future
        if self._dense_call is None:
            self._dense_call = self._count(send(self._request({"tau": 0}))).dense_flops
        budgets = [*BUDGETS, {"max_flops": int(MAX_FLOPS_SHARE * self._dense_call)}]
        requests = [self._request(budget) for budget in budgets]
        requests.append(self._request({"tau": 2}))  # INVALID_ARGUMENT
        requests.append(self._request({"max_flops": 1}))  # FAILED_PRECONDITION
        requests.append(self._request(model="void"))  # NOT_FOUND
        requests.append(self._request(model="broken"))  # UNAVAILABLE
        # Each of these fills the queue: RESOURCE_EXHAUSTED for those that find another one waiting.
        requests += [self._request({"tau": 0}, TEXTS * (QUEUE // len(TEXTS)))] * 4
        stories = self._stories()
        for call in [send(request) for request in requests]:
            self._count(call)
        for story in stories:
            self._count_stream(story)

    def cheap_call(self):
        """One expert per token, so that most experts are idle."""
        self._count(self._stub.Classify.future(self._request({"tau": 1})))


@pytest.fixture(scope="module")
def observed(repository, storytellers, stubs, tmp_path_factory):
    """A server under load and the Prometheus that watched it: prometheus, load, start, end."""
    arguments = ["--max-queue-size", str(QUEUE)]
    with (
        harness.Server(harness.MODELS, repository, storytellers, arguments=arguments) as server,
        Prometheus(
            tmp_path_factory.mktemp("prometheus"),
            {"dimmer": server.target("metrics")},
            f"{int(SCRAPE * 1000)}ms",
        ) as prometheus,
        grpc.insecure_channel(server.target()) as channel,
    ):
        await_sample(prometheus, "dimmer_model_ready{model='emotion'} == 1")
        start = time.time()
        load = Load(stubs.inference_grpc.InferenceStub(channel), stubs.inference)
        for _ in range(ROUNDS):
            load.round()
            if load.codes["RESOURCE_EXHAUSTED"] >= 5 and enough(prometheus):
                break
        else:
            pytest.fail(f"{ROUNDS} rounds of load and still too few scrapes")
        idle = panel_targets("Experts without tokens")["layer {{layer}}"]
        # At one of the moments that the tests look at: on a busy machine it may last no longer than
        # from one scrape to the next. The suite's limit ends a wait in vain.
        while not ever_above_0(prometheus, idle, start, time.time()):
            load.cheap_call()
        calls = sum(load.codes.values()) + load.generated
        await_sample(prometheus, f"sum(dimmer_requests_total) == {calls}")
        yield types.SimpleNamespace(
            prometheus=prometheus, load=load, start=start, end=time.time(), calls=calls
        )


def await_sample(prometheus, expression: str):
    while not prometheus.query(expression):  # the suite's limit ends a wait in vain
        assert prometheus.process.poll() is None


def ever_above_0(prometheus, expression: str, start: float, end: float) -> bool:
    series = prometheus.query_range(expression, start, end, SCRAPE)
    return any(value > 0 for _, samples in series for _, value in samples)


def enough(prometheus) -> bool:
    """Scrapes for several steps of a panel, one of them while texts waited, one while a story was
    told."""
    scrapes = prometheus.value(f'count_over_time(up{{job="dimmer"}}[{WHOLE}])')
    waited = prometheus.value(f"max(max_over_time(dimmer_pending_requests[{WHOLE}]))")
    pages = prometheus.value(f"max(max_over_time(dimmer_kv_pages_used[{WHOLE}]))")
    return scrapes >= 6 / SCRAPE and waited > 0 and pages > 0


@pytest.mark.parametrize("model", [".*", "emotion"])
@pytest.mark.parametrize(("panel", "target"), QUERIES)
def test_every_query_of_every_panel_has_data(observed, panel, target, model):
    name = f"panel {panel['title']!r}, query {target['refId']}: {target['expr']}"
    # An instant query answers for its last moment: the load's end, not the quiet after it.
    if model != ".*" and panel["title"] in GENERATION:
        model = "dimteller"
    expression = substitute(target["expr"], model)
    series = observed.prometheus.query_range(expression, observed.start, observed.end, SCRAPE)
    assert series, f"{name}: no series"
    values = [value for _, samples in series for _, value in samples]
    assert any(math.isfinite(value) for value in values), f"{name}: no finite value in {values[:9]}"
    assert not any(math.isinf(value) for value in values), f"{name}: infinite values"
    # A legend that names a label must tell series apart by it.
    labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
    for metric, _ in series:
        missing = [label for label in labels if label not in metric]
        assert not missing, f"{name}: the legend wants {missing}, the series has {metric}"
    legends = [tuple(metric.get(label) for label in labels) for metric, _ in series]
    assert len(set(legends)) == len(legends), f"{name}: the same legend twice in {legends}"


# All zeros would be a flat line that says nothing: the load made these things happen. A budget error
# may well be below 0 throughout.
EVENTFUL = [panel["title"] for panel in PANELS if panel["title"] not in ("Budget error",)]


@pytest.mark.parametrize("title", EVENTFUL)
def test_what_the_load_made_happen_shows(observed, title):
    panel = next(panel for panel in PANELS if panel["title"] == title)
    for target in panel["targets"]:
        expression = substitute(target["expr"])
        moved = ever_above_0(observed.prometheus, expression, observed.start, observed.end)
        assert moved, f"panel {title!r}, query {target['refId']} is never above 0: {expression}"


def test_panels_say_what_the_clients_counted(observed):
    load, prometheus = observed.load, observed.prometheus
    assert set(load.codes) >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
    for code, count in load.codes.items():
        count += load.generated if code == "OK" else 0
        assert prometheus.value(f'sum(dimmer_requests_total{{code="{code}"}})') == count, code

    # Both counters start at 0 in the same scrape, so what a rate extrapolates cancels out.
    saved = prometheus.value(panel_query("FLOPs saved"))
    assert saved == pytest.approx(1 - load.flops / load.dense_flops, rel=1e-9)
    tau = panel_targets("tau in force", rate_interval=WHOLE)["mean of calls"]
    assert prometheus.value(tau) == pytest.approx(sum(load.tau) / len(load.tau), rel=1e-6)

    by_layer = prometheus.query(panel_query("Experts run per token, by layer", model="emotion"))
    assert {metric["layer"] for metric, _ in by_layer} == set(load.experts)
    for metric, per_token in by_layer:
        expected = load.experts[metric["layer"]] / load.tokens
        assert per_token == pytest.approx(expected, rel=1e-3), metric


def test_request_rate_is_what_the_clients_sent(observed):
    """Between two scrapes: a rate extrapolates to its window by at most one interval on each side."""
    prometheus, load = observed.prometheus, observed.load
    span = observed.end - observed.start
    series = 'dimmer_requests_total{code="OK",rpc="Classify",model="emotion"}'
    first = prometheus.get("query", query=f"{series}[{WHOLE}]", time=observed.end)
    samples = first["result"][0]["values"]
    seen = float(samples[-1][1]) - float(samples[0][1])
    assert float(samples[-1][1]) == load.codes["OK"]
    shown = {
        (metric["rpc"], metric["code"]): value * 600
        for metric, value in prometheus.query(panel_query("Request rate by RPC and status"))
    }
    slack = 2.2 * (samples[-1][0] - samples[0][0]) / (len(samples) - 1) / span
    assert shown["Classify", "OK"] == pytest.approx(seen, rel=max(slack, 0.02))
    assert {code for _, code in shown} == set(load.codes)


def test_variables_have_values(observed):
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "datasource":
            assert variable["query"] == "prometheus"
            continue
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
        values = observed.prometheus.get(f"label/{label}/values", **{"match[]": metric})
        assert values, f"variable {variable['name']}: {variable['query']} has no values"


def test_the_alerts_know_the_metrics_and_healthy_experts_are_silent(observed):
    prometheus = observed.prometheus
    groups = prometheus.get("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert len(rules) >= 3
    for name, rule in rules.items():
        assert rule["health"] == "ok", f"{name}: {rule.get('lastError')}"
        for metric in set(re.findall(r"\bdimmer_\w+", rule["query"])):
            assert prometheus.query(metric, observed.end), f"{name}: nothing is called {metric}"
    # `broken` failed to load, and is what this alert is for; its `for` has not passed yet.
    assert rules["DimmerModelNotReady"]["state"] == "pending"
    for name in ("DimmerLayerOnOneExpert", "DimmerLayerAtFloor", "DimmerRouterNotFinite"):
        emotion = [
            alert for alert in rules[name]["alerts"] if alert["labels"]["model"] == "emotion"
        ]
        assert not emotion, f"{name} on a healthy model: {emotion}"


def test_dashboard_is_up_to_date():
    command = [sys.executable, DEPLOY / "grafana/make_dashboard.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_fill_the_grid_and_explain_themselves():
    taken = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])):  # fmt: skip
            assert cell not in taken, f"{panel['title']!r} lies on {taken[cell]!r}"
            taken[cell] = panel["title"]
    height = max(y for _, y in taken) + 1
    holes = [(x, y) for x in range(24) for y in range(height) if (x, y) not in taken]
    assert not holes, f"nothing at {holes[:5]}"
    titles = [(panel["type"], panel["title"]) for panel in PANELS]
    assert len(set(titles)) == len(titles)
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_configuration_and_alerts(arguments):
    done = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways_and_explained():
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    names = [rule["alert"] for group in rules for rule in group["rules"]]
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    headings = re.findall(r"^### (\w+)$", (harness.ROOT / "docs/monitoring.md").read_text(), re.M)
    assert sorted(headings) == sorted(names)
    for name in names:
        fires = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        assert True in fires and False in fires, name
    for rule in (rule for group in rules for rule in group["rules"]):
        assert rule["annotations"]["runbook"] == f"docs/monitoring.md#{rule['alert'].lower()}"


def test_compose_file_fits_its_schema_and_what_it_mounts():
    file = DEPLOY / "compose.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    compose = yaml.safe_load(file.read_text())
    for name, service in compose["services"].items():
        tag = service["image"].partition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), f"{name}: {service['image']} is not pinned"
        assert service["healthcheck"]["test"], name
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name}: port {port} is open to the network"
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: there is no {source}"
                assert mode == ["ro"], f"{name}: {target} is writable"
            else:
                assert source in compose["volumes"], f"{name}: volume {source}"
    assert "8002" in compose["services"]["dimmer"]["expose"]


def test_compose_services_find_each_other():
    """Names, ports and paths that files in deploy/ repeat."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in scraped["scrape_configs"]
    }
    assert targets["dimmer"] == ["dimmer:8002"] and "dimmer" in services
    provisioning = DEPLOY / "grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    source = source["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    provider = yaml.safe_load((provisioning / "dashboards/dimmer.yaml").read_text())["providers"][0]
    grafana = services["grafana"]
    mounts = {volume.split(":")[1] for volume in grafana["volumes"]}
    assert provider["options"]["path"] in mounts
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == provider["options"]["path"] + "/dimmer.json"
    binary = harness.BINARIES / "dimmer-server"
    known = subprocess.run([binary, "--help"], capture_output=True, text=True).stdout
    for flag in services["dimmer"]["command"]:
        assert flag.partition("=")[0] in known, flag
