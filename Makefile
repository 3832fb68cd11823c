# AgentCube: build, test and run. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO      ?= go
PYTHON  ?= python3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

AGENTCUBE := bin/agentcube
PROGRAMS  := internal/sandbox/gvisor/agent/bin
PICOD     := $(PROGRAMS)/picod
SENTRY    := $(PROGRAMS)/gvisor_sentry.gz
IMAGE     := build/images/python.oci.tar
KUBEIMAGE := build/images/agentcube.oci.tar
VENV      := build/venv
KUBERNETES := build/kubernetes
LINT      := build/tools/golangci-lint
VULN      := build/tools/govulncheck
CRDGEN    := build/tools/controller-gen
HELM      := build/tools/helm
ADDR      ?= 127.0.0.1:8080

# One static binary, as users get it. The race detector alone needs cgo.
export CGO_ENABLED := 0

# Programs that start gVisor cannot be built with cgo, and so not with the race
# detector: the sandbox has no dynamic loader. The packages that link it are
# tested without; the end-to-end tests are not part of the unit tests.
define list_packages # $(1): the packages that link gVisor, = or !=
$(shell $(GO) list -f '{{.ImportPath}} {{join .Deps " "}}' ./... | \
	awk '$$1 !~ /\/test\// && (/ gvisor\.dev\/gvisor\// ? "=" : "!=") == "$(1)" {print $$1}')
endef
E2E_FLAGS ?=
KUBERNETES_FLAGS ?=

NODES       ?= 1000
SESSIONS    ?= 5000
CONCURRENCY ?= 20

DEFENCES ?=

FUZZTIME ?= 10s
FUZZ     ?= .
VULNDB   ?=

# What the Python SDK has to fulfil: its code blocks are run as they are.
SDK_README ?= ../shared/python-sdk-readme.md

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ use

.PHONY: quickstart
quickstart: build image venv ## install what is missing, build, start AgentCube, run the quick start
	@ADDR=$(ADDR) scripts/quickstart.sh

.PHONY: up
up: build image ## run AgentCube in the foreground, with the default image
	@$(AGENTCUBE) image import $(IMAGE) agentcube/python:latest
	@exec $(AGENTCUBE) up --listen $(ADDR)

##@ build

.PHONY: deps
deps: ## install the Debian packages that building and testing need
	@scripts/deps.sh

.PHONY: build
build: deps $(PICOD) $(SENTRY) ## build bin/agentcube, with the programs of a sandbox inside
	@echo "==> building $(AGENTCUBE)"
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(AGENTCUBE) ./cmd/agentcube

.PHONY: $(PICOD)
$(PICOD):
	@echo "==> building picod"
	@$(GO) build -trimpath -ldflags '-s -w' -o $(PICOD) ./cmd/picod

.PHONY: $(SENTRY)
$(SENTRY):
	@echo "==> building gVisor's kernel"
	@mkdir -p build && $(GO) build -trimpath -ldflags '-s -w' -o build/gvisor_sentry ./cmd/gvisor-sentry
	@sum=$$(sha256sum <build/gvisor_sentry); if [ ! -f $(SENTRY) ] || [ "$$(cat build/gvisor_sentry.sum 2>/dev/null)" != "$$sum" ]; then \
		gzip -6nc build/gvisor_sentry >$(SENTRY).tmp && mv $(SENTRY).tmp $(SENTRY) && echo "$$sum" >build/gvisor_sentry.sum; fi

.PHONY: generate
generate: generate-api ## make generated files again: custom resources, and the filters of gVisor's kernel (takes minutes)
	@$(GO) test ./internal/sandbox/gvisor/sentry -run TestFiltersAreCurrent -update

.PHONY: generate-api
generate-api: $(CRDGEN) ## make the custom resources and the copying of their types again (seconds; make check says when they are not current)
	@scripts/generate.sh

.PHONY: image
image: deps ## make the default image (cached while its recipe is unchanged)
	@images/python/build.sh $(IMAGE)

.PHONY: image-agentcube
image-agentcube: build ## pack AgentCube for Kubernetes as an image
	@images/agentcube/build.sh $(KUBEIMAGE) $(AGENTCUBE) $(PICOD)

