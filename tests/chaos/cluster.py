#!/usr/bin/env python3
"""A cluster of real daemons under load and under faults; the clients' histories are the judge.

    cluster.py [--seconds 1800] [--nodes 3|5] [--seed N] [--rate 3000] [--epoch 60] [--short]

Rounds: a new cluster each, of 3 nodes or 5, with a random number of shards and random settings. In
every epoch of a round Python clients and the C client library load all nodes, faults run from the
seed (faults.py), then everything is healed. Within 15 seconds all replicas must be equal by content
hash; every command has its answer; the streams explain the histories (history.py; the feed too, where nodes
hold every shard); no daemon ended that was not told to. Every node is in a network namespace of its own when this machine allows it,
else on loopback, where the network cannot be cut.
"""
import argparse
import collections
import gc
import os
import random
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults
import history as h
import net
import nodes
import rig
import wire as w

HEAL_SECONDS = 15
TIMING = ["--election-ms", "300", "--heartbeat-ms", "50"]


class Found(RuntimeError):
	pass


def percentile(values, share):
	values = sorted(values)
	return values[min(len(values) - 1, int(len(values) * share))] if values else 0


class Epoch:
	"""Load and faults for a while, then the judgement."""

	def __init__(self, scratch, cluster, seed, rnd, limit, got, feed):
		self.cluster, self.seed, self.rnd, self.feed = cluster, seed, rnd, feed
		self.runs = []
		for i, library in enumerate((False,) if got.no_library else (False, True)):
			folder = os.path.join(scratch.path, f"epoch.{seed}.{i}")
			os.makedirs(folder)
			rate = got.rate if got.no_library else got.rate * (1 + library) // 3
			run = rig.make_load(rig.Part(folder), cluster.addresses(), seed * 2 + i, library=library,
			                    rate=rate, clients=6, shared=12 if got.short else 24, timeout=2.0)
			self.runs.append(run)
		self.storm = faults.Storm(cluster, rnd, limit, self.runs, got.patience,
		                          got.faults and got.faults.split(","))

	def begin(self):
		self.position = None
		if self.feed:
			link = w.connect(self.any_node().rpc)
			try:
				self.position = w.end_of_feed(link)
			finally:
				link.close()
		for run in self.runs:
			run.start()

	def any_node(self):
		return self.rnd.choice([n for n in self.cluster.members() if n.running()])

	def finish_load(self):
		"""Both at once; the replicas are looked at meanwhile."""
		errors = []

		def finish(run):
			try:
				run.finish()
			except Exception as error:
				errors.append(error)

		threads = [threading.Thread(target=finish, args=(run,)) for run in self.runs]
		for t in threads:
			t.start()
		while any(t.is_alive() for t in threads):
			self.cluster.watch()
			time.sleep(.02)
		if errors:
			raise errors[0]

	def run(self, seconds):
		begin = time.monotonic()
		self.begin()
		self.storm.blow(seconds)
		healed = time.monotonic()
		self.finish_load()
		answered = time.monotonic()
		self.equal_after, complaints = nodes.wait_equal(self.cluster, HEAL_SECONDS, healed, self.rnd)
		self.complaints = complaints
		# Faults are planted in one of the two histories.
		planted = self.seed % len(self.runs)
		self.verdicts = [rig.Verdict(run, self.any_node().rpc, self.seed, i == planted, self.position, 3)
		                 for i, run in enumerate(self.runs)]
		self.check_copies()
		self.took = {"storm_s": healed - begin, "last_answers_s": answered - healed,
		             "check_s": time.monotonic() - answered}

	def check_copies(self, entities=6):
		"""Streams of some entities as each node's own replica has them."""
		for verdict in self.verdicts:
			for entity in self.rnd.sample(sorted(verdict.streams), entities):
				for n in self.cluster.members():
					link = w.connect(n.rpc)
					try:
						copy = [rig.event(s) for s in w.read_stream(link, entity, stale=1)]
					finally:
						link.close()
					if copy != verdict.streams[entity]:
						verdict.errors.append(("COPY", entity, f"{n.name} has {len(copy)} events, "
						                       f"others {len(verdict.streams[entity])}"))

	def good(self):
		return not self.complaints and all(v.good() for v in self.verdicts) \
			and not any(op.outcome == h.UNKNOWN for v in self.verdicts for op in v.ops)

	def explain(self):
		lines = [f"CHECKER {c}" for c in self.complaints]
		for v in self.verdicts:
			never = [op for op in v.ops if op.outcome == h.UNKNOWN]
			if never:
				lines.append(f"NEVER ANSWERED x{len(never)}: {never[0]}")
			lines.append(v.explain())
		return "\n".join(lines)

	def gaps(self):
		"""Milliseconds from the kill of a leader to the next answer, per entity that it led."""
		out = []
		for verdict in self.verdicts:
			shards = {e: s[0].shard for e, s in verdict.streams.items() if s}
			acked = collections.defaultdict(list)
			for op in verdict.ops:
				if op.outcome == h.OK and op.kind in h.WRITES:
					acked[op.entity].append(op.t1)
			for entity, times in acked.items():
				times.sort()
				for killed, led in self.storm.kills:
					if shards.get(entity) in led:
						after = next((t for t in times if t > killed), None)
						if after:
							out.append((after - killed) / 1e6)
		return out


