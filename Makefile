# The same steps that .ci/run takes. `cargo build` and `cargo test` work without any of this: they build a helper for
# this machine's own glibc, which is all that development needs.

.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help build check verify verify-reproducible release demo test test-all test-aarch64 test-stack test-field test-field-images faults signals pictures docs compare fuzz valgrind miri bench msrv lint map clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

ARCH ?= $(shell uname -m)
build: ## dist/cuda-entrypoint: static, stripped, reproducible, helper inside; with ARCH=aarch64 dist/cuda-entrypoint-aarch64
	@tests/build/build.sh "$(ARCH)"

verify: ## check dist/cuda-entrypoint against what `make build` promises
	@tests/build/verify.sh

verify-reproducible: ## build twice in two folders and compare the sha256
	@tests/build/reproducible.sh

release: ## dist/release from a clean tree and its tag: archives, image, sums, bill of materials; RELEASE_KEY signs; uploads nothing
	@tests/release/release.sh

demo: build ## fetch real CUDA 12.4 wheels and start a command behind the entrypoint; needs no GPU
	@tests/demo/demo.sh

test: build ## every test that this machine can run; the last lines say what was not run, and what brings it
	@tests/test.sh

check: ## unit tests and lints: before each commit
	@cargo test --locked --quiet --lib
	@tests/lint/lint.sh

test-all: build ## every test; one that cannot be run here has failed
	@tests/test.sh --all

test-aarch64: ## what the aarch64 binary does in an image for arm64, by qemu: root, debootstrap, 2.5 GB from Debian and PyPI
	@tests/aarch64/prepare.sh
	@cargo test --quiet --locked --test integration -- aarch64::

test-stack: build ## a full torch 2.5.0 environment, and the service image with it: 8 GB from PyPI
	@tests/stack_full/run.sh
	@if [[ $$CUDA_ENTRYPOINT_SKIP_DOCKER == 1 ]]; then \
	  echo "== NOT TESTED: the service image with torch, because CUDA_ENTRYPOINT_SKIP_DOCKER=1 is set ==" >&2; \
	else tests/docker/full.sh; fi

test-field: build ## environments that people use and the examples, started behind fake GPUs, and reported faults: 60 GB from PyPI
	@tests/build/fakes.sh >/dev/null
	@tests/field/run.py

test-field-images: build ## the Dockerfiles of the examples, built on stand-in base images and started behind fake GPUs: Docker, root, 25 GB from PyPI and Debian
	@tests/build/fakes.sh >/dev/null
	@tests/field/images.py

faults: ## how many faults tests/faults.md lists, and the tests that show what becomes of them
	@tests/lint/faults.py --count

signals: build ## a thousand signals at random moments, in containers and outside of them: SIGNAL_RUNS
	@SIGNAL_RUNS=$${SIGNAL_RUNS:-1000} cargo test --quiet --locked --test integration -- signals::a_signal_at_a_random_moment --nocapture
	@. tests/build/folders.sh; CUDA_ENTRYPOINT_DIST=$$dist/cuda-entrypoint SIGNAL_RUNS=$${SIGNAL_RUNS:-1000} \
	  cargo test --quiet --locked --test integration -- signals_docker::a_signal_at_a_random_moment --nocapture

compare: build ## --init beside tini and catatonit, case by case
	@tests/init/compare.sh

valgrind: ## the helper against the fake driver and real CUDA libraries, under valgrind; `make test` does that too
	@valgrind --version
	@tests/build/wheels.py demo tests >/dev/null
	@cargo test --quiet --locked --test integration -- valgrind::

miri: ## the modules that only compute, under miri; needs a nightly toolchain that has it
	@tests/miri.sh

fuzz: ## each parser with 10,000,000 hostile inputs, which takes hours; needs a C++ compiler
	@tests/fuzz/run.sh

bench: build ## what the image stage costs on that environment, beside a Python entrypoint and cuobjdump
	@tests/bench/run.sh

msrv: ## compile with the oldest Rust that Cargo.toml states, where it is installed
	@tests/build/msrv.sh

lint: ## formats, clippy, shell, Dockerfiles, licenses, texts
	@tests/lint/lint.sh

pictures: build ## draw the pictures of README.md from what the binary says: 0.7 GB from PyPI
	@tests/pictures/render.py

docs: ## write what is generated of the documentation: docker/reference.md's tables, docker/findings, completions, man page
	@WRITE_DOCS=1 cargo test --quiet --locked --test integration -- docs::generated

map: ## draw the modules and what they use into ARCHITECTURE.md
	@tests/lint/map.py --write

clean: ## remove dist and the demo; `cargo clean` removes the rest
	. tests/build/folders.sh; rm -rf "$$dist" "$$target/demo"
