"""dimmerctl against a live server: what it changes, what it prints, how it fails."""

import codecs
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

import harness

TEXT = "i feel so happy and loved today"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "LC_ALL": "C.UTF-8",
    **{name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")},
}


def command(server, *arguments):
    addresses = [f"--address={server.target()}", f"--admin-address={server.target('admin')}"]
    return [harness.BINARIES / "dimmerctl", *addresses, *map(str, arguments)]


def run(server, *arguments, status=0, stdin="", environment=None):
    done = subprocess.run(
        command(server, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def run_json(server, *arguments, **options):
    return json.loads(run(server, *arguments, "--json", **options))


def ctl(*arguments, environment=None):
    return subprocess.run(
        [harness.BINARIES / "dimmerctl", *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **(environment or {})},
    )


def default_tau_metric(server):
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if sample.name == "dimmer_default_tau" and sample.labels["model"] == "emotion":
                return sample.value
    raise AssertionError("no dimmer_default_tau of emotion")


@pytest.fixture(scope="module")
def light():
    """A server whose light is turned here; each test sets what it relies on."""
    with harness.Server(harness.MODELS) as server:
        yield server


def test_models(server):
    package = json.loads((harness.MODELS / "emotion/1/dimmer.json").read_text())
    tau = package["gate"]["default_tau"]
    text = run(server, "models")
    assert re.search(rf"^emotion +1 +ready +classification +6x96 +{tau} +\[0, 1\]$", text, re.M)
    assert re.search(r"^tiny +1 +ready +classification +dense", text, re.M)
    assert re.search(r"^broken +1 +not ready +.*model\.safetensors", text, re.M)
    models = {model["name"]: model for model in run_json(server, "models")["models"]}
    assert models["emotion"]["settings"]["default_tau"] == tau
    assert models["broken"]["ready"] is False and models["broken"]["error"]


def test_describe(server):
    text = run(server, "describe", "emotion")
    for word in ("BertForSequenceClassification", "96 in the ffn", "sadness", "accuracy"):
        assert word in text
    model = run_json(server, "describe", "emotion")
    points = model["calibration"]["points"]
    for point in points:
        assert f"{100 * point['flop_fraction']:.1f}%" in text
    assert isinstance(model["weight_bytes"], int)
    assert "always runs dense" in run(server, "describe", "tiny")
    assert "model.safetensors" in run(server, "describe", "broken")


def test_set_tau_is_seen_in_the_next_answer_and_in_the_metrics(light):
    for tau in (0.3, 0.02):
        text = run(light, "set-tau", "emotion", "--default", tau)
        assert re.search(rf"default tau .* {tau}$", text, re.M)
        answer = json.loads(run(light, "classify", "emotion", TEXT, "--json"))
        assert answer["usage"]["tau"] == pytest.approx(tau)
        assert default_tau_metric(light) == pytest.approx(tau)


def test_set_tau_predicts_before_and_after(light):
    run(light, "set-tau", "emotion", "--default", 0)
    change = run_json(light, "set-tau", "emotion", "--default", 0.5)
    before, after = change["before"]["predicted"], change["after"]["predicted"]
    assert before["flop_fraction"] == 1
    assert 0.2 < after["flop_fraction"] < 0.6
    assert after["quality_low"] < after["quality"] < after["quality_high"] < 1
    # What was after is what is before the next change, by the server's word and by our own.
    again = run_json(light, "set-tau", "emotion", "--default", 0.07, "--dry-run")
    assert again["before"]["predicted"] == pytest.approx(after)


def test_a_dry_run_changes_nothing(light):
    run(light, "set-tau", "emotion", "--default", 0.1)
    before = run_json(light, "describe", "emotion")["settings"]
    text = run(light, "set-tau", "emotion", "--default", 0.9, "--max", 0.95, "--dry-run")
    assert "dry run, nothing was changed" in text and "0.95" in text
    assert run_json(light, "describe", "emotion")["settings"] == before
    assert default_tau_metric(light) == pytest.approx(0.1)


def test_ttl_ends_by_itself(light):
    run(light, "set-tau", "emotion", "--default", 0.1)
    text = run(light, "set-tau", "emotion", "--default", 0.4, "--ttl", "2s")
    assert re.search(r"until \d{4}-\d\d-\d\d", text)
    seen = set()
    while default_tau_metric(light) != pytest.approx(0.1):  # the suite's limit ends a wait in vain
        seen.add(default_tau_metric(light))
    assert run_json(light, "describe", "emotion")["settings"]["default_tau"] == 0.1
    assert seen <= {0.4, 0.1}


def test_compare_and_set(light):
    run(light, "set-tau", "emotion", "--default", 0.1)
    revision = run_json(light, "describe", "emotion")["settings"]["revision"]
    run(light, "set-tau", "emotion", "--default", 0.2, "--if-revision", revision)
    error = run(light, "set-tau", "emotion", "--default", 0.3, "--if-revision", revision, status=1)
    assert str(revision) in error and str(revision + 1) in error
    assert "nothing was changed" in error and "dimmerctl describe emotion" in error
    assert run_json(light, "describe", "emotion")["settings"]["default_tau"] == 0.2


def test_one_layer_and_bounds(light):
    arguments = ["--default", 0.1, "--min", 0.05, "--max", 0.6, "--layer", "2=0.5"]
    settings = run_json(light, "set-tau", "emotion", *arguments)["after"]["settings"]
    assert settings["layers"] == [{"layer": 2, "module": "ffn", "tau": 0.5}]
    assert (settings["min_tau"], settings["max_tau"]) == (0.05, 0.6)
    assert re.search(r"layer 2 ffn: 0\.5", run(light, "describe", "emotion"))
    run(light, "set-tau", "emotion", "--min", 0, "--max", 1, "--layer", "2:ffn=0.1")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--default", 7], "default_tau"),
        (["--min", 0.6, "--max", 0.4], "min_tau"),
        (["--layer", "99=0.5"], "99"),
        (["--layer", "0:nose=0.5"], "nose"),
    ],
)
def test_what_the_server_refuses_is_named(light, arguments, named):
    assert named in run(light, "set-tau", "emotion", *arguments, status=1)


