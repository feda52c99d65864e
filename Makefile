# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Modules are compiled when first imported: most of what is installed is never run here.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# Some images forbid to keep compiled modules: then each of the many processes of a test would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

.PHONY: setup demo test test-fast test-lowest test-newest soak soak-models soak-families soak-slurm soak-tracking soak-users soak-trials check reference docs bench clean

setup: .venv/ready  ## install zsg and what training and tracking need

demo: .venv/ready  ## three orders of a small self-made data set, trained and compared, in minutes
	$(BIN)/python -m zsg_core.skills demo/tasks --large
	$(BIN)/zsg submit templates/grids/demo.yaml --workspace demo/work

test: .venv/ready-dev  ## the suite; under 15 minutes on 2 cores
	$(PYTEST) -m "not soak" --dist loadfile --module-times

test-fast: .venv/ready-fast  ## what needs no torch, no MLflow and no process of zsg; under 90 seconds on 2 cores
	$(PYTEST) --fast --dist loadfile --durations=5

# The fast tests once more, each time in an environment of its own.
FAST = -m pytest --numprocesses 2 --no-loadscope-reorder --fast --dist loadfile --durations=5

test-lowest: .venv-lowest/ready  ## the fast tests with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python $(FAST)

test-newest:  ## the fast tests under the newest Python of this machine that torch has wheels for
	@newest=$$($(PYTHON) -m tests.lib.newest_python) && \
	if test -n "$$newest"; then \
	  $(MAKE) --no-print-directory NEWEST="$$newest" .venv-newest/ready && \
	  .venv-newest/bin/python --version && .venv-newest/bin/python $(FAST); \
	else echo "NOT RUN: this machine has no Python newer than $(PYTHON), so the fast tests run under no other"; fi

soak: soak-models soak-families soak-slurm soak-tracking soak-users soak-trials  ## the long proofs, each part under 45 minutes on 2 cores

SOAK = ZSG_REQUIRE_BROWSER=1 $(PYTEST) -rP --module-times

soak-models: .venv/ready-dev .venv/ready-bench  ## training: against a plain loop and other trainers, ranks, snapshots, stages, memory
	$(SOAK) --dist loadfile -m "soak(part='models')"

soak-families: .venv/ready-dev  ## every model family: attention, counts, tokenizers, chat templates, LoRA over stages, resume, merge
	$(SOAK) --dist loadfile -m "soak(part='families')"

soak-slurm: .venv/ready-dev  ## whole runs on a real Slurm, disturbed; needs Slurm
	$(SOAK) --dist loadfile -m "soak(part='slurm')"

soak-tracking: .venv/ready-dev .venv/ready-bench  ## journals arrive in MLflow exactly once; needs PostgreSQL
	$(SOAK) --dist loadfile -m "soak(part='tracking')"

soak-users: .venv/ready-dev .venv/ready-bench  ## wheel, pages, other users, sandbox, older workspaces; needs chromium and its driver
	$(SOAK) --dist loadfile -m "soak(part='users')"

soak-trials: .venv/ready-dev  ## every shipped grid tried small, how often verdicts are wrong, changed files for every reader
	$(SOAK) --dist worksteal -m "soak(part='trials')"

reference: .venv/ready-dev  ## the pages of docs/reference anew, from the code
	$(BIN)/python -m launcher.reference_pages

check: .venv/ready-dev  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/ready-docs  ## the pages of docs/ as HTML, in build/docs; warnings are errors
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -c docs . build/docs
	@echo "open build/docs/docs/index.html"

bench: .venv/ready-bench  ## how long commands, submits, orders, readers, reports and training take, against what does the same
	$(BIN)/python -m benchmarks.cli
	$(BIN)/python -m benchmarks.launcher
	$(BIN)/python -m benchmarks.arrange
	$(BIN)/python -m benchmarks.readers
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.tracking
	$(BIN)/python -m benchmarks.evaluate
	$(BIN)/python -m benchmarks.harness

clean:  ## remove what the demo made
	rm -rf demo

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "zsg needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: make setup PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing zsg and its training and tracking extras into .venv (a few minutes the first time)"
	$(PIP) --editable '.[train,track,report,evaluate]'
	@touch $@

# No torch and no MLflow: a first look at the code needs no gigabytes.
.venv/ready-fast: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	@touch $@

# Never built: what an index has no wheel of is a matter between it and this machine.
OTHER_PIP = bin/pip install --quiet --disable-pip-version-check --no-compile --only-binary :all:

.venv-lowest/ready: pyproject.toml constraints.txt tests/lib/lowest_versions.py
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) -m tests.lib.lowest_versions > .venv-lowest/constraints.txt
	@echo "installing the lowest versions that pyproject.toml allows into .venv-lowest"
	.venv-lowest/$(OTHER_PIP) --constraint .venv-lowest/constraints.txt --editable '.[dev]'
	@touch $@

# NEWEST is the Python that make test-newest has found.
.venv-newest/ready: pyproject.toml constraints.txt
	$(NEWEST) -m venv --clear .venv-newest
	@echo "installing zsg for $(NEWEST) into .venv-newest"
	.venv-newest/$(OTHER_PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv/ready-dev: .venv/ready
	$(PIP) --editable '.[train,track,report,evaluate,harness,cpu,dev,interop]'
	@touch $@

.venv/ready-bench: .venv/ready
	$(PIP) --editable '.[train,track,report,evaluate,bench,browser,postgresql]'
	@touch $@

.venv/ready-docs: .venv/ready
	$(PIP) --editable '.[docs]'
	@touch $@
