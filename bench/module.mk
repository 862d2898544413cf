# The tables of docs/benchmarks.md. Programs of ours are in BENCHES and release builds; the peers'
# programs are built from the Debian packages that are there and left out otherwise.

BENCHES += bench/floor
bench/floor_SRCS := bench/floor.c

BENCHES += bench/actors
bench/actors_SRCS := bench/actors.c

# The event store alone, and stores in bulk.
BENCHES += bench/store
bench/store_SRCS := bench/store.c bench/store_write.c bench/store_read.c bench/store_generate.c

# Replication: core, host, codec, memory, one voter against none.
BENCHES += bench/raft
bench/raft_SRCS := bench/raft.c bench/raft_group.c bench/raft_one.c bench/raft_step.c

# A node's callers: rpc for the table, touch for bench/cold.py.
BENCHES += bench/rpc bench/touch
bench/rpc_SRCS := bench/rpc.c bench/rpc_transport.c
bench/touch_SRCS := bench/touch.c

# ---- peers ----
PEERS := $(if $(wildcard /usr/include/caf/all.hpp),build/bench/caf) \
         $(if $(shell command -v erlc),build/bench/actors.beam)

build/bench/caf: bench/peers/caf.cpp
	@echo '  CXX    $@'
	@mkdir -p $(@D)
	$(Q)g++ -std=c++17 -O2 -w -o $@ $< -lcaf_core -lpthread
build/bench/actors.beam: bench/peers/actors.erl
	@echo '  ERLC   $@'
	@mkdir -p $(@D)
	$(Q)erlc -o $(@D) $<

# BENCH_ROUNDS=3  BENCH_ONLY=row[,row]: rows whose name contains one of the words
# BENCH_DIR=/var/tmp: where the stores are put; it must be on the disk that is meant
bench:
	$(Q)$(MAKE) --no-print-directory --silent V=release all $(BENCHES:%=build/release/%) $(PEERS)
	$(Q)python3 bench/run.py
