# What a newcomer types: deps, run, test. Installation is in install.mk.
.PHONY: deps deps-build run test
deps:
	$(Q)sh packaging/deps.sh test
deps-build:
	$(Q)sh packaging/deps.sh build

RUN_DIR ?= run
run: deps-build
	$(Q)$(MAKE) --no-print-directory V=release all
	@sh packaging/run.sh build/release "$(RUN_DIR)"

# Everything that CI runs; ends with one line "N passed, N failed". TEST_ARGS="--only debug,lint"
# runs some stages, "--list" names them.
test: deps
	$(Q)python3 tests/run.py $(TEST_ARGS)

-include packaging/install.mk packaging/chaos.mk packaging/interop.mk
