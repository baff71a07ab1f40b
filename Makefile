# One command per purpose. `make test` is the whole law; CI runs it through .ci/run.
#
#   make demo        a running vigie with a simulated shop, on http://127.0.0.1:8080
#   make check       the warm inner loop: format, lints, all tests but the proofs by exhaustion (.config/nextest.toml)
#   make test        format, lints, tests, documentation tests, dependency law
#   make test-data   tests over the data beside the checkout (VIGIE_SHARED, default ../shared)
#   make test-faults tests that mount file systems and cut their power: they need root and loop devices
#   make test-kafka  tests over a Kafka broker, which is built first (ten minutes, once)
#   make test-long   tests that take minutes: crashes, long simulations
#   make load        load test against a release build: load-tests/RESULTS.md
#   make bench       what single calls cost: by the clock, and in instructions, which are compared with those committed
#   make fuzz        every reader of foreign bytes, for FUZZ_SECONDS each (60)
#   make fmt         format everything
#   make tools       install the tools that are missing

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := check

CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
CARGO_NEXTEST_VERSION := 0.9.143
VIGIE_SHARED ?= $(abspath ../shared)
FUZZ_SECONDS ?= 60
PYTHON_ENV := $(CURDIR)/target/python
PYTHON_REQUIREMENTS := $(wildcard crates/*/tests/all/requirements.txt crates/*/tests/all/*/requirements.txt)
NODE_ENV := $(CURDIR)/target/node
NODE_PACKAGES := crates/vigie/tests/all/clients

export VIGIE_SHARED
# Tests that drive a client SDK find its interpreter and its packages here.
export VIGIE_PYTHON := $(PYTHON_ENV)/bin/python
export VIGIE_NODE_MODULES := $(NODE_ENV)/node_modules
# And the reference library of webhooks for Node here.
WEBHOOKS_ENV := $(CURDIR)/target/node-webhooks
WEBHOOKS_PACKAGES := crates/delivery/tests/all/receivers/package.json
export VIGIE_NODE := $(WEBHOOKS_ENV)

# nextest where it can be had, else cargo's own runner: the tests are the same.
NEXTEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo yes)
ifeq ($(NEXTEST),yes)
RUN_TESTS := $(CARGO) nextest run --workspace --locked
CHECK_TESTS := $(RUN_TESTS) --profile check
else
RUN_TESTS := $(CARGO) test --workspace --locked
CHECK_TESTS := $(RUN_TESTS)
endif

# Runs the test binaries called $(2) of all members whose manifests declare the feature $(1). The whole workspace is named,
# because a selection of members would have its own features of shared dependencies, and compile them all again.
define RUN_FEATURE
	@features=$$(for manifest in $$(grep -lE '^$(1) *=' crates/*/Cargo.toml load-tests/Cargo.toml || true); do \
		sed -n 's/^name = "\(.*\)"/\1\/$(1)/p' "$$manifest" | head -n 1; \
	done | paste -sd, -); \
	[[ -n $$features ]] || { echo "no crate has the feature $(1)"; exit 0; }; \
	echo "$(RUN_TESTS) --features $$features --test $(2)"; \
	$(RUN_TESTS) --features "$$features" --test $(2)
endef

.PHONY: demo check test fmt fmt-check lint unit-tests doc-tests deny test-data test-faults test-kafka test-long fuzz load bench python-env node-env tools

demo:
	$(CARGO) run --locked -p vigie -- demo $(ARGS)

check: fmt-check python-env node-env
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CHECK_TESTS)

# The tools first, in a make of their own: what they bring decides how the rest runs.
test:
	$(MAKE) tools
	$(MAKE) fmt-check lint unit-tests doc-tests deny

fmt:
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit-tests: python-env node-env
	$(RUN_TESTS)

doc-tests:
	$(CARGO) test --workspace --locked --doc

# Advisories need a database that a closed network cannot fetch: they are checked where one is at hand.
deny:
	$(CARGO) deny --locked check --hide-inclusion-graph -A unused-wrapper bans licenses sources
	@if [[ -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-db" || -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" ]]; then \
		echo "$(CARGO) deny --locked check --disable-fetch advisories"; \
		$(CARGO) deny --locked check --disable-fetch advisories; \
	else \
		echo "advisories: no database at hand, not checked"; \
	fi

# A crate with such tests has a feature `shared-data` and a [[test]] called `shared` that requires it.
test-data:
	@[[ -d "$(VIGIE_SHARED)" ]] || { echo "$(VIGIE_SHARED) does not exist: set VIGIE_SHARED" >&2; exit 1; }
	$(call RUN_FEATURE,shared-data,shared)

# Likewise with a feature and a [[test]] called `faults`. Where they cannot inject, they say "not measured" and fail.
test-faults: python-env
	$(call RUN_FEATURE,faults,faults)

# Likewise with a feature and a [[test]] called `broker`: Kafka's contract and faults, over a broker that .ci/tansu builds.
test-kafka:
	@.ci/tansu
	$(call RUN_FEATURE,broker,broker)

# Likewise with a feature and a [[test]] called `long`.
test-long: python-env node-env
	@.ci/tansu
	$(call RUN_FEATURE,long,long)
	$(MAKE) fuzz

fuzz:
	.ci/fuzz $(FUZZ_SECONDS) $(ARGS)

# Both packages in one selection: with another one, features of dependencies differ and DataFusion is compiled again.
load:
	$(CARGO) build --release --locked -p vigie -p vigie-load-tests
	"$${CARGO_TARGET_DIR:-target}/release/vigie-load-tests" $(ARGS)

bench:
	$(CARGO) bench --locked -p vigie-load-tests --bench speed --bench instructions

# The interpreter and the pinned packages for tests of client SDKs.
python-env: $(PYTHON_ENV)/.installed

$(PYTHON_ENV)/.installed: $(PYTHON_REQUIREMENTS)
	python3 -m venv "$(PYTHON_ENV)"
	"$(PYTHON_ENV)/bin/python" -m pip install --quiet --disable-pip-version-check \
		$(foreach requirements,$(PYTHON_REQUIREMENTS),--requirement $(requirements))
	touch "$@"

# The pinned packages of client SDKs for Node and browsers; no package may run a program of its own.
node-env: $(NODE_ENV)/.installed $(WEBHOOKS_ENV)/.installed

$(NODE_ENV)/.installed: $(NODE_PACKAGES)/package.json $(NODE_PACKAGES)/package-lock.json
	mkdir -p "$(NODE_ENV)"
	cp $^ "$(NODE_ENV)"
	npm ci --prefix "$(NODE_ENV)" --ignore-scripts --no-audit --no-fund --loglevel=error
	touch "$@"

$(WEBHOOKS_ENV)/.installed: $(WEBHOOKS_PACKAGES)
	mkdir -p "$(WEBHOOKS_ENV)"
	cp "$<" "$(WEBHOOKS_ENV)/package.json"
	npm install --ignore-scripts --no-audit --no-fund --loglevel=error --prefix "$(WEBHOOKS_ENV)"
	touch "$@"

tools:
	@.ci/tools $(CARGO_DENY_VERSION) $(CARGO_NEXTEST_VERSION)
