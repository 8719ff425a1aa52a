# `make` lists the targets. Everything lands in build/; only `deps` may need root.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# A warm compiler cache stays warm when the folder moves.
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_NOHASHDIR ?= 1

STEP := deploy/step.sh
PRESET ?= release

.PHONY: help deps build-deps build demo test check package package-test lint format clean
help:  ## This list
	@echo "Dimmer: an inference server with a compute budget per request."
	@awk -F ':.*## ' '/^[a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

deps:  ## Install the missing Debian packages for build, tests and checks (root or sudo for it)
	@$(STEP) "Debian packages" "see the lines above; the list is deploy/debian-packages.txt" \
	    deploy/install-packages.sh

build-deps:
	@$(STEP) "Debian packages" "see the lines above; the list is deploy/debian-packages.txt" \
	    deploy/install-packages.sh build server engine converter c++

build: build-deps  ## Build everything (PRESET=release, debug, asan or tsan) into build/PRESET
	@$(STEP) "Configure $(PRESET)" "read build/$(PRESET)/CMakeFiles/CMakeError.log, or start over: make clean" \
	    cmake --preset $(PRESET)
	@$(STEP) "Build $(PRESET)" "the first error above is the cause; 'make build' goes on where it stopped" \
	    cmake --build --preset $(PRESET)

demo: build  ## Serve models/ and run each at several budgets (ONCE=1 stops after that, PORT=8000)
	@deploy/demo.sh

test: deps build  ## Build and run every test
	@deploy/test.sh $(PRESET)

# Every step runs, whatever became of the ones before.
check:  ## Lint; packages and image; every test under ASan and UBSan; engine and scheduler under TSan
	@failed=; \
	$(MAKE) --no-print-directory lint || failed+=" lint"; \
	$(MAKE) --no-print-directory package-test || failed+=" package-test"; \
	$(MAKE) --no-print-directory test PRESET=asan || failed+=" asan"; \
	$(MAKE) --no-print-directory test PRESET=tsan || failed+=" tsan"; \
	if [[ $$failed ]]; then echo "*** make check failed in:$$failed" >&2; exit 1; fi

package: deps  ## Make the Debian packages of the server and the demonstration model
	@$(STEP) "Configure package" "start over: rm -r build/package" cmake --preset package
	@$(STEP) "Build packages" "the first error above is the cause" cmake --build --preset package
	@ls build/package/packages/*.deb

package-test: package  ## Install the packages, build the image, serve from both, in bare trees (root)
	@deploy/test-package.sh

lint: deps build  ## clang-format, clang-tidy, shellcheck, hadolint and ruff
	@deploy/lint.sh

format: deps  ## Rewrite C++ and Python files in the house style
	@deploy/lint.sh --fix

clean:  ## Remove build/
	rm -rf build
