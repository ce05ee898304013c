# The commands of the project. "make" builds; CONTRIBUTING.md says what each does.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -X main.version=$(VERSION)
FUZZTIME ?= 30s
SOAKTIME ?= 10m
PLATFORMS = linux/amd64 linux/arm64 freebsd/amd64 openbsd/amd64 darwin/amd64 darwin/arm64
# Everything but the whole-program tests.
UNIT      = $$($(GO) list ./... | grep -v '/e2e$$')
# Go files that are ours.
SOURCES   = $$(git ls-files --cached --others --exclude-standard '*.go')

export META1_TEST_CACHE ?= /var/cache/meta1-test

.PHONY: build run test needs unit race e2e lint fmt cross fuzz soak faults bench profile image man clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o meta1 .

run: build
	./meta1 serve -f examples/quickstart.conf

test: needs unit race e2e

needs:
	scripts/test-needs.sh

unit:
	$(GO) test -count=1 -timeout 5m $(UNIT)

race:
	CGO_ENABLED=1 $(GO) test -count=1 -race -timeout 10m $(UNIT)

e2e:
	$(GO) test -count=1 -timeout 12m -v ./e2e

lint:
	$(GO) vet ./...
	@out=$$($(GO) tool gofumpt -l $(SOURCES)); [ -z "$$out" ] || { echo "gofumpt would change (make fmt):"; echo "$$out"; exit 1; }
	$(GO) tool staticcheck ./...
	scripts/vulncheck.sh

fmt:
	$(GO) tool gofumpt -w $(SOURCES)

cross:
	@for p in $(PLATFORMS); do \
		echo "cross $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./... || exit 1; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... || exit 1; \
	done

# Each fuzz target alone, as the go command demands.
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r f; do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$f"); do \
			echo "fuzz $$t in $$(dirname "$$f")"; \
			$(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$f")" || exit 1; \
		done; \
	done

# The simulation of the queue: days of its life, seed after seed, until one fails; or
# one seed again: SEED=long-12, as a failed run prints it.
soak:
	META1_SOAK=$(SOAKTIME) META1_SOAK_SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v -run '^TestSoak$$' ./queue

# Every call to the disk of a scenario fails, in every way; "make unit" takes a part.
faults:
	@for part in $$(seq 0 23); do \
		FAULTS_PART=$$part $(GO) test -count=1 -run '^TestFaultAtAnyCall$$' ./queue || exit 1; \
	done

# Beside Postfix, on this machine: docs/performance.md. Needs root and shared/bench.
bench: build
	scripts/bench.sh

# Where the time goes: ./profile. Needs root and shared/bench.
profile: build
	scripts/profile.sh

image:
	scripts/image.sh meta1:latest $(VERSION)
	docker tag meta1:latest meta1:$(VERSION)

# The manual pages, which are kept with the source: a test compares them.
man: build
	mkdir -p man
	./meta1 man man
	./meta1 config manual > docs/meta1.conf.5.md

clean:
	rm -rf meta1 bin profile var vendor
