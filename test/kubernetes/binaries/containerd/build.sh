#!/usr/bin/env bash
# Builds containerd, its shim for runc, ctr, and the network plug-ins.
set -euo pipefail
CGO_ENABLED=0 go build -tags 'no_btrfs no_devmapper no_zfs' -ldflags '-s -w' -o "$1/" tool
