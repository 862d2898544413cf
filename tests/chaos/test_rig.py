#!/usr/bin/env python3
"""The whole harness against a fake node: quiet when it is right, red for every fault ordered."""
import os
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def fake_run(program, fault, *words):
	"""A run against a fake daemon with a fault: (exit code, output)."""
	with tempfile.TemporaryDirectory(prefix="troupe-rig-") as folder:
		fake = os.path.join(folder, "trouped")
		with open(fake, "w", encoding="utf-8") as f:
			f.write(f'#!/bin/sh\nexec {sys.executable} {HERE}/{program} "$@"\n')
		os.chmod(fake, stat.S_IRWXU)
		env = {**os.environ, "TROUPED": fake, "CHAOS_FAKE": fault, "CHAOS_TMP": folder,
		       "CHAOS_VERIFY": "no", "CHAOS_NET": "loopback", "PYTHONDONTWRITEBYTECODE": "1"}
		done = subprocess.run([sys.executable, os.path.join(HERE, words[0]), *words[1:]],
		                      env=env, capture_output=True, text=True, timeout=100)
		return done.returncode, done.stdout + done.stderr


def kill_run(fault, rounds):
	return fake_run("fake_node.py", fault, "kill.py", "--rounds", str(rounds), "--rate", "1500",
	                "--longest", ".4")


def cluster_run(fault, seconds=4):
	return fake_run("fake_cluster.py", fault, "cluster.py", "--short", "--no-library", "--nodes", "3",
	                "--seconds", str(seconds), "--epoch", str(seconds - 1), "--rate", "800", "--patience", "4")


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


class ClusterHarness(unittest.TestCase):
	def red(self, fault, text, seconds=4):
		code, said = cluster_run(fault, seconds)
		self.assertEqual(code, 1, said)
		self.assertIn(text, said)

	def test_a_cluster_that_is_right_passes(self):
		code, said = cluster_run("none")
		self.assertEqual(code, 0, said)
		self.assertIn("violations=0", said)
		self.assertIn("SKIPPED isolate", said)

	def test_answering_before_writing_is_found(self):
		self.red("early-answer", "VIOLATION ")

	def test_reads_that_lag_are_found(self):
		self.red("stale-read", "VIOLATION STALE-READ")

	def test_a_replica_with_another_content_is_found(self):
		self.red("diverge", "REPLICAS DIFFER")

	def test_a_node_that_ends_by_itself_is_found(self):
		self.red("leave", "ended by itself with 3", 10)

	def test_a_cluster_that_stops_answering_is_found(self):
		self.red("stuck", "no command was answered", 12)


if __name__ == "__main__":
	unittest.main()
