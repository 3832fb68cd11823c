#!/usr/bin/env bash
# Fuzzes each target for FUZZTIME, one after the other. What is found is written
# to testdata/fuzz of its package, where plain `go test` runs it from then on.
# FUZZ, a regular expression, picks targets by package and name.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-10s}
pick=${FUZZ:-.}
# With an empty FUZZCOVERAGE the programs are those of other tests, which takes no time
# to build: then what is committed is varied, and nothing learned from it.
build=()
[[ -z ${FUZZCOVERAGE-yes} ]] || build=(-fuzz .)
cache=$(go env GOCACHE)/fuzz
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# fuzz package target. Go's fuzzing may report the end of its own time as a failure,
# with nothing else (golang/go#75804, until Go 1.27): that is no finding.
fuzz() {
  local out program=$built/${1//\//_}.test
  [[ -x $program ]] || go test -c "${build[@]}" -o "$program" "./$1" || return 1
  if out=$(cd "$1" && "$program" -test.timeout 30m -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x \
    -test.fuzzcachedir "$cache/$(go list)" -test.parallel "${FUZZWORKERS:-2}" 2>&1); then
    grep -E '^fuzz: elapsed' <<<"$out" | tail -n 1
    return 0
  fi
  if grep -q 'context deadline exceeded' <<<"$out" && ! grep -qE 'Failing input|panic:|hung or terminated|while testing seed corpus' <<<"$out"; then
    return 0
  fi
  printf '%s\n' "$out"
  return 1
}

failed=()
while read -r file target; do
  package=$(dirname "$file")
  [[ "$package $target" =~ $pick ]] || continue
  echo "==> $package $target"
  fuzz "$package" "$target" || failed+=("$package $target")
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func / /' | sort)
if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
