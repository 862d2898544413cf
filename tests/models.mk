# Small models and small cases, gone through whole: tests/spin and tests/explore.
.PHONY: spin explore
# SPIN="--long --trail": bigger bounds, the steps to each planted fault.
spin:
	$(Q)python3 tests/spin/run.py $(SPIN)
# EXPLORE="--only NAME --seconds 300 --memory 1024", DEPTH=n; without: the depths of CI.
EXPLORE ?= $(if $(DEPTH),--depth $(DEPTH),--quick)
explore: $(B)/tests/explore/explore
	$(Q)$< $(EXPLORE)
