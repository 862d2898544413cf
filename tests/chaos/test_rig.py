#!/usr/bin/env python3
"""The whole harness against a fake node: quiet when it is right, red for every fault ordered."""
import os
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def kill_run(fault, rounds):
	"""kill.py against fake_node.py with a fault: (exit code, output)."""
	with tempfile.TemporaryDirectory(prefix="troupe-rig-") as folder:
		fake = os.path.join(folder, "trouped")
		with open(fake, "w", encoding="utf-8") as f:
			f.write(f'#!/bin/sh\nexec {sys.executable} {HERE}/fake_node.py "$@"\n')
		os.chmod(fake, stat.S_IRWXU)
		env = {**os.environ, "TROUPED": fake, "CHAOS_FAKE": fault, "CHAOS_TMP": folder,
		       "CHAOS_VERIFY": "no", "PYTHONDONTWRITEBYTECODE": "1"}
		done = subprocess.run([sys.executable, os.path.join(HERE, "kill.py"), "--rounds",
		                       str(rounds), "--rate", "1500", "--longest", ".4"],
		                      env=env, capture_output=True, text=True, timeout=100)
		return done.returncode, done.stdout + done.stderr


class Harness(unittest.TestCase):
	def red(self, fault, kind):
		code, said = kill_run(fault, 3)
		self.assertEqual(code, 1, said)
		self.assertIn(f"VIOLATION {kind} ", said)

	def test_a_node_that_is_right_passes(self):
		code, said = kill_run("none", 3)
		self.assertEqual(code, 0, said)
		self.assertIn("violations=0", said)

	def test_answering_before_writing_is_found(self):
		self.red("early-answer", "LOST")

	def test_forgetting_command_ids_is_found(self):
		self.red("no-dedupe", "DUPLICATE")

	def test_reads_that_lag_are_found(self):
		self.red("stale-read", "STALE-READ")

	def test_opening_silently_short_is_found(self):
		self.red("short-start", "LOST")


if __name__ == "__main__":
	unittest.main()
