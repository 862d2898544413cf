"""A cluster of real daemons for the chaos runs: starting, joining, killing and asking them."""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time

import rig
import wire as w

PR_SET_PDEATHSIG = 1


def die_with_parent():
	"""A run that is killed leaves no daemons behind."""
	ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Node:
	"""One place for a daemon: an address that stays, and a data folder that a new member begins
	anew. `ordered`: its end was asked for, so it is no finding."""

	def __init__(self, cluster, k):
		self.cluster, self.k = cluster, k
		self.generation, self.process, self.ordered = 0, None, True
		self.member = False   # belongs to the cluster
		self.stopped = False  # SIGSTOP
		self.leaving = False  # it is being drained
		self.log = os.path.join(cluster.folder, f"log.{k}")
		self.rpc = cluster.network.rpc(k)
		self.trigger = os.path.join(cluster.folder, f"fail.{k}")

	@property
	def data(self):
		return os.path.join(self.cluster.folder, f"data.{self.k}.{self.generation}")

	@property
	def url(self):
		return "tcp://%s:%d" % self.rpc

	@property
	def name(self):
		return f"n{self.k}" if self.generation == 0 else f"n{self.k}.{self.generation}"

	def command(self, more=()):
		c = self.cluster
		words = [*c.network.inside(self.k), rig.program("trouped"), "--data", self.data,
		         "--rpc", self.url, "--cluster", "tcp://%s:%d" % c.network.peer(self.k),
		         "--name", self.name, *c.options]
		if self.rpc[0] != "127.0.0.1":
			words.append("--insecure-listen-anywhere")
		others = [n.url for n in c.nodes if n is not self and n.member]
		if not c.founded:
			words += c.founding
		elif self.k != c.founder or self.generation > 0:
			words += ["--join", ",".join(others[:4])]
		return [*words, *more]

	def start(self, env=None, more=()):
		with open(self.log, "ab") as out:
			self.begun = out.tell()
			self.process = subprocess.Popen(self.command(more), stdout=out, stderr=out,
			                                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
			                                env={**os.environ, **(env or {})})
		self.ordered = self.stopped = False

	def running(self):
		return self.process is not None and self.process.poll() is None

	def ready(self):
		"""It has said so since its start."""
		with open(self.log, "rb") as f:
			f.seek(self.begun)
			data = f.read(1 << 20)
		return any(line.startswith(b"ready ") for line in data.splitlines())

	def wait_ready(self, seconds=60):
		end = time.monotonic() + seconds
		while not self.ready():
			self.cluster.watch()
			if not self.running() or time.monotonic() > end:
				raise RuntimeError(f"{self.name} is not ready after {seconds} s:\n{self.tail()}")
			time.sleep(.01)

	def state(self):
		"""Letter of the process in /proc: R, S, T..."""
		with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as f:
			return f.read().rpartition(")")[2].split()[0]

	def has_left(self):
		"""It was drained and ended by itself: with 0, or with 1 when it heard of it at a start."""
		return (self.leaving and self.process.poll() in (0, 1)
		        and "has left" in self.tail(40))

	def kill9(self):
		"""True when it is really gone, by this signal."""
		self.ordered = True
		self.process.kill()
		return self.process.wait(30) == -signal.SIGKILL

	def pause(self):
		self.process.send_signal(signal.SIGSTOP)
		self.stopped = True

	def resume(self):
		self.process.send_signal(signal.SIGCONT)
		self.stopped = False

	def terminate(self):
		"""Asks it to end; `process` says when and how."""
		self.ordered = True
		self.process.terminate()

	def wipe(self):
		"""What starts here next is a new member."""
		shutil.rmtree(self.data, ignore_errors=True)
		self.generation += 1
		self.process, self.ordered = None, True
		self.member = self.leaving = False

	def tail(self, lines=15):
		if not os.path.exists(self.log):
			return "never started"
		with open(self.log, encoding="utf-8", errors="replace") as f:
			return "".join(f.readlines()[-lines:])

	def link(self, timeout=3.0):
		return w.Link(self.rpc, timeout, min(timeout, 1.0))


