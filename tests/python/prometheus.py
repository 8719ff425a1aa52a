"""Runs a real Prometheus for tests: the shipped configuration, with only targets and pace replaced."""

import json
import pathlib
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import yaml

import harness

SHIPPED = harness.ROOT / "deploy/prometheus"
LIMIT_SECONDS = 120  # against hanging, of one HTTP call


class Prometheus:
    """A Prometheus process on a free loopback port. Use as a context manager."""

    def __init__(self, directory: pathlib.Path, targets: dict[str, str], interval: str):
        """`targets`: by job, instead of those in the shipped file; a job without one is left out."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": interval, "scrape_timeout": interval}
        config["global"]["evaluation_interval"] = interval
        config["rule_files"] = [str(SHIPPED / name) for name in config["rule_files"]]
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        for name, target in targets.items():
            jobs[name]["static_configs"] = [{"targets": [target]}]
        config["scrape_configs"] = [jobs[name] for name in targets]
        file = directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={file}", "--log.level=warn"]
        command += [f"--storage.tsdb.path={directory}/data", f"--web.listen-address={self.address}"]
        self._log_path = directory / "prometheus.log"
        self._log = self._log_path.open("w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> "Prometheus":
        while True:  # the suite's limit ends a wait in vain
            assert self.process.poll() is None, self._log_path.read_text()
            try:
                with urllib.request.urlopen(
                    f"http://{self.address}/-/ready", timeout=LIMIT_SECONDS
                ):
                    return self
            except (urllib.error.URLError, ConnectionError):
                continue  # not up yet

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def get(self, path: str, **parameters):
        """`data` of an answer of the HTTP API; an error names what was asked and what is wrong."""
        url = (
            f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        )
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression: str, time: float | None = None) -> list[tuple[dict, float]]:
        """Labels and value of each series at one moment: now, unless `time` is given."""
        at = {} if time is None else {"time": time}
        data = self.get("query", query=expression, **at)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str, time: float | None = None) -> float:
        """Of the one series that the expression has; 0 where there is none."""
        found = self.query(expression, time)
        assert len(found) <= 1, f"{expression}: {len(found)} series, expected one: {found[:5]}"
        return found[0][1] if found else 0.0

    def query_range(self, expression: str, start: float, end: float, step: float):
        """Labels and (time, value) pairs of each series."""
        data = self.get("query_range", query=expression, start=start, end=end, step=step)
        return [
            (series["metric"], [(float(at), float(value)) for at, value in series["values"]])
            for series in data["result"]
        ]
