#!/usr/bin/env python3
"""A cluster grows from 1 node to 3 and 5 and shrinks to 3, under load through the C client library.

    grow.py [--seed N] [--shards 64] [--rate 3000] [--seconds 3]

After every step: replicas and leaders are even (they differ by at most 1), all replicas of every shard
hold the same, and no more replicas were made than the new node's share. At the end: the library gave
up no operation and the histories are explained by the streams (history.py).
"""
import argparse
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net
import nodes
import rig

SLOTS = 5


class Tracker:
	"""Looks at the status all the time and notes every replica that appears, by node number."""

	def __init__(self, cluster):
		self.cluster, self.made, self.known = cluster, [], {}
		self.take(cluster.status())
		self.made.clear()
		self.stop, self.thread = threading.Event(), threading.Thread(target=self.look, daemon=True)
		self.thread.start()

	def take(self, status):
		"""A new coordinator does not know of a shard's replicas before its leader has told."""
		for g in status.groups:
			nodes_ = {r["node"] for r in g["replicas"]}
			if nodes_:
				self.made += [(g["shard"], n) for n in nodes_ - self.known.get(g["shard"], set())]
				self.known[g["shard"]] = nodes_

	def look(self):
		while not self.stop.wait(.05):
			try:
				self.take(self.cluster.status())
			except OSError:
				continue

	def end(self):
		self.stop.set()
		self.thread.join()
		return self.made


class Grow:
	def __init__(self, folder, got, rnd):
		self.rnd, self.got, self.problems = rnd, got, []
		self.network = net.make(SLOTS, rnd)
		self.cluster = nodes.Cluster(os.path.join(folder, "cluster"), self.network, SLOTS, (),
		                             ["--shards", str(got.shards)])
		self.groups, self.folder = got.shards + 1, folder

	def begin(self, seed):
		self.cluster.begin(1)
		self.run = rig.make_load(rig.Part(self.folder), self.cluster.addresses(), seed, library=True,
		                         rate=self.got.rate, clients=2, shared=100)
		self.run.start()
		self.work(self.got.seconds)

	def work(self, seconds):
		"""Commands are answered all the while."""
		end, count = time.monotonic() + seconds, self.run.count()
		while time.monotonic() < end or self.run.count() == count:
			self.cluster.watch()
			if time.monotonic() > end + 20:
				raise RuntimeError("no command is answered")
			time.sleep(.01)

	def step(self, name, action, allowed):
		"""allowed(made): what is wrong with the (shard, node) pairs that were made, or None."""
		tracker, before, begin = Tracker(self.cluster), self.run.count(), time.monotonic()
		try:
			action()
			status = self.cluster.wait_settled(120, even=True)
		finally:
			made = tracker.end()
		took = time.monotonic() - begin
		wrong = allowed(made)
		if wrong:
			self.problems.append(f"{name}: {wrong}")
		differences, compared = nodes.compare_at(self.cluster, status)
		self.problems += [f"{name}: {d}" for d in differences]
		up = [r for r in status.nodes if r["state"] == "up"]
		print(f"  {name:12} {took:5.1f} s, {len(made):3} replicas made, {compared} shards compared, "
		      f"{(self.run.count() - before) / took:5.0f} commands/s, replicas "
		      f"{[r['replicas'] for r in up]}, leaders {[r['leaders'] for r in up]}, "
		      f"given up {self.run.failures()}", flush=True)
		self.work(self.got.seconds)

	def join(self, node):
		def action():
			node.start()
			node.wait_ready()
			node.member = True

		count = len(self.cluster.members()) + 1
		replicas = self.groups * min(3, count)
		share = -(-replicas // count)

		def allowed(made):
			number = self.cluster.status().number[node.k]
			elsewhere = [pair for pair in made if pair[1] != number]
			if elsewhere:
				return f"{len(elsewhere)} replicas made on nodes that were there before"
			if len(made) > share:
				return f"{len(made)} replicas made, its share is {share}"
			return None

		self.step(f"join {node.name}", action, allowed)

	def drain(self, node):
		status = self.cluster.status()
		number, had = status.number[node.k], status.row(node)["replicas"]

		def action():
			self.cluster.drain(node, number)
			self.cluster.wait(f"node {number} left", lambda s: any(
				r["node"] == number and r["state"] == "left" for r in s.nodes), 120)
			node.member = False
			if node.process.wait(30) != 0:
				raise RuntimeError(f"{node.name} left with {node.process.returncode}")

		def allowed(made):
			return f"{len(made)} replicas made for {had} that went" if len(made) > had else None

		self.step(f"drain {node.name}", action, allowed)

	def whole(self, seed):
		c = self.cluster
		self.begin(seed)
		for n in c.nodes[1:]:
			self.join(n)
		for n in self.rnd.sample(c.members(), 2):
			self.drain(n)
		self.run.finish()
		healed = time.monotonic()
		_, complaints = nodes.wait_equal(c, 15, healed, self.rnd)
		self.problems += complaints
		verdict = rig.Verdict(self.run, self.rnd.choice(c.members()).rpc, seed)
		if self.run.failures():
			self.problems.append(f"{self.run.failures()} operations were given up by the library")
		bad = c.stop()
		if bad:
			self.problems.append(f"ended with {bad} after SIGTERM")
		for n in c.members():
			rig.verify(n.data)
		rig.show("grow", {"seconds_of_each_step_at_least": self.got.seconds, **verdict.figures(),
		                  "given_up": self.run.failures(), "problems": len(self.problems)})
		if not verdict.good():
			self.problems.append(verdict.explain())
		return self.problems


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--seed", type=int)
	args.add_argument("--shards", type=int, default=64)
	args.add_argument("--rate", type=int, default=3000)
	args.add_argument("--seconds", type=float, default=3, help="of load before and after each step")
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"grow: seed {seed}", flush=True)
	with rig.Scratch("grow") as scratch:
		grow = Grow(scratch.path, got, rnd)
		try:
			problems = grow.whole(seed)
		except (RuntimeError, OSError, rig.w.ReadError) as error:
			problems = grow.problems + [f"{type(error).__name__}: {error}"]
		finally:
			if hasattr(grow, "run") and hasattr(grow.run, "process"):
				grow.run.abandon()
			grow.cluster.kill()
			grow.network.close()
		for problem in problems:
			print(f"FOUND {problem}", flush=True)
		scratch.keep |= bool(problems)
	return 1 if problems else 0


if __name__ == "__main__":
	sys.exit(main())