class Cluster:
	"""options: of every daemon; founding: of the first one. slots: addresses there are."""

	def __init__(self, folder, network, slots, options=(), founding=(), founder=1):
		self.folder, self.network, self.founder = folder, network, founder
		self.options, self.founding, self.founded = list(options), list(founding), False
		os.makedirs(folder, exist_ok=True)
		self.nodes = [Node(self, k) for k in range(1, slots + 1)]

	def __getitem__(self, k):
		return self.nodes[k - 1]

	def members(self):
		return [n for n in self.nodes if n.member]

	def addresses(self):
		"""Of all nodes that are or may become members."""
		return [n.rpc for n in self.nodes]

	def watch(self):
		"""RuntimeError when a daemon has ended that nobody told to."""
		for n in self.nodes:
			if n.process is not None and not n.ordered and n.process.poll() is not None \
					and not n.has_left():
				code = n.process.returncode
				n.ordered = True
				raise UnexpectedExit(f"{n.name} ended by itself with {code}:\n{n.tail()}")

	def begin(self, count, env=lambda n: None, more=lambda n: ()):
		"""Founds the cluster and lets the others join, one after the other."""
		for n in self.nodes[:count]:
			n.start(env(n), more(n))
			n.wait_ready()
			n.member = self.founded = True
			time.sleep(float(os.environ.get("CHAOS_BEGIN", 0)))

	# ---- asking ----
	def ask(self, name, payload=None, node=None, kind=w.CLUSTER, entity=("", ""), timeout=3.0):
		"""JSON answer of one node, or of whichever answers. OSError when none does."""
		body = json.dumps(payload or {}).encode()
		command_id = os.urandom(8).hex().encode() if kind == w.COMMAND else b""
		said = []
		for n in [node] if node else self.reachable():
			try:
				link = n.link(timeout)
				try:
					got = link.ask(w.call(1, kind, *entity, name, body, command_id, json=1,
					                      timeout_ms=int(timeout * 900)))[0]
				finally:
					link.close()
			except OSError as error:
				said.append(f"{n.name}: {error}")
				continue
			if got.code == w.OK:
				return json.loads(got.payload or b"{}")
			said.append(f"{n.name}: {w.CODE_NAMES[got.code]} {got.error}")
		raise NoAnswer(f"{name}: {'; '.join(said) or 'no node is up'}")

	def reachable(self):
		"""Members that can be asked, those with the least trouble first."""
		up = [n for n in self.members() if n.running() and not n.stopped and n.ready()]
		cut = {k for pair in getattr(self.network, "cuts", ()) for k in pair}
		return sorted(up, key=lambda n: n.k in cut)

	def status(self, node=None, timeout=3.0):
		return Status(self.ask("status", node=node, timeout=timeout), self)

	def admin(self, name, payload, timeout=5.0):
		"""A command to the coordinator."""
		return self.ask(name, payload, kind=w.COMMAND, entity=("cluster", "cluster"),
		                timeout=timeout)

	def drain(self, node, number, timeout=5.0):
		"""Everything is to be moved off the node, which then ends."""
		node.leaving = True
		self.admin("Drain", {"node": number}, timeout)

	def hashes(self, node, upto=None):
		"""shard -> (first, upto, hash) of one node's replicas; upto: shard -> offset not to go beyond."""
		limits = [{"shard": shard, "upto": offset} for shard, offset in (upto or {}).items()]
		got = self.ask("hash", {"shards": list(upto or {}), "upto": limits}, node, timeout=60.0)
		return {s["shard"]: (s["first"], s["upto"], s["hash"]) for s in got["shards"]}

	# ---- waiting ----
	def wait(self, claim, holds, seconds):
		"""Until holds(status) is not empty; returns it. Asks twice a second or so."""
		end, last = time.monotonic() + seconds, None
		while True:
			self.watch()
			try:
				last = self.status()
				found = holds(last)
				if found:
					return found
			except OSError as error:
				last = error
			if time.monotonic() > end:
				raise RuntimeError(f"not {claim} within {seconds} s: {describe(last)}")
			time.sleep(.2)

	def wait_settled(self, seconds=60, even=False):
		return self.wait("settled" + " and even" * even,
		                 lambda s: s if not (s.unsettled() or even and s.uneven()) else None, seconds)

	def stop(self):
		"""Ends everything with SIGTERM; returns exit codes other than 0 by name."""
		for n in self.nodes:
			if n.running():
				if n.stopped:
					n.resume()
				n.terminate()
		bad = {}
		for n in self.nodes:
			if n.process is not None and n.process.returncode is None:
				try:
					code = n.process.wait(30)
				except subprocess.TimeoutExpired:
					n.kill9()
					code = "no exit"
				if code != 0:
					bad[n.name] = code
		return bad

	def kill(self):
		for n in self.nodes:
			if n.running():
				n.kill9()


