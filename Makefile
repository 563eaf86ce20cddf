# Everything starts here, on a machine that has make and Python 3.10 or newer:
# `make` lists what there is. Each target makes the environment it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# These tests run on every CPython found here, the rest on the environment's own.
EVERYWHERE := tests/core tests/everywhere
VERSIONS := 3.10 3.11 3.12 3.13 3.14
VENVS := .venvs

# These run in the oldest supported releases of the frameworks too.
INTEGRATIONS := tests/integrations

# And these in the newest Django, which needs one of these Pythons.
NEWEST := tests/integrations/django
NEWEST_VERSIONS := 3.14 3.13 3.12

# These may take their time, and so run beside each other; the rest has limits to keep,
# and the machine for itself.
BESIDE := -n auto --maxprocesses 4
ALONE := tests/examples tests/faults

# What is formatted and linted.
SOURCES := $(wildcard src tests examples benchmarks docs)

# Public modules whose types are complete down to what they refer to in themselves: no
# type checker has to infer anything.
VERIFIED := edgepool.testing

# All of these write to the same environment.
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo ## See 200 threads and 1,000 tasks share ten connections
	$(BIN)/python examples/demo.py

.PHONY: example-serverless
example-serverless: $(VENV)/.demo pgbouncer ## See 12 instances of a function share 4 sessions
	$(BIN)/python examples/serverless

.PHONY: example-fastapi
example-fastapi: $(VENV)/.test ## See 40 downloads hold none of 4 connections
	$(BIN)/python examples/fastapi

.PHONY: example-flask
example-flask: $(VENV)/.test ## See a guestbook in Flask, and its visitors' times
	$(BIN)/python examples/flask

.PHONY: example-shop
example-shop: $(VENV)/.test ## See one shop in Flask, in Django and in FastAPI, under load
	$(BIN)/python examples/shop flask django fastapi

.PHONY: test
test: test-here test-integrations test-everywhere ## Run all tests, some in several environments

.PHONY: test-here
test-here: $(VENV)/.test tls pgbouncer postgis
	$(BIN)/python -m pytest $(BESIDE) $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

# $(call installed,the call that finds it,Debian's package,what to say without it)
define installed
@if ! PYTHONPATH=tests $(BIN)/python -c '$(1)' 2>/dev/null; then \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    apt-get update --quiet && apt-get install --quiet --yes $(2); \
  else \
    echo $(3); exit 1; \
  fi; \
fi
endef

# The wheel's PostgreSQL was built without OpenSSL.
.PHONY: tls
tls: $(VENV)/.test ## Have a PostgreSQL that speaks TLS; on Debian, install it
	$(call installed,from support.tls import bin_dir; bin_dir(),postgresql,\
	  "tests over TLS need a PostgreSQL that was built with OpenSSL: install one" \
	  "(Debian: apt-get install postgresql)$(,) or say where it is$(,)" \
	  "as in 'EDGEPOOL_TLS_BIN_DIR=/opt/postgresql/bin make test'")

.PHONY: pgbouncer
pgbouncer: $(VENV)/.test ## Have a PgBouncer; on Debian, install it
	$(call installed,from support.pgbouncer import program; program(),pgbouncer,\
	  "tests behind a pooler need PgBouncer: install it" \
	  "(Debian: apt-get install pgbouncer)$(,) or say where it is$(,)" \
	  "as in 'EDGEPOOL_PGBOUNCER=/opt/bin/pgbouncer make test'")

# With it come the libraries that GeoDjango is made of.
.PHONY: postgis
postgis: $(VENV)/.test ## Have a PostgreSQL with PostGIS; on Debian, install it
	$(call installed,from support.postgis import bin_dir; bin_dir(),postgresql-postgis,\
	  "tests of GeoDjango need a PostgreSQL with PostGIS$(,) and GEOS$(,) GDAL and PROJ:" \
	  "install them (Debian: apt-get install postgresql-postgis)$(,) or say where the" \
	  "server is$(,) as in 'EDGEPOOL_POSTGIS_BIN_DIR=/opt/postgresql/bin make test'")

.PHONY: lint
lint: $(VENV)/.lint ## Check format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

.PHONY: format
format: $(VENV)/.lint ## Reformat, and mend what can be mended without thinking
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# It asks the package index whether a newer pyright exists, unless told not to.
.PHONY: types
types: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
types: $(VENV)/.types ## Check types with mypy and pyright, strictly
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=src $(BIN)/python tests/typing/complete.py $(VERIFIED)

.PHONY: bench
bench: $(VENV)/.bench ## Measure edgepool beside the other pools
	$(BIN)/python -m benchmarks

.PHONY: mutants
mutants: $(VENV)/.test ## Break the core in many small ways, and see whether tests notice
	$(BIN)/python -m tests.mutation

.PHONY: faults
faults: export EDGEPOOL_FAULTS := 10
faults: $(VENV)/.test ## Maltreat the pool in all known ways, at full length: for long
	$(BIN)/python -m pytest tests/faults --timeout 3600 -s

MINUTES := 5

.PHONY: soak
soak: export PYTHONPATH := tests
soak: $(VENV)/.test ## Random load and random mishaps, for MINUTES=5; SEED=... repeats one
	$(BIN)/python -m soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: clean
clean: ## Remove environments, caches and builds
	rm -rf $(VENV) $(VENVS) build dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

