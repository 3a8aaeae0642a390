# The commands of the project. Meson does the building; this file only remembers how to call it.
# `make help` lists the targets.

PREFIX ?= /usr/local
DESTDIR ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

MESON_SETUP = meson setup --buildtype=release --prefix=$(PREFIX)
SOURCES = $(shell find src tests \( -name '*.c' -o -name '*.h' \) 2>/dev/null | sort)

.DEFAULT_GOAL := build
.PHONY: help build test demo install uninstall check-format format lint tsan valgrind oracle oom fuzz torture chaos clean-room clean deps

help: ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what building and testing need (Debian, Ubuntu)
	@scripts/deps.sh build test

build: ## build/arriero, optimised (the default)
	@scripts/deps.sh build
	@test -f build/build.ninja || { rm -rf build/meson-*; $(MESON_SETUP) build; }
	@ninja -j $(JOBS) -C build

test: ## unit tests with sanitizers, then flow tests with the real llama-server
	@scripts/test.sh

demo: ## from nothing to an answer of a real model
	@scripts/demo.sh

install: build ## PREFIX=/usr/local, DESTDIR for packagers
	@meson configure build -Dprefix=$(PREFIX)
	@DESTDIR=$(DESTDIR) meson install -C build

uninstall: ## removes what `make install` put there
	@ninja -C build uninstall

check-format: ## fails when clang-format would change a file
	@scripts/deps.sh format
	@clang-format --dry-run -Werror $(SOURCES) && echo "format: $(words $(SOURCES)) files in order"

format: ## lets clang-format change the files
	@scripts/deps.sh format
	@clang-format -i $(SOURCES)

lint: ## clang-tidy, cppcheck, shell syntax
	@scripts/lint.sh

tsan: ## unit tests under ThreadSanitizer
	@scripts/deps.sh test
	@test -f build-tsan/build.ninja || { rm -rf build-tsan/meson-*; \
	    meson setup build-tsan --buildtype=debugoptimized -Db_sanitize=thread -Dtests=true; }
	@ninja -j $(JOBS) -C build-tsan
	@TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 meson test -C build-tsan --no-rebuild --print-errorlogs

valgrind: ## unit tests under valgrind's memcheck (some minutes)
	@scripts/deps.sh valgrind
	@test -f build-valgrind/build.ninja || { rm -rf build-valgrind/meson-*; \
	    meson setup build-valgrind --buildtype=debugoptimized -Dtests=true; }
	@ninja -j $(JOBS) -C build-valgrind
	@VALGRIND_LACKS=1 meson test -C build-valgrind --no-rebuild --print-errorlogs --timeout-multiplier 30 --wrapper \
	    'valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 --trace-children=no'

oracle: ## the memory planner against the real llama-fit-params; RECORD=1 keeps the answers
	@scripts/oracle.sh $(if $(RECORD),--record)

oom: ## loads on toy GPUs: naive, llama-server's --fit, arriero; OOM_SCENARIOS=N for some
	@scripts/oom.sh

fuzz: ## each fuzz target for FUZZ_SECONDS (60) with libFuzzer
	@scripts/fuzz.sh

torture: ## long tests of the relay: every byte, slow clients; H1SPEC=DIR SMUGGLER=DIR run those tools too
	@scripts/torture.sh

bench-%: build ## a benchmark, as bench-proxy; also writes build/bench/NAME.json
	@scripts/bench.sh $*

chaos: ## faults at random for MINUTES (10) while clients ask; SEED=N plays a run again
	@scripts/chaos.sh

clean-room: ## the README's two commands in fresh Debian chroots (root; SUITES="bookworm trixie")
	@scripts/clean-room.sh

clean: ## removes what was built here
	rm -rf build build-asan build-tsan build-valgrind build-fuzz build-bench build-lint