class NoAnswer(OSError):
	pass


class UnexpectedExit(RuntimeError):
	pass


class Status:
	"""The coordinator's status with node numbers made into places (k)."""

	def __init__(self, raw, cluster):
		self.raw, self.cluster = raw, cluster
		self.groups, self.nodes = raw["groups"], raw["nodes"]
		by_url = {n.url: n for n in cluster.nodes}
		self.place = {}  # node number -> Node; the newest member at an address counts
		for row in self.nodes:
			if row["state"] != "left" and row["rpc"] in by_url:
				self.place[row["node"]] = by_url[row["rpc"]]
		self.number = {n.k: number for number, n in self.place.items()}

	def row(self, node):
		number = self.number.get(node.k)
		return next((r for r in self.nodes if r["node"] == number), None)

	def coordinator(self):
		return self.place.get(self.raw["coordinator"])

	def leads(self):
		"""k -> groups it leads."""
		out = {n.k: [] for n in self.place.values()}
		for g in self.groups:
			if g["leader"] in self.place:
				out[self.place[g["leader"]].k].append(g["shard"])
		return out

	def leader_of(self, shard):
		return next(g["leader"] for g in self.groups if g["shard"] == shard)

	def moving(self):
		return [g["shard"] for g in self.groups if g["moving"] or
		        sorted(r["node"] for r in g["replicas"]) != sorted(g["target"])]

	def unsettled(self):
		"""What is not as it should be at rest; empty when all is."""
		out = []
		for r in self.nodes:
			if r["state"] in ("up", "draining") and not r["reachable"]:
				out.append(f"node {r['node']} not reachable")
			elif r["state"] == "draining":
				out.append(f"node {r['node']} drains")
		up = sum(r["state"] == "up" for r in self.nodes)
		for g in self.groups:
			nodes = sorted(r["node"] for r in g["replicas"])
			if len(nodes) < min(up, self.raw["replication"]):
				out.append(f"shard {g['name']} has {len(nodes)} replicas")
			elif g["leader"] == 0:
				out.append(f"shard {g['name']} has no leader")
			elif g["moving"] or nodes != sorted(g["target"]):
				out.append(f"shard {g['name']} is at {nodes}, should be at {g['target']}")
			elif not all(r["voter"] for r in g["replicas"]):
				out.append(f"shard {g['name']} has learners")
			elif g["preferred"] and g["leader"] != g["preferred"]:
				out.append(f"shard {g['name']} is led by {g['leader']}, not {g['preferred']}")
		return out

	def uneven(self):
		up = [r for r in self.nodes if r["state"] == "up"]
		return [f"{what}: {[r[what] for r in up]}" for what in ("replicas", "leaders")
		        if max(r[what] for r in up) - min(r[what] for r in up) > 1]


