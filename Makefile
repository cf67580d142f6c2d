PYTHON ?= python3
PORT ?= 7860
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif

.PHONY: demo test install lint bench lock clean

demo: .venv/runtime
	$(BIN)/loradex search "a slice of pizza" --zoo miniature -k 5
	$(BIN)/loradex serve --zoo miniature --port $(PORT)

test: .venv/developer
	$(BIN)/python -m pytest

install: .venv/developer

lint: .venv/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/developer
	$(BIN)/python -m scripts.bench
	$(BIN)/python -m scripts.bench_zoo

lock:
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv build dist *.egg-info

.venv/bare:
	$(PYTHON) -m venv .venv
	touch $@

.venv/runtime: .venv/bare requirements.lock pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/developer: .venv/bare requirements-dev.lock pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
