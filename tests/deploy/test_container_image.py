"""The Dockerfile builds, unchanged, and its image serves as its own metadata say.

Registries are not needed: `debian:bookworm-slim` is a bare tree of the same make. Images lie in
build/container, the compiler's cache is this machine's.
"""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from trees import ROOT, Tree, checked

STORE = ROOT / "build/container"
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/dimmer-server"
MAX_BYTES = 200_000_000
UID = 10001

# The first test builds the image: minutes, where the compiler's cache is cold.
pytestmark = pytest.mark.timeout(1800)


def storage_driver() -> str:
    """overlay where the kernel has it, which shares files between layers; else vfs, which copies."""
    probe = ["buildah", "--root", STORE / "probe", "--storage-driver", "overlay", "info"]
    works = subprocess.run(probe, capture_output=True).returncode == 0
    return "overlay" if works else "vfs"


@pytest.fixture(scope="module")
def buildah():
    driver = storage_driver()
    # Where RUN --mount=type=cache keeps its files from build to build.
    environment = {**os.environ, "TMPDIR": str(STORE / "tmp")}
    (STORE / "tmp").mkdir(parents=True, exist_ok=True)

    def run(*arguments):
        return checked(
            *("buildah", "--root", STORE / driver, "--runroot", STORE / f"run-{driver}"),
            *("--storage-driver", driver, *arguments),
            env=environment,
        )

    return run


@pytest.fixture(scope="module")
def image(buildah, bases):
    """The built image's name."""
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
        scratch = buildah("from", "scratch").strip()
        buildah("add", "--quiet", scratch, bases / "slim.tar", "/")
        buildah("commit", "--rm", "--quiet", scratch, BASE)
    ccache = pathlib.Path(checked("ccache", "--get-config", "cache_dir").strip())
    ccache.mkdir(parents=True, exist_ok=True)
    buildah(
        *("build", "--isolation", "chroot", "--pull-never", "--layers", "--format", "docker"),
        *("--volume", f"{ccache}:/var/cache/ccache", "--build-arg", "CCACHE_DIR=/var/cache/ccache"),
        *("--tag", IMAGE, "--file", ROOT / "Dockerfile", ROOT),
    )
    return IMAGE


@pytest.fixture(scope="module")
def config(buildah, image) -> dict:
    return json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]


@pytest.fixture(scope="module")
def tree(buildah, image):
    container = buildah("from", "--pull-never", image).strip()
    yield Tree(pathlib.Path(buildah("mount", container).strip()))
    buildah("umount", container)
    buildah("rm", container)


@pytest.fixture
def state(tmp_path):
    """A state volume: a folder of this machine that belongs to the image's fixed user."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, UID, UID)
    return folder


def serve(tree, config, models, state):
    """What `docker run --read-only -v MODELS:... -v STATE:...` does with the image's metadata."""
    volumes = sorted(config["Volumes"])
    assert volumes == ["/var/lib/dimmer/models", "/var/lib/dimmer/state"]
    return tree.serve(
        *(config["Entrypoint"] + (config.get("Cmd") or [])),
        user=config["User"],
        environment=dict(entry.split("=", 1) for entry in config["Env"]),
        binds=[(models, volumes[0], "ro"), (state, volumes[1], "rw")],
        mode="ro",
    )


def health_check(server, config) -> subprocess.CompletedProcess:
    kind, *command = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return server.inside(*command)


def test_the_image_is_small(tree):
    files = [path for path in tree.root.rglob("*") if path.is_file() and not path.is_symlink()]
    sizes = {(path.stat().st_dev, path.stat().st_ino): path.stat().st_size for path in files}
    total = sum(sizes.values())
    print(f"{total / 1e6:.1f} MB uncompressed, without models")
    assert total < MAX_BYTES


def test_metadata(config):
    assert config["User"] == f"{UID}:{UID}"
    assert sorted(config["ExposedPorts"]) == ["8000/tcp", "8001/tcp", "8002/tcp"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_no_build_tools_and_no_packages_lie_about(tree):
    for name in ("usr/bin/g++", "usr/bin/cmake", "src", "tmp/packages"):
        assert not (tree.root / name).exists(), name
    assert not list((tree.root / "var/lib/apt/lists").iterdir())


def test_it_serves(tree, config, state):
    with serve(tree, config, ROOT / "models", state) as server:
        # The line that the server prints, with the image's own settings alone.
        assert "grpc 0.0.0.0:8001" in server.output
        checked_health = health_check(server, config)
        assert checked_health.returncode == 0, checked_health.stderr
        assert json.loads(server.call("classify", "0.1"))["label"] == "joy"
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
        assert server.terminate() == 0, server.output
        assert "stopped" in server.output


def test_settings_outlive_the_container(tree, config, state):
    with serve(tree, config, ROOT / "models", state) as server:
        assert json.loads(server.call("set-tau", "0.25"))["default_tau"] == 0.25
        assert server.terminate() == 0, server.output
    with serve(tree, config, ROOT / "models", state) as server:
        assert json.loads(server.call("classify"))["tau"] == 0.25


def test_a_container_without_a_model_that_works_is_unhealthy(tree, config, state, tmp_path):
    broken = tmp_path / "models/emotion/1"
    shutil.copytree(ROOT / "models/emotion/1", broken)
    (broken / "config.json").write_text("{}")
    with serve(tree, config, tmp_path / "models", state) as server:
        found = health_check(server, config)
        assert found.returncode == 1
        assert "NOT_SERVING" in found.stderr
