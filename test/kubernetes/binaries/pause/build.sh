#!/usr/bin/env bash
# Builds the program of the pause image.
set -euo pipefail
CGO_ENABLED=0 go build -ldflags '-s -w' -o "$1/pause" .
