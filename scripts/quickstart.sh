#!/usr/bin/env bash
# Shows AgentCube at work: starts it, runs the Python SDK's examples in real
# sandboxes, stops it, and sees to it that nothing stays behind. `make
# quickstart` calls it after everything was built. An AgentCube that already
# answers at ADDR is used instead, and left running. What it runs can be named, for
# tests, by the variables QUICKSTART_... below.
set -euo pipefail
cd "$(dirname "$0")/.."

addr=${ADDR:-127.0.0.1:8080}
agentcube=${QUICKSTART_AGENTCUBE:-bin/agentcube}
python=${QUICKSTART_PYTHON:-build/venv/bin/python}
image=agentcube/python:latest
archive=${QUICKSTART_IMAGE:-build/images/python.oci.tar}
log=${QUICKSTART_LOG:-build/quickstart.log}
examples=sdk/python/examples
server='' # process id of the AgentCube that this script started
data=''
before='' # what there was of sandboxes when it was started

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'quickstart: %s\n' "$1" >&2
  [[ $# -lt 2 ]] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

# answers: an AgentCube is there and takes our token.
answers() { "$agentcube" --server "http://$addr" session ls --limit 1 >/dev/null 2>&1; }

stop() {
  [[ -n $server ]] || return 0
  kill -TERM "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=''
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start() {
  [[ $EUID -eq 0 ]] || fail 'sandboxes need namespaces and control groups, which only root can make' 'sudo make quickstart'
  data=$("$agentcube" config print -o json | "$python" -c '
import json, sys
print(next(s["value"] for s in json.load(sys.stdin)["settings"] if s["key"] == "dataDir"))')
  say "importing the image $image into $data (a few seconds the first time)"
  "$agentcube" image import "$archive" "$image" >/dev/null ||
    fail "the image $image was not imported" "$agentcube doctor says what this machine lacks"
  before=$(leftovers)

  say "starting AgentCube on http://$addr (log: $log)"
  # A session of its own, so that Ctrl-C reaches this script alone, which then
  # stops the server once and gently.
  setsid "$agentcube" up --listen "$addr" >"$log" 2>&1 </dev/null &
  server=$!
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    if ! kill -0 "$server" 2>/dev/null; then
      wait "$server" || true
      server=''
      cat "$log" >&2
      fail 'AgentCube did not start; its log is above' "$agentcube doctor says what this machine lacks; ADDR=127.0.0.1:9090 make quickstart takes another port"
    fi
    ! answers || return 0
    sleep 0.1
  done
  cat "$log" >&2
  fail 'AgentCube was not ready after 30 seconds; its log is above' "$agentcube doctor says what this machine lacks"
}

example() { # file, text that its output must hold
  local out
  say "$examples/$1"
  if ! out=$("$python" "$examples/$1"); then
    printf '%s\n' "$out"
    [[ -z $server ]] || tail -n 20 "$log" >&2
    fail "$1 failed${server:+; the last lines of $log are above}" "$agentcube doctor says what this machine lacks"
  fi
  printf '%s\n' "$out" | sed 's/^/    /'
  [[ $out == *"$2"* ]] || fail "the output of $1 does not hold: $2"
}

# leftovers prints what exists of sandboxes below the data folder, sorted.
leftovers() {
  {
    find "$data"/{sandboxes,runs,snapshots} -mindepth 1 -maxdepth 1 2>/dev/null || true
    grep -als -- "=$data/runs/" /proc/[0-9]*/cmdline || true
  } | sort
}

status=0
answers || status=$?
case $status in
  0) say "using the AgentCube that already answers on http://$addr" ;;
  5) fail "an AgentCube answers on http://$addr, but does not take the token of $("$agentcube" token)" \
    'stop it, give the path of its token in AGENTCUBE_TOKEN_FILE, or take another port: ADDR=127.0.0.1:9090 make quickstart' ;;
  *) start ;;
esac

export WORKLOAD_MANAGER_URL=http://$addr ROUTER_URL=http://$addr
example quickstart.py 'Pi is approximately 3.1416'
example files.py ',day,visitors'
example manual_lifecycle.py 'Session started'

if [[ -n $server ]]; then
  say 'stopping AgentCube'
  stop
  left=$(comm -13 <(printf '%s\n' "$before") <(leftovers))
  [[ -z $left ]] || fail "left behind:
$left"
  say 'all went well; nothing is left running'
else
  say 'all went well; AgentCube is still running'
fi

settings=''
[[ $addr == 127.0.0.1:8080 ]] || settings="
      export WORKLOAD_MANAGER_URL=http://$addr ROUTER_URL=http://$addr"
cat <<NEXT

Next, in one terminal:
      make up$([[ $addr == 127.0.0.1:8080 ]] || echo " ADDR=$addr")
and in another:$settings
      $python
      >>> from agentcube import CodeInterpreterClient
      >>> with CodeInterpreterClient() as client:
      ...     print(client.run_code("python", "print(6 * 7)"))
NEXT