def describe(status):
	if not isinstance(status, Status):
		return str(status)
	trouble = status.unsettled() + status.uneven()
	return "; ".join(trouble[:6]) + (f" and {len(trouble) - 6} more" if len(trouble) > 6 else "")


# ---- equal replicas -----------------------------------------------------------------------------

def compare(reports, groups):
	"""Returns (differences, lagging). reports: node number -> shard -> (first, upto, hash). Two
	replicas with the same range and another content never become equal again; one that is not as
	far as the group has committed may still be on its way."""
	differences, lagging = [], []
	for g in groups:
		shard, seen = g["shard"], {}
		for r in g["replicas"]:
			first, upto, content = reports.get(r["node"], {}).get(shard, (0, 0, None))
			if content is None or upto < g["commit"]:
				lagging.append(f"shard {shard} node {r['node']}: {upto} of {g['commit']}")
				continue
			other = seen.setdefault((first, upto), (r["node"], content))
			if other[1] != content:
				differences.append(f"shard {shard} {first}..{upto}: node {other[0]} has {other[1]}, "
				                   f"node {r['node']} {content}")
		if len(seen) > 1:
			lagging.append(f"shard {shard}: different ranges {sorted(seen)}")
	return differences, lagging


def compare_at(cluster, status):
	"""Compares all replicas while commands go on: each group as far as its shortest replica goes."""
	def reports(limits):
		return {number: cluster.hashes(node, limits) for number, node in status.place.items()}

	have, limits = reports(None), {}
	for g in status.groups:
		upto = [have.get(r["node"], {}).get(g["shard"], (0, 0, 0))[1] for r in g["replicas"]]
		if len(upto) > 1 and min(upto) > 0:
			limits[g["shard"]] = min(upto)
	have, differences = reports(limits), []
	for g in status.groups:
		if g["shard"] in limits:
			seen = {r["node"]: have[r["node"]].get(g["shard"]) for r in g["replicas"]}
			if len(set(seen.values())) > 1:
				differences.append(f"shard {g['shard']}: {seen}")
	return differences, len(limits)


def check_compare(reports, groups, rnd):
	"""Changes one replica's hash and takes one away; says what was not noticed."""
	several = [g for g in groups if len(g["replicas"]) > 1]
	if not several:
		return ["one replica each: nothing to compare"]
	group = rnd.choice(several)
	victim = rnd.choice(group["replicas"])["node"]
	first, upto, content = reports[victim][group["shard"]]
	out = []
	changed = {**reports, victim: {**reports[victim], group["shard"]: (first, upto, content + "x")}}
	if not compare(changed, groups)[0]:
		out.append("planted another content in a replica, which was not found")
	gone = {**reports, victim: {k: v for k, v in reports[victim].items() if k != group["shard"]}}
	if not compare(gone, groups)[1]:
		out.append("took a replica away, which was not noticed")
	return out


def wait_equal(cluster, seconds, healed_at, rnd=None):
	"""Until all replicas of all groups hold the same. Returns seconds from `healed_at` to the question
	that found it so, and complaints of the check of the check. RuntimeError otherwise."""
	last = None
	while True:
		cluster.watch()
		asked = time.monotonic()
		try:
			status = cluster.status()
			reports = {number: cluster.hashes(node) for number, node in status.place.items()}
			differences, last = compare(reports, status.groups)
			if differences:
				raise Diverged("REPLICAS DIFFER\n" + "\n".join(differences[:10]))
			if not last:
				return asked - healed_at, check_compare(reports, status.groups, rnd) if rnd else []
		except NoAnswer as error:
			last = [str(error)]
		if time.monotonic() - healed_at > seconds:
			raise Diverged(f"replicas are not equal {seconds} s after healing: {last[:6]}")
		time.sleep(.1)


class Diverged(RuntimeError):
	pass
