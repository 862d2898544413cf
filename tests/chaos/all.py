#!/usr/bin/env python3
"""All chaos runs one after the other: at full length (`make chaos`), or --short for the tests.

    all.py [--short] [--seed N]

Ends with what failed and one line "N passed, N failed"; a run that this machine cannot do is
skipped, with the reason. TROUPED names the daemon; otherwise the release build is used.
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import rig

SKIPPED = 77
LAST_LINES = 30  # of a failed run, said again at the end
CLUSTER_SECONDS = int(os.environ.get("CHAOS_SECONDS") or 1800)

# name, program and its arguments, seconds it may take
FULL = (
	("checker", ["test_history.py"], 300),
	("harness seen red", ["test_rig.py"], 300),
	("kill -9, 100 rounds", ["kill.py"], 1200),
	("kill -9, C client library", ["kill.py", "--library", "--rounds", "20", "--rate", "8000"], 900),
	("power cut, 30 rounds", ["powercut.py"], 900),
	("torn tail at every byte", ["damage.py", "--part", "torn"], 1800),
	("flipped bits", ["damage.py", "--part", "flip"], 2400),
	("lost, cut and holed files", ["damage.py", "--part", "lose"], 900),
	("full disk", ["damage.py", "--part", "full"], 300),
	("failing sync and write", ["damage.py", "--part", "sync"], 600),
	("data of a single node becomes a cluster", ["upgrade.py"], 300),
	("calculator through a cluster, a kill every 5 s", ["calc_cluster.py"], 300),
	("growing and shrinking", ["grow.py"], 900),
	("fail-over", ["failover.py"], 1800),
	("cluster under faults", ["cluster.py"], CLUSTER_SECONDS + 900),
)
SHORT = (
	("checker", ["test_history.py"], 480),
	("harness seen red", ["test_rig.py"], 480),
	("kill -9", ["kill.py", "--rounds", "4", "--rate", "1500", "--longest", ".4"], 480),
	("kill -9, C client library", ["kill.py", "--library", "--rounds", "2", "--longest", ".4"], 480),
	("power cut", ["powercut.py", "--rounds", "2", "--rate", "1500"], 480),
	("torn tail", ["damage.py", "--part", "torn", "--torn", "5"], 480),
	("flipped bits", ["damage.py", "--part", "flip", "--flips", "1"], 480),
	("lost, cut and holed files", ["damage.py", "--part", "lose", "--flips", "1"], 480),
	("full disk", ["damage.py", "--part", "full", "--rate", "1000", "--fillings", "2"], 480),
	("failing sync and write", ["damage.py", "--part", "sync", "--rate", "1000", "--faults", "4"],
	 480),
	("data of a single node becomes a cluster", ["upgrade.py"], 480),
	("calculator through a cluster", ["calc_cluster.py", "--every", "4", "--kills", "1"], 480),
	("growing and shrinking", ["grow.py", "--shards", "16", "--rate", "1000", "--seconds", ".5"],
	 600),
	("fail-over", ["failover.py", "--rounds", "3", "--planned", "1", "--drains", "0", "--slack", "10"],
	 600),
	("cluster under faults", ["cluster.py", "--short", "--seconds", "15", "--epoch", "10",
	                          "--rate", "1500"], 600),
)


def one(name, words, seconds, seed):
	"""Runs it; "ok", "FAILED" or "SKIPPED", and its last lines. Its output is indented, so that
	nobody takes its summary for ours."""
	if seed is not None and not words[0].startswith("test_"):
		words = [*words, "--seed", str(seed)]
	begin = time.monotonic()
	run = subprocess.Popen([sys.executable, os.path.join(HERE, words[0]), *words[1:]],
	                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
	                       errors="replace")
	try:
		said, _ = run.communicate(timeout=seconds)
	except subprocess.TimeoutExpired:
		run.terminate()
		said, _ = run.communicate()
		said += f"\ntimed out after {seconds} s"
	lines = [f"  {line}" for line in said.splitlines() if line]
	result = {0: "ok", SKIPPED: "SKIPPED"}.get(run.returncode, "FAILED")
	print(*lines, f"{result} {name} ({time.monotonic() - begin:.0f} s)", sep="\n", flush=True)
	return result, lines[-LAST_LINES:]


def main(short=False):
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--short", action="store_true")
	args.add_argument("--seed", type=int)
	got = args.parse_args()
	if not os.access(rig.program("trouped"), os.X_OK):
		print(f"no daemon at {rig.program('trouped')}: make, or set TROUPED")
		print("0 passed, 1 failed")
		return 1
	results = []
	failures = []
	for name, words, seconds in SHORT if short or got.short else FULL:
		result, last = one(name, words, seconds, got.seed)
		results.append(result)
		if result == "FAILED":
			failures += [f"FAIL: {name}", *last]
	print(*failures, f"{results.count('ok')} passed, {results.count('FAILED')} failed", sep="\n")
	return 1 if failures else 0


if __name__ == "__main__":
	sys.exit(main())
