#!/bin/bash
# Checks an archive that build.sh wrote:
#
#   sudo images/python/check.sh build/images/python.oci.tar
#
# It turns the archive into EROFS as AgentCube does, unpacks that, and runs the
# promised programs in it as the unprivileged user, without a network. It prints
# the sizes and how long imports take.
set -euo pipefail

archive=${1:?usage: check.sh ARCHIVE}
repo=$(cd "$(dirname "$0")/../.." && pwd)
archive=$(realpath "$archive")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] || { echo "check.sh: must run as root" >&2; exit 1; }
(cd "$repo" && CGO_ENABLED=0 go run ./images/python/toerofs -store "$work/store" -archive "$archive" -config "$work/config.env") >"$work/rootfs"
rootfs=$(cat "$work/rootfs")
fsck.erofs --extract="$work/root" "$rootfs" >/dev/null

# As the agent of a sandbox would: the image's environment, uid 1000, HOME in
# the workspace; here with no network but an empty loopback, and no /dev or /proc.
mapfile -t env <"$work/config.env"
in_sandbox() {
  unshare --net --pid --fork --ipc chroot --userspec=1000:1000 --groups= "$work/root" \
    /usr/bin/env -i -C /workspace "${env[@]}" HOME=/workspace "$@"
}
expect() { # expect TEXT COMMAND...: the output must hold the text
  local want=$1 got
  shift
  if ! got=$(in_sandbox "$@" 2>&1) || [[ $got != *"$want"* ]]; then
    printf 'check.sh: %s\n  wanted %q in\n  %s\n' "$*" "$want" "$got" >&2
    exit 1
  fi
}
mknod -m 666 "$work/root/dev/null" c 1 3
mknod -m 666 "$work/root/dev/urandom" c 1 9

expect 'uid=1000(agent) gid=1000(agent)' id
expect /workspace bash -c 'echo data >file && cat file >/dev/null && rm file && pwd'
expect 'git version' git --version
expect 'master' bash -c 'cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git branch'
expect 'https' curl --version
expect 'Python 3.11' python --version
expect 'Python 3.11' python3 --version
expect 'ok' python3 -c 'import ssl, sqlite3, lzma, bz2, ctypes, decimal, zoneinfo, numpy.testing; zoneinfo.ZoneInfo("Europe/Paris"); print("ok")'
expect '/dist-packages/certifi/cacert.pem' python3 -c 'import requests, certifi; print(certifi.where())'
expect '2.0' python3 -c 'import pandas as pd; print(pd.DataFrame({"a": [1, 2, 3]}).describe().loc["mean", "a"])'
expect 'Agg PNG' python3 -W error -c '
import io, matplotlib, matplotlib.pyplot as plt
plt.plot([1, 2], [3, 4]); plt.title("π ≈ 3.14")
out = io.BytesIO(); plt.savefig(out)
print(matplotlib.get_backend(), out.getvalue()[1:4].decode())'
expect 'nothing new' bash -c 'find / -xdev -newer /etc/passwd -name "*.pyc" -o -newer /etc/passwd -name "fontlist*" | grep . || echo nothing new'

printf 'archive %d MB, EROFS %d MB, %d files\n' \
  $(($(stat -c %s "$archive") / 1000000)) $(($(stat -c %s "$rootfs") / 1000000)) "$(find "$work/root" | wc -l)"
for modules in sys numpy pandas matplotlib.pyplot requests numpy,pandas,matplotlib.pyplot,requests; do
  in_sandbox python3 -c "
import sys, time
t = time.perf_counter()
import $modules
print(f'import {sys.argv[1]}: {(time.perf_counter() - t) * 1000:.0f} ms')" "$modules"
done
echo "check.sh: all well"
