# One command each; the continuous integration runs the same ones. Recipes that run on are `exec`ed, so
# that a signal to make reaches the program itself. ARGS is handed on: make up ARGS="--port 9000".

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What the functions in functions/ may see of the environment.
VARIABLES := SMTP_URL,SENDGRID_API_KEY,MAIL_FROM,SITES,WEBHOOK_SECRET

# Compiled modules are kept, whatever the environment says: everything here starts many processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up test faults check bench screenshots format lock clean

up: $(INSTALLED) ## start everything: gateway, NATS and two runners on the functions in functions/
	@exec $(BIN)/quarterhour up --function-environment $(VARIABLES) $(ARGS)

test: $(INSTALLED) ## run the whole suite
	@exec $(BIN)/python -m pytest $(ARGS)

faults: $(INSTALLED) ## hurt a whole system for two minutes and check its books; ARGS="--seconds 600 --seed 7 --cluster"
	@exec $(BIN)/python -m tests.faults $(ARGS)

check: $(INSTALLED) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED) ## measure throughput and latency on this machine
	@exec $(BIN)/python -m benchmarks $(ARGS)

screenshots: $(INSTALLED) ## make the README's pictures anew; needs chromium and chromium-driver
	@exec $(BIN)/python docs/screenshots.py

format: $(INSTALLED) ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(BIN)/uv ## write requirements.lock anew; make lock ARGS=--upgrade takes the newest versions
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --fork-strategy fewest --generate-hashes --no-annotate --no-emit-index-url --no-config --quiet \
	    --custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

clean: ## remove what make and the tools made; .quarterhour/, the data, stays
	rm -rf .venv dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed anew only when the lock or pyproject.toml has changed.
$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing into .venv (once; half a minute or so) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/uv: | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Quarterhour needs Python 3.11 or newer; \"$(PYTHON)\" is not that." \
	         "Install one and name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