# They are kept outside the tree, where other checkouts find them: see build.sh.
.PHONY: kubernetes-binaries
kubernetes-binaries: deps ## build the Kubernetes that tests run on (some ten minutes the first time)
	@scripts/deps.sh libseccomp-dev nftables pkg-config
	@test/kubernetes/binaries/build.sh $(KUBERNETES)

.PHONY: build-python-sdk
build-python-sdk: venv ## build the Python SDK's wheel and sdist into sdk/python/dist
	@rm -rf sdk/python/dist
	@$(VENV)/bin/python -m build --outdir sdk/python/dist sdk/python
	@ls -l sdk/python/dist

.PHONY: venv
venv: deps $(VENV)/.stamp

$(VENV)/.stamp: sdk/python/pyproject.toml
	@echo "==> making the Python environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --editable 'sdk/python[dev]'
	@touch $@

##@ test

.PHONY: test
test: build image venv ## run all tests
	@scripts/test.sh

.PHONY: test-go
test-go: build ## Go unit tests, with the race detector
	@echo "==> go test -race"
	@CGO_ENABLED=1 $(GO) test -race -timeout 15m $(call list_packages,!=)
	@echo "==> go test (packages that link gVisor)"
	@$(GO) test -timeout 10m $(call list_packages,=)

# Parsers of what others send: a moment each, as what is committed is tested by
# test-go already.
.PHONY: test-fuzz
test-fuzz: ## fuzz each target for 2 seconds
	@echo "==> fuzzing, 2 seconds each"
	@FUZZTIME=2s FUZZCOVERAGE= scripts/fuzz.sh

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME (10s); FUZZ=regexp picks some
	@FUZZTIME=$(FUZZTIME) FUZZ='$(FUZZ)' scripts/fuzz.sh

.PHONY: test-sdk
test-sdk: venv ## Python SDK tests
	@echo "==> pytest sdk/python"
	@cd sdk/python && ../../$(VENV)/bin/python -m pytest -q

.PHONY: test-e2e
test-e2e: build image venv ## end-to-end tests on the real binary and real sandboxes
	@echo "==> end-to-end tests"
	@[[ -r "$(SDK_README)" ]] || { echo "test-e2e: $(SDK_README) is missing: its code blocks are part of the tests; name it with SDK_README=FILE" >&2; exit 1; }
	@AGENTCUBE_BIN=$(CURDIR)/$(AGENTCUBE) AGENTCUBE_IMAGE=$(CURDIR)/$(IMAGE) \
	 AGENTCUBE_PYTHON=$(CURDIR)/$(VENV)/bin/python AGENTCUBE_SDK_README=$(abspath $(SDK_README)) \
	 $(GO) test -count 1 -timeout 20m $(E2E_FLAGS) $$($(GO) list ./test/... | grep -v /test/kubernetes/)

# One package after the other: a cluster takes all of a small machine to start.
.PHONY: test-kubernetes
test-kubernetes: kubernetes-binaries image image-agentcube venv $(HELM) ## tests on a real Kubernetes of one node, which they start and stop
	@echo "==> tests on Kubernetes"
	@[[ -r "$(SDK_README)" ]] || { echo "test-kubernetes: $(SDK_README) is missing: its code blocks are part of the tests; name it with SDK_README=FILE" >&2; exit 1; }
	@AGENTCUBE_KUBERNETES=$(CURDIR)/$(KUBERNETES) AGENTCUBE_HELM=$(CURDIR)/$(HELM) AGENTCUBE_CHART=$(CURDIR)/deploy/chart \
	 AGENTCUBE_KUBE_IMAGE=$(CURDIR)/$(KUBEIMAGE) AGENTCUBE_IMAGE=$(CURDIR)/$(IMAGE) AGENTCUBE_PICOD=$(CURDIR)/$(PICOD) \
	 AGENTCUBE_BIN=$(CURDIR)/$(AGENTCUBE) AGENTCUBE_PYTHON=$(CURDIR)/$(VENV)/bin/python AGENTCUBE_SDK=$(CURDIR)/sdk/python/src AGENTCUBE_SDK_README=$(abspath $(SDK_README)) \
	 $(GO) test -p 1 -parallel 4 -count 1 -timeout 20m $(KUBERNETES_FLAGS) ./test/kubernetes/...

