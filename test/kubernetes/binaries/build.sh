#!/usr/bin/env bash
# Makes the programs of the cluster that tests run on: build.sh DIR leaves them
# in DIR, by name.
#
# Each folder beside this script is a module with pinned versions and a build.sh.
# What that makes is kept, by a sum of the folder, in CACHE, which checkouts and
# worktrees share: building everything takes some fifteen minutes, and only what
# has changed is built. The build cache of Go for it, gigabytes, is thrown away,
# unless KUBERNETES_GOCACHE names one.
set -euo pipefail
into=$(realpath -m "${1:?usage: build.sh DIR}")
cd "$(dirname "$0")"
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentcube/kubernetes}
mkdir -p "$cache"
cache=$(realpath "$cache")
gocache=${KUBERNETES_GOCACHE:-$cache/go-build}
export GOFLAGS='-mod=readonly -trimpath -buildvcs=false' GOWORK=off

# One at a time; whoever waited finds it done.
exec 9>"$cache/lock"
flock 9
cleanup() {
  rm -rf "$cache"/unfinished-*
  [[ -n ${KUBERNETES_GOCACHE:-} ]] || rm -rf "$gocache"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# progress hides the names of packages, and says from time to time how many.
progress() { # module
  awk -v module="$1" -v start="$SECONDS" '
    /^[a-zA-Z0-9_.~\/-]+$/ { if (++n % 250 == 0) { printf "    %s: %d packages\n", module, n; fflush() } next }
    /^go: downloading / { next }
    { print; fflush() }'
}

# build prints nothing where the module has been built before.
build() { # module
  local sum began=$SECONDS
  sum=$(cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)
  place=$cache/$1-${sum:0:16}
  if [[ ! -d $place ]]; then
    echo "==> building $1"
    local work=$cache/unfinished-$1
    rm -rf "$work"
    mkdir "$work"
    (cd "$1" && GOCACHE=$gocache GOFLAGS="$GOFLAGS -v" bash build.sh "$work" 2>&1) | progress "$1"
    mv "$work" "$place"
    echo "    $1: $(du -sh "$place" | cut -f 1) after $((SECONDS - began)) s"
  fi
  touch "$place"
}

mkdir -p "$into"
declare -A current
for recipe in */build.sh; do
  module=$(dirname "$recipe")
  build "$module"
  for program in "$place"/*; do
    ln -sfn "$program" "$into/$(basename "$program")"
    current[$(basename "$program")]=yes
  done
done
for program in "$into"/*; do
  [[ -n ${current[$(basename "$program")]:-} ]] || rm -f "$program"
done
# What no checkout has asked for in a month is of an older recipe.
find "$cache" -mindepth 1 -maxdepth 1 -type d -name '*-????????????????' -mtime +30 -exec rm -rf {} +
