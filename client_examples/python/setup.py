"""Makes the package dimmer.v1 from the proto files while `pip install` builds; the rest is in
pyproject.toml. DIMMER_PROTO names another folder of proto files."""

import os
import pathlib
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(os.environ.get("DIMMER_PROTO", "../../proto")).resolve()


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        files = [str(path) for path in sorted(PROTO.glob("dimmer/v1/*.proto"))]
        if not files:
            raise SystemExit(f"found no dimmer/v1/*.proto in {PROTO}: set DIMMER_PROTO")
        to = self.build_lib
        outputs = [f"--python_out={to}", f"--pyi_out={to}", f"--grpc_python_out={to}"]
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"]
        subprocess.run([*protoc, *outputs, *files], check=True)


setup(cmdclass={"build_py": BuildWithStubs})