def test_classify(server):
    text = run(server, "classify", "emotion", TEXT, "--tau", 0)
    assert re.search(rf"^\w+ +[\d.]+%  0\.000 .* 100%  {TEXT}$", text, re.M)
    lines = run(
        server, "classify", "emotion", "-", "--json", "--flop-fraction", 0.5, "--top-k", 2,
        stdin=f"{TEXT}\n\ni am so angry\n" * 50,
    ).splitlines()  # fmt: skip
    answers = [json.loads(line) for line in lines]
    assert [answer["text"] for answer in answers] == [TEXT, "i am so angry"] * 50
    for answer in answers:
        assert len(answer["labels"]) == 2
        assert answer["usage"]["flops"] <= 0.51 * answer["usage"]["dense_flops"]


def test_max_flops_is_one_call(server):
    texts = [TEXT] * 3
    dense = json.loads(run(server, "classify", "emotion", TEXT, "--json"))["usage"]["dense_flops"]
    limit = int(1.6 * dense)
    lines = run(server, "classify", "emotion", *texts, "--max-flops", limit, "--json").splitlines()
    assert sum(json.loads(line)["usage"]["flops"] for line in lines) <= limit
    error = run(server, "classify", "emotion", *texts, "--max-flops", 10, status=1)
    assert "max_flops" in error


def test_top_shows_the_load(server, inference, stubs):
    process = subprocess.Popen(
        command(server, "top", "--interval", "100ms", "--json"),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    seen = None
    for line in process.stdout:  # the suite's limit ends a wait in vain
        inference.Classify(
            stubs.inference.ClassifyRequest(model="emotion", texts=[TEXT], budget={"tau": 0.3})
        )
        models = {model["model"]: model for model in json.loads(line)["models"]}
        if models["emotion"]["tau"] is not None:
            seen = models["emotion"]
            break
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    process.stdout.close()
    assert seen["tau"] == pytest.approx(0.3)
    assert seen["requests_per_second"] > 0 and seen["texts_per_second"] > 0
    assert 0.3 < seen["flops_saved"] < 0.8
    assert seen["latency_seconds"]["p50"] <= seen["latency_seconds"]["p99"]
    assert len(seen["layers"]) == 6
    assert all(1 <= layer["experts_run"] <= 96 for layer in seen["layers"])
    assert models["tiny"]["layers"] == []


def test_top_prints_single_frames_where_there_is_no_terminal(server):
    text = run(
        server, "top", "emotion", "--interval", "100ms", "--count", 2,
        environment={"COLUMNS": "60"},
    )  # fmt: skip
    assert text.count("dimmerctl top") == 2
    assert "\033" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert len(re.findall(r"^ +\d ffn ", text, re.M)) == 12


class Screen:
    """dimmerctl in a pseudo-terminal."""

    def __init__(self, arguments, **environment):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**ENVIRONMENT, "TERM": "xterm-256color", **environment},
        )
        os.close(slave)
        self.text = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in a character

    def read(self):
        assert select.select([self.master], [], [], harness.START_SECONDS)[0], self.text
        self.text += self.decoder.decode(os.read(self.master, 65536))

    def read_until(self, pattern):
        while not re.search(pattern, self.text):
            self.read()

    def end(self):
        try:
            while True:
                self.read()
        except OSError:
            pass  # the other side is closed
        os.close(self.master)
        return self.process.wait()


