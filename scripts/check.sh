#!/usr/bin/env bash
# Formatting, vet, linters, types, and that generated files are current.
set -uo pipefail
cd "$(dirname "$0")/.."
venv=build/venv/bin
failed=()

step() { # name command...
  local name=$1
  shift
  echo "==> $name"
  "$@" || failed+=("$name")
}

gofmt_clean() {
  local files
  files=$(gofmt -l $(git ls-files '*.go'))
  [[ -z $files ]] || { echo "not gofmt-ed (run make fmt):" && echo "$files" && return 1; }
}

mod_tidy() { go mod tidy -diff && (cd tools && go mod tidy -diff) && (cd tools/controller-gen && go mod tidy -diff); }

step "gofmt" gofmt_clean
step "go mod tidy" mod_tidy
step "generated files" scripts/generate.sh --check
step "go vet" go vet ./...
step "golangci-lint" build/tools/golangci-lint run ./...
step "ruff" "$venv/ruff" check sdk/python internal/picod/zygote
step "ruff format" "$venv/ruff" format --check sdk/python internal/picod/zygote
step "mypy" bash -c 'cd sdk/python && ../../build/venv/bin/mypy'
step "mypy, zygote" bash -c 'cd sdk/python && ../../build/venv/bin/mypy --python-version 3.11 ../../internal/picod/zygote/zygote.py'

if [[ ${#failed[@]} -gt 0 ]]; then
  echo "FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "all checks passed"
