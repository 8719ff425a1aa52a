"""Start, failure to start, drain and restart of the server process."""

import os
import signal
import socket
import subprocess

import grpc
import pytest

import harness
import packages


@pytest.fixture
def classify_with(stubs):
    def call(server, budget=None, timeout=None, texts=("i feel so happy",), **fields):
        with grpc.insecure_channel(server.target()) as channel:
            return stubs.inference_grpc.InferenceStub(channel).Classify(
                stubs.inference.ClassifyRequest(model="tiny", texts=texts, budget=budget, **fields),
                timeout=timeout,
            )

    return call


def refused(*arguments, **options) -> str:
    """The output of a server that must refuse to start, by exit status, not by signal."""
    server = harness.Server(*arguments, **options)
    ended = server.wait()
    assert ended.status in (1, 2), ended.output
    assert ended.output.strip()
    return ended.output


def test_version_and_help():
    for flag in ("--version", "--help"):
        command = [harness.BINARIES / "dimmer-server", flag]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip()


def test_unknown_flag_is_a_usage_error(repository):
    server = harness.Server(repository, arguments=["--no-such-flag"])
    ended = server.wait()
    assert ended.status == 2
    assert "no-such-flag" in ended.output


def test_a_port_in_use_is_named(repository):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag in ("--grpc-port", "--metrics-port", "--admin-port", "--http-port"):
            assert str(port) in refused(repository, arguments=[flag, port])


def test_a_repository_that_is_not_there_is_named(tmp_path):
    assert "nowhere" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("grpc-prot: 1\n", "grpc-prot"),
        ("threads: [1, 2\n", "dimmer.yaml"),
        ("threads: many\n", "threads"),
    ],
)
def test_a_broken_configuration_is_named_with_its_line(repository, tmp_path, text, named):
    path = tmp_path / "dimmer.yaml"
    path.write_text("# comment\n" + text)
    output = refused(repository, arguments=["--config", path])
    assert named in output
    assert "dimmer.yaml:2" in output or "line 2" in output or "dimmer.yaml:3" in output


def test_an_unreadable_configuration_is_named(repository, tmp_path):
    assert "absent.yaml" in refused(repository, arguments=["--config", tmp_path / "absent.yaml"])
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in refused(repository, arguments=["--config", tmp_path / "folder.yaml"])


def test_settings_from_the_environment(repository, classify_with):
    with harness.Server(repository, environment={"DIMMER_THREADS": "1"}) as server:
        assert classify_with(server).results
    assert "DIMMER_THREADS" in refused(repository, environment={"DIMMER_THREADS": "many"})


def test_sigterm_answers_what_runs_and_exits_with_zero(repository, stubs):
    server = harness.Server(repository).wait_for_ports()
    texts = ["i feel so very happy today " * 10] * 64
    with grpc.insecure_channel(server.target()) as channel:
        classify = stubs.inference_grpc.InferenceStub(channel).Classify
        request = stubs.inference.ClassifyRequest(model="tiny", texts=texts)
        classify(request)  # connected
        calls = [classify.future(request) for _ in range(16)]
        calls[0].result()
        server.process.send_signal(signal.SIGTERM)
        for call in calls:
            # Taken before the drain: answered. After it: refused as API.md says. Never lost.
            code = call.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
            if code == grpc.StatusCode.OK:
                assert len(call.result().results) == 64
    assert server.wait().status == 0


def test_sigint_stops_too(repository):
    server = harness.Server(repository).wait_for_ports()
    server.process.send_signal(signal.SIGINT)
    assert server.wait().status == 0


def set_tau(server, stubs, **fields):
    with grpc.insecure_channel(server.target("admin")) as channel:
        return stubs.admin_grpc.AdminStub(channel).SetTau(stubs.admin.SetTauRequest(**fields))


def test_set_tau_survives_a_restart(repository, tmp_path, stubs, classify_with):
    with harness.Server(repository, state_dir=tmp_path) as server:
        set_tau(server, stubs, model="dimmable", default_tau=0.25, max_tau=0.5)
    with harness.Server(repository, state_dir=tmp_path) as server:
        settings = set_tau(server, stubs, model="dimmable", dry_run=True).settings
        assert (settings.default_tau, settings.max_tau) == (0.25, 0.5)
        assert settings.revision >= 2


