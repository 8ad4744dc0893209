# Two targets are for everybody: `make demo` and `make test`. See README.md.

CARGO ?= cargo
RELEASE = target/release/volplane

.DEFAULT_GOAL := help
.PHONY: help demo test lint build package bench test-docker-current test-kubernetes test-long clean \
	setup-build setup-test setup-kubernetes

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 28

setup-build:
	@tests/setup/install build

setup-test: setup-build
	@tests/setup/install test

setup-kubernetes: setup-test
	@tests/setup/install kubernetes

build: setup-build ## the release binaries, target/release/volplane and volplane-flexvolume
	$(CARGO) build --locked --release -p volplane
	$(CARGO) rustc --locked --release -p flexvolume --bin volplane-flexvolume -- -C target-feature=+crt-static

demo: build ## a small signed repository in a container, from nothing
	@tests/demo $(RELEASE)

test: setup-test build ## everything that a change must pass
	@tests/run

lint: setup-build ## rustfmt, clippy, dependency rules
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	@tests/setup/deny

package: build ## dist/: the Debian package, the Docker managed plugin, the container image, the Helm chart
	@packaging/build $(RELEASE)

test-docker-current: setup-test build ## the Docker tests with a current engine, built from Go modules (minutes, cached)
	@tests/docker-current/run

test-kubernetes: setup-kubernetes build ## the tests with a current Kubernetes, built from Go modules (minutes, cached)
	@tests/kubernetes-current/run

test-long: setup-test build ## make test with many more random cases (registry stories, mutated inputs)
	@REGISTRY_CASES=12000 FUZZ_ROUNDS=30000 tests/run

bench: setup-test build ## A against B in one run
	@tests/bench/run

clean: ## the build directory and dist/
	$(CARGO) clean
	rm -rf dist
