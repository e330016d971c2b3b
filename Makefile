# Everything runs in a virtual environment of its own, .venv, which is made as it is needed: all that has to be there is
# Python 3.11 or later. PYTHON names another one: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command 'make lock'

.PHONY: help demo stack test lint dashboards-lint check bench fuzz dashboards charts lock clean

help:
	@echo 'make demo    see it work: a real model, real data, live traffic that drifts (ARGS=--once: fast, then ends)'
	@echo 'make stack   watch a page arrive: exporters, Prometheus, Alertmanager (ARGS=--once: ends after the first page)'
	@echo 'make test    run the tests, a process for each core (ARGS=... goes to pytest)'
	@echo 'make lint    lint, format, types'
	@echo 'make dashboards-lint   lint the dashboards with Grafana'"'"'s linter, which takes minutes to build'
	@echo 'make check   what CI runs: lint and test'
	@echo 'make bench   measure, side by side with prometheus_client'
	@echo 'make lock    lock what pyproject.toml asks for (ARGS=--upgrade: the newest of everything)'
	@echo 'make dashboards   write grafana/dashboards/*.json anew, from grafana/generate/'
	@echo 'make charts  write what is made in helm/: copies of rules and dashboards, the README'
	@echo 'make fuzz    look for input that a decoder stumbles over (ARGS="samples --seconds 60": only that one)'
	@echo 'make clean   remove everything that was made here'

demo: $(VENV)/.demo
	$(BIN)/mlexporter demo $(ARGS)

stack: $(VENV)/.demo
	$(BIN)/python examples/stack/stack.py $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One file at a time is what it takes. What it may find is in grafana/dashboards/.lint, with the reason.
dashboards-lint: tools/dashboard-linter/bin/dashboard-linter
	@for file in grafana/dashboards/*.json; do echo "$$file"; $< lint --strict "$$file" || exit 1; done

check: lint test

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

# What is locked already stays as it is, unless pyproject.toml asks for another, or ARGS does.
lock: $(VENV)/.dev
	$(LOCK) --extra redis --output-file requirements.lock pyproject.toml $(ARGS)
	$(LOCK) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml $(ARGS)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(LOCK) --constraint requirements-dev.lock --output-file requirements-build.lock $(ARGS) -

fuzz: $(VENV)/.dev
	$(BIN)/python -m fuzz $(ARGS)

dashboards: $(VENV)/.dev
	$(BIN)/python -m grafana.generate

charts: $(VENV)/.dev
	$(BIN)/python -m helm.charts

clean:
	rm -rf $(VENV) tools/promtool/bin tools/dashboard-linter/bin tools/helm/bin tools/helm3/bin tools/kustomize/bin build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples grafana helm -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of packages, made again when what it is made from changes. The package itself is installed in place.
$(VENV)/.demo: pyproject.toml $(VENV)/.made
	@echo 'installing mlexporter and what the demo needs into $(VENV) ...'
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml requirements-dev.lock $(VENV)/.made
	@echo 'installing mlexporter and what the tests need into $(VENV) ...'
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# promtool of Prometheus 3, beside that of Prometheus 2 which Debian has. Without service discovery it takes half the time.
tools/promtool/bin/promtool: tools/promtool/go.mod tools/promtool/go.sum
	cd tools/promtool && go build -trimpath -tags remove_all_sd -o bin/promtool github.com/prometheus/prometheus/cmd/promtool

# Grafana's linter of dashboards.
tools/dashboard-linter/bin/dashboard-linter: tools/dashboard-linter/go.mod tools/dashboard-linter/go.sum
	cd tools/dashboard-linter && go build -trimpath -o bin/dashboard-linter github.com/grafana/dashboard-linter

# Helm, of which Debian has no package. Its own go.sum says what it is made of.
tools/helm/bin/helm:
	GOBIN=$(CURDIR)/tools/helm/bin go install -trimpath helm.sh/helm/v4/cmd/helm@v4.2.3

# Helm 3, which many still have.
tools/helm3/bin/helm:
	GOBIN=$(CURDIR)/tools/helm3/bin go install -trimpath helm.sh/helm/v3/cmd/helm@v3.19.0

# Kustomize: that of Debian's kubectl knows no components.
tools/kustomize/bin/kustomize:
	GOBIN=$(CURDIR)/tools/kustomize/bin go install -trimpath sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
