#!/usr/bin/env bash
# Installs build/package/packages in a bare Debian 12 and builds the Dockerfile there, as far as a
# server that answers. Needs root. Bare trees stay in build/trees, images in build/container.
# Results go to build/results/package-pytest.xml. Mounts are made in a namespace of their own, so that
# none is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/results
rm -f build/results/package-pytest.xml

deploy/step.sh "Python environment" \
  "check that pip reaches a package index; the list is tests/python/requirements.txt" \
  deploy/python-venv.sh
deploy/step.sh "Packages and image" \
  "run one alone: build/python/bin/pytest tests/deploy -k NAME" \
  unshare --mount build/python/bin/python -m pytest tests/deploy \
  --junitxml=build/results/package-pytest.xml "$@"
