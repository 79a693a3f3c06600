# Everything that is made lands in build/. See README.md for the two commands that most people need.

GO      ?= go
PYTHON  ?= python3
# TAGS are the build tags of every Go command below.
TAGS    ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# DuckDB comes as a static C++ library: query needs cgo, everything below it does not.
export CGO_ENABLED = 1

BUILD       := build
BIN         := $(BUILD)/flightd
VENV        := $(BUILD)/venv
PY          := $(VENV)/bin/python
LOGS        := $(BUILD)/log
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

GOFLAGS_ALL := $(if $(TAGS),-tags '$(TAGS)')
# The go command does not look into folders named testdata by itself.
PACKAGES    := ./... ./testdata
# RACE are the packages whose tests also run under the race detector.
RACE        := ./lsm/... ./manifest ./lance ./memindex ./object/... ./btree ./internal/offheap ./vector ./ivf ./spill

.PHONY: all build demo test test-go test-adbc test-e2e jdbc check fmt-check vet staticcheck race house bench bench-ingest bench-scan bench-load bench-memory bench-files bench-vector bench-engine fuzz torture torture-fuzz torture-crashes torture-lists torture-race torture-kills torture-beside venv clean

all: build

build:
	@mkdir -p $(BUILD)
	$(GO) build $(GOFLAGS_ALL) -ldflags '-X main.version=$(VERSION)' -o $(BIN) ./cmd/flightd

demo: build
	$(BIN) demo

# test runs the Go tests and then the real binary under its real clients.
test: test-go test-e2e

# Some Go tests have pylance and DuckDB's extension read what they wrote.
test-go: venv
	@mkdir -p $(LOGS)
	FLIGHTD_PYTHON=$(CURDIR)/$(PY) .ci/quiet $(LOGS)/go-test.log $(GO) test $(GOFLAGS_ALL) -timeout 30m -v $(PACKAGES)

# test-adbc runs the conformance suite of ADBC against the binary. It is a module of its own.
test-adbc: build
	@mkdir -p $(LOGS)
	cd e2e/adbc-validation && $(CURDIR)/.ci/quiet $(CURDIR)/$(LOGS)/adbc-validation.log $(GO) test -count=1 -v ./...

test-e2e: build venv jdbc test-adbc
	@mkdir -p $(LOGS)
	$(PY) -m pytest e2e -q -rs --junitxml=$(LOGS)/e2e.xml $(E2E)

# check is what a change must pass beside the tests: under three minutes once the caches are warm.
check: fmt-check vet staticcheck house race

fmt-check:
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$out" ]; then echo "run gofmt -w on:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet $(GOFLAGS_ALL) $(PACKAGES)

staticcheck: $(BUILD)/bin/staticcheck
	$(BUILD)/bin/staticcheck $(GOFLAGS_ALL) $(PACKAGES)

$(BUILD)/bin/staticcheck: Makefile
	GOBIN=$(CURDIR)/$(BUILD)/bin $(GO) install $(STATICCHECK)
	@touch $@

# house holds the rules of the house; sizes only warn.
house:
	@mkdir -p $(LOGS)
	.ci/quiet $(LOGS)/house.log $(GO) test -count=1 -v ./internal/lint
	@grep -h 'warning:' $(LOGS)/house.log || true

# With -short, tests in which nothing is concurrent leave out what takes long: they have run without the detector.
race:
	@mkdir -p $(LOGS)
	.ci/quiet $(LOGS)/race.log $(GO) test $(GOFLAGS_ALL) -timeout 30m -race -short -v $(RACE)

# bench-ingest, bench-scan, bench-files and bench-vector run a peer beside flightd; bench-load and bench-memory watch its memory.
# VECTOR='--only recall' runs a part of bench-vector, which takes a quarter of an hour; --keep FOLDER keeps its tables for the others.
bench-ingest bench-scan bench-load bench-memory bench-files bench-vector: bench-%: build venv
	$(PY) bench/$*.py $(if $(filter vector,$*),$(VECTOR))

# bench-engine runs lsm's benchmarks and prints their figures beside the aims. It takes a quarter of an hour, alone on the machine;
# ENGINE='--only durable' runs a part of it, and ENGINE=--table prints what the parts have measured.
bench-engine:
	$(PYTHON) bench/engine.py $(ENGINE)

bench:
	$(GO) test $(GOFLAGS_ALL) -run '^$$' -bench . -benchmem $(PACKAGES)

# fuzz has each decoder of Lance's formats read anything for ten seconds, two at a time; torture does so with every fuzz target.
fuzz:
	.ci/fuzz 10s lance manifest bitmap ivf

# torture is the long one: FUZZTIME for each fuzz target, SEEDS power cuts and random lists of operations, ROUNDS kills, the
# race detector RACES times in another order each time, SECONDS of pylance and flightd beside each other. Its parts are
# targets of their own, torture-fuzz and so on; what failed or was interrupted goes on with those that are left. The random
# tests begin with seed FIRST, so that they can be run in pieces, too.
FUZZTIME ?= 60s
FIRST    ?= 1000
SEEDS    ?= 2000
RACES    ?= 5
ROUNDS   ?= 200
SECONDS  ?= 300
torture: torture-fuzz torture-crashes torture-lists torture-race torture-kills torture-beside

torture-fuzz:
	.ci/fuzz $(FUZZTIME)

torture-crashes:
	$(GO) test $(GOFLAGS_ALL) -count=1 -timeout 4h -run '^TestCrashes$$' ./lsm -args -crash-first $(FIRST) -crash-seeds $(SEEDS)

torture-lists:
	$(GO) test $(GOFLAGS_ALL) -count=1 -timeout 4h -run '^TestMetamorphic$$' ./lsm -args -meta-first $(FIRST) -meta-seeds $(SEEDS)

torture-race:
	$(GO) test $(GOFLAGS_ALL) -timeout 4h -race -short -shuffle=on -count=$(RACES) $(RACE)

torture-kills: build venv
	FLIGHTD_TEST_ROUNDS=$(ROUNDS) $(PY) -m pytest e2e -q -rs -k kill

torture-beside: build venv
	FLIGHTD_TEST_SECONDS=$(SECONDS) $(PY) -m pytest e2e/test_beside.py -q -rs

# venv holds the real clients, at the versions that e2e/requirements.txt pins.
venv: $(VENV)/.ready

$(VENV)/.ready: e2e/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -r e2e/requirements.txt
	@touch $@

# jdbc fetches the Flight SQL JDBC driver that the tests drive the server with. Without a JDK 17 and Maven these tests
# are skipped.
JDBC_DRIVER := org.apache.arrow:flight-sql-jdbc-driver:18.3.0
JDBC_JAR    := $(BUILD)/jdbc/flight-sql-jdbc-driver-18.3.0.jar

jdbc:
	@if [ -e $(JDBC_JAR) ]; then :; elif command -v java >/dev/null && command -v mvn >/dev/null; then \
		mvn -q -B dependency:copy -Dartifact=$(JDBC_DRIVER) -DoutputDirectory=$(CURDIR)/$(dir $(JDBC_JAR)); \
	else echo "no java or no mvn: the tests of the JDBC driver will be skipped"; fi

clean:
	rm -rf $(BUILD)
