#!/bin/bash
# Packs AgentCube for Kubernetes as an OCI archive:
#
#   images/agentcube/build.sh ARCHIVE AGENTCUBE PICOD
#
# In it are the two programs, which are static, the authorities that sign
# certificates of public servers, and nothing else. Its user is not root. Nothing
# is done when the programs are those of the archive that is there.
set -euo pipefail

out=${1:?usage: build.sh ARCHIVE AGENTCUBE PICOD}
agentcube=${2:?}
picod=${3:?}
here=$(cd "$(dirname "$0")" && pwd)
authorities=/etc/ssl/certs/ca-certificates.crt

mkdir -p "$(dirname "$out")"
stamp=$(cat "$here/build.sh" "$agentcube" "$picod" "$authorities" | sha256sum | cut -d' ' -f1)
if [ -s "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "agentcube image: up to date: $out"
  exit 0
fi
work=$(mktemp -d "$(dirname "$out")/.agentcube-image-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc/ssl/certs" "$work/tmp"
chmod 1777 "$work/tmp"
install -m 0555 "$agentcube" "$work/agentcube"
install -m 0555 "$picod" "$work/picod"
install -m 0444 "$authorities" "$work/etc/ssl/certs/"
echo 'agentcube:x:65532:65532::/:/agentcube' >"$work/etc/passwd"
chmod 755 "$work"
cd "$here/../.."
go run ./images/python/mkoci -root "$work" -out "$out" -name agentcube/agentcube:latest -epoch 1767225600 \
  -user 65532:65532 -workdir / -- /agentcube
echo "$stamp" >"$out.stamp"
echo "agentcube image: made $out"
