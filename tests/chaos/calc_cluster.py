#!/usr/bin/env python3
"""The recorded calculator workload through a cluster whose nodes are killed: the digest of one node.

    calc_cluster.py [--every 5] [--kills 6] [--nodes 3] [--clients 64] [--seed N]

Clients play the requests of tests/integration/calc.py through any node and repeat what has no answer
with the same command id. Every few seconds a random node is killed with -9 and started again; requests
are spread over the time that takes. Counts, refusals and the digest of all values have to be those of
summary.json, on every node and after all nodes were killed at once.
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

sys.path[:0] = [os.path.join(rig.ROOT, "tests", "integration"), os.path.join(rig.ROOT, "tests", "client")]
import calc
import troupe_client as tc

TIMING = ["--election-ms", "300", "--heartbeat-ms", "50"]


class Anywhere:
	"""command and query of a client that goes to any node and repeats until it knows."""

	def __init__(self, addresses, rnd):
		self.addresses, self.rnd, self.client, self.again = addresses, rnd, None, 0

	def ask(self, call, seconds=60):
		end = time.monotonic() + seconds
		while True:
			try:
				if self.client is None:
					host, port = self.rnd.choice(self.addresses)
					self.client = tc.TroupeClient(host, port, timeout=3.0)
				answer = self.client.send_batch([call])[0]
				if answer.code not in tc.REPEATABLE:
					return answer
			except (OSError, ValueError) as error:
				self.close()
				answer = error
			if time.monotonic() > end:
				raise TimeoutError(f"no answer in {seconds} s: {answer}")
			self.again += 1
			time.sleep(self.rnd.uniform(.005, .05))

	def command(self, *words, command_id):
		return self.ask(tc.command(*words, command_id=command_id))

	def query(self, *words):
		return self.ask(tc.query(*words))

	def close(self):
		if self.client is not None:
			self.client.close()
			self.client = None


class Players(calc.Calculator):
	"""The clients; each has its share of entities and a pace that spreads it over `seconds`."""

	def __init__(self, addresses, seed, seconds):
		super().__init__(None)
		self.addresses, self.seed, self.seconds = addresses, seed, seconds
		self.repeats, self.failures = 0, []
		self.count = 0

	def play(self, numbered):
		client = Anywhere(self.addresses, random.Random(self.seed + numbered[0][0]))
		begin, pace = time.monotonic(), self.seconds / len(numbered)
		try:
			for i, (index, request) in enumerate(numbered):
				time.sleep(max(0, begin + i * pace - time.monotonic()))
				self.one(client, index, request)
				self.count += 1
		except Exception as error:  # a thread's exception must fail the run
			self.failures.append(repr(error))
		finally:
			self.repeats += client.again
			client.close()

	def start(self, clients):
		shares = [[] for _ in range(clients)]
		for index, request in enumerate(calc.workload("calc")):
			share = index if request["h"] is None else request["h"]
			shares[share % clients].append((index, request))
		self.threads = [threading.Thread(target=self.play, args=(s,), daemon=True) for s in shares if s]
		for t in self.threads:
			t.start()

	def playing(self):
		return any(t.is_alive() for t in self.threads)

	def values_at(self, node, count):
		"""As read through one node."""
		client = Anywhere([node.rpc], random.Random(self.seed))
		try:
			return [client.query("calculator", f"value-{i}", "Value", {}).payload["value"]
			        for i in range(count)]
		finally:
			client.close()


def check(players, cluster):
	"""What differs from the recorded run."""
	expected, counts = calc.summary("calc"), players.counts
	wrong = [f"request {w}" for w in players.wrong[:5]] + players.failures[:5]
	for name, key in (("updates_accepted", "updates"), ("updates_rejected", tc.REFUSED),
	                  ("bad_requests", tc.BAD_REQUEST), ("events", "events")):
		if counts[key] != expected[name]:
			wrong.append(f"{name}: {counts[key]}, not {expected[name]}")
	return wrong + check_values(players, cluster)


def check_values(players, cluster):
	expected, wrong = calc.summary("calc"), []
	for node in cluster.members():
		values = players.values_at(node, expected["values"])
		lines = ["%d %s" % (i, calc.struct.pack(">d", v).hex()) for i, v in enumerate(values)]
		if calc.digest(lines) != expected["sha_values"]:
			wrong.append(f"the digest of all values read at {node.name} is another one")
	return wrong


def kill_now_and_then(cluster, players, rnd, every, kills):
	done = 0
	begin = time.monotonic()
	while done < kills:
		due = begin + (done + .7) * every
		while time.monotonic() < due:
			cluster.watch()
			time.sleep(.01)
		if not players.playing():
			raise RuntimeError(f"all requests were answered before kill {done + 1}")
		node = rnd.choice(cluster.members())
		done += node.kill9()
		time.sleep(rnd.random() * min(1, every / 4))
		node.start()
		node.wait_ready()
	while players.playing():
		cluster.watch()
		time.sleep(.02)
	return done


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--every", type=float, default=5, help="seconds between kills")
	args.add_argument("--kills", type=int, default=6)
	args.add_argument("--nodes", type=int, default=3)
	args.add_argument("--clients", type=int, default=64)
	args.add_argument("--seed", type=int)
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"calc_cluster: seed {seed}", flush=True)
	if not os.path.isdir(calc.APPS):
		print(f"no workloads at {calc.APPS}")
		return 77
	with rig.Scratch("calc") as scratch:
		network = net.make(got.nodes, rnd)
		cluster = nodes.Cluster(os.path.join(scratch.path, "cluster"), network, got.nodes, TIMING)
		try:
			cluster.begin(got.nodes)
			cluster.wait_settled(60)
			players = Players(cluster.addresses(), seed, got.every * (got.kills + .2))
			players.start(got.clients)
			kills = kill_now_and_then(cluster, players, rnd, got.every, got.kills)
			wrong = check(players, cluster)
			for n in cluster.members():
				n.kill9()
			for n in cluster.members():
				n.start()
			for n in cluster.members():
				n.wait_ready()
			wrong += [f"after all were killed: {w}" for w in check_values(players, cluster)]
			bad = cluster.stop()
			wrong += [f"ended with {bad} after SIGTERM"] if bad else []
		except (RuntimeError, OSError) as error:
			wrong, kills = [f"{type(error).__name__}: {error}"], 0
		finally:
			cluster.kill()
			network.close()
		for w in wrong:
			print(f"FOUND {w}", flush=True)
		scratch.keep |= bool(wrong)
		if not wrong:
			rig.show("calc_cluster", {"nodes": got.nodes, "kills": kills, "requests": players.count,
			                          "repeats": players.repeats, "digest": "as on one node"})
	return 1 if wrong else 0


if __name__ == "__main__":
	sys.exit(main())
