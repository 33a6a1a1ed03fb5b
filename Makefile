# Two commands for a new machine: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
JAXTYPING := --jaxtyping-packages=zoo,metanet,data_gen,studies,beartype.beartype
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: demo test lint torture fuzz bench clean
.DELETE_ON_ERROR:

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "symzoo needs Python 3.11 or newer; none was found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/generate-zoo demo --out runs/demo
	$(BIN)/symzoo study learnability --recipe learnability-demo --zoo runs/demo --out runs/demo-learnability

test: .venv/.installed
	$(PYTEST) $(JAXTYPING) -n 2 --dist worksteal --doctest-modules -m "not compile" zoo data_gen metanet studies tests
	$(PYTEST) -n 2 --dist worksteal -m compile tests

fuzz: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_store --cases 10000

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

torture: .venv/.installed
	$(BIN)/python -m tests.torture --kills 200

bench: .venv/.installed
	$(BIN)/python benchmarks/train_networks.py
	$(BIN)/python benchmarks/store_io.py
	$(BIN)/python benchmarks/metanet_step.py

clean:
	rm -rf .venv runs
