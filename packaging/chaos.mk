# Reliability with real processes: kill -9, power cut, damaged and full disks, partitions. Release build.
# CHAOS_SECONDS: how long the cluster is under faults (1800). CHAOS_ROUNDS="--rounds 20" and the like go
# to the single runs; each prints its seed.
CHAOS_RUNS := kill powercut damage upgrade calc_cluster grow failover cluster
CHAOS_PY   := PYTHONDONTWRITEBYTECODE=1 python3 tests/chaos
.PHONY: chaos $(CHAOS_RUNS:%=chaos-%)
chaos:
	$(Q)$(MAKE) --no-print-directory V=release all $(TEST_TOOLS:%=build/release/%)
	$(Q)$(CHAOS_PY)/all.py
$(CHAOS_RUNS:%=chaos-%): chaos-%:
	$(Q)$(MAKE) --no-print-directory V=release all $(TEST_TOOLS:%=build/release/%)
	$(Q)$(CHAOS_PY)/$*.py $(CHAOS_ROUNDS)
