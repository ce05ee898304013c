# The commands of the project. "make" builds; CONTRIBUTING.md says what each does.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -X main.version=$(VERSION)
FUZZTIME ?= 30s
SOAKTIME ?= 10m
# When a package of tests is taken to hang: several times what a slow and busy machine needs.
HANGS    ?= 12m
PLATFORMS = linux/amd64 linux/arm64 freebsd/amd64 openbsd/amd64 darwin/amd64 darwin/arm64
# Everything but the whole-program tests. "make lint" vets; a run of tests need not do so again.
UNIT      = $$($(GO) list ./... | grep -v '/e2e$$')
# What the race detector runs: all but packages that start no goroutine, in which it would have
# Pebble's to watch alone and takes minutes. "make race RACED=./queue/fsck" runs another one.
RACED    ?= $$($(GO) list ./... | grep -vE '/(e2e|mta/store/salvage|queue/(records|fsck|sched|aq)|confparse/(manual|syntax))$$')
# The packages that the race detector leaves out, or of whose tests it runs a part alone (race_on_test.go,
# testing.Short, rapid): they run without it, too. All others need not run twice.
PLAIN     = $$($(GO) list ./... | grep -E '/(client|confparse|maps|mta|queue|server|mta/lists|mta/store|resolver/greylist|mta/store/salvage|queue/(records|fsck|sched|aq|budget|pace|retry|turns)|confparse/(manual|syntax)|server/(auth|condition|dkim))$$')
# Go files that are ours.
SOURCES   = $$(git ls-files --cached --others --exclude-standard '*.go')

# As it is released; and whatever is compiled is compiled once for vet, tests and the binary. (The race detector wants 1.)
export CGO_ENABLED = 0
export META1_TEST_CACHE ?= /var/cache/meta1-test

PREFIX   ?= /usr/local

.PHONY: build run install test needs unit plain print-plain race e2e slow lint fmt typecheck cross fuzz soak faults million bench profile lintian systemd image man clean

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o meta1 .

run: build
	./meta1 serve -f examples/quickstart.conf

# The binary, manual pages and completions, below $(DESTDIR)$(PREFIX).
install: build
	install -D -m 755 meta1 $(DESTDIR)$(PREFIX)/sbin/meta1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 man/*.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 man/*.5
	install -d $(DESTDIR)$(PREFIX)/share/doc/meta1
	cp -RH examples $(DESTDIR)$(PREFIX)/share/doc/meta1/
	chmod -R u=rwX,go=rX $(DESTDIR)$(PREFIX)/share/doc/meta1/examples
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	./meta1 completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/meta1
	./meta1 completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_meta1
	./meta1 completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/meta1.fish

# A missing peer fails the tests here; "make unit" skips those that need it.
test: export META1_TEST_PEERS = all
test: needs plain race e2e

needs:
	scripts/test-needs.sh

unit:
	TEST="$(GO) test" scripts/tests.sh -vet=off -count=1 -timeout $(HANGS) -- $(UNIT)

plain:
	TEST="$(GO) test" scripts/tests.sh -vet=off -count=1 -timeout $(HANGS) -- $(PLAIN)

print-plain: # for the test of this list
	@echo $(PLAIN)

race:
	CGO_ENABLED=1 TEST="$(GO) test" scripts/tests.sh -vet=off -short -count=1 -race -timeout $(HANGS) -- $(RACED)

# Most of them wait for others, so more run at once than there are processors.
e2e:
	TEST="$(GO) test" scripts/tests.sh -parallel 4 -vet=off -count=1 -timeout $(HANGS) -v -- ./e2e

# The packages whose tests wait for real sockets, processes and files, with a tenth of a
# processor: what judges the speed of the machine fails here. Without those that only read
# configurations, by the hundred.
SLOWED    = ./client ./client/content ./client/wire ./resolver ./resolver/alias ./resolver/dns ./resolver/mtasts ./server $$($(GO) list ./mta/... | grep -vE '/mta/(store|vfs|dsn)(/|$$)')

slow:
	TEST=scripts/slow.sh scripts/tests.sh -vet=off -short -count=1 -timeout $(HANGS) -skip '^Test(EveryFile|EveryOption|Example|Man)' -- $(SLOWED)

lint:
	@$(GO) mod tidy -diff || { echo "go.mod is not tidy (go mod tidy)"; exit 1; }
	$(GO) vet ./...
	@out=$$($(GO) tool gofumpt -l $(SOURCES)); [ -z "$$out" ] || { echo "gofumpt would change (make fmt):"; echo "$$out"; exit 1; }
	$(GO) tool staticcheck ./...
	scripts/vulncheck.sh

fmt:
	$(GO) tool gofumpt -w $(SOURCES)

# Whether it would compile for these platforms, by types alone: a tenth of the work of "make cross".
typecheck:
	$(GO) run ./scripts/typecheck $(PLATFORMS)

cross:
	@for p in $(PLATFORMS); do \
		echo "cross $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./... || exit 1; \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... || exit 1; \
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

# The queue of a million: mailq and the commands below queue, in full, with what they cost. Two minutes.
million:
	META1_MAILQ_ENTRIES=1000000 $(GO) test -count=1 -timeout 0 -v -run '^TestMailqLong$$' ./e2e

# Beside Postfix, on this machine, into docs/benchmark.md. Root, on Debian; a quarter
# of an hour. BENCH="-reps 1 -scenarios c50" and the like change that.
bench: build needs
	$(GO) run ./scripts/bench -report docs/benchmark.md $(BENCH)

# Where the time goes: ./profile. Root.
profile: build
	$(GO) run ./scripts/bench -profiles profile -reps 1 -scenarios c50 -scale 2000
	$(GO) tool pprof -top -nodecount 25 meta1 profile/cpu.pprof
	$(GO) tool pprof -sample_index=alloc_space -top -nodecount 15 meta1 profile/allocs.pprof
	@echo "profiles are in ./profile: go tool pprof -http=: ./meta1 profile/cpu.pprof"

# The Debian packages as lintian sees them, which takes half a minute: nothing but what contrib/debian explains.
lintian:
	META1_TEST_LINTIAN=1 $(GO) test -vet=off -count=1 -run '^TestLintian$$' ./e2e

# The Debian packages on a Debian 12 that systemd boots, in namespaces: a minute, and a few more the first time, when
# that Debian is downloaded. Root.
systemd:
	META1_TEST_SYSTEMD=1 $(GO) test -vet=off -count=1 -timeout $(HANGS) -v -run '^TestSystemdBoot$$' ./e2e

image:
	scripts/image.sh meta1:latest $(VERSION)
	docker tag meta1:latest meta1:$(VERSION)

# The manual pages, which are kept with the source: a test compares them.
man: build
	mkdir -p man
	./meta1 man man
	./meta1 config manual > docs/meta1.conf.5.md
	./meta1 config manual --maps > docs/maps.md

clean:
	rm -rf meta1 bin profile var vendor
