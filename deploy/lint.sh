#!/usr/bin/env bash
# lint.sh [--fix]: clang-format, clang-tidy (over build/release), shellcheck, hadolint and ruff. With
# --fix, rewrites what clang-format and ruff can and stops there.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mapfile -t cpp < <(git ls-files '*.cc' '*.h')
mapfile -t shell < <(git ls-files '*.sh' '.ci/run' 'deploy/debian/p*')
failed=0

for tool in clang-format clang-tidy shellcheck; do
  if ! command -v "$tool" > /dev/null; then
    echo "deploy/lint.sh: $tool is missing. Next: make deps" >&2
    exit 1
  fi
done
deploy/step.sh "Python environment" "check that pip reaches a package index" \
  deploy/python-venv.sh || exit 1

if [[ ${1:-} == --fix ]]; then
  clang-format -i "${cpp[@]}" || failed=1
  build/python/bin/ruff check --fix --quiet . || failed=1
  build/python/bin/ruff format --quiet . || failed=1
  exit $failed
fi

deploy/step.sh "clang-format" "make format" clang-format --dry-run -Werror "${cpp[@]}" || failed=1
deploy/step.sh "shellcheck" "follow the SC numbers above" shellcheck "${shell[@]}" || failed=1
deploy/step.sh "hadolint" "follow the DL and SC numbers above" \
  build/python/bin/hadolint Dockerfile || failed=1
deploy/step.sh "ruff" "make format, then what is left by hand" \
  build/python/bin/ruff check --quiet . || failed=1
deploy/step.sh "ruff format" "make format" build/python/bin/ruff format --check --quiet . || failed=1
deploy/step.sh "clang-tidy" "fix the findings above; clean files are not checked again" \
  /usr/bin/python3 deploy/clang_tidy.py build/release || failed=1
exit $failed
