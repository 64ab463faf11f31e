# NemoClaw. `make help` lists what there is; docs/ says the rest.
#
# Go and the linter come from .cache/tools when scripts/setup put them there, else from PATH.

export PATH := $(CURDIR)/.cache/tools/bin:$(PATH):/usr/local/go/bin:/usr/sbin:/sbin
# The toolchain is the one that scripts/setup chose: Go must not fetch another by itself.
export GOTOOLCHAIN := local

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -X main.version=$(VERSION)
BUILD     := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
# What loads the libraries of NVIDIA's driver can't be static.
BUILD_C   := CGO_ENABLED=1 go build -trimpath -buildvcs=false -tags netgo,osusergo -ldflags '$(LDFLAGS)'
# The date of the manual pages: the same sources give the same bytes.
EPOCH     = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
PREFIX    ?= /usr/local
SYSCONFDIR ?= /etc
# Two at a time: the project's machines have two cores, and more only makes the timings lie.
JOBS      ?= 2
FUZZTIME  ?= 20s
SOAKTIME  ?= 30m
# What is generated: BPF objects, the sandbox's init, and what Prometheus and Grafana get. It is committed.
GENERATED := bpf agent/sandbox deploy
# Packages with tests that need root and a kernel; test-fast has run the others.
E2E       = $(addprefix ./,$(sort $(dir $(shell git grep -lE '^//go:build .*\be2e\b' -- '*.go'))))
C_FILES   = $(shell git ls-files '*.c' '*.h' ':!:**/vmlinux*.h')
SH_FILES  = .ci/run $(shell git ls-files scripts)

.DEFAULT_GOAL := build
.PHONY: help build man install generate check-generated lint test test-fast test-tamper test-e2e test-vm test-gpu race fuzz bench soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/nemoclaw and bin/nemoclaw-agent, static; with a C compiler also bin/nemoclaw-gpu, which asks NVIDIA's driver
	$(BUILD) -o bin/nemoclaw ./cmd/nemoclaw
	$(BUILD) -o bin/nemoclaw-agent ./cmd/nemoclaw-agent
	@rm -f bin/nemoclaw-gpu
	@if echo 'int main(void) { return 0; }' | $${CC:-cc} -x c -o /dev/null - 2>/dev/null; then $(BUILD_C) -o bin/nemoclaw-gpu ./cmd/nemoclaw-gpu; \
	  else echo "no C compiler here: no nemoclaw-gpu, so this build knows no GPUs (install gcc and libc6-dev for it)"; fi

man: ## bin/man: the manual pages, from what the commands' help says
	@rm -rf bin/man
	SOURCE_DATE_EPOCH=$(EPOCH) CGO_ENABLED=0 go run -tags man ./cmd/nemoclaw bin/man
	SOURCE_DATE_EPOCH=$(EPOCH) CGO_ENABLED=0 go run -tags man ./cmd/nemoclaw-agent bin/man

install: build man ## to $(PREFIX), with the unit, completions and manual pages; WITH_OPENSHELL=1: the second name too
	PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' DESTDIR='$(DESTDIR)' WITH_OPENSHELL='$(WITH_OPENSHELL)' scripts/install

generate: ## rebuild the committed BPF objects, the init (both need the pinned clang 14), the alert rules and the dashboard
	go generate $(addprefix ./,$(addsuffix /...,$(GENERATED)))

check-generated: ## fail when the committed objects are not what their sources give
	scripts/check-generated $(GENERATED)

lint: ## gofmt, go vet, golangci-lint, clang-format, shellcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags e2e,lsm ./...
	go vet -tags vm ./test/vm
	go vet -tags man ./cmd/...
	golangci-lint run ./...
	@if command -v clang-format-14 >/dev/null; then echo clang-format-14 --dry-run -Werror; \
	  [ -z "$(C_FILES)" ] || clang-format-14 --dry-run -Werror $(C_FILES); \
	  else echo "no clang-format-14 here: the C files' layout is not checked"; fi
	shellcheck -S warning $(SH_FILES)

test-fast: ## unit tests: seconds, no root
	go test -p $(JOBS) ./...

test-tamper: ## the audit log spoiled at every line of 10,000, in each way; test-fast does some
	TAMPER=all go test -count 1 -v -run 'TestTamper$$' ./agent/audit

test-e2e: build man ## everything that needs root and a kernel, on the real binary
	NEMOCLAW=$(CURDIR)/bin/nemoclaw go test -tags e2e -count=1 -p $(JOBS) -parallel 4 -timeout 20m $(or $(E2E),$(error no package with such tests is found: git lists them))

test-vm: build man ## whole machines in QEMU, with Debian's kernels and systemd (root; makes their disk at first)
	NEMOCLAW=$(CURDIR)/bin/nemoclaw go test -tags vm -count=1 -timeout 25m -parallel 32 ./test/vm

test-gpu: build ## a real NVIDIA GPU: fails where there is none (root; the other tests use a fake driver)
	scripts/test-gpu

race: ## unit tests of the concurrent packages under the race detector
	CGO_ENABLED=1 go test -race -p $(JOBS) ./dnsproxy/... ./agent/...

fuzz: ## each fuzz target for FUZZTIME, as root (their seeds are in the tests)
	scripts/fuzz $(FUZZTIME)

bench: build ## one table of ratios against native, bubblewrap, Landlock alone, HAProxy, Go's ReverseProxy, dnsmasq, unbound, runc
	CGO_ENABLED=0 NEMOCLAW=$(CURDIR)/bin/nemoclaw go run ./test/bench

soak: build ## 50 sandboxes at work for SOAKTIME: fails when anything grew
	CGO_ENABLED=0 NEMOCLAW=$(CURDIR)/bin/nemoclaw go run ./test/soak -for $(SOAKTIME)

test: ## all of it, in the order in which a mistake shows soonest
	@scripts/timed build lint check-generated test-fast race test-e2e test-vm

clean: ## what was built here
	rm -rf bin