# Nodes and sandboxes are simulated: see the package.
.PHONY: simulate-cluster
simulate-cluster: kubernetes-binaries build ## measure the control plane with many nodes, which are simulated: NODES, SESSIONS, CONCURRENCY
	@AGENTCUBE_KUBERNETES=$(CURDIR)/$(KUBERNETES) AGENTCUBE_BIN=$(CURDIR)/$(AGENTCUBE) \
	 $(GO) test -count 1 -timeout 60m ./test/kubernetes/scale -run TestCluster -v -args -simulate -nodes $(NODES) -sessions $(SESSIONS) -concurrency $(CONCURRENCY)

.PHONY: kubernetes
kubernetes: kubernetes-binaries ## run a shell with a Kubernetes of one node, for as long as the shell runs
	@$(GO) run ./test/kubernetes/cmd/cluster --binaries $(KUBERNETES) --tier services

# Not part of test: each defence takes a program of its own, a quarter of an hour in all.
.PHONY: test-security
test-security: build image venv ## run every attack, then each with its defence switched off, which a test has to notice; DEFENCES=regexp picks some
	@AGENTCUBE_BIN=$(CURDIR)/$(AGENTCUBE) AGENTCUBE_IMAGE=$(CURDIR)/$(IMAGE) \
	 AGENTCUBE_PYTHON=$(CURDIR)/$(VENV)/bin/python AGENTCUBE_SDK_README=$(abspath $(SDK_README)) \
	 $(GO) run ./test/security/cmd -python $(VENV)/bin/python -run '$(DEFENCES)'

.PHONY: bench
bench: build image ## measure, beside references
	@$(AGENTCUBE) bench --image-archive $(IMAGE)

# Ratios to references of the same run, against wide limits: a few samples do.
.PHONY: bench-check
bench-check: build image ## fail when something has become far slower or larger
	@echo "==> benchmark"
	@$(AGENTCUBE) bench --image-archive $(IMAGE) --samples 5 --limits test/bench/limits.json

##@ check

.PHONY: check
check: deps $(PICOD) $(SENTRY) venv $(LINT) $(CRDGEN) ## formatting, vet, linters, types
	@scripts/check.sh

$(LINT): tools/go.mod
	@echo "==> building golangci-lint (a few minutes the first time)"
	@cd tools && $(GO) build -o ../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

# A module of its own: what it needs of Kubernetes is of another age than what
# golangci-lint and AgentCube need.
$(CRDGEN): tools/controller-gen/go.mod
	@echo "==> building controller-gen"
	@cd tools/controller-gen && $(GO) build -o ../../$(CRDGEN) sigs.k8s.io/controller-tools/cmd/controller-gen
	@touch $@

# A module of its own as well.
$(HELM): tools/helm/go.mod
	@echo "==> building helm (a few minutes the first time)"
	@cd tools/helm && $(GO) build -trimpath -ldflags '-s -w' -o ../../$(HELM) helm.sh/helm/v4/cmd/helm
	@touch $@

# Not part of check: it asks the Go vulnerability database, over the network, or
# where a copy of it is: VULNDB=file:///path.
.PHONY: vuln
vuln: $(VULN) $(PICOD) $(SENTRY) ## look for known vulnerabilities in what is used (asks the Go vulnerability database)
	@echo "==> govulncheck"
	@$(VULN) $(if $(VULNDB),-db=$(VULNDB)) ./...

$(VULN): tools/go.mod
	@echo "==> building govulncheck"
	@cd tools && $(GO) build -o ../$(VULN) golang.org/x/vuln/cmd/govulncheck
	@touch $@

.PHONY: fmt
fmt: venv ## format Go and Python sources
	@gofmt -w $$(git ls-files '*.go')
	@$(VENV)/bin/ruff format sdk/python internal/picod/zygote

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin build $(PICOD) $(SENTRY)
