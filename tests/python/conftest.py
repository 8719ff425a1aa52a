import os
import pathlib
import subprocess
import sys
import types

import grpc
import pytest

import harness

os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


def pytest_configure(config):
    config.addinivalue_line("markers", "shared_data: needs ../shared/data; CI demands that it runs")


def pytest_collection_modifyitems(config, items):
    """Tests that need the public data sets exist only where these lie."""
    if harness.SHARED_DATA.is_dir():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(f"CI needs the public data sets in {harness.SHARED_DATA}")
    needing = [item for item in items if item.get_closest_marker("shared_data")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory) -> types.SimpleNamespace:
    """Message and service modules made from proto/, as a client in Python would make them."""
    out = tmp_path_factory.mktemp("stubs")
    root = harness.ROOT / "proto"
    files = sorted(str(path.relative_to(root)) for path in root.glob("dimmer/v1/*.proto"))
    # A process of its own: protoc in here would register the files twice.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}"]
    command += [f"--python_out={out}", f"--grpc_python_out={out}", *files]
    subprocess.run(command, check=True)
    sys.path.insert(0, str(out))
    from dimmer.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc

    return types.SimpleNamespace(
        inference=inference_pb2,
        inference_grpc=inference_pb2_grpc,
        admin=admin_pb2,
        admin_grpc=admin_pb2_grpc,
    )


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> pathlib.Path:
    """Made-up models beside real ones; `broken` is cut off in the middle of its weights."""
    import packages

    root = tmp_path_factory.mktemp("repository")
    packages.tiny_classifier(root, "tiny")
    packages.convert(packages.tiny_classifier(root, "dimmable"))
    packages.truncate(packages.tiny_classifier(root, "broken"))
    packages.link_minilm(root)
    return root


@pytest.fixture(scope="session")
def server(repository):
    """The server that most tests share; every one of them must leave it serving."""
    with harness.Server(harness.MODELS, repository) as running:
        yield running


@pytest.fixture(scope="session")
def storytellers(tmp_path_factory) -> pathlib.Path:
    """Random GPT-2 models: plain, converted, with a long context, with room for 64 tokens in all."""
    import packages

    root = tmp_path_factory.mktemp("storytellers")
    packages.tiny_generator(root, "teller")
    packages.convert(packages.tiny_generator(root, "dimteller"))
    packages.tiny_generator(root, "endless", n_positions=packages.LONG, eos_token_id=-1)
    packages.tiny_generator(root, "tight")
    (root / "tight/config.yaml").write_text("kv_cache_tokens: 64\n")
    packages.tiny_classifier(root, "labeller")
    return root


@pytest.fixture(scope="session")
def teller(storytellers):
    """The server that the tests of generation share; each must leave it serving and its pages free."""
    with harness.Server(storytellers) as running:
        yield running


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server.target()) as channel:
        yield channel


@pytest.fixture(scope="session")
def inference(channel, stubs):
    return stubs.inference_grpc.InferenceStub(channel)


@pytest.fixture(scope="session")
def admin(server, stubs):
    with grpc.insecure_channel(server.target("admin")) as channel:
        yield stubs.admin_grpc.AdminStub(channel)


@pytest.fixture(autouse=True)
def pages_come_back(request):
    """After every test that used the server of generations: none holds a page for good."""
    yield
    if "teller" in request.fixturenames:
        request.getfixturevalue("teller").await_metric(0, "dimmer_kv_pages_used")


@pytest.fixture(autouse=True)
def still_serving(request):
    """After every test that used the shared server: it still lives and still answers."""
    yield
    if "server" not in request.fixturenames:
        return
    running = request.getfixturevalue("server")
    stubs = request.getfixturevalue("stubs")
    assert running.process.poll() is None, running.output
    answer = request.getfixturevalue("inference").Classify(
        stubs.inference.ClassifyRequest(model="tiny", texts=["i feel happy"])
    )
    assert len(answer.results) == 1
