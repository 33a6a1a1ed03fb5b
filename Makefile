# Two commands for a new machine: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
JAXTYPING := --jaxtyping-packages=zoo,metanet,data_gen,studies,beartype.beartype
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal
ALL := --doctest-modules zoo data_gen metanet studies tests

.PHONY: demo test test-types test-deep check lint torture fuzz bench clean
.DELETE_ON_ERROR:

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "symzoo needs Python 3.11 or newer; none was found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --config-settings editable_mode=compat -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/generate-zoo demo --out runs/demo
	$(BIN)/symzoo study learnability --recipe learnability-demo --zoo runs/demo --out runs/demo-learnability

# The quick tier. The deep one holds what is long by nature: full products, many examples, fleets.
test: .venv/.installed
	$(PYTEST) -m "not deep" $(ALL)

# The quick tier once more, every annotation of shapes and types checked as it runs.
test-types: .venv/.installed
	$(PYTEST) $(JAXTYPING) -m "not deep and not compile" $(ALL)

test-deep: .venv/.installed
	$(PYTEST) --hypothesis-profile=deep -m "deep or hypothesis" $(ALL)
	$(MAKE) fuzz torture

# Before a commit: lint, types of what changed since BASE and of what imports it, the nearest tests.
BASE ?= HEAD
check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.changed --types --base $(BASE) | xargs -r $(BIN)/pyright
	$(PYTEST) -m "not deep and not compile" $$($(BIN)/python -m tests.changed --base $(BASE))

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fuzz: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_store --cases 10000
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_arguments --cases 2000

torture: .venv/.installed
	$(BIN)/python -m tests.torture --kills 200

bench: .venv/.installed
	$(BIN)/python benchmarks/train_networks.py
	$(BIN)/python benchmarks/store_io.py
	$(BIN)/python benchmarks/metanet_step.py

clean:
	rm -rf .venv runs
