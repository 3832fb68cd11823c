#!/bin/bash
# Builds the default image of AgentCube as an OCI archive:
#
#   sudo images/python/build.sh build/images/python.oci.tar
#
# Needs root, Debian 12, mmdebstrap, Python 3 with pip, and Go; no container
# engine. Packages come from the mirrors that this machine's apt and pip are set
# up with. Nothing is done when the archive is newer than its recipe (a hash of
# the recipe lies beside it); FORCE=1 builds anyway.
# SOURCE_DATE_EPOCH is the time written into the image.
set -euo pipefail

out=${1:?usage: build.sh ARCHIVE}
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
started=$SECONDS

say() { printf 'python image: %s (%ds)\n' "$*" $((SECONDS - started)); }
die() { printf 'python image: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root: files in the image have owners"
for tool in mmdebstrap apt-get python3 go; do
  command -v "$tool" >/dev/null || die "needs $tool"
done
[ -r "$keyring" ] || die "needs the package debian-archive-keyring"

mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
stamp=$(cat "$here/build.sh" "$here/requirements.txt" "$here"/mkoci/*.go "$repo"/internal/image/ociwrite/{archive,tardir}.go |
  { cat; echo "$SOURCE_DATE_EPOCH $(uname -m)"; } | sha256sum | cut -d' ' -f1)
if [ -z "${FORCE:-}" ] && [ -s "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then
  say "up to date: $out"
  exit 0
fi

work=$(mktemp -d "$(dirname "$out")/.python-image-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$work/root

# The machine's own Debian mirrors, as lines of a sources.list.
debian_sources() {
  apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
    awk -F'|' -v suite="$suite" -v key="$keyring" \
      '$1 == "Debian" && $3 == "main" && ($2 == suite || index($2, suite "-") == 1) \
       { print "deb [signed-by=" key "] " $4 " " $2 " " $3 }' | sort -u
}

say "reading the machine's package sources"
debian_sources >"$work/sources.list"
if ! grep -q " $suite " "$work/sources.list"; then
  apt-get update -qq # apt knows where its sources come from only after this
  debian_sources >"$work/sources.list"
fi
grep -q " $suite " "$work/sources.list" ||
  die "this machine's apt has no Debian $suite (main): run this on Debian 12"

# Proxies and the like, in case this machine needs them.
apt-config dump | grep -E '^Acquire::https?::' >"$work/apt.conf" || true
echo 'APT::Install-Recommends "false";' >>"$work/apt.conf"

say "installing Debian packages"
mmdebstrap --quiet --mode=root --variant=essential \
  --include=python3,bash,coreutils,git,curl,ca-certificates,libstdc++6 \
  --aptopt="$work/apt.conf" \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/lintian/*' \
  --dpkgopt='path-exclude=/usr/share/gitweb/*' \
  "$suite" "$root" - <"$work/sources.list"

say "installing Python wheels"
site=usr/local/lib/python3.11/dist-packages
machine=$(uname -m)
python3 -m pip install --quiet --no-deps --require-hashes --only-binary=:all: --no-compile \
  --no-warn-conflicts --root-user-action=ignore --disable-pip-version-check \
  --implementation cp --python-version 3.11 \
  --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
  --target "$root/$site" --requirement "$here/requirements.txt"

say "removing what a sandbox does not need"
cd "$root"
# Tests, headers, stubs and sources of the wheels; their licences stay.
rm -rf "$site/bin" "$site/share"
find "$site" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$site"/matplotlib/mpl-data/sample_data "$site"/numpy/_core/include "$site"/numpy/_core/lib
find "$site" -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.[ch]' -o -name '*.a' -o -name RECORD \) -delete
# Debugging information of extension modules; the libraries in *.libs were
# rewritten after linking, and strip is known to break such files.
if command -v strip >/dev/null; then
  find "$site" -name '*.so' -not -path '*.libs/*' -exec strip --strip-debug {} +
else
  say "no strip (binutils) on this machine: the image will be 20 MB larger"
fi
# Perl beyond perl-base: only git's rarer commands and debconf use it.
rm -rf usr/share/perl/5* usr/share/perl5 usr/lib/*-linux-gnu/perl/5* usr/lib/*-linux-gnu/libperl.so* usr/bin/perl5.*-*
find usr/lib/git-core -type f -exec grep -Ilq '^#!/usr/bin/perl' {} \; -delete
# Parts of git that serve or push over protocols of the past, and a second copy of git.
rm -f usr/lib/git-core/git-{http-push,http-fetch,http-backend,daemon,imap-send,shell,credential-cache,credential-cache--daemon} \
  usr/lib/git-core/scalar usr/bin/{scalar,git-shell}
ln -sf ../../bin/git usr/lib/git-core/git
# Character sets that nobody has sent for twenty years; Python brings its own.
find usr/lib/*-linux-gnu/gconv -name '*.so' ! -name 'UTF-*' ! -name 'ISO8859-*' ! -name 'CP125*' ! -name UNICODE.so -delete
rm -f usr/lib/*-linux-gnu/gconv/gconv-modules.cache
rm -rf usr/lib/python3.11/test usr/lib/python3.11/pydoc_data usr/lib/python3.11/ensurepip \
  usr/share/bash-completion usr/share/python3/debpython usr/share/pixmaps usr/share/zoneinfo/{right,posix}
rm -rf var/cache/* var/log/* var/lib/apt var/lib/dpkg/*-old var/lib/debconf var/tmp/* tmp/* run/* root/.[a-z]*
rm -f etc/hostname etc/resolv.conf etc/machine-id var/lib/dbus/machine-id \
  etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/apt/sources.list etc/ld.so.cache~
rm -rf etc/apt

say "making the user, the workspace and the caches"
echo 'agent:x:1000:1000:sandbox user:/workspace:/bin/bash' >>etc/passwd
echo 'agent:x:1000:' >>etc/group
echo 'agent:!:19700:0:99999:7:::' >>etc/shadow
echo 'agent:!::' >>etc/gshadow
install -d -m 0755 -o 1000 -g 1000 workspace
install -d -m 0700 -o 0 -g 0 root
ln -sf python3 usr/bin/python
install -d -m 0755 -o 1000 -g 1000 var/cache/matplotlib

# Byte code that is trusted without comparing times: times do not survive every
# way an image travels, and a sandbox must not compile at each import.
find usr -name __pycache__ -prune -exec rm -rf {} +
in_image() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 PYTHONHASHSEED=0 "$@"; }
in_image python3 -m compileall -q -j 2 --invalidation-mode unchecked-hash /usr/lib/python3.11 /usr/lib/python3 "/$site"
in_image MPLBACKEND=Agg MPLCONFIGDIR=/var/cache/matplotlib python3 -c 'import matplotlib.pyplot, matplotlib.font_manager'
rm -rf var/cache/matplotlib/*.matplotlib-lock
chown -R 1000:1000 var/cache/matplotlib

say "packing"
cd "$repo"
CGO_ENABLED=0 go run ./images/python/mkoci -root "$root" -out "$out" -name agentcube/python:latest \
  -epoch "$SOURCE_DATE_EPOCH" -user 1000:1000 -workdir /workspace \
  -env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  -env LANG=C.UTF-8 -env MPLBACKEND=Agg -env MPLCONFIGDIR=/var/cache/matplotlib \
  -label org.opencontainers.image.title='AgentCube Python' \
  -label org.opencontainers.image.description='Python 3 with NumPy, pandas, matplotlib and requests; bash, git and curl' \
  -- python3
echo "$stamp" >"$out.stamp"
say "done: $out, $(du -m "$out" | cut -f1) MB; unpacked $(du -sm "$root" | cut -f1) MB"
