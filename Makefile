# make demo    decode the simulated brain of an unseen subject, from nothing to a scored report
# make test    every test; needs PyTorch, to compare with
# make lint    ruff and pyright
# make docs    the documentation site, docs/_build/html/index.html
# make lock    resolve the locked requirements anew (needs uv)
# Each makes what it needs. Another interpreter: make demo PYTHON=python3.12

SHELL = /bin/sh
PYTHON ?= python3
UV ?= uv
VENV = .venv
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip --disable-pip-version-check
CONFIG = configs/demo.yaml

.PHONY: demo test lint docs lock clean-demo
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	$(RUN) -m train.cotrain --config $(CONFIG)
	$(RUN) -m eval.sample --config $(CONFIG)
	$(RUN) -m eval.score --config $(CONFIG)

test: $(VENV)/.test
	$(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

lint: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

docs: $(VENV)/.test
	$(RUN) -m sphinx -n -W --keep-going -q -b html docs docs/_build/html

clean-demo: # forgets the demo's data and results, so that it begins anew
	rm -rf data/demo runs/demo

# Stamps, touched last: an install that was cut short leaves none and is done again.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	echo "glfa_jax needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is" \
	"$$($(PYTHON) --version 2>&1): name another one, as in make PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "$(PYTHON) cannot make virtual environments because its ensurepip or venv module is" \
	"missing: install it first (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created pyproject.toml requirements.lock
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# PyTorch comes by version only: its builds for CPU and CUDA have one version and other hashes.
# Everything else that pip reads in [test,lint,docs] is there already.
$(VENV)/.test: $(VENV)/.runtime requirements-test.lock
	$(PIP) install --require-hashes -r requirements-test.lock
	$(PIP) install --no-build-isolation -e '.[test,lint,docs]'
	@touch $@

# setuptools builds this package. What PyTorch needs beside its own CUDA libraries is locked; it
# and they are not: the override takes them out.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml
TORCH_NEEDS = 'filelock\nfsspec\njinja2\nnetworkx\nsympy\ntyping-extensions\n'

lock:
	@mkdir -p .cache/lock
	@printf 'setuptools>=77\n' > .cache/lock/build.in
	@printf $(TORCH_NEEDS) > .cache/lock/torch.in
	@printf 'torch ; sys_platform == "never"\n' > .cache/lock/without-torch.txt
	$(COMPILE) .cache/lock/build.in .cache/lock/torch.in --extra test --extra lint --extra docs \
	--override .cache/lock/without-torch.txt --no-emit-package torch -o requirements-test.lock
	$(COMPILE) .cache/lock/build.in --constraint requirements-test.lock -o requirements.lock
