# Every command a person needs; `make` or `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
DATA ?=
WORKSPACE ?=
STAMP := $(VENV)/.installed
CORE_STAMP := $(VENV)/.core-built
RUST_SOURCES := $(shell find rust_core/src -name '*.rs') rust_core/Cargo.toml rust_core/build.rs rust_core/Cargo.lock pyproject.toml $(wildcard rust_core/schemas/*.txt)
export DAGSTER_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
.DEFAULT_GOAL := help
.PHONY: help setup build demo ui test test-rust test-python bench bench-peers replay-check round-trip drill canary-study gate-study fuzz lint format types generate generate-check notebooks pins clean loop-equal

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(STAMP): requirements.txt requirements-bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@scripts/require-rust.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements.txt requirements-bootstrap.txt
	@rm -f $(CORE_STAMP)
	@touch $@

$(CORE_STAMP): $(STAMP) $(RUST_SOURCES)
	@echo "building the Rust core (about a minute the first time) ..."
	@source $(BIN)/activate && maturin develop --release --locked > $(VENV)/build.log 2>&1 || { tail -n 40 $(VENV)/build.log; exit 1; }
	@touch $@

setup: $(STAMP) ## create .venv with the pinned packages
build: $(CORE_STAMP) ## build the extension into .venv

demo: build ## run the whole loop once; DATA=<folder> runs it on recordings
	@$(BIN)/python -m dagster_project.demo $(if $(DATA),--data "$(DATA)",) $(if $(WORKSPACE),--workspace "$(WORKSPACE)",)

ui: build ## open Dagster's UI on the demo's workspace (loopback only)
	@source $(BIN)/activate && ws="$(abspath $(or $(WORKSPACE),build/demo/generator))" && \
		python -m dagster_project.demo --prepare --workspace "$$ws" && \
		HFT_WORKSPACE="$$ws" $(if $(DATA),HFT_SOURCE="$(abspath $(DATA))",) DAGSTER_HOME="$$ws/dagster_home" \
		dagster dev -m dagster_project.definitions -h 127.0.0.1 -p 3000

test: lint types test-rust test-python ## everything that must be green

test-rust: setup ## the Rust core's own tests
	@cd rust_core && cargo test --locked --quiet

test-python: build ## the Python tests (recordings: HFT_DATA or ../shared/data)
	@source $(BIN)/activate && python -m pytest tests

lint: build ## ruff, import floors, generated docs, rustfmt, clippy
	@source $(BIN)/activate && ruff check hft_platform research dagster_project tests
	@source $(BIN)/activate && lint-imports --no-cache
	@source $(BIN)/activate && python -m hft_platform.generate --check
	@cd rust_core && cargo fmt --check
	@cd rust_core && cargo clippy --locked --quiet --all-targets -- -D warnings

types: build ## mypy, strict
	@source $(BIN)/activate && mypy

format: setup ## put the code into its one shape
	@source $(BIN)/activate && ruff format hft_platform research dagster_project tests && ruff check --fix-only -q hft_platform research dagster_project tests
	@cd rust_core && cargo fmt

replay-check: build ## decide one session from Parquet and from the log in four processes; DATA=<folder>
	@rm -rf build/replay-check && $(BIN)/python -m research.replay_identity $(if $(DATA),--source "$(DATA)",)

drill: build ## rehearse every outage; DRILL=<name> SIZE=<n, 10> SEED=<n>
	@$(BIN)/hft-live drill $(or $(DRILL),all) --size $(or $(SIZE),10) --seed $(or $(SEED),1)

canary-study: build ## 1,000 canary lives a case, and the stop of a running session; writes docs/canary.md (LIVES=<n>)
	@$(BIN)/python -m research.canary_study $(if $(LIVES),--lives $(LIVES) --out build/canary.json,)

round-trip: build ## send one session through log, store and dataset and hash every stage; DATA=<folder>
	@rm -rf build/round-trip && $(BIN)/python -m research.round_trip $(if $(DATA),--source "$(DATA)",)

fuzz: build ## 10 million damaged records, a million expressions and SDK payloads each (5 minutes); FUZZ=<% of that>
	@cd rust_core && HFT_FUZZ_CASES=$$((100000 * $(or $(FUZZ),100))) cargo test --profile fuzz --locked --quiet --test fuzz_records
	@cd rust_core && HFT_FUZZ_CASES=$$((10000 * $(or $(FUZZ),100))) cargo test --profile fuzz --locked --quiet --test fuzz_expressions
	@cd rust_core && HFT_FUZZ_CASES=$$((100000 * $(or $(FUZZ),100))) cargo test --profile fuzz --locked --quiet --lib wal::tests::images
	@cd rust_core && HFT_FUZZ_CASES=11000 cargo test --profile fuzz --locked --quiet --test expressions
	@source $(BIN)/activate && HFT_FUZZ_CASES=$$((10000 * $(or $(FUZZ),100))) python -m pytest -q --timeout 1800 tests/hft_platform/feed/test_shioaji_fuzz.py tests/hft_platform/order/test_shioaji_event_fuzz.py -k "damage"
	@source $(BIN)/activate && HFT_FUZZ_CASES=$$((10 * $(or $(FUZZ),100))) python -m pytest -q --timeout 1800 tests/hft_platform/execution/test_reconciliation.py -k "answering or restarted"
	@source $(BIN)/activate && HFT_FUZZ_CASES=$$((10 * $(or $(FUZZ),100))) python -m pytest -q --timeout 1800 tests/research/stats/test_cross_validation.py -k "labels or label"

bench: build ## measure; writes build/bench.json and docs/performance.md
	@$(BIN)/python -m tests.bench.run --write docs/performance.md

bench-peers: build ## the same session on NautilusTrader, side by side (installs it under build/)
	@$(BIN)/python -m tests.bench.peers.run

generate: build ## regenerate docs made from code (reason codes, features)
	@$(BIN)/python -m hft_platform.generate

generate-check: build ## fail when a generated doc is out of date
	@$(BIN)/python -m hft_platform.generate --check

gate-study: build ## how often the gates are fooled (up to two hours, can be stopped); SIZE=small, DATA=<folder>, MINUTES=<n>
	@$(BIN)/python -m research.gate_study --size $(or $(SIZE),full) --minutes $(or $(MINUTES),120) $(if $(DATA),--data "$(DATA)",) $(if $(filter small,$(SIZE)),--folder build/gate_study_small,--write .)

notebooks: build ## execute the notebooks
	@source $(BIN)/activate && python -m pytest tests/notebooks

pins: setup ## resolve requirements.in again into hashed requirements.txt
	@$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 requirements.in -o requirements.txt

clean: ## remove everything that was built
	rm -rf build $(VENV) rust_core/target
