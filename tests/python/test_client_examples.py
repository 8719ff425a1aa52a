"""client_examples/: both clients, built as their READMEs say, against real servers."""

import collections
import concurrent.futures
import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import google.protobuf.any_pb2
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import harness
import packages

EXAMPLES = harness.ROOT / "client_examples"
TEXTS = ["i feel proud of our little team", "i am scared of the doctor"]
USED = re.compile(
    r"([\d.]+) of ([\d.]+) MFLOPs, ([\d.]+)%, tau ([\d.]+), (\d+)(?: \+ (\d+))? tokens((?:, \w+)*)"
)


@dataclasses.dataclass
class Example:
    """One of the two clients, ready to run."""

    commands: dict[str, list[str]]  # by topic
    environment: dict[str, str]

    def run(self, topic: str, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.commands[topic], *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **self.environment},
        )

    def check(self, topic: str, *arguments) -> str:
        ended = self.run(topic, *arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> pathlib.Path:
    """The two projects and the proto files, away from everything else of this tree."""
    root = tmp_path_factory.mktemp("copied")
    shutil.copytree(harness.ROOT / "proto", root / "proto")
    for name in ("python", "cpp"):
        shutil.copytree(EXAMPLES / name, root / "client_examples" / name)
    return root / "client_examples"


@pytest.fixture(scope="module")
def python_example(copied, tmp_path_factory) -> Example:
    installed = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(installed), "."]
    subprocess.run(install, cwd=copied / "python", check=True)
    scripts = {
        topic: [sys.executable, str(copied / "python" / f"{topic}.py")]
        for topic in ("classify", "generate", "generate_async", "set_tau", "backoff")
    }
    return Example(scripts, {"PYTHONPATH": str(installed), "PYTHONUNBUFFERED": "1"})


@pytest.fixture(scope="module")
def cpp_example(copied) -> Example:
    build = copied / "cpp" / "build"
    subprocess.run(["cmake", "-S", build.parent, "-B", build, *launcher()], check=True)
    subprocess.run(["cmake", "--build", build, "--parallel", str(os.cpu_count())], check=True)
    programs = {
        topic: [str(build / f"dimmer-example-{topic.replace('_', '-')}")]
        for topic in ("classify", "generate", "set_tau", "backoff")
    }
    return Example(programs, {})


def launcher() -> list[str]:
    return ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []


@pytest.fixture(params=["python", "cpp"])
def example(request) -> Example:
    return request.getfixturevalue(f"{request.param}_example")


@pytest.fixture(scope="module")
def small_queue():
    """A server that is full with two texts waiting."""
    arguments = ["--max-queue-size", 2, "--threads", 1]
    with harness.Server(harness.MODELS, arguments=arguments) as running:
        yield running


def same_numbers(printed: str, usage) -> None:
    flops, dense, share, tau, tokens, output, notes = USED.search(printed).groups()
    assert float(flops) == pytest.approx(usage.flops / 1e6, abs=0.051)
    assert float(dense) == pytest.approx(usage.dense_flops / 1e6, abs=0.051)
    assert float(share) == pytest.approx(100 * usage.flops / usage.dense_flops, abs=0.051)
    assert float(tau) == pytest.approx(usage.tau, abs=0.00051)
    assert int(tokens) == usage.prompt_tokens
    assert int(output or 0) == usage.output_tokens
    assert ("budget_clamped" in notes) == usage.budget_clamped


def test_classify_prints_what_the_server_answers(example, server, inference, stubs):
    limit = 260_000_000
    arguments = ["--target", server.target(), "--tau", 0.2, "--flop-fraction", 0.6]
    printed = example.check("classify", *arguments, "--max-flops", limit, *TEXTS)
    blocks = re.split(r"^(?=\w)", printed, flags=re.MULTILINE)[1:]
    budgets = {"tau 0.2": {"tau": 0.2}, "flop_fraction 0.6": {"flop_fraction": 0.6}}
    budgets[f"max_flops {limit}"] = {"max_flops": limit}
    assert [block.splitlines()[0] for block in blocks] == list(budgets)
    for block, budget in zip(blocks, budgets.values(), strict=True):
        request = stubs.inference.ClassifyRequest(model="emotion", texts=TEXTS, budget=budget)
        answer = inference.Classify(request)
        lines = block.splitlines()[1:]
        for text, result in zip(TEXTS, answer.results, strict=True):
            label, used, layers = lines[:3]
            del lines[:3]
            best = result.labels[0]
            found = re.fullmatch(r'  "(.*)": (\w+) ([\d.]+)', label).groups()
            assert found[:2] == (text, best.name)
            assert float(found[2]) == pytest.approx(best.score, abs=0.000051)
            same_numbers(used, result.usage)
            numbers = [float(number) for number in re.findall(r"[\d.]+", layers)]
            run = [layer.experts_run for layer in result.usage.layers]
            assert numbers == pytest.approx([*run, result.usage.layers[0].experts], abs=0.051)
        assert len(lines) == 1
        same_numbers(lines[0], answer.usage)


