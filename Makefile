# Every tool is pinned here or in go.mod.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
FUZZTIME    ?= 10s
PREFIX      ?= /usr/local

.PHONY: help demo test bench check lint fmt fuzz build install clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: ## Show it: a service under load is upgraded, again and again
	@sh test/prepare.sh
	@go run -buildvcs=false ./test/demo

test: ## Run all tests: race detector, leak checks, real systemd (as root)
	@sh test/prepare.sh race
	@# Not cached: much of what is tested is outside of Go. One package after the
	@# other: the end-to-end tests want the machine for themselves.
	GORACE="atexit_sleep_ms=0" go test -race -count=1 -p 1 -timeout 18m ./...
	@# What the race detector would falsify: allocations.
	go test -count=1 -run '^TestCost' ./upgrade

bench: ## Measure: ratios side by side in one run
	@go run -buildvcs=false ./test/bench

check: lint test ## Everything that has to be green: lint and test

lint: ## Check format, vet, staticcheck
	@out=$$(go run $(GOFUMPT) -l . ) && if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

fmt: ## Format the code
	go run $(GOFUMPT) -w .

fuzz: ## Fuzz each decoder for FUZZTIME (10s)
	@grep -rl '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$file); do \
			echo "$$(dirname $$file) $$f"; \
			go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$(dirname $$file) || exit 1; \
		done; \
	done

build: ## Build hdctl and the demo service into bin/
	go build -buildvcs=false -o bin/ ./cmd/...

install: build ## Install hdctl to PREFIX (/usr/local)
	install -D -m 0755 bin/hdctl $(DESTDIR)$(PREFIX)/bin/hdctl

clean: ## Remove what was built
	rm -rf bin dist
