#!/usr/bin/env python3
"""How long clients of the C library go without an answer when a node dies, and when one is told to go.

    failover.py [--rounds 30] [--planned 10] [--drains 3] [--seed N] [--shards 64]

Three nodes, election 300 ms, heartbeat 50 ms, some thousand commands a second. A round kills a random
node with -9 and starts it again some seconds later; planned rounds end a node with SIGTERM; a drain
moves everything off a node while another takes its place. Per account on a shard that the node led:
the longest time between two answers around that moment. Accounts on other shards must see no error;
clients that know only one other node show that without the library's help, clients that know all nodes
show what an application sees.
"""
import argparse
from collections import Counter
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net
import nodes
import rig
import watch

TIMING = ["--election-ms", "300", "--heartbeat-ms", "50"]
SLOTS = 4


class Event:
	"""Something that was done to a node, and the time in which its effects are looked for."""

	def __init__(self, what, node, led, others):
		self.what, self.led = what, set(led)
		self.others = [n.rpc for n in others if n is not node]
		self.begin = time.monotonic_ns()

	def over(self, before_s=0):
		"""Gaps that begin from now on, or since some seconds ago, have another reason."""
		self.end = time.monotonic_ns() - int(before_s * 1e9)
		return self


class Rig:
	def __init__(self, folder, got, rnd):
		self.rnd, self.got = rnd, got
		self.network = net.make(SLOTS, rnd)
		self.cluster = nodes.Cluster(os.path.join(folder, "cluster"), self.network, SLOTS, TIMING,
		                             ["--shards", str(got.shards), "--replication", "3"])
		self.events, self.folder = [], folder

	def begin(self):
		self.cluster.begin(3)
		self.cluster.wait_settled(60, even=True)
		all_nodes = self.cluster.addresses()
		# Two clients as an application has them, then one per node that knows only that one.
		self.watch = watch.Watch(self.folder, [all_nodes, all_nodes, *([a] for a in all_nodes[:3])])
		self.answers(200)

	def answers(self, count, seconds=30):
		goal, end = self.watch.count() + count, time.monotonic() + seconds
		while self.watch.count() < goal:
			self.cluster.watch()
			if time.monotonic() > end:
				raise RuntimeError(f"no progress for {seconds} s")
			time.sleep(.01)

	def sleep(self, seconds):
		end = time.monotonic() + seconds
		while time.monotonic() < end:
			self.cluster.watch()
			time.sleep(.01)

	def event(self, what, node):
		led = self.cluster.wait_settled(60).leads()[node.k]
		self.sleep(.3 + self.rnd.random())
		event = Event(what, node, led, self.cluster.members())
		self.events.append(event)
		return event

	def kill(self):
		node = self.rnd.choice(self.cluster.members())
		event = self.event("kill -9", node)
		node.kill9()
		self.sleep(3.5 + self.rnd.random())
		event.over(.5)
		self.back(node)

	def back(self, node):
		"""It comes again, and the shards it should lead come back to it."""
		event = Event("handed back", node, [], self.cluster.members())
		node.start()
		node.wait_ready()
		status = self.cluster.wait_settled(60)
		event.led = set(status.leads()[node.k])
		self.events.append(event.over())

	def sigterm(self):
		node = self.rnd.choice(self.cluster.members())
		event = self.event("SIGTERM", node)
		node.terminate()
		code = node.process.wait(30)
		if code != 0:
			raise RuntimeError(f"{node.name} ended with {code} after SIGTERM:\n{node.tail()}")
		self.sleep(1.5)
		event.over(.5)
		self.back(node)

	def drain(self):
		new = next(n for n in self.cluster.nodes if not n.member)
		new.start()
		new.wait_ready()
		new.member = True
		self.cluster.wait_settled(90, even=True)
		node = self.rnd.choice([n for n in self.cluster.members() if n is not new])
		event = self.event("drain", node)
		number = self.cluster.status().number[node.k]
		self.cluster.drain(node, number)
		self.cluster.wait(f"node {number} left",
		                  lambda s: any(r["node"] == number and r["state"] == "left" for r in s.nodes), 120)
		event.over()
		node.member = False
		if node.process.wait(30) != 0:
			raise RuntimeError(f"{node.name} left with {node.process.returncode}:\n{node.tail()}")
		node.wipe()

	def end(self):
		self.watch.finish()
		bad = self.cluster.stop()
		if bad:
			raise RuntimeError(f"ended with {bad} after SIGTERM")

	def kill_everything(self):
		if hasattr(self, "watch"):
			self.watch.kill()
		self.cluster.kill()
		self.network.close()

	# ---- what was seen ----
	def keys(self, several):
		"""Accounts of clients that know several nodes, or of those that know one."""
		return [key for key in self.watch.shard if (len(self.watch.clients[key[0]]) > 1) == several]

	def gaps(self, what, led=True):
		"""Milliseconds, per event and account on a shard that the node led, or that others led."""
		return [self.watch.gap_ms(key, e.begin, e.end) for e in self.events if e.what == what
		        for key in self.keys(True) if (self.watch.shard[key] in e.led) == led]

	def gaps_through_others(self, what):
		"""The same for clients that know one node only, another than the victim: without what it costs
		to find another node."""
		return [self.watch.gap_ms(key, e.begin, e.end) for e in self.events if e.what == what
		        for key in self.keys(False)
		        if self.watch.clients[key[0]][0] in e.others and self.watch.shard[key] in e.led]

	def errors_elsewhere(self, what):
		"""Calls that did not succeed at once on shards of others, of clients that know one node only:
		a member that is not the victim."""
		out = []
		for e in self.events:
			if e.what != what:
				continue
			for key in self.keys(False):
				if self.watch.clients[key[0]][0] in e.others and self.watch.shard[key] not in e.led:
					out += [(self.events.index(e), self.watch.shard[key], key[1], s) for s in self.watch.rows(key, e.begin, e.end)
					        if s.attempts > 1 or s.code != "OK"]
		return out


