"""Runs a real dimmer-server for tests and benchmarks: loopback only, on ports it picks itself."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("DIMMER_BIN", ROOT / "build/release/bin")).resolve()
MODELS = pathlib.Path(os.environ.get("DIMMER_MODELS", ROOT / "models"))
SHARED_DATA = pathlib.Path(os.environ.get("DIMMER_SHARED_DATA", ROOT.parent / "shared/data"))

START_SECONDS = 120  # sanitizers are slow; a limit against hanging, not a bound that is tested
PORT_LINE = re.compile(r"\b(grpc|http|metrics|admin)\b\D*127\.0\.0\.1:(\d+)", re.IGNORECASE)


def newest_version(model: pathlib.Path) -> pathlib.Path:
    """The version folder of the highest number."""
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda p: int(p.name))


@dataclasses.dataclass
class Ended:
    """What is left of a server that ended."""

    status: int
    output: str


class Server:
    """A server process. Use as a context manager; leaving it sends SIGTERM and checks the end."""

    def __init__(self, *repositories, arguments=(), environment=None, state_dir=None):
        self._own_state = tempfile.TemporaryDirectory(prefix="dimmer-state-")
        command = [str(BINARIES / "dimmer-server"), "--address", "127.0.0.1"]
        for repository in repositories:
            command += ["--model-repository", str(repository)]
        if "--state-dir" not in arguments:
            command += ["--state-dir", str(state_dir or self._own_state.name)]
        for port in ("http", "grpc", "metrics", "admin"):
            if f"--{port}-port" not in arguments:
                command += [f"--{port}-port", "0"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.ports: dict[str, int] = {}
        self._lines: list[str] = []
        self._announced = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.append(line)
            for name, port in PORT_LINE.findall(line):
                self.ports.setdefault(name.lower(), int(port))
            if len(self.ports) == 4:
                self._announced.set()
        self._announced.set()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for_ports(self) -> "Server":
        """Returns once the server has said where it listens."""
        if not self._announced.wait(START_SECONDS) or len(self.ports) != 4:
            self.kill()
            raise RuntimeError(f"dimmer-server announced {self.ports}:\n{self.output}")
        return self

    def wait(self, seconds: float = START_SECONDS) -> Ended:
        """Waits until the process has ended of itself."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reader.join()
        self._own_state.cleanup()
        return Ended(status, self.output)

    def terminate(self) -> Ended:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Server":
        return self.wait_for_ports()

    def __exit__(self, exception_type, *_):
        if self.process.poll() is None:
            ended = self.terminate()
        else:
            ended = self.wait()
        if exception_type is None:
            assert ended.status == 0, f"exit status {ended.status}:\n{ended.output}"

    def target(self, name: str = "grpc") -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def get(self, port: str, path: str) -> tuple[int, str]:
        """HTTP GET: status and body."""
        request = urllib.request.Request(f"http://{self.target(port)}{path}")
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> str:
        status, text = self.get("metrics", "/metrics")
        assert status == 200, text
        return text

    def await_metric(self, value: float, name: str, **labels):
        """Returns once the series with these labels add up to the value; the suite's limit ends a
        wait in vain."""
        while self.metric(name, **labels) != value:
            assert self.process.poll() is None, self.output

    def metric(self, name: str, **labels) -> float:
        """The sum of the series with these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.metrics())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def resident_bytes(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024
