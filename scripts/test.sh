#!/usr/bin/env bash
# Runs every test suite, each to its end, and fails when any fails.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
for suite in test-go test-sdk test-e2e bench-check test-fuzz; do
  make "$suite" || failed+=("$suite")
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "all suites passed"
