# One program per file in unit/ and stress/: a crash loses one file, and -j runs them together.
# $(name)_EXTRA: sources of cmd/, which is no library, and fakes.
TEST_SUPPORT :=
unit_names := $(basename $(shell find tests/unit -name "test_*.c" 2>/dev/null | sort))
UNIT_TESTS += $(unit_names)
$(foreach t,$(unit_names),$(eval $(t)_SRCS := $(t).c $(TEST_SUPPORT) $($(t)_EXTRA))$(eval $(t)_LIBS := -lcmocka))
# Aggregates are tested given / when / then.
$(foreach t,$(filter tests/unit/actors/account/% tests/unit/actors/calculator/%,$(unit_names)), \
	$(eval $(t)_SRCS += tests/support/given.c))
# Actors are tested in the simulator.
$(foreach t,tests/unit/runtime/test_actor tests/unit/runtime/test_ask, \
	$(eval $(t)_SRCS += tests/support/actorbed.c))
# The Raft core is tested on a bench.
$(foreach t,$(filter tests/unit/sharding/test_raft%,$(unit_names)), \
	$(eval $(t)_SRCS += $(wildcard tests/support/raftbed*.c)))
# Between the bench and the core: every allocation of every input fails once.
comma := ,
tests/unit/sharding/test_raft_memory_LDFLAGS := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc \
	$(addprefix sh_raft_,init restore_entries start tick recv propose propose_members stored sent \
	resume installed transfer read_begin))

# Programs that tests in other languages use.
TEST_TOOLS := tests/chaos/load
tests/chaos/load_SRCS := tests/chaos/load.c
TEST_TOOLS += tests/chaos/gap
tests/chaos/gap_SRCS := tests/chaos/gap.c
TEST_TOOLS += tests/explore/explore
tests/explore/explore_SRCS := $(addprefix tests/explore/,explore.c scenarios.c state.c step.c world.c)

stress_names := $(basename $(shell find tests/stress -name 'stress_*.c' 2>/dev/null | sort))
STRESS_TESTS += $(stress_names)
$(foreach t,$(stress_names),$(eval $(t)_SRCS := $(t).c))

fuzz_names := $(basename $(shell find tests/fuzz -name 'fuzz_*.c' 2>/dev/null | sort))
FUZZERS += $(fuzz_names)
$(foreach t,$(fuzz_names),$(eval $(t)_SRCS := $(t).c)$(eval $(t)_LIBS := -fsanitize=fuzzer))

include tests/models.mk

# Whole groups of replicas in one thread, from a seed: tests/sim/sim.h.
TEST_TOOLS += tests/sim/sim
tests/sim/sim_SRCS := $(addprefix tests/sim/,check.c disk.c load.c log.c main.c net.c port.c shape.c trace.c world.c) tests/support/seeds.c

# Whole clusters in one thread, over a store in memory: tests/clustersim/clustersim.h. The store is
# compared with the real one: two programs that have to say the same.
mem_SRCS := $(addprefix tests/clustersim/,mem_data.c mem_disk.c mem_indexer.c mem_reader.c mem_store.c \
	mem_writer.c)
TEST_TOOLS += tests/clustersim/clustersim
tests/clustersim/clustersim_SRCS := $(addprefix tests/clustersim/,admin.c check.c client.c clock.c history.c \
	main.c net.c node.c shape.c trace.c world.c) $(mem_SRCS) tests/support/seeds.c
TEST_TOOLS += tests/clustersim/conform_mem tests/clustersim/conform_real
tests/clustersim/conform_mem_SRCS := $(addprefix tests/clustersim/,conform.c conform_main.c conform_mem.c) \
	$(mem_SRCS)
tests/clustersim/conform_real_SRCS := $(addprefix tests/clustersim/,conform.c conform_main.c \
	conform_real.c)
tests/unit/clustersim/test_mem_SRCS += $(mem_SRCS)
$(B)/tests/unit/clustersim/test_conform.passed: $(addprefix $(B)/tests/clustersim/,conform_mem conform_real)

# Breaks one rule of consensus at a time: MUTANTS='--few', '--only NAME', see --help.
.PHONY: mutants
mutants:
	$(Q)$(MAKE) --no-print-directory V=debug all check-build
	$(Q)python3 tests/mutants/mutants.py $(MUTANTS)
