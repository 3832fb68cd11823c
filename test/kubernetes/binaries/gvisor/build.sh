#!/usr/bin/env bash
# Builds runsc and gVisor's shim for containerd.
#
# The shim makes itself unlikely to be killed when memory is short, which takes
# CAP_SYS_RESOURCE, and gives up where it may not. Test machines may lack it, so
# here the shim goes on: its source is copied for that. Users take gVisor's own.
set -euo pipefail
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp go.mod go.sum "$copy"
cd "$copy"
go mod vendor 2>/dev/null
shim=vendor/gvisor.dev/gvisor/pkg/shim/v1/manager.go
give_up='sys.SetOOMScore(cmd.Process.Pid, oomScoreMax); err != nil'
if [[ $(grep -cF "$give_up" "$shim") != 1 ]]; then
  echo "gvisor: $shim is not as expected: see what became of oomScoreMax" >&2
  exit 1
fi
sed -i "s/$give_up/& \&\& !os.IsPermission(err)/" "$shim"

export CGO_ENABLED=0 GOFLAGS="${GOFLAGS/-mod=readonly/-mod=vendor}"
go build -ldflags '-s -w' -o "$1/runsc" gvisor.dev/gvisor/runsc
go build -ldflags '-s -w' -o "$1/containerd-shim-runsc-v1" gvisor.dev/gvisor/shim
