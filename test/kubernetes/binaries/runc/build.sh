#!/usr/bin/env bash
# Builds runc. It needs cgo, for what enters namespaces and for seccomp.
set -euo pipefail
CGO_ENABLED=1 go build -tags seccomp -ldflags '-s -w' -o "$1/runc" github.com/opencontainers/runc
