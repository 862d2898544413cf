# Reliability with real processes: kill -9, power cut, damaged and full disks. Release build.
# CHAOS_ROUNDS="--rounds 20" and the like go to the runs; each prints its seed.
.PHONY: chaos chaos-kill chaos-powercut chaos-damage
CHAOS_PY := PYTHONDONTWRITEBYTECODE=1 python3 tests/chaos
chaos:
	$(Q)$(MAKE) --no-print-directory V=release all $(TEST_TOOLS:%=build/release/%)
	$(Q)$(CHAOS_PY)/all.py
chaos-kill chaos-powercut chaos-damage: chaos-%:
	$(Q)$(MAKE) --no-print-directory V=release all $(TEST_TOOLS:%=build/release/%)
	$(Q)$(CHAOS_PY)/$*.py $(CHAOS_ROUNDS)