# The environment. A stamp says that its group is installed as pyproject.toml has it.

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "edgepool needs Python 3.10 or newer, and $(PYTHON) is not:" \
	    "say which is, as in 'make PYTHON=python3.12'"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' # the first with --group
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.types $(VENV)/.bench: \
$(VENV)/.%: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

# The other Pythons. A candidate must start to count: pyenv's shims exist for versions
# that are not switched on.

# $(call candidates,3.12)
candidates = $$(command -v python$(1)) \
  $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python$(1)) \
  $(wildcard $(HOME)/.local/share/uv/python/cpython-$(1).*/bin/python$(1))
IS_NEW_CPYTHON = import platform, sys; sys.exit(\
  platform.python_implementation() != "CPython" or sys.version_info < (3, 12))
IS_CPYTHON = import platform, sys; sys.exit(\
  platform.python_implementation() != "CPython" or sys.version_info[:2] != ($(subst .,$(,) ,$*)))
, := ,

.PHONY: test-everywhere $(VERSIONS:%=test-%)
test-everywhere: $(VERSIONS:%=test-%)

$(VERSIONS:%=test-%): test-%: $(VENV)/.test
	@if $(BIN)/python -c '$(IS_CPYTHON)'; then \
	  echo "== Python $*: has run all tests"; exit; \
	fi; \
	found=; ready=; \
	if [ $(VENVS)/$*/.core -nt pyproject.toml ]; then ready=$(VENVS)/$*; fi; \
	for candidate in $(call candidates,$*); do \
	  if [ -z "$$ready" ] && "$$candidate" -c '$(IS_CPYTHON)' 2>/dev/null; then \
	    found="$$found $$candidate"; \
	    if "$$candidate" -m venv --clear $(VENVS)/$*; then ready=$$candidate; fi; \
	  fi; \
	done; \
	if [ -n "$$ready" ]; then \
	  echo "== Python $*: $$ready"; \
	  $(MAKE) --no-print-directory $(VENVS)/$*/.core && \
	  $(VENVS)/$*/bin/python -m pytest -p no:cacheprovider $(BESIDE) \
	    -m 'not exhaustive' $(EVERYWHERE); \
	elif [ -n "$$found" ]; then \
	  echo "== Python $*: NOT TESTED, no virtual environment from$$found"; \
	else \
	  echo "== Python $*: not on this machine"; \
	fi

# The frameworks, in releases other than the environment's.

.PHONY: test-integrations test-oldest test-newest
test-integrations: test-oldest test-newest

# Where Python is too old for the newest Django, the environment's own is the oldest.
DJANGOS_RELEASE := import django; print(django.VERSION[:2])

test-oldest: $(VENVS)/oldest/.installed
	@spared=; \
	if [ "$$($(BIN)/python -c '$(DJANGOS_RELEASE)')" = \
	  "$$($(VENVS)/oldest/bin/python -c '$(DJANGOS_RELEASE)')" ]; then \
	  echo "== the oldest Django: has run its tests"; \
	  spared=--ignore=$(NEWEST); \
	fi; \
	$(VENVS)/oldest/bin/python -m pytest -p no:cacheprovider $(BESIDE) \
	  $(INTEGRATIONS) $$spared

$(VENVS)/oldest/.installed: $(VENV)/.test
	$(BIN)/python -m venv --clear $(VENVS)/oldest
	$(VENVS)/oldest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENVS)/oldest/bin/python -m pip install --quiet --editable . --group oldest
	@touch $@

test-newest: $(VENV)/.test
	@if $(BIN)/python -c '$(IS_NEW_CPYTHON)'; then \
	  echo "== the newest Django: has run all tests"; exit; \
	fi; \
	ready=; \
	if [ $(VENVS)/newest/.installed -nt pyproject.toml ]; then \
	  ready=$(VENVS)/newest/bin/python; \
	fi; \
	for candidate in $(foreach v,$(NEWEST_VERSIONS),$(call candidates,$(v))); do \
	  if [ -z "$$ready" ] && "$$candidate" -c '$(IS_NEW_CPYTHON)' 2>/dev/null && \
	    "$$candidate" -m venv --clear $(VENVS)/newest; then ready=$$candidate; fi; \
	done; \
	if [ -n "$$ready" ]; then \
	  echo "== the newest Django: $$ready"; \
	  $(MAKE) --no-print-directory $(VENVS)/newest/.installed && \
	  $(VENVS)/newest/bin/python -m pytest -p no:cacheprovider $(BESIDE) $(NEWEST); \
	else \
	  echo "== the newest Django: NOT TESTED, it needs Python 3.12 or newer"; \
	fi

$(VENVS)/newest/.installed: pyproject.toml
	$(VENVS)/newest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENVS)/newest/bin/python -m pip install --quiet --editable . --group newest
	@touch $@

.PHONY: django-suite
django-suite: $(VENV)/.test ## Run Django's own tests on its backend and on edgepool's
	$(BIN)/python tests/integrations/django/suite
	@if [ -e $(VENVS)/newest/.installed ]; then \
	  $(VENVS)/newest/bin/python tests/integrations/django/suite; \
	fi

$(VERSIONS:%=$(VENVS)/%/.core): $(VENVS)/%/.core: pyproject.toml
	$(VENVS)/$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENVS)/$*/bin/python -m pip install --quiet --editable . --group core
	@touch $@
