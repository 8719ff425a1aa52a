"""dimmerctl generate: what it streams, how it ends, how it is stopped."""

import concurrent.futures
import contextlib
import json
import re
import signal
import subprocess
import threading

import grpc
import pytest

import harness
import packages
from test_dimmerctl import ENVIRONMENT, Screen

PROMPT = "once upon a time"
SUMMARY = re.compile(
    r"(\d+) tokens? after (\d+), ended by ([\w ]+): ([\d.]+) (k|M|)FLOPs, (\d+)% of dense, "
    r"tau ([\d.]+)(; first after [\d.]+ \w+, last after [\d.]+ \w+: [\d.]+( k)?/s)?(; seed (\d+))?\n"
)


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    """A server with two random language models, one of which has experts."""
    repository = tmp_path_factory.mktemp("writers")
    packages.tiny_generator(repository, "dense")
    packages.convert(packages.tiny_generator(repository, "writer"))
    with harness.Server(repository) as running:
        yield running


def command(target, *arguments):
    words = [harness.BINARIES / "dimmerctl", f"--address={target}", "generate", *arguments]
    return [str(word) for word in words]


def generate(target, *arguments, status=0, stdin=""):
    done = subprocess.run(
        command(target, *arguments), input=stdin.encode(), capture_output=True, env=ENVIRONMENT
    )
    # Not with text=True, which would change the text's newlines.
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, done.stdout + done.stderr
    return done


def messages(server, stubs, **fields):
    with grpc.insecure_channel(server.target()) as channel:
        request = stubs.inference.GenerateRequest(model="writer", **fields)
        return list(stubs.inference_grpc.InferenceStub(channel).Generate(request))


def test_the_text_and_what_it_cost(writers, stubs):
    expected = messages(writers, stubs, prompt=PROMPT, max_tokens=40, budget={"tau": 0.4})
    text = "".join(message.text for message in expected)
    usage = expected[-1].usage
    done = generate(
        writers.target(), "writer", PROMPT, "--tau", 0.4, "--max-tokens", 40,
    )  # fmt: skip
    assert done.stdout == (text if text.endswith("\n") else text + "\n")
    found = SUMMARY.fullmatch(done.stderr).groups()
    assert found[:3] == ("40", str(usage.prompt_tokens), "max_tokens")
    assert int(found[5]) == round(100 * usage.flops / usage.dense_flops) < 100
    assert float(found[6]) == pytest.approx(usage.tau, abs=0.0006)
    assert found[7] and found[10] is None  # greedy: no seed


def test_json_is_one_message_a_line(writers):
    arguments = ["writer", "-", "--max-tokens", 32, "--flop-fraction", 0.8, "--json"]
    done = generate(writers.target(), *arguments, stdin=PROMPT + "\n")
    lines = [json.loads(line) for line in done.stdout.strip().split("\n")]
    assert not done.stderr
    assert sum(len(line["token_ids"]) for line in lines) == 32
    assert all(len(line["token_ids"]) == len(line["logprobs"]) for line in lines)
    assert [line["finish_reason"] for line in lines] == ["NONE"] * (len(lines) - 1) + ["LENGTH"]
    assert ["usage" in line for line in lines] == [False] * (len(lines) - 1) + [True]
    plain = generate(writers.target(), *arguments[:-1], stdin=PROMPT)
    assert plain.stdout.rstrip("\n") == "".join(line["text"] for line in lines).rstrip("\n")


def test_the_seed_that_it_names_repeats_the_text(writers):
    arguments = ["dense", PROMPT, "--temperature", 1.2, "--top-k", 50, "--top-p", 0.95]
    first = generate(writers.target(), *arguments)
    seed = SUMMARY.fullmatch(first.stderr).group(11)
    assert int(seed) > 0
    again = generate(writers.target(), *arguments, "--seed", seed)
    assert again.stdout == first.stdout
    assert SUMMARY.fullmatch(again.stderr).group(11) == seed
    other = generate(writers.target(), *arguments, "--seed", 11)
    assert other.stdout != first.stdout


def test_stop_and_max_flops_end_it(writers, stubs):
    whole = messages(writers, stubs, prompt=PROMPT, max_tokens=48, budget={"tau": 0})
    text = "".join(message.text for message in whole)
    stop = text[len(text) // 2 :][:3]
    arguments = ["writer", PROMPT, "--max-tokens", 48, "--tau", 0]
    done = generate(writers.target(), *arguments, "--stop", "never", "--stop", stop)
    assert done.stdout.rstrip("\n") == text[: text.index(stop)].rstrip("\n")
    assert SUMMARY.fullmatch(done.stderr).group(3) == "a stop text"
    limit = whole[-1].usage.dense_flops // 2
    done = generate(writers.target(), *arguments[:-2], "--max-flops", limit)
    assert SUMMARY.fullmatch(done.stderr).group(3) in ("max_flops", "max_tokens")
    done = generate(writers.target(), *arguments[:-2], "--max-flops", 10, status=1)
    assert "max_flops" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nobody", PROMPT], "dimmerctl models"),
        (["writer", PROMPT, "--tau", 2], "budget.tau"),
        (["writer", PROMPT, "--temperature", -1], "temperature"),
        (["writer", PROMPT, "--top-p", 1.5], "top_p"),
        (["writer", PROMPT, "--max-tokens", 5000], "5000"),
        (["writer", PROMPT, "--stop", ""], "stop"),
    ],
)
def test_what_the_server_refuses_is_named(writers, arguments, named):
    done = generate(writers.target(), *arguments, status=1)
    assert named in done.stderr and not done.stdout


@contextlib.contextmanager
def scripted(stubs, generate):
    """A server whose Generate is `generate(request, context)`."""

    class Servicer(stubs.inference_grpc.InferenceServicer):
        def Generate(self, request, context):
            yield from generate(request, context)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    stubs.inference_grpc.add_InferenceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_shows_the_text_as_it_comes_and_can_be_stopped(stubs, stop):
    left = threading.Event()

    def endless(request, context):
        context.add_callback(left.set)
        yield stubs.inference.GenerateResponse(text=" there was\x1b[2J", token_ids=[1, 2])
        assert left.wait(harness.START_SECONDS)

    with scripted(stubs, endless) as target:
        screen = Screen(command(target, "m", PROMPT))
        screen.read_until(r"there was\?\[2J")
        screen.process.send_signal(stop)
        assert screen.end() == 1
        assert left.wait(harness.START_SECONDS)
    assert PROMPT in screen.text
    assert screen.text.endswith("?[2J\r\ndimmerctl: stopped before the end\r\n")


def test_an_error_in_the_middle_ends_the_line(stubs):
    def broken(request, context):
        yield stubs.inference.GenerateResponse(text=" there was", token_ids=[1, 2])
        context.abort(grpc.StatusCode.UNAVAILABLE, "GRPC server is shutting down")

    with scripted(stubs, broken) as target:
        done = generate(target, "m", PROMPT, status=1)
    assert done.stdout == " there was\n"
    assert "GRPC server is shutting down" in done.stderr
