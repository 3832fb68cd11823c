#!/usr/bin/env bash
# Makes what follows from the types in api/v1alpha1: generate.sh writes it,
# generate.sh --check fails when what is there is not what would be written.
# A check that has passed is remembered by a sum of all that it depends on.
set -euo pipefail
cd "$(dirname "$0")/.."
made=(api/v1alpha1/zz_generated.deepcopy.go deploy/chart/crds)
sum=build/generate.sum

inputs() { sha256sum go.mod scripts/generate.sh tools/controller-gen/go.* api/v1alpha1/*.go deploy/chart/crds/*; }

# Descriptions are cut short so that a resource, with all that a Pod has, fits into the
# annotation in which kubectl apply keeps what was applied last.
generate() { # folder for the Go code, folder for the resources
  build/tools/controller-gen paths=./api/v1alpha1 object "output:object:dir=$1" \
    crd:crdVersions=v1,maxDescLen=200 "output:crd:dir=$2"
}

if [[ ${1:-} != --check ]]; then
  mkdir -p deploy/chart/crds
  generate api/v1alpha1 deploy/chart/crds
  exit
fi

now=$(inputs)
[[ $now != "$(cat "$sum" 2>/dev/null)" ]] || exit 0
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/crds"
generate "$fresh" "$fresh/crds"
if ! diff -u "${made[0]}" "$fresh/$(basename "${made[0]}")" || ! diff -ru "${made[1]}" "$fresh/crds"; then
  echo "generated files are not current (run make generate-api and commit them)" >&2
  exit 1
fi
echo "$now" >"$sum"
