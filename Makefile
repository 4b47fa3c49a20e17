# kernel-gossip: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONTROLLER_GEN := go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# need installs the named Debian packages where one of them is missing.
need = @.ci/need $(1)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 20

VERSION := $(shell git describe --tags --always 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/prometheus/common/version.Version=$(VERSION) -X github.com/prometheus/common/version.Revision=$(VERSION)

.PHONY: build
build: ## both binaries, static, into bin/ (GOARCH=arm64 for the other kind)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/kernel-gossip-exporter ./exporter
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/kernel-gossip-operator ./operator

.PHONY: images
images: ## the container images for amd64 and arm64 into bin/images, each with its SBOM; the same source gives the same digests
	cd e2e && go run ./cmd/images -version '$(VERSION)' -ldflags '$(LDFLAGS)'

.PHONY: demo
demo: build ## a throttled workload on this kernel: metrics, alert, whisper (KEEP=1 leaves it open, REPLAY=1 replays a recording)
	@.ci/need --optional prometheus prometheus-alertmanager runc
	@cd e2e && CGO_ENABLED=0 go build -trimpath -o ../bin/demo ./demo
	@root=; [ -n "$(REPLAY)" ] || [ "$$(id -u)" = 0 ] || ! command -v sudo >/dev/null || ! sudo -v || root=sudo; \
	exec $$root bin/demo $(if $(KEEP),-keep) $(if $(REPLAY),-replay)

STAGES := bin/stages
stage = @.ci/stage $(STAGES)

.PHONY: test
test: ## everything that CI runs; ends with the lines of go test
	$(call need,clang-14 llvm-14 libbpf-dev gcc libc6-dev etcd-server prometheus prometheus-alertmanager chromium)
	@.ci/need --optional runc strace busybox-static podman stress-ng xz-utils
	@mkdir -p $(dir $(STAGES)) && rm -f $(STAGES)
	$(stage) lint $(MAKE) --no-print-directory lint
	$(stage) check-generated $(MAKE) --no-print-directory check-generated
	$(stage) rules-test $(MAKE) --no-print-directory rules-test
	$(stage) build-servers e2e/servers/build
	$(stage) test-chart go -C e2e/chart test -count=1 -timeout 10m ./...
	$(stage) test-e2e go -C e2e test -timeout 20m ./apiserver/... ./cluster/... ./cmd/... ./dashboards/... ./demo/... ./deploy/... ./images/... ./kernels/... ./kills/... ./operator/... ./page/... ./performance/... ./privileges/... ./recording/... ./scenario/... ./soak/... ./stages/... ./terminal/... ./traffic/... ./vmnode/... ./whatif/...
	$(stage) storm go test ./operator -count=1 -run '^TestTenThousandAlerts$$' # with -race it is smaller
	@echo; cat $(STAGES); echo
	go test -race -timeout 20m ./...

.PHONY: lint
lint: ## gofmt, go vet and the rest of golangci-lint
	$(GOLANGCI_LINT) run --allow-parallel-runners
	cd e2e && $(GOLANGCI_LINT) run --allow-parallel-runners
	cd e2e/chart && $(GOLANGCI_LINT) run --allow-parallel-runners
	cd e2e/recommenders && $(GOLANGCI_LINT) run --allow-parallel-runners
	cd e2e/cadvisor && $(GOLANGCI_LINT) run --allow-parallel-runners

FUZZTIME ?= 60s

.PHONY: fuzz
fuzz: ## each fuzz target of both modules for FUZZTIME (60s; FUZZ=CPU narrows by name)
	@failed=; for module in . e2e; do cd $(CURDIR)/$$module; \
	for dir in $$(grep -rl --include='*_test.go' --exclude-dir=e2e '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	targets=$$(go test -list '^Fuzz.*$(FUZZ)' $$dir) || { echo "$$targets"; exit 1; }; \
	for target in $$(grep '^Fuzz' <<<"$$targets" || true); do \
		echo "$$module/$${dir#./} $$target, $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$dir | tail -n 20 || failed="$$failed $$target"; \
	done; done; done; \
	[ -z "$$failed" ] || { echo "These found an input that breaks them, kept in testdata/fuzz:$$failed"; exit 1; }

.PHONY: kernels
kernels: ## the BPF tests on kernels 5.10 to the newest, in QEMU (KERNELS="oldest 6.1" and RUN=TestX narrow, RESULTS=1 writes the tables)
	$(call need,qemu-system-x86 debian-archive-keyring xz-utils stress-ng)
	cd e2e && go run ./cmd/kernels $(if $(RUN),-run '$(RUN)') $(if $(RESULTS),-markdown kernels/RESULTS.md)

.PHONY: e2e
e2e: ## a real cluster with kernel-gossip on it, and what it promises there (RUN="static|guest: .*lie" narrows, KEEP=1 leaves it up, RESULTS=1 writes the table, STARTS=3 measures pod starts instead)
	$(call need,etcd-server prometheus prometheus-alertmanager gcc libc6-dev libseccomp-dev pkg-config iptables iproute2 qemu-system-x86 debian-archive-keyring e2fsprogs strace busybox-static stress-ng xz-utils)
	cd e2e && go build -o ../bin/cluster ./cmd/cluster
	cd e2e && $(SUDO) env PATH="$$PATH" HOME="$$HOME" ../bin/cluster $(if $(RUN),-run '$(RUN)') $(if $(STARTS),-starts $(STARTS)) $(if $(RECORD),-record $(RECORD)) $(if $(KEEP),-keep) $(if $(RESULTS),-markdown scenario/RESULTS.md)

.PHONY: screenshots
screenshots: build ## the pictures in docs/images anew, of real workloads on this kernel; about two minutes, as root
	$(call need,chromium fonts-dejavu-core runc)
	cd e2e && go build -o ../bin/ ./cmd/load ./cmd/screenshots
	$(SUDO) bin/screenshots

.PHONY: latency
latency: build ## from the start of throttling to the object in a real API server, 50 times beside 250 other cgroups: writes its part of docs/performance.md (CONTAINERS=0)
	$(call need,etcd-server)
	cd e2e && go build -o ../bin/latency ./cmd/latency
	cd e2e && $(SUDO) env PATH="$$PATH" HOME="$$HOME" ../bin/latency -containers $(or $(CONTAINERS),250) -markdown ../docs/performance.md

.PHONY: bench
bench: ## what the probes cost on this kernel beside the usual ways, as root: writes docs/performance.md (ROUNDS=5, BENCHTIME=300ms)
	cd e2e && go build -o ../bin/performance ./cmd/performance
	cd e2e && $(SUDO) env PATH="$$PATH" HOME="$$HOME" ../bin/performance $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(BENCHTIME),-benchtime $(BENCHTIME))

.PHONY: bench-beside
bench-beside: build ## the exporter beside cAdvisor and node_exporter on 20 to 1,000 containers, as root: writes its part of docs/performance.md (CONTAINERS=250 narrows)
	$(call need,prometheus-node-exporter)
	cd e2e && go build -o ../bin/beside ./cmd/beside && go -C cadvisor build -o ../../bin/cadvisor .
	cd e2e && $(SUDO) ../bin/beside $(if $(CONTAINERS),-containers $(CONTAINERS))

.PHONY: soak
soak: build ## the exporter beside 250 cgroups and 10 that come and go a second: what it holds stays flat (LENGTH=60m)
	cd e2e && go build -o ../bin/soak ./cmd/soak
	cd e2e && $(SUDO) ../bin/soak $(if $(LENGTH),-length $(LENGTH))

.PHONY: kills
kills: ## kill -9 and upgrades of both programs at random under load, as root: nothing is lost (LENGTH=10m)
	cd e2e && $(SUDO) env PATH="$$PATH" HOME="$$HOME" LENGTH=$(LENGTH) go test ./kills -count=1 -v -timeout 60m

TRACES := e2e/whatif/testdata
.PHONY: bench-whatif
bench-whatif: ## how far what-if predictions are off on this kernel, and what following them comes to, beside others: writes docs/limits.md; about an hour on a quiet machine, as root (SEEDS=1)
	cd e2e && go build -o ../bin/whatif ./cmd/whatif
	for seed in $(or $(SEEDS),1 2); do $(SUDO) bin/whatif -traces bin/traces-$$seed.txt -seed $$seed && gzip -9nc bin/traces-$$seed.txt >$(TRACES)/$$seed.txt.gz; done
	@$(MAKE) --no-print-directory eval-whatif

.PHONY: eval-whatif
eval-whatif: ## the same from the runs that are recorded, without new ones
	cd e2e && go run ./cmd/whatif evaluate -markdown ../docs/limits.md whatif/testdata/*.txt.gz
	cd e2e/recommenders && go run . -markdown ../../docs/limits.md ../whatif/testdata/*.txt.gz

.PHONY: record
record: ## what the dashboards' tests play: five minutes of a real cluster, on this kernel and on one with cgroup v2
	@$(MAKE) --no-print-directory e2e RECORD=$(CURDIR)/dashboards/testdata

.PHONY: rules-test
rules-test: ## the rules by promtool, the Alertmanager fragment by amtool
	$(call need,prometheus prometheus-alertmanager)
	promtool check rules rules/*.rules.yml
	promtool test rules rules/tests/*.yml
	amtool check-config rules/alertmanager.yml
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipMetricsLie
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipMemoryStalled
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipOOMKilled
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipAcceptQueueFull
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=kernel-gossip-operator alertname=KernelGossipSecurityEvent
	amtool config routes test --config.file=rules/alertmanager.yml --verify.receivers=default alertname=SomebodyElses

.PHONY: generate
generate: ## BPF objects, CRDs, deep copies, PrometheusRules, dashboards, manifests, the README's tables
	$(call need,clang-14 llvm-14 libbpf-dev)
	go generate ./...
	go -C e2e/chart run ./cmd/generate

.PHONY: check-generated
check-generated: ## name the generated files that are stale; changes nothing
	$(call need,clang-14 llvm-14 libbpf-dev)
	@.ci/check-generated
