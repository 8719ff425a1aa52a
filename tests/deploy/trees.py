"""Runs commands in a tree of files as its root: an installed Debian, or a container's image."""

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY_SECONDS = 60  # a limit against hanging, not a bound that is tested

# Arguments: tree, "ro" or "rw" for it, "host" or "own" network, a count of binds, each bind (from, to, ro or rw), then
# the command. Mounts and processes live in namespaces of their own and end with them.
ENTER = """
set -e
tree=$1 mode=$2 network=$3 binds=$4
shift 4
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
if [ "$mode" = rw ]; then
  mount -t tmpfs tmpfs "$tree/tmp"
  mount -t tmpfs tmpfs "$tree/run"
else
  mount -o remount,bind,ro "$tree"
fi
for ((; binds > 0; --binds)); do
  mount --bind "$1" "$tree$2"
  mount -o "remount,bind,$3" "$tree$2"
  shift 3
done
[ "$network" = host ] || ip link set lo up
exec "$@"
"""


def checked(*command, **options) -> str:
    """Runs a command and returns its output; an error shows all of it."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


@dataclasses.dataclass
class Tree:
    root: pathlib.Path

    def _command(self, arguments, *, environment, user, network, binds, mode="rw") -> list[str]:
        flat = [str(word) for bind in binds for word in bind]
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *(["--net"] if network == "own" else []),
            *("bash", "-c", ENTER, "-", str(self.root), mode, network, str(len(binds)), *flat),
            *("chroot", f"--userspec={user}", str(self.root), "/usr/bin/env", "-i"),
            *(f"{key}={value}" for key, value in {"PATH": PATH, **environment}.items()),
            *map(str, arguments),
        ]

    def run(self, *arguments, user="root:root", binds=()) -> str:
        """Runs one command to its end, on this machine's network."""
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.root / "etc" / name)
        environment = {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        return checked(
            *self._command(
                arguments, environment=environment, user=user, network="host", binds=binds
            )
        )

    def serve(self, *arguments, user, environment=None, binds=(), mode="rw") -> "Service":
        """Starts a server in a network of its own, where all its ports are free."""
        environment = environment or {}
        options = {"user": user, "network": "own", "binds": binds, "mode": mode}
        command = self._command(arguments, environment=environment, **options)
        return Service(self, command, user, environment)


class Service:
    """A server that runs in a tree as its process 1, as in a container. Use as a context manager."""

    def __init__(self, tree: Tree, command: list[str], user: str, environment: dict[str, str]):
        self.tree, self.user, self.environment = tree, user, environment
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        for line in self.process.stdout:
            self.output += line
            if " listens on " in line:
                break

    @property
    def pid(self) -> int:
        """The server's own process, the child of `unshare`."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def inside(self, *arguments) -> subprocess.CompletedProcess:
        """Runs a command beside the server, as a container's health check runs."""
        command = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "chroot"]
        command += [f"--userspec={self.user}", str(self.tree.root), "/usr/bin/env", "-i"]
        command += [f"{key}={value}" for key, value in {"PATH": PATH, **self.environment}.items()]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def call(self, *arguments) -> str:
        """Runs call_server.py outside of the tree, over the server's loopback interface."""
        return checked(
            *("nsenter", f"--net=/proc/{self.pid}/ns/net"),
            *(ROOT / "build/python/bin/python", ROOT / "tests/deploy/call_server.py", *arguments),
        )

    def terminate(self) -> int:
        """SIGTERM; returns the server's exit status."""
        os.kill(self.pid, signal.SIGTERM)
        self.output += self.process.stdout.read()
        return self.process.wait(READY_SECONDS)

    def __enter__(self) -> "Service":
        assert " listens on " in self.output, self.output + self.process.stdout.read()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            # Not by --kill-child: the kernel forgets that where the child changes its user.
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()
