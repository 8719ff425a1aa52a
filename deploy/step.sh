#!/usr/bin/env bash
# step.sh TITLE HINT COMMAND...: runs one step with a header and its time; on failure says what next.
set -uo pipefail
title=$1 hint=$2
shift 2

printf '\n==> %s\n' "$title"
start=$SECONDS
"$@"
status=$?
if ((status == 0)); then
  printf '    %s: done in %d s\n' "$title" $((SECONDS - start))
elif ((status < 128)); then
  printf '\n*** %s failed after %d s (exit status %d).\n*** Next: %s\n' \
    "$title" $((SECONDS - start)) "$status" "$hint" >&2
fi
exit $status