class Round:
	"""One cluster from its founding to its end."""

	def __init__(self, scratch, number, rnd, got):
		self.rnd, self.got = rnd, got
		self.size = got.nodes or (5 if number % 4 == 3 else 3)
		self.replication = self.size
		if self.size == 5 and rnd.random() < .3:
			self.replication = 3
		shards = rnd.choice((8, 16)) if got.short else rnd.choice((4, 16, 64, 64))
		self.shards = shards
		self.scratch = rig.Part(os.path.join(scratch.path, f"round.{number}"))
		self.network = net.make(self.size + 1, rnd)
		self.cluster = nodes.Cluster(
			os.path.join(self.scratch.path, "cluster"), self.network, self.size + 1, TIMING,
			["--shards", str(shards), "--replication", str(self.replication)])
		self.epochs, self.verified = [], collections.Counter()
		self.unverified = collections.Counter()

	def run(self, seconds):
		"""Epochs until the time is over; True when nothing was found."""
		end = time.monotonic() + seconds
		limit = (self.replication - 1) // 2
		try:
			self.cluster.begin(self.size, more=lambda n: rig.settings(self.rnd))
			self.cluster.wait_settled(60)
			while True:
				left = end - time.monotonic()
				epoch = Epoch(self.scratch, self.cluster, self.rnd.randrange(1, 1_000_000), self.rnd,
				              limit, self.got, feed=self.replication == self.size)
				self.epochs.append(epoch)
				try:
					epoch.run(max(min(self.got.epoch, left), 3))
				except BaseException:
					for run in epoch.runs:
						abandon(run)
					raise
				if not epoch.good():
					print(epoch.explain())
					return False
				self.report(epoch)
				if time.monotonic() + 5 > end:
					break
			bad = self.cluster.stop()
			if bad:
				raise Found(f"ended with {bad} after SIGTERM")
			for n in self.cluster.members():
				rig.verify(n.data)
			return True
		finally:
			self.cluster.kill()
			self.network.close()

	def report(self, epoch):
		figures = {"nodes": self.size, "replication": self.replication, "shards": self.shards,
		           "faults": sum(epoch.storm.verified.values()),
		           "commands_acked": sum(v.figures()["commands_acked"] for v in epoch.verdicts),
		           "equal_after_s": round(epoch.equal_after, 1),
		           **{k: round(v, 1) for k, v in epoch.took.items()}}
		rig.show("  epoch", figures)


def abandon(run):
	try:
		run.abandon()
	except Exception:
		pass  # it did not start


