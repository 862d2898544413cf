#!/usr/bin/env python3
"""kill -9 at random moments under load; then nothing may be lost, doubled, reordered or invented.

    kill.py [--rounds 100] [--seed N] [--rate 3000] [--clients 16]

One node, 16 client processes that repeat with the same command id until they are answered. Every
round lets the node answer for a random while, kills it, and starts it on the same data, often with
other settings (workers, memory, passivation, snapshots). One kill in four comes from inside, right
before or right after a random sync; one in six is followed by another while the node recovers; now
and then it is stopped cleanly instead. At the end all streams are read and compared with the
clients' histories (history.py).
"""
import argparse
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig
import wire as w


class Killer:
	def __init__(self, run, daemon, rnd, longest):
		self.run, self.daemon, self.rnd, self.longest = run, daemon, rnd, longest
		self.figures = dict.fromkeys(("kills", "kills_at_a_sync", "kills_in_recovery",
		                              "clean_stops", "recoveries", "passivated",
		                              "snapshots"), 0)
		self.slowest = 0.0

	def start(self):
		self.daemon.args = rig.settings(self.rnd)
		self.daemon.start()
		self.slowest = max(self.slowest, self.daemon.wait_ready())

	def look(self):
		"""What the node did since its start, in the node's own words."""
		link = w.connect(self.daemon.port)
		try:
			for worker in w.read_status(link)["workers"]:
				for name in ("recoveries", "passivated", "snapshots"):
					self.figures[name] += worker[name]
		finally:
			link.close()

	def stop(self):
		code = self.daemon.terminate()
		if code != 0:
			raise RuntimeError(f"clean stop ended with {code}:\n{self.daemon.tail()}")
		self.figures["clean_stops"] += 1

	def kill_at_sync(self):
		"""Starts it again with orders to die at a random sync, and waits for that."""
		self.daemon.kill9()
		self.daemon.args = rig.settings(self.rnd)
		fault = self.rnd.choice(("sync:kill", "sync:killed"))
		self.daemon.start(rig.faulty(f"{fault}:{self.rnd.randrange(1, 300)}"))
		try:
			self.daemon.process.wait(10)
			self.figures["kills_at_a_sync"] += 1
		except subprocess.TimeoutExpired:
			self.daemon.kill9()
		self.figures["kills"] += 1

	def round(self):
		"""A node that answers is made to go and comes back."""
		rig.wait_for_answers(self.run, self.daemon, 20 + self.rnd.randrange(200))
		# Now and then long enough for the indexer and for entities to fall asleep.
		longest = self.longest * (6 if self.rnd.random() < .1 else 1)
		time.sleep(self.rnd.random() ** 2 * longest)
		self.look()
		x = self.rnd.random()
		if x < 1 / 16:
			self.stop()
		elif x < 5 / 16:
			self.kill_at_sync()
		else:
			self.daemon.kill9()
			self.figures["kills"] += 1
		while self.rnd.random() < 1 / 6:
			self.daemon.start()
			time.sleep(self.rnd.random() * .15)
			self.daemon.kill9()
			self.figures["kills_in_recovery"] += 1
		self.start()

	def rounds(self, count):
		while self.figures["kills"] < count:
			self.round()
		return {**self.figures, "slowest_start_s": round(self.slowest, 2)}


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--rounds", type=int, default=100)
	args.add_argument("--seed", type=int)
	args.add_argument("--rate", type=int, default=3000, help="operations per second, all clients")
	args.add_argument("--clients", type=int, default=16)
	args.add_argument("--entities", type=int, default=64, help="shared by all clients")
	args.add_argument("--library", action="store_true",
	                  help="load through the C client library instead of Python clients")
	args.add_argument("--longest", type=float, default=1.0, help="seconds a round may take at most")
	args.add_argument("--keep", action="store_true", help="keep data and histories")
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"kill: seed {seed}", flush=True)
	with rig.Scratch("kill", got.keep) as scratch:
		daemon = rig.Daemon(os.path.join(scratch.path, "data"), rig.free_port(rnd),
		                    os.path.join(scratch.path, "log"))
		begin = time.monotonic()
		daemon.start()
		try:
			daemon.wait_ready()
			run = rig.make_load(scratch, daemon.port, seed, rate=got.rate, clients=got.clients,
			                    shared=got.entities, library=got.library)
			run.start()
			figures = Killer(run, daemon, rnd, got.longest).rounds(got.rounds)
			rig.wait_for_material(run, daemon)
			run.finish()
			took = time.monotonic() - begin
			verdict = rig.Verdict(run, daemon.port, seed)
			daemon.terminate()
			rig.verify(daemon.data)
		finally:
			if daemon.running():
				daemon.kill9()
		figures |= verdict.figures()
		figures["commands_per_s"] = round(figures["commands_acked"] / took)
		rig.show("kill", figures)
		if not verdict.good():
			scratch.keep = True
			print(verdict.explain())
			return 1
	return 0


if __name__ == "__main__":
	sys.exit(main())