# what, limits of p50, p99 and max in ms
LIMITS = (("kill -9", 800, 1500, 3000), ("SIGTERM", None, 100, None), ("drain", None, 100, None))


def table(rig_, slack):
	"""Prints the figures; returns what was over its limit."""
	over = []
	print(f"  {'event':34} {'n':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
	for what, *limits in (*LIMITS, ("handed back", None, None, None)):
		for tail, gaps in (("", rig_.gaps(what)), (", through another node",
		                    rig_.gaps_through_others(what)),
		                   (", led elsewhere", rig_.gaps(what, False))):
			if not gaps:
				continue
			figures = [watch.percentile(gaps, .5), watch.percentile(gaps, .99), max(gaps)]
			print(f"  {what + tail:34} {len(gaps):6}" + "".join(f" {f:8.0f}" for f in figures))
			if tail == "":
				for name, figure, limit in zip(("p50", "p99", "max"), figures, limits):
					if limit is not None:
						limit *= slack
						good = figure <= limit
						print(f"    {'ok  ' if good else 'OVER'} {what} {name} {figure:.0f} ms <= {limit:.0f} ms")
						if not good:
							over.append(f"{what} {name}")
	for what, *_ in LIMITS:
		if any(e.what == what for e in rig_.events):
			errors = rig_.errors_elsewhere(what)
			print(f"    {'OVER' if errors else 'ok  '} {what}: {len(errors)} errors on shards led elsewhere"
			      + (f", first of {Counter(e[0] for e in errors)}: {errors[0][1:]}" if errors else ""))
			if errors:
				over.append(f"{what} errors elsewhere")
	errors, calls = rig_.watch.failed(lambda client: len(client) > 1)
	print(f"    {'OVER' if errors else 'ok  '} {errors} of {calls} calls of clients that know all nodes "
	      "ended without success in the library")
	return over + ["errors"] * bool(errors)


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--rounds", type=int, default=30)
	args.add_argument("--planned", type=int, default=10)
	args.add_argument("--drains", type=int, default=3)
	args.add_argument("--seed", type=int)
	args.add_argument("--shards", type=int, default=64)
	args.add_argument("--slack", type=float, default=1, help="limits are so many times as high")
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"failover: seed {seed}", flush=True)
	with rig.Scratch("failover") as scratch:
		r = Rig(scratch.path, got, rnd)
		try:
			r.begin()
			todo = [r.kill] * got.rounds + [r.sigterm] * got.planned + [r.drain] * got.drains
			rnd.shuffle(todo)
			for one in todo:
				one()
			r.end()
			over = table(r, got.slack)
		except (RuntimeError, OSError) as error:
			print(f"FOUND {type(error).__name__}: {error}", flush=True)
			scratch.keep = True
			return 1
		finally:
			r.kill_everything()
	rig.show("failover", {"rounds": got.rounds, "planned": got.planned, "drains": got.drains,
	                      "over": "; ".join(over) or "none"})
	return 1 if over else 0


if __name__ == "__main__":
	sys.exit(main())
