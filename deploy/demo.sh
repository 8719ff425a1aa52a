#!/usr/bin/env bash
# Serves models/ on the loopback interface, shows what each model does at several budgets, and serves
# on until Ctrl-C. ONCE=1 stops after that. PORT=8000 is the first of four ports.
set -euo pipefail
cd "$(dirname "$0")/.." || exit

http=${PORT:-8000}
grpc=$((http + 1)) metrics=$((http + 2)) admin=$((http + 3))
bin=build/release/bin
log=build/demo-server.log

listening() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }
ready() {
  { exec 3<> "/dev/tcp/127.0.0.1/$http"; } 2> /dev/null || return 1
  printf 'GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  [[ $(head -n 1 <&3) == *" 200 "* ]]
}
say() { printf '%s\n' "$@"; }
fail() {
  printf '\n*** %s\n' "$@" >&2
  exit 1
}

for port in "$http" "$grpc" "$metrics" "$admin"; do
  if listening "$port"; then
    fail "Port $port is in use. Next: stop what listens there, or choose four others: make demo PORT=9000"
  fi
done

say "" "==> Server on models/ (log: $log)"
state=$(mktemp -d)
# A session of its own: Ctrl-C reaches this script alone, which then lets the server drain.
setsid "$bin/dimmer-server" --model-repository models --address 127.0.0.1 --state-dir "$state" \
  --http-port "$http" --grpc-port "$grpc" --metrics-port "$metrics" --admin-port "$admin" \
  > "$log" 2>&1 < /dev/null &
server=$!
stop() {
  trap - EXIT INT TERM
  kill -TERM "$server" 2> /dev/null || true
  local status=0
  wait "$server" 2> /dev/null || status=$?
  rm -rf "$state"
  say "Server stopped (exit status $status)."
}
trap stop EXIT
trap 'say ""; exit 0' INT TERM

deadline=$((SECONDS + 60))
until ready; do
  kill -0 "$server" 2> /dev/null || fail "The server ended early; its last words:" "$(tail -n 5 "$log")"
  ((SECONDS < deadline)) || fail "The server is not ready after 60 s. Next: read $log"
  sleep 0.05
done

say "" "==> The same inputs at several budgets, through gRPC"
"$bin/dimmer-demo" --target "127.0.0.1:$grpc" --admin-address "127.0.0.1:$admin" || fail "The demo client failed. Next: read $log"

[[ ${ONCE:-} == 1 ]] && exit 0
stories=
if [[ -d models/stories ]]; then
  stories="  $bin/dimmerctl --address 127.0.0.1:$grpc generate stories \"Once upon a time\" --temperature 0.8
"
fi
cat << END

Serving on until Ctrl-C:
  gRPC     127.0.0.1:$grpc   dimmer.v1.Inference, Open Inference Protocol v2, health, reflection
  admin    127.0.0.1:$admin   dimmer.v1.Admin
  metrics  http://127.0.0.1:$metrics/metrics

Call it again, with any text and budget:
  $bin/dimmerctl --address 127.0.0.1:$grpc classify emotion "what a lovely day" --tau 0.1
$stories  grpcurl -plaintext -d '{"model": "emotion", "texts": ["what a lovely day"], "budget": {"flop_fraction": 0.5}}' \\
      127.0.0.1:$grpc dimmer.v1.Inference/Classify
Turn the light down for everyone who names no budget:
  grpcurl -plaintext -d '{"model": "emotion", "default_tau": 0.2}' 127.0.0.1:$admin dimmer.v1.Admin/SetTau
END
wait "$server" || true
