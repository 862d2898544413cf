# Small models and small cases, gone through whole: tests/spin and tests/explore.
.PHONY: spin
# SPIN="--long --trail": bigger bounds, the steps to each planted fault.
spin:
	$(Q)python3 tests/spin/run.py $(SPIN)