@pytest.mark.parametrize("stop", ["q", "SIGINT", "SIGTERM"])
def test_top_takes_the_screen_and_gives_it_back(server, stop):
    screen = Screen(command(server, "top", "emotion", "--interval", "100ms"))
    screen.read_until("experts run per token")
    if stop == "q":
        os.write(screen.master, b"q")
    else:
        screen.process.send_signal(getattr(signal, stop))
    assert screen.end() == 0
    assert screen.text.startswith("\033[?1049h")
    assert screen.text.endswith("\033[?25h\033[?1049l")
    assert "\033[1;38;5;214m" in screen.text


def test_no_color(server):
    colored = re.compile(r"\033\[[\d;]*m")
    for arguments in (
        ["models"],
        ["describe", "emotion"],
        ["top", "--count=1", "--interval=100ms"],
    ):
        screen = Screen(command(server, *arguments), NO_COLOR="1")
        assert screen.end() == 0
        assert not colored.search(screen.text)
        screen = Screen(command(server, *arguments))
        assert screen.end() == 0
        assert colored.search(screen.text)
    assert colored.search(run(server, "models", "--color", "always"))


def test_top_ends_with_the_server(repository):
    with harness.Server(repository) as server:
        process = subprocess.Popen(
            command(server, "top", "--interval", "100ms", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert json.loads(process.stdout.readline())["models"]
        server.process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        server.wait()  # a second signal would end it at once
    assert process.returncode == 1
    assert "shutting down" in error and server.target("admin") in error


def test_unknown_models(server):
    for arguments in (["describe", "void"], ["classify", "void", "a"], ["top", "void"]):
        error = run(server, *arguments, status=1)
        assert "void" in error and "dimmerctl models" in error
    error = run(server, "set-tau", "void", "--default", 0.1, status=1)
    assert "void" in error
    assert "experts" in run(server, "set-tau", "tiny", "--default", 0.1, status=1)


def test_a_server_that_is_not_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"127.0.0.1:{port}"
    for arguments in (["models"], ["top"], ["set-tau", "m", "--default", "0.1"]):
        done = ctl(*arguments, environment={"DIMMER_ADMIN_ADDRESS": address})
        assert done.returncode == 1
        assert f"no server answers at {address}" in done.stderr
        assert "--admin-address" in done.stderr and "DIMMER_ADMIN_ADDRESS" in done.stderr
    done = ctl("classify", "m", "a", environment={"DIMMER_GRPC_ADDRESS": address})
    assert done.returncode == 1
    assert f"no server answers at {address}" in done.stderr
    assert "--address" in done.stderr


def test_the_other_port_is_recognised(server):
    done = ctl("models", "--admin-address", server.target())
    assert done.returncode == 1
    assert "admin port" in done.stderr and "--admin-address" in done.stderr


def test_a_server_that_does_not_answer_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = ctl("models", "--timeout", "300ms", "--admin-address", address)
    assert done.returncode == 1
    assert address in done.stderr and "--timeout" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["shine"],
        ["describe"],
        ["set-tau", "emotion"],
        ["set-tau", "emotion", "--default", "much"],
        ["set-tau", "emotion", "--default", "0.1", "--ttl", "soon"],
        ["classify", "emotion"],
        ["classify", "emotion", "a", "--tau", "0", "--flop-fraction", "1"],
        ["generate", "stories"],
        ["generate", "stories", "a", "--tau", "0", "--max-flops", "1"],
        ["top", "--interval", "1ms"],
    ],
)
def test_wrong_calls_exit_with_two(arguments):
    done = ctl(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("dimmerctl: ") and "--help" in done.stderr
    assert not done.stdout


def test_help_and_version():
    assert re.fullmatch(r"dimmerctl \d+\.\d+\.\d+\n", ctl("--version").stdout)
    assert "Examples:" in ctl("--help").stdout
    for name in ("models", "describe", "set-tau", "classify", "generate", "top"):
        done = ctl(name, "--help")
        assert done.returncode == 0 and name in done.stdout


def test_grpc_and_dimmerctl_agree(server, admin, stubs):
    got = admin.GetModel(stubs.admin.GetModelRequest(model="emotion")).model
    described = run_json(server, "describe", "emotion")
    assert described["weight_bytes"] == got.weight_bytes
    assert described["labels"] == list(got.labels)
    assert [p["tau"] for p in described["calibration"]["points"]] == [
        p.tau for p in got.calibration.points
    ]