def test_a_broken_state_file_does_not_pass_silently(repository, tmp_path, stubs):
    with harness.Server(repository, state_dir=tmp_path) as server:
        set_tau(server, stubs, model="dimmable", default_tau=0.25)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_text("{ cut o")
    server = harness.Server(repository, state_dir=tmp_path)
    try:
        server.wait_for_ports()
    except RuntimeError:
        assert server.process.returncode in (1, 2)
    else:
        server.terminate()
    assert str(tmp_path) in server.output


def cut_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit(directory, old, new):
    path = directory / "dimmer.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_many_malformed_packages_beside_a_good_one(tmp_path, classify_with, stubs):
    """Each is refused with its reason; the good one is served."""
    names = []

    def bad(name, break_it):
        names.append(name)
        break_it(packages.tiny_classifier(tmp_path, name))

    packages.tiny_classifier(tmp_path, "tiny")
    bad("truncated", packages.truncate)
    bad("empty", lambda d: (d / "model.safetensors").write_bytes(b""))
    bad("huge-header", lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}"))
    bad("no-weights", lambda d: (d / "model.safetensors").unlink())
    bad("bad-json", lambda d: (d / "config.json").write_text('{"hidden_size": '))
    bad("not-an-object", lambda d: (d / "config.json").write_text("[[[]]]"))
    bad("unknown-kind", lambda d: (d / "config.json").write_text('{"architectures": ["X"]}'))
    bad("newer", lambda d: (d / "dimmer.json").write_text('{"format_version": 99}'))
    bad("changed-since", lambda d: cut_bit(packages.convert(d) / "model.safetensors"))
    bad("no-routers", lambda d: (packages.convert(d) / "routers.safetensors").unlink())
    bad("thirteen-experts", lambda d: edit(packages.convert(d), '"experts": 12', '"experts": 13'))
    bad("no-gate", lambda d: edit(packages.convert(d), '"dynamic_k"', '"moon"'))
    (tmp_path / "no-version").mkdir()
    names.append("no-version")
    with harness.Server(tmp_path) as server:
        assert classify_with(server).results
        with grpc.insecure_channel(server.target()) as channel:
            classify = stubs.inference_grpc.InferenceStub(channel).Classify
            for name in names:
                with pytest.raises(grpc.RpcError) as caught:
                    classify(stubs.inference.ClassifyRequest(model=name, texts=["i"]))
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, name
                assert name in server.output, f"the log names {name}"


def test_a_package_without_a_vocabulary_takes_ids_alone(tmp_path, stubs):
    (packages.tiny_classifier(tmp_path, "ids-only") / "vocab.txt").unlink()
    with harness.Server(tmp_path) as server, grpc.insecure_channel(server.target()) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stubs.inference_grpc.InferenceStub(channel).Classify(
                stubs.inference.ClassifyRequest(model="ids-only", texts=["i"])
            )
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "tokenizer" in caught.value.details()


def test_an_unreadable_package_beside_a_good_one(tmp_path, classify_with):
    packages.tiny_classifier(tmp_path, "tiny")
    directory = packages.tiny_classifier(tmp_path, "locked")
    os.remove(directory / "config.json")
    (directory / "config.json").mkdir()
    with harness.Server(tmp_path) as server:
        assert classify_with(server).results


def health_check(*arguments, environment=None) -> subprocess.CompletedProcess:
    """dimmer-server --health-check, as a container's probe runs it."""
    command = [harness.BINARIES / "dimmer-server", "--health-check", *arguments]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_binary_checks_a_running_server(repository):
    with harness.Server(repository) as server:
        port = str(server.ports["grpc"])
        # As in a container: the address is every interface, and a proxy is set for the outside.
        for found in (
            health_check("--address", "127.0.0.1", "--grpc-port", port),
            health_check(
                environment={"DIMMER_GRPC_PORT": port, "http_proxy": "http://127.0.0.1:1"}
            ),
        ):
            assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    gone = health_check("--grpc-port", port)
    assert gone.returncode == 1
    assert f"127.0.0.1:{port}" in gone.stderr


def test_a_server_without_a_model_that_works_is_not_healthy(tmp_path):
    packages.truncate(packages.tiny_classifier(tmp_path, "broken"))
    with harness.Server(tmp_path) as server:
        found = health_check("--grpc-port", str(server.ports["grpc"]))
    assert found.returncode == 1
    assert "NOT_SERVING" in found.stderr
