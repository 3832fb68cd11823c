#!/usr/bin/env bash
# Builds etcd.
set -euo pipefail
CGO_ENABLED=0 go build -ldflags '-s -w' -o "$1/etcd" .