class Total:
	"""Figures of all rounds."""

	def __init__(self):
		self.verified, self.unverified = collections.Counter(), collections.Counter()
		self.figures, self.gaps, self.equal = collections.Counter(), [], []
		self.changes, self.slowest, self.longest = 0, 0.0, 0.0

	def add(self, round_):
		for epoch in round_.epochs:
			self.verified += epoch.storm.verified
			self.unverified += epoch.storm.unverified
			self.changes += epoch.storm.changes
			self.slowest = max(self.slowest, epoch.storm.slowest_start)
			for verdict in getattr(epoch, "verdicts", ()):
				self.figures.update(verdict.figures())
				self.longest = max(self.longest, *((op.t1 - op.t0) / 1e9 for op in verdict.ops))
			if hasattr(epoch, "verdicts"):
				self.equal.append(epoch.equal_after)
				self.gaps += epoch.gaps()

	def show(self, took, network):
		print(f"  network: {'namespaces, cuts with nft' if network.can_cut else 'loopback'}"
		      + ("" if network.can_cut else f" ({network.why}): SKIPPED isolate, halves, one way, "
		         "pairs, flapping"))
		for name, n in sorted(self.verified.items()):
			missed = self.unverified.get(name, 0)
			print(f"  {name:36} {n:6} verified" + (f", {missed} not shown" if missed else ""))
		for name in sorted(set(self.unverified) - set(self.verified)):
			print(f"  {name:36}      0 verified, {self.unverified[name]} not shown")
		if self.gaps:
			print(f"  from the kill of its leader to an entity's next answer, ms: "
			      f"p50 {percentile(self.gaps, .5):.0f} p99 {percentile(self.gaps, .99):.0f} "
			      f"max {max(self.gaps):.0f} of {len(self.gaps)}")
		rig.show("cluster", {
			"seconds": round(took), "faults_verified": sum(self.verified.values()),
			"leaders_changed_by_kills": self.changes, **self.figures,
			"commands_per_s": round(self.figures["commands_acked"] / took),
			"slowest_start_s": round(self.slowest, 2), "slowest_answer_s": round(self.longest, 1),
			"equal_after_s_median": round(statistics.median(self.equal), 1) if self.equal else "none",
			"equal_after_s_max": round(max(self.equal), 1) if self.equal else "none"})


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS") or 1800))
	args.add_argument("--nodes", type=int, default=0, help="3 or 5; both by turns when not given")
	args.add_argument("--seed", type=int)
	args.add_argument("--rate", type=int, default=3600, help="operations per second, all clients")
	args.add_argument("--epoch", type=float, default=50, help="seconds of faults before each check")
	args.add_argument("--round", type=float, default=300, help="seconds of a cluster's life")
	args.add_argument("--short", action="store_true", help="few shards and entities")
	args.add_argument("--patience", type=float, default=20,
	                  help="seconds in which at least one command must be answered")
	args.add_argument("--faults", metavar="KIND,KIND", help="only these: " + ", ".join(faults.Storm.KINDS))
	args.add_argument("--no-library", action="store_true", help="Python clients only")
	args.add_argument("--keep", action="store_true", help="keep data and histories")
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"cluster: seed {seed}", flush=True)
	gc.disable()  # millions of small tuples and hardly a cycle
	total, begin, number = Total(), time.monotonic(), 0
	with rig.Scratch("cluster", got.keep) as scratch:
		good = True
		while good and (number == 0 or time.monotonic() + 10 < begin + got.seconds):
			left = begin + got.seconds - time.monotonic()
			round_ = Round(scratch, number, rnd, got)
			try:
				good = round_.run(min(got.round, left))
			except (RuntimeError, OSError, w.ReadError) as error:
				print(f"FOUND {type(error).__name__}: {error}", flush=True)
				good = False
			total.add(round_)
			if good and not got.keep:
				rig.shutil.rmtree(round_.scratch.path, ignore_errors=True)
			number += 1
		total.show(time.monotonic() - begin, round_.network)
		scratch.keep |= not good
	return 0 if good else 1


if __name__ == "__main__":
	sys.exit(main())
