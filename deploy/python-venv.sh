#!/usr/bin/env bash
# Makes build/python, the virtual environment of tests and benchmarks, from Debian's Python (whose
# PyTorch the parity tests use) and tests/python/requirements.txt. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.." || exit

requirements=tests/python/requirements.txt
stamp=build/python/requirements.sha256
if [[ -f $stamp ]] && sha256sum --status --check "$stamp"; then
  echo "    build/python is up to date"
  exit 0
fi
rm -rf build/python
/usr/bin/python3 -m venv --system-site-packages build/python
build/python/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$requirements"
sha256sum "$requirements" > "$stamp"
