# Every tool is pinned here or in go.mod.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
MD2MAN      := github.com/cpuguy83/go-md2man/v2@v2.0.7
FUZZTIME    ?= 10s
PREFIX      ?= /usr/local

RACE        := GORACE="atexit_sleep_ms=0" go test -race -count=1 -timeout 18m

.PHONY: help demo test matrix bench check lint fmt fuzz build packages man install clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: ## Show it: a service under load is upgraded, again and again
	@sh test/prepare.sh
	@go run -buildvcs=false ./test/demo

test: ## Run all tests: race detector, leak checks, real systemd (as root)
	@sh test/prepare.sh test
	@# Not cached: much of what is tested is outside of Go. One package after the
	@# other: tests with processes, descriptors and clocks want the machine for
	@# themselves.
	$(RACE) -p 1 ./...
	@# What the race detector would falsify: allocations.
	go test -count=1 -run '^TestCost' ./upgrade

matrix: ## Run the end-to-end tests under systemd 252, 257 and the newest (as root on Debian)
	@sh test/prepare.sh
	go run -buildvcs=false ./test/matrix

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

packages: ## Build deb and rpm of hdctl and of the demo service into dist/
	@NFPM="go run $(NFPM)" GO_MD2MAN="go run $(MD2MAN)" sh packaging/build.sh

man: ## Render the man pages into bin/man
	@mkdir -p bin/man
	@for page in packaging/man/*.md; do \
		go run $(MD2MAN) -in $$page -out bin/man/$$(basename $$page .md) || exit 1; \
	done

install: build man ## Install hdctl, man pages and completions to PREFIX (/usr/local)
	install -D -m 0755 bin/hdctl $(DESTDIR)$(PREFIX)/bin/hdctl
	@for page in bin/man/*; do \
		install -D -m 0644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$(basename $$page) || exit 1; \
	done
	@bin/hdctl completion bash | install -D -m 0644 /dev/stdin $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hdctl
	@bin/hdctl completion zsh | install -D -m 0644 /dev/stdin $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_hdctl
	@bin/hdctl completion fish | install -D -m 0644 /dev/stdin $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/hdctl.fish

clean: ## Remove what was built
	rm -rf bin dist