def test_classify_says_what_is_wrong(example, server):
    ended = example.run("classify", "--target", server.target(), "--tau", 2)
    assert ended.returncode == 1
    assert "budget.tau" in ended.stderr, ended.stderr
    assert example.run("classify", "--tau", "much").returncode == 2


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A server with a random language model that has experts."""
    repository = tmp_path_factory.mktemp("writer")
    packages.convert(packages.tiny_generator(repository, "writer"))
    with harness.Server(repository) as running:
        yield running


def generated(server, stubs, **fields):
    """The whole text, and the last message."""
    with grpc.insecure_channel(server.target()) as channel:
        request = stubs.inference.GenerateRequest(model="writer", **fields)
        messages = list(stubs.inference_grpc.InferenceStub(channel).Generate(request))
    text = "".join(message.text for message in messages)
    # A random model writes any character; Example.run() reads every kind of newline as one.
    return text.replace("\r\n", "\n").replace("\r", "\n"), messages[-1]


PROMPT = "once upon a time"


def test_generate_prints_what_the_server_answers(example, writer, stubs):
    dense = generated(writer, stubs, prompt=PROMPT, max_tokens=40)[1].usage.dense_flops
    budgets = {
        "tau 0.4": {"tau": 0.4},
        "flop_fraction 0.8": {"flop_fraction": 0.8},
        f"max_flops {dense // 2}": {"max_flops": dense // 2},
    }
    flags = ["--tau", 0.4, "--flop-fraction", 0.8, "--max-flops", dense // 2]
    sampling = ["--max-tokens", 40, "--temperature", 0.7, "--seed", 5, "--stop", "never"]
    target = ["--target", writer.target(), "--model", "writer"]
    printed = example.check("generate", *target, *sampling, *flags, PROMPT)
    for title, budget in budgets.items():
        text, last = generated(
            writer, stubs, prompt=PROMPT, max_tokens=40, temperature=0.7, seed=5, budget=budget
        )
        ended = stubs.inference.FinishReason.Name(last.finish_reason)
        head = f"{title}\n{PROMPT}{text}\n  {ended}, seed 5: "
        assert head in printed
        same_numbers(printed.split(head)[1].splitlines()[0], last.usage)
    assert len(re.findall(r"^  first token after [\d.]+ ms$", printed, re.MULTILINE)) == 3


def test_generate_at_once_prints_the_same(python_example, writer, stubs):
    taus = [0.0, 0.2, 0.5, 1.0]
    arguments = ["--target", writer.target(), "--model", "writer", "--max-tokens", 40]
    printed = python_example.check("generate_async", *arguments, PROMPT, "--tau", *taus)
    for tau in taus:
        text, last = generated(writer, stubs, prompt=PROMPT, max_tokens=40, budget={"tau": tau})
        head = f"tau {tau:g}\n{PROMPT}{text}\n  {stubs.inference.FinishReason.Name(last.finish_reason)}, "
        assert head in printed
        same_numbers(printed.split(head)[1], last.usage)


def test_generate_says_what_is_wrong(example, writer):
    ended = example.run("generate", "--target", writer.target(), "--model", "writer", "--tau", 2)
    assert ended.returncode == 1
    assert "budget.tau" in ended.stderr, ended.stderr
    assert example.run("generate", "--max-tokens", "many").returncode == 2


@pytest.mark.parametrize("topic", ["classify", "generate", "set_tau", "backoff"])
def test_help(example, topic):
    assert "--target" in example.check(topic, "--help")


@pytest.fixture(scope="module")
def light(stubs):
    """A server of its own, since these tests change it; and its Admin stub."""
    with harness.Server(harness.MODELS) as running:
        with grpc.insecure_channel(running.target("admin")) as channel:
            yield running, stubs.admin_grpc.AdminStub(channel)


def settings_of(admin, stubs):
    return admin.GetModel(stubs.admin.GetModelRequest(model="emotion")).model.settings


def test_set_tau_is_seen_in_the_next_answer_and_put_back(example, light, stubs):
    server, admin = light
    before = settings_of(admin, stubs)
    told = admin.SetTau(
        stubs.admin.SetTauRequest(model="emotion", default_tau=0.37, dry_run=True)
    ).predicted
    ports = ["--admin", server.target("admin"), "--target", server.target()]
    printed = example.check("set_tau", *ports, 0.37)
    assert f"predicted at 0.37: {100 * told.flop_fraction:.1f}% of the dense FLOPs" in printed
    assert f"{told.metric} {told.quality:.4f}" in printed
    answer = next(line for line in printed.splitlines() if line.startswith("next answer: "))
    assert USED.search(answer).group(4) == "0.370"
    after = settings_of(admin, stubs)
    assert after.default_tau == before.default_tau
    assert not after.HasField("expires")
    assert after.revision == before.revision + 2
    audit = re.findall(r"audit: SetTau model=emotion .* to=\(default_tau=([\d.]+)", server.output)
    assert audit[-2:] == ["0.37", f"{before.default_tau:g}"]


def test_a_default_that_was_temporary_stays_so(example, light, stubs):
    server, admin = light
    lasting = settings_of(admin, stubs)
    request = stubs.admin.SetTauRequest(model="emotion", default_tau=0.22)
    request.ttl.seconds = 3000
    temporary = admin.SetTau(request).settings
    example.check("set_tau", "--admin", server.target("admin"), "--target", server.target(), 0.5)
    after = settings_of(admin, stubs)
    assert after.default_tau == 0.22
    assert abs(after.expires.seconds - temporary.expires.seconds) <= 1
    admin.SetTau(stubs.admin.SetTauRequest(model="emotion", default_tau=lasting.default_tau))


def test_what_another_operator_sets_meanwhile_stays(example, light, stubs):
    """Compare-and-set: while the client asks for an answer, somebody else sets another default."""
    server, admin = light
    lasting = settings_of(admin, stubs).default_tau
    with grpc.insecure_channel(server.target()) as channel:
        real = stubs.inference_grpc.InferenceStub(channel)

        class Meanwhile(stubs.inference_grpc.InferenceServicer):
            def Classify(self, request, context):
                admin.SetTau(stubs.admin.SetTauRequest(model="emotion", default_tau=0.11))
                return real.Classify(request)

        between = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        stubs.inference_grpc.add_InferenceServicer_to_server(Meanwhile(), between)
        port = between.add_insecure_port("127.0.0.1:0")
        between.start()
        ports = ["--admin", server.target("admin"), "--target", f"127.0.0.1:{port}"]
        ended = example.run("set_tau", *ports, 0.5)
        between.stop(None).wait()
    assert ended.returncode == 1
    assert re.search("ABORTED|error 10:", ended.stderr), ended.stderr
    assert "put back" not in ended.stdout
    assert settings_of(admin, stubs).default_tau == 0.11
    admin.SetTau(stubs.admin.SetTauRequest(model="emotion", default_tau=lasting))


def test_dry_run_changes_nothing_and_keep_keeps(example, light, stubs):
    server, admin = light
    ports = ["--admin", server.target("admin"), "--target", server.target()]
    before = settings_of(admin, stubs)
    assert "predicted at 0.6: " in example.check("set_tau", *ports, 0.6, "--dry-run")
    assert settings_of(admin, stubs) == before
    example.check("set_tau", *ports, 0.6, "--keep")
    kept = settings_of(admin, stubs)
    assert (kept.default_tau, kept.HasField("expires")) == (0.6, False)
    example.check("set_tau", *ports, before.default_tau, "--keep")


def test_back_off_ends_with_answers(example, small_queue, stubs):
    with grpc.insecure_channel(small_queue.target()) as channel:
        request = stubs.inference.ClassifyRequest(model="emotion", texts=[TEXTS[1]])
        answer = stubs.inference_grpc.InferenceStub(channel).Classify(request)
    label = answer.results[0].labels[0].name
    refused_before = refusals(small_queue)
    arguments = ["--target", small_queue.target(), "--text", TEXTS[1], "--calls", 200]
    printed = example.check("backoff", *arguments, "--parallel", 32, "--attempts", 50)
    assert "calls: 200, answered: 200, failed: 0" in printed
    assert f"  200 answered {label}" in printed
    retries, asked = map(int, re.search(r"retries: (\d+), with RetryInfo: (\d+)", printed).groups())
    assert retries == asked > 0
    assert refusals(small_queue) - refused_before == retries
    # The server asks for 0.1 s, so nothing comes back sooner.
    assert float(re.search(r"waits: ([\d.]+) to", printed).group(1)) >= 0.1


def refusals(server) -> int:
    found = re.findall(
        r'^dimmer_rejected_requests_total\{[^}]*reason="queue_full"[^}]*\} (\d+)',
        server.metrics(),
        re.MULTILINE,
    )
    return sum(map(int, found))


@pytest.fixture
def always_full(stubs):
    """A server whose queue is full at every call, and the calls that it refused."""
    asked = google.protobuf.any_pb2.Any()
    asked.Pack(error_details_pb2.RetryInfo(retry_delay={"nanos": 100_000_000}))
    full = status_pb2.Status(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
        message="Exceeds maximum queue size",
        details=[asked],
    )
    refused = []

    class Full(stubs.inference_grpc.InferenceServicer):
        def Classify(self, request, context):
            refused.append(request)
            context.abort_with_status(rpc_status.to_status(full))

        def Generate(self, request, context):
            self.Classify(request, context)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    stubs.inference_grpc.add_InferenceServicer_to_server(Full(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", refused
    server.stop(None).wait()


@pytest.mark.parametrize("arguments", [("classify", *TEXTS), ("generate", PROMPT)])
def test_a_queue_that_stays_full_ends_the_attempts(example, always_full, arguments):
    target, refused = always_full
    topic, *texts = arguments
    ended = example.run(topic, "--target", target, *texts)
    assert ended.returncode == 1
    assert "gave up after attempt 8, no attempts left: Exceeds maximum queue size" in ended.stderr
    assert len(refused) == 8


def test_streams_at_once_back_off_too(python_example, always_full):
    target, refused = always_full
    ended = python_example.run("generate_async", "--target", target, "--tau", 0)
    assert ended.returncode == 1
    assert "gave up after attempt 8, no attempts left: Exceeds maximum queue size" in ended.stderr
    assert len(refused) == 8


def test_the_deadline_ends_the_attempts(example, always_full):
    """There are attempts enough, so time is what runs out."""
    target, refused = always_full
    flags = ["--target", target, "--calls", 8, "--parallel", 8]
    ended = example.run("backoff", *flags, "--attempts", 1000, "--timeout", 3)
    assert ended.returncode == 1
    assert "calls: 8, answered: 0, failed: 8" in ended.stdout
    assert "the deadline comes before the next" in ended.stdout, ended.stdout
    assert "no attempts left" not in ended.stdout
    retries = int(re.search(r"retries: (\d+)", ended.stdout).group(1))
    assert len(refused) == 8 + retries > 8


def test_the_pins_are_what_is_tested():
    project = tomllib.loads((EXAMPLES / "python/pyproject.toml").read_text())
    pins = project["project"]["dependencies"] + project["build-system"]["requires"]
    for name, version in (pin.split("==") for pin in pins):
        assert importlib.metadata.version(name) == version, name


# The delays themselves, without a server.


@pytest.fixture(scope="module")
def retry():
    # From its file: the package itself wants the stubs that only its installation makes.
    path = EXAMPLES / "python/dimmer_client/retry.py"
    spec = importlib.util.spec_from_file_location("example_retry", path)
    module = sys.modules["example_retry"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("failures", "asked", "jitter", "expected"),
    [
        (1, None, 0.0, 0.0),
        (1, None, 0.5, 0.05),
        (2, None, 0.5, 0.1),
        (4, None, 0.5, 0.4),
        (7, None, 0.5, 2.5),  # 6.4 is above the maximum, 5
        (100_000, None, 0.5, 2.5),
        (1, 0.3, 0.0, 0.3),  # never less than asked
        (3, 0.3, 0.5, 0.5),
        (2, 20.0, 0.5, 20.1),  # also where that is above the maximum
    ],
)
def test_delay(retry, failures, asked, jitter, expected):
    assert retry.Backoff().delay(failures, asked, jitter) == pytest.approx(expected)


class Refusal(grpc.RpcError):
    """As a stub raises it, without or with status details."""

    def __init__(self, trailing=()):
        self.trailing = trailing

    def code(self):
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self):
        return "full"

    def trailing_metadata(self):
        return self.trailing


def test_a_refusal_without_retry_info_is_tried_again(retry):
    waits = collections.deque()
    results = iter([Refusal(), Refusal(), "answer"])

    def call(seconds):
        assert 0 < seconds <= 60
        result = next(results)
        if isinstance(result, grpc.RpcError):
            raise result
        return result

    backoff = retry.Backoff(initial=0.001)
    answer = retry.call_with_retry(call, 60, backoff, lambda *wait: waits.append(wait))
    assert answer == "answer"
    assert [asked for _, asked in waits] == [None, None]
    assert all(0 <= delay < limit for (delay, _), limit in zip(waits, (0.001, 0.002), strict=True))
