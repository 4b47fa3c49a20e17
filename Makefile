# kernel-gossip: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CONTROLLER_GEN := go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# need installs the named Debian packages where one of them is missing.
need = @missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20

.PHONY: test
test: rules-test ## everything that CI runs
	$(call need,etcd-server)
	go vet ./...
	@out=$$(gofmt -l bpf exporter operator rules e2e); [ -z "$$out" ] || { echo "gofmt would change: $$out"; exit 1; }
	cd e2e && go vet ./... && go test -timeout 20m ./apiserver/...
	go test -race -timeout 20m ./...

.PHONY: rules-test
rules-test: ## the rules by promtool, the Alertmanager fragment by amtool
	$(call need,prometheus prometheus-alertmanager)
	promtool check rules rules/*.rules.yml
	promtool test rules rules/tests/*.yml

.PHONY: generate
generate: ## BPF objects, CRDs, deep copies, PrometheusRules
	$(call need,clang llvm libbpf-dev)
	go generate ./...
