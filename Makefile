# Everything a person does with this tree. `make` alone prints the list; each target installs what it needs first.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-lab test-kvm lint bench agent wheel picture clean

PYTHON := .venv/bin/python
# Only these files or folders of the lab's tests, only these groups of the benchmark; all of them where nothing is said.
LAB ?=
BENCH ?=

help: ## Print this list
	@printf 'Firebrick: untrusted work, each piece in a microVM of its own.\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nFresh machine? `make demo`, then `make test`.\n'

setup: ## Install what is missing: Debian packages, Python environment, Rust programs, kernel and images
	@tools/setup

demo: ## Build a real project in a microVM, from nothing
	@tools/setup
	@tools/demo

test: ## Run the tests, real machines included
	@tools/setup
	@tools/test

test-lab: ## Run the tests with Firecracker, in an emulated host with KVM
	@tools/setup
	@tools/lab --each $(LAB)

test-kvm: ## Run the tests with Firecracker on this host: needs root and a KVM that works
	@tools/setup
	@tools/lab --here --durations=10

lint: ## Check format, types, imports and the Rust parts
	@tools/setup packages rust python
	@tools/lint

bench: ## Measure against bare QEMU and bare Firecracker; table on the terminal, build/bench.json
	@tools/setup
	@$(PYTHON) -m bench $(BENCH)

agent: ## Build the guest agent, the page server and the tether into the Python package
	@tools/setup packages rust agent pager tether

wheel: ## Build dist/firebrick-*.whl with the agent, the page server and the tether inside
	@tools/setup packages rust python agent pager tether
	@tools/wheel

picture: ## Record docs/picture.svg from a real run
	@tools/setup
	@$(PYTHON) tools/picture.py

clean: ## Remove what was built here; images and kernels in FIREBRICK_HOME stay
	rm -rf build dist agent/target pager/target tether/target src/firebrick/bin src/firebrick/guest/bin src/firebrick/machine/bin .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
