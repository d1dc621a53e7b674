# Two commands do everything: `make run` and `make test`. Both set up .venv first, once.

PRESET ?= cpu
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --progress-bar off
LISTS := requirements.txt requirements-nodeps.txt requirements-lock.txt
STAMP := $(VENV)/.installed-$(shell cat $(LISTS) | sha256sum | cut -c1-16)
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell $(name) -c '$(SUITS)' 2>/dev/null && echo $(name))))
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TOOLCHAINS := lua5.4 ocaml-nox gfortran r-base-core

SEEDS ?= 0 1 2
RUNS ?= runs
FIGURES ?= figures

.PHONY: help run reference test test-all install model toolchains browser lab clean

help:
	@echo 'make run [PRESET=smoke|cpu|coder|colab|paper] [ARGS="--set KEY=VALUE"]   the workbook from start to end; prints the report'
	@echo 'make reference    preset reference with three seeds, compared; fills figures/ and the numbers in README.md and RESULTS.md'
	@echo 'make test         lint, types and tests'
	@echo 'make test-all     the same, with the tests that train for minutes'
	@echo 'make install      the virtual environment alone'
	@echo 'make model NAME=embedded|coder|coder-1.5b   brings a model, checks its digest, converts it once'
	@echo 'make toolchains   Lua, OCaml, R and Fortran, with apt'
	@echo 'make browser      Chromium, for the test of JupyterLab, with apt'
	@echo 'make lab          the notebooks in JupyterLab'
	@echo 'make clean        removes the environment and caches; runs/ stays'

run: install
	@$(PY) -m lib run --preset $(PRESET) $(ARGS)

reference: install
	@for seed in $(SEEDS); do $(PY) -m lib run --preset $(PRESET) --set seed=$$seed --run-dir $(RUNS)/seed$$seed || exit 1; done
	@$(PY) -m lib compare $(SEEDS:%=$(RUNS)/seed%) --out $(FIGURES)
	@cp $(RUNS)/seed$(firstword $(SEEDS))/figures/* $(FIGURES)/
	@for seed in $(SEEDS); do cp $(RUNS)/seed$$seed/manifest.json $(FIGURES)/manifest-seed$$seed.json; done
	@$(PY) -m lib.run.executed $(RUNS)/seed$(firstword $(SEEDS)) $(FIGURES)/notebooks
	@$(PY) tests/numbers_in_text.py --write

test-all: export SLOW_TESTS = 1
test-all: test

test: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -m serial
	$(PY) -m pytest -m "not serial" -n 2 --dist loadfile

install: $(STAMP)

$(STAMP): $(LISTS)
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or 3.12 is needed; neither was found" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory venv-module
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 1/3 torch"
	@$(PIP) -c requirements-lock.txt $$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)
	@echo "installing into $(VENV): 2/3 requirements.txt"
	@$(PIP) -c requirements-lock.txt -r requirements.txt
	@echo "installing into $(VENV): 3/3 requirements-nodeps.txt"
	@$(PIP) --no-deps -r requirements-nodeps.txt
	@rm -f $(VENV)/.installed-*
	@touch $@

# Debian and Ubuntu keep the venv module in a package of its own.
.PHONY: venv-module
venv-module:
	@name=python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv; \
	echo "installing $$name with apt"; \
	{ $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$name; } >/dev/null \
	|| { echo "$$name is needed: install it with apt, then run make again" >&2; exit 1; }

toolchains: PACKAGES := $(TOOLCHAINS)
browser: PACKAGES := chromium
toolchains browser:
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq \
	&& $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES); }

model: install
	@$(PY) -m lib.models.download $(NAME)

lab: install
	@$(PY) -m jupyterlab --notebook-dir=. $(ARGS)

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis unsloth_compiled_cache
