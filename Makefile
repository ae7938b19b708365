# SPDX-License-Identifier: Apache-2.0

export CGO_ENABLED := 0

GO          ?= go
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BUILDFLAGS  := -trimpath -ldflags='-s -w'
TIMEOUT     ?= 25m
FUZZSECONDS ?= 60
# What `make race` tests.
RACE        ?= ./slirp
# Of `make script`: a regular expression for the scripts' names.
RUN         ?= .

# go test runs in the package's directory.
ifdef SBX_TEST_IMAGES
export SBX_TEST_IMAGES := $(abspath $(SBX_TEST_IMAGES))
endif
ifdef SBX_TEST_APPS
export SBX_TEST_APPS := $(abspath $(SBX_TEST_APPS))
endif
ifdef SBX_TEST_ARTIFACTS
export SBX_TEST_ARTIFACTS := $(abspath $(SBX_TEST_ARTIFACTS))
endif

.DEFAULT_GOAL := help
.PHONY: help build test script update lint bench race fuzz harden check size clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/sbx, one static file
	@$(GO) build $(BUILDFLAGS) -o bin/sbx .

test: build ## run all tests, and say which this machine cannot run
	@rm -f bin/skipped
	@SBX_TEST_BINARY='$(CURDIR)/bin/sbx' SBX_TEST_SKIPPED='$(CURDIR)/bin/skipped' \
		$(GO) test -count=1 -timeout $(TIMEOUT) ./...; status=$$?; \
	if [ -s bin/skipped ]; then echo 'not run on this machine:'; sort -u bin/skipped | sed 's/^/  /'; fi; \
	exit $$status

script: build ## run the scripts in tests/script: RUN=run_env V=-v
	@SBX_TEST_BINARY='$(CURDIR)/bin/sbx' $(GO) test -count=1 $(V) -timeout $(TIMEOUT) -run '^Test(Script|Alone)$$/.*/$(RUN)' ./tests

update: build ## rewrite the scripts' golden files
	@SBX_TEST_UPDATE=1 SBX_TEST_BINARY='$(CURDIR)/bin/sbx' $(GO) test -count=1 -run 'TestScript' ./tests

lint: ## gofmt, go vet on both architectures, shellcheck, golangci-lint
	@files=$$(find . -name '*.go' -not -path './.*/*' | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "not gofmt'd:"; echo "$$files"; exit 1; fi
	@$(GO) vet ./...
	@GOARCH=arm64 $(GO) vet ./...
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run tests/neighbour/look.sh; else echo 'shellcheck is not installed: scripts not checked'; fi
	@$(GO) run $(GOLANGCI) run ./...

bench: build ## measure against the goals; exits non-zero where one is missed
	@$(GO) run ./tests/bench -sbx bin/sbx -images '$(SBX_TEST_IMAGES)'

race: ## test the network engine with the race detector, which takes a C compiler
	@CGO_ENABLED=1 $(GO) test -race -short -count=1 -timeout $(TIMEOUT) $(RACE)

fuzz: ## run every fuzz target for FUZZSECONDS
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file"); do \
			echo "$$target ($$(dirname "$$file"))"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZSECONDS)s "./$$(dirname "$$file")" || exit 1; \
		done; \
	done

harden: build ## hostile layers, 1000 by every way in, races, 2000 of each, and every call of a start; minutes
	@SBX_TEST_HARDEN=$${SBX_TEST_HARDEN:-1000} SBX_TEST_BINARY='$(CURDIR)/bin/sbx' $(GO) test -v -count=1 -timeout 60m -run '^Test(Hostile|Decoy|Races|StartsForced|Spy|SwappedImage)$$' ./tests | grep -v '^=== '

check: lint test ## what must pass before a change lands

size: build ## the binary's size, and what it is made of
	@stat -c '%s bytes of 16777216' bin/sbx
	@$(GO) build -trimpath -o bin/sbx.symbols . && $(GO) tool nm -size -sort size -type bin/sbx.symbols | \
		awk '$$3 ~ /[tTrR]/ {n = $$4; if (n ~ /^type:|^go:/) n = "(types)"; sub(/\.[^\/]*$$/, "", n); sum[n] += $$2} \
		END {for (n in sum) printf "%9d %s\n", sum[n], n}' | sort -rn | head -25

clean: ## remove what was built
	@rm -rf bin
