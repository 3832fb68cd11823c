#!/usr/bin/env bash
# Builds the programs of Kubernetes and kubectl, one file with many names.
set -euo pipefail
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
flags='-s -w'
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
done
CGO_ENABLED=0 go build -ldflags "$flags" -o "$1/kubernetes" .
for program in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do
  ln -s kubernetes "$1/$program"
done
