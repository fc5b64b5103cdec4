# `make` alone lists the targets. Settings are passed as they are: PORT=9000 make run, make run ARGS="--port 9000".
# PYTHON=python3.12 chooses the interpreter of .venv (default: python3); ARGS go to the service or to pytest.

VENV := .venv
PY := $(VENV)/bin/python
# Before 3.11.8 a trace that is logged while pytest parses code ends pytest (python/cpython#106905): traces without carets.
PYTEST := PYTHONNODEBUGRANGES=1 $(PY) -m pytest
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test bench new-connector check-connector format test-containers clean

# $(call install,FILE): a working .venv holding FILE's packages. Quiet and quick when nothing has changed, and it goes by
# the content of the requirements, not by their dates. A venv that broke (the system's Python moved on) is made anew.
define install
@python="$(or $(PYTHON),python3)"; \
fail() { echo "make: $$*" >&2; exit 1; }; \
version() { "$$@" -c 'import pip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }; \
asked() { $$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }; \
have=$$(version $(PY)); \
if [ -z "$$have" ] || { [ -n "$(PYTHON)" ] && [ "$$(asked)" != "$$have" ]; }; then \
	found=$$($$python -V 2>&1) || found="not there"; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		fail "Python 3.11 or newer is needed and $$python is $$found: install one, or name one: PYTHON=python3.12 make $@"; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
		fail "$$found has no venv module: install it (Debian, Ubuntu: apt install python3-venv), or name another: PYTHON=python3.12 make $@"; \
	echo "Making $(VENV) with $$found"; \
	$$python -m venv --clear $(VENV) || { rm -rf $(VENV); fail "$$python -m venv failed, see above"; }; \
fi; \
if ! cat requirements.txt $(1) | cmp -s - $(VENV)/$(1); then \
	echo "Installing $(1)"; \
	log=$$($(PY) -m pip install --disable-pip-version-check --no-input --quiet -r $(1) 2>&1) || \
		{ echo "$$log" >&2; fail "pip could not install $(1), see above: is the package index within reach?"; }; \
	cp requirements.txt $(VENV)/.part && cat $(VENV)/.part $(1) >$(VENV)/$(1) && rm $(VENV)/.part; \
fi
endef

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Set up and start the service; on the built-in emulator if no credential is set
	$(call install,requirements.txt)
	@grep -qsiE '^[[:space:]]*(export[[:space:]]+)?SANDBOX[[:space:]]*=[[:space:]]*[^[:space:]#]' .env assets/env || export SANDBOX="$${SANDBOX:-auto}"; \
	exec $(PY) app.py $(ARGS)

test: ## Set up and run every check: ruff, mypy, pytest, and pytest again in asyncio's debug mode
	$(call install,requirements-dev.txt)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PYTEST) $(ARGS)
	PYTHONASYNCIODEBUG=1 $(PYTEST) -q -k "not timing" --ignore=tests/programs --ignore=tests/dashboard/test_page.py $(ARGS) || [ $$? = 5 ]

format: ## Mend what ruff can mend, and lay out the code
	$(call install,requirements-dev.txt)
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

new-connector: ## Write a connector to start from, and its test: make new-connector NAME=my_api
	$(call install,requirements-dev.txt)
	@$(PY) -m conformance.new '$(NAME)'

check-connector: ## List the promises that a connector keeps: make check-connector CONNECTOR=my_api
	$(call install,requirements.txt)
	@[ -n '$(CONNECTOR)' ] || { echo "make: say which connector: make check-connector CONNECTOR=my_api" >&2; exit 1; }
	@$(PY) -m conformance '$(CONNECTOR)' $(ARGS)

bench: ## Compare speed and size with bare aiohttp, and the pace with the ideal; ARGS=--quick for a short look
	$(call install,requirements-dev.txt)
	$(PY) -m benchmarks $(ARGS)

test-containers: ## Build and run the image, the scripts and compose (needs Docker)
	$(call install,requirements-dev.txt)
	$(PYTEST) tests/containers $(ARGS)

clean: ## Remove .venv and caches; assets stay
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
