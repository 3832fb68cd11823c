#!/usr/bin/env bash
# Installs the Debian packages that AgentCube is built, tested and run with, and
# those that are named. Does nothing, and asks no package server, when they are there.
set -euo pipefail

packages=(erofs-utils mmdebstrap debian-archive-keyring ca-certificates git gcc libc6-dev "$@")
# The store is tested on real servers. Debian's redis-tools has the server, too, by
# the name redis-check-rdb; unlike redis-server it starts no service. Valkey is
# packaged likewise, where it is.
packages+=(redis-tools)
command -v valkey-check-rdb >/dev/null || ! apt-cache show valkey-tools >/dev/null 2>&1 || packages+=(valkey-tools)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
python3 -c 'import pip' 2>/dev/null || packages+=(python3-pip)

look() {
  missing=()
  for p in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null) == 'install ok installed' ]] || missing+=("$p")
  done
  [[ ${#missing[@]} -gt 0 ]] || exit 0
}
look

if [[ $EUID -ne 0 ]]; then
  echo "deps: missing Debian packages: ${missing[*]}" >&2
  echo "hint: run as root, or: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
# One at a time: apt-get does not wait for another that reads the lists.
mkdir -p "$(dirname "$0")/../build"
exec 9>"$(dirname "$0")/../build/deps.lock"
flock 9
look
echo "==> installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
