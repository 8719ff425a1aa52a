#!/usr/bin/env bash
# test.sh PRESET: runs CTest and, where the preset has a server, the end-to-end tests through real
# clients. Results go to build/results/PRESET-{ctest,pytest}.xml. Runs both even if the first fails.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
preset=$1
results=$PWD/build/results
mkdir -p "$results"
rm -f "$results/$preset"-*.xml
failed=0

export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1"

deploy/step.sh "C++ tests ($preset)" \
  "run one alone: ctest --preset $preset -R NAME; all output: build/results/$preset-ctest.xml" \
  ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error \
  --output-junit "$results/$preset-ctest.xml" || failed=1

if [[ -x build/$preset/bin/dimmer-server ]]; then
  deploy/step.sh "Python environment" \
    "check that pip reaches a package index; the list is tests/python/requirements.txt" \
    deploy/python-venv.sh &&
    deploy/step.sh "End-to-end tests ($preset)" \
      "run one alone: DIMMER_BIN=build/$preset/bin build/python/bin/pytest tests/python -k NAME" \
      env DIMMER_BIN="$PWD/build/$preset/bin" build/python/bin/python -m pytest tests/python \
      --junitxml="$results/$preset-pytest.xml" || failed=1
fi
exit $failed
