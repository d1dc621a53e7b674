# make run   set up, then the workbook from first to last (PRESET=cpu); prints the path of the report
# make test  set up, then lint, types and every test
PYTHON ?= $(shell command -v python3.11 || command -v python3.12)
PRESET ?= cpu
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt requirements-nodeps.txt
STAMP := $(VENV)/installed-$(shell cat $(REQUIREMENTS) | cksum | cut -d' ' -f1)

.PHONY: run test install toolchains lab clean

run: install
	$(BIN)/python -m lib run --preset $(PRESET)

test: install
	$(BIN)/ruff check .
	$(BIN)/mypy lib
	$(BIN)/python -m pytest -q -rs tests

lab: install
	$(BIN)/jupyter lab notebooks

install: $(STAMP)

$(STAMP): $(REQUIREMENTS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; found neither" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^torch==[^ ]*' requirements.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -r requirements-nodeps.txt
	@rm -f $(VENV)/installed-*
	@touch $(STAMP)

toolchains:
	apt-get update -q && apt-get install -y -q --no-install-recommends lua5.4 ocaml-nox gfortran r-base-core

clean:
	rm -rf runs .cache unsloth_compiled_cache
