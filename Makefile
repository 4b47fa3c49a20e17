# kernel-gossip: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONTROLLER_GEN := go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# need installs the named Debian packages where one of them is missing.
need = @missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20

VERSION := $(shell git describe --tags --always 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/prometheus/common/version.Version=$(VERSION) -X github.com/prometheus/common/version.Revision=$(VERSION)

.PHONY: build
build: ## both binaries, static, into bin/ (GOARCH=arm64 for the other kind)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/kernel-gossip-exporter ./exporter
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/kernel-gossip-operator ./operator

.PHONY: demo
demo: build ## a throttled workload on this kernel: metrics, alert, whisper (KEEP=1 leaves it open)
	$(call need,prometheus prometheus-alertmanager)
	@cd e2e && go build -trimpath -o ../bin/demo ./demo
	@if [ "$$(id -u)" = 0 ]; then exec bin/demo; else exec sudo --preserve-env=KEEP bin/demo; fi

.PHONY: test
test: lint check-generated rules-test ## everything that CI runs
	$(call need,etcd-server)
	e2e/servers/build
	cd e2e && go test -timeout 20m ./apiserver/... ./deploy/... ./kernels/... ./operator/...
	go test -race -timeout 20m ./...

.PHONY: lint
lint: ## gofmt, go vet and the rest of golangci-lint
	$(GOLANGCI_LINT) run
	cd e2e && $(GOLANGCI_LINT) run

.PHONY: kernels
kernels: ## the BPF tests on kernels 5.10 to the newest, in QEMU (KERNELS="oldest 6.1" narrows, RESULTS=1 writes the tables)
	$(call need,qemu-system-x86 debian-archive-keyring)
	cd e2e && go run ./cmd/kernels $(if $(RESULTS),-markdown kernels/RESULTS.md)

.PHONY: e2e
e2e: ## a real cluster with kernel-gossip on it, and what it promises there (as root)
	$(call need,etcd-server prometheus prometheus-alertmanager gcc libc6-dev libseccomp-dev pkg-config iptables iproute2)
	cd e2e && go build -o ../bin/cluster ./cmd/cluster
	cd e2e && $(SUDO) env PATH="$$PATH" HOME="$$HOME" ../bin/cluster -markdown ../bin/cluster.md

.PHONY: latency
latency: build ## from the start of throttling to the object in a real API server, 50 times
	$(call need,etcd-server)
	cd e2e && go run ./cmd/latency

.PHONY: rules-test
rules-test: ## the rules by promtool, the Alertmanager fragment by amtool
	$(call need,prometheus prometheus-alertmanager)
	promtool check rules rules/*.rules.yml
	promtool test rules rules/tests/*.yml
	amtool check-config rules/alertmanager.yml
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipMetricsLie
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=default alertname=SomebodyElses

.PHONY: generate
generate: ## BPF objects, CRDs, deep copies, PrometheusRules, the README's tables
	$(call need,clang-14 llvm-14 libbpf-dev)
	go generate ./...

.PHONY: check-generated
check-generated: ## fail where generate would change a file
	@sums=$$(mktemp); trap 'rm -f $$sums' EXIT; git ls-files -z | xargs -0 sha256sum >$$sums; \
	$(MAKE) --no-print-directory generate; \
	sha256sum --check --quiet $$sums || { echo "These files were stale. make generate has made them anew: commit them."; exit 1; }
