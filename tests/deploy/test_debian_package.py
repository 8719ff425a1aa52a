"""The packages install with apt in a bare Debian 12, serve there, upgrade, and leave nothing behind."""

import configparser
import json
import shutil
import subprocess

import pytest

from trees import ROOT, Tree, checked

UNIT = ROOT / "deploy/systemd/dimmer-server.service"
CONFFILE = "etc/dimmer/server.yaml"
# What apt and dpkg themselves keep, and what they write anew for every package.
NOT_OURS = (
    *("dev/", "proc/", "run/", "tmp/", "var/cache/", "var/log/", "var/lib/apt/", "var/lib/dpkg/"),
    *(
        "etc/resolv.conf",
        "etc/hosts",
        "etc/ld.so.cache",
        "etc/.pwd.lock",
        "etc/passwd",
        "etc/group",
    ),
    *("etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid"),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory, bases):
    tree = Tree(tmp_path_factory.mktemp("debian"))
    checked("tar", "-C", tree.root, "-xf", bases / "minbase.tar")
    yield tree
    shutil.rmtree(tree.root, ignore_errors=True)


def install(tree, *paths):
    for path in paths:
        shutil.copy(path, tree.root / "opt" / path.name)
    names = [f"/opt/{path.name}" for path in paths]
    output = tree.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *names)
    for path in paths:
        (tree.root / "opt" / path.name).unlink()
    return output


def serve(tree):
    """Starts what the unit starts, as its user, with the folder that systemd would have made."""
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    user, group = service["User"], service["Group"]
    state = f"/var/lib/{service['StateDirectory']}"
    tree.run("install", "-d", "-o", user, "-g", group, "-m", service["StateDirectoryMode"], state)
    return tree.serve(*service["ExecStart"].split(), user=f"{user}:{group}")


def files(tree) -> set[str]:
    everything = {str(path.relative_to(tree.root)) for path in tree.root.rglob("*")}
    return {path for path in everything if not f"{path}/".startswith(NOT_OURS)}


def test_lintian_finds_nothing(packages):
    command = ["lintian", "--fail-on", "error,warning", "--suppress-tags-from-file"]
    command += [ROOT / "tests/deploy/lintian-suppressed.txt", "--allow-root", *packages.values()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_control_data(packages):
    def field(name):
        return checked("dpkg-deb", "--field", packages["dimmer-server"], name)

    assert "libgrpc++1.51" in field("Depends")
    assert "torch" not in field("Depends")
    listing = checked("dpkg-deb", "--contents", packages["dimmer-server"])
    for path in ("./usr/bin/dimmer-server", "./etc/dimmer/server.yaml", "dimmer-server.service"):
        assert path in listing, listing


class TestLife:
    """One life of the packages, in this order."""

    before: set[str] = set()

    def test_install(self, tree, packages):
        tree.run("apt-get", "update", "-q")
        # Dependencies first, so that what is left in the end can only be of our packages.
        depends = checked("dpkg-deb", "--field", packages["dimmer-server"], "Depends")
        names = ["systemd", *(entry.split()[0] for entry in depends.strip().split(","))]
        tree.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *names)
        TestLife.before = files(tree)
        install(tree, *packages.values())
        assert tree.run("dimmer-server", "--version").startswith("dimmer-server ")
        assert "dimmer:x:" in (tree.root / "etc/passwd").read_text()

    def test_the_unit_is_valid_and_confined(self, tree):
        tree.run("systemd-analyze", "verify", "dimmer-server.service")
        # Exposure from 0 (none) to 100, as `systemd-analyze security` counts it.
        security = ("systemd-analyze", "security", "--offline=yes", "--threshold=15")
        tree.run(*security, "dimmer-server.service")

    def test_it_serves_and_keeps_its_state(self, tree):
        with serve(tree) as server:
            assert server.inside("dimmer-server", "--health-check").returncode == 0
            dense = json.loads(server.call("classify", "0"))
            assert dense["label"] == "joy"
            assert dense["flop_fraction"] == 1
            assert json.loads(server.call("set-tau", "0.25"))["default_tau"] == 0.25
            dimmed = json.loads(server.call("classify"))
            assert dimmed["tau"] == 0.25
            assert dimmed["flop_fraction"] < 1
            assert server.terminate() == 0, server.output
        with serve(tree) as server:
            assert json.loads(server.call("tau"))["default_tau"] == 0.25

    def test_an_upgrade_keeps_configuration_and_state(self, tree, packages, tmp_path):
        conffile = tree.root / CONFFILE
        conffile.write_text(conffile.read_text() + "threads: 1\n")
        unpacked = tmp_path / "unpacked"
        checked("dpkg-deb", "--raw-extract", packages["dimmer-server"], unpacked)
        control = unpacked / "DEBIAN/control"
        version = checked("dpkg-deb", "--field", packages["dimmer-server"], "Version").strip()
        text = control.read_text()
        assert f"Version: {version}\n" in text
        control.write_text(text.replace(f"Version: {version}\n", f"Version: {version}.1\n"))
        newer = tmp_path / "dimmer-server_newer.deb"
        checked("dpkg-deb", "--build", "--root-owner-group", unpacked, newer)
        install(tree, newer)
        assert f"{version}.1" in tree.run("dpkg-query", "--show", "dimmer-server")
        assert conffile.read_text().endswith("threads: 1\n")
        with serve(tree) as server:
            assert json.loads(server.call("tau"))["default_tau"] == 0.25

    def test_remove_keeps_configuration_and_state(self, tree):
        tree.run("apt-get", "remove", "-y", "-q", "dimmer-server")
        assert not (tree.root / "usr/bin/dimmer-server").exists()
        assert (tree.root / CONFFILE).exists()
        assert list((tree.root / "var/lib/dimmer/state").iterdir())

    def test_purge_leaves_only_the_administrators_models(self, tree, packages):
        own = tree.root / "var/lib/dimmer/models/own/1/config.json"
        own.parent.mkdir(parents=True)
        own.write_text("{}")
        tree.run("apt-get", "purge", "-y", "-q", *packages)
        assert own.exists()
        assert "dimmer:x:" not in (tree.root / "etc/passwd").read_text()
        mine = {str(path.relative_to(tree.root)) for path in (own, *own.parents)[:5]}
        assert files(tree) - TestLife.before == mine
