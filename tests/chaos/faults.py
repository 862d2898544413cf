"""Faults of a cluster under load, many at a time, from a seed; each counts when it was shown.

A fault is a generator that does something, yields the seconds until it wants to go on, and undoes
what it did. The storm runs them side by side in one thread. Process faults hold the nodes they make
unavailable; no more than a minority is held, but for short pauses of two and for the end of all at
once. Only one fault at a time cuts the network.
"""
import collections
import os
import time

import net
import rig

# How the preloaded library ends a node, and the exit code that is right then.
DISK = (("sync:EIO", 70), ("write:EIO", 70), ("sync:late", 70), ("sync:kill", -9),
        ("sync:killed", -9))


class Active:
	def __init__(self, name, run, holds, cuts=False, alone=False):
		self.name, self.run, self.holds = name, run, set(holds)
		self.cuts, self.alone, self.due = cuts, alone, time.monotonic()


class Storm:
	def __init__(self, cluster, rnd, limit, loads=(), patience=20, only=None):
		self.kinds = {k: self.KINDS[k] for k in only or self.KINDS}
		self.cluster, self.rnd, self.limit, self.loads = cluster, rnd, limit, list(loads)
		self.patience = patience  # seconds in which at least one command must be answered
		self.verified, self.unverified = collections.Counter(), collections.Counter()
		self.active, self.kills = [], []  # kills: (time ns, shards that were led by the victim)
		self.changes = 0       # leaders seen to change after a kill
		self.slowest_start = 0.0
		self.last_acked, self.last_progress = -1, time.monotonic()
		self.story = open(os.path.join(cluster.folder, "faults"), "a", encoding="utf-8")

	def tell(self, text):
		"""Into the file of what was done when, with the daemons' clock."""
		now = time.time()
		at = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}"
		self.story.write(f"{at} {text}\n")
		self.story.flush()

	# ---- what runs ----
	def held(self):
		return set().union(*(a.holds for a in self.active)) if self.active else set()

	def free(self):
		"""Members that nothing happens to."""
		held = self.held()
		return [n for n in self.cluster.members()
		        if n.k not in held and n.running() and not n.stopped]

	def fits(self, count):
		return len(self.held()) + count <= self.limit and len(self.free()) >= count

	def add(self, name, run, holds=(), **more):
		self.tell(f"{name} {[n.name for n in holds] or ''}")
		self.active.append(Active(name, run, [n.k for n in holds], **more))

	def step(self):
		"""Runs what is due."""
		self.cluster.watch()
		for a in list(self.active):
			if time.monotonic() < a.due:
				continue
			try:
				a.due = time.monotonic() + next(a.run)
			except StopIteration:
				self.active.remove(a)
				self.tell(f"{a.name} is over")
			except OSError as error:
				raise RuntimeError(f"{a.name}: {error}") from error

	def progress(self):
		"""RuntimeError when nothing at all was answered for too long."""
		acked, now = sum(load.count() for load in self.loads), time.monotonic()
		stood_still = now - self.looked > 5  # this process did, so maybe the whole machine
		self.looked = now
		if acked != self.last_acked or stood_still:
			self.last_acked, self.last_progress = acked, now
		elif now - self.last_progress > self.patience:
			names = [a.name for a in self.active]
			raise RuntimeError(f"no command was answered for {self.patience} s; faults: {names}")

	def blow(self, seconds, pause=.6):
		"""Starts faults for a while, then lets all that runs come to its end."""
		self.last_progress = self.looked = time.monotonic()
		end, after = time.monotonic() + seconds, time.monotonic()
		while time.monotonic() < end or self.active:
			self.step()
			self.progress()
			if after <= time.monotonic() < end and self.choose():
				after = time.monotonic() + self.rnd.expovariate(1 / pause)
			if time.monotonic() > end + 120:
				raise RuntimeError(f"faults do not end: {[a.name for a in self.active]}")
			time.sleep(.01)
		self.cluster.network.heal()

	def count(self, name, shown=True, n=1):
		self.tell(f"{name}: {'shown' if shown else 'not shown'}")
		(self.verified if shown else self.unverified)[name] += n

	# ---- what to do next ----
	KINDS = {"kill": 14, "stutter": 4, "kill_leader": 10, "kill_coordinator": 4, "pause": 14, "pause_two": 4,
	         "disk": 5, "restart": 4, "rolling": 1.5, "all": 1.2, "isolate": 9, "halves": 4,
	         "one_way": 9, "pair": 5, "flap": 5, "move": 16, "members": 2}

	def choose(self):
		"""Starts a random fault that may be now; True when it did."""
		if any(a.alone for a in self.active):
			return False
		name = self.rnd.choices(list(self.kinds), list(self.kinds.values()))[0]
		return getattr(self, "try_" + name)()

	def leaders(self):
		"""Free members, the one with the most leaders first; None when nobody can tell."""
		try:
			leads = self.cluster.status(timeout=1.0).leads()
		except OSError:
			return None
		return sorted(self.free(), key=lambda n: -len(leads.get(n.k, ())))

	def try_kill(self):
		if not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		self.add("kill", self.kill(n, "kill"), [n])
		return True

	def try_stutter(self):
		if not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		self.add("kills in a row", self.stutter(n), [n])
		return True

	def try_kill_leader(self):
		order = self.leaders() if self.fits(1) else None
		if order:
			self.add("kill leader", self.kill(order[0], "kill leader"), [order[0]])
		return bool(order)

	def try_kill_coordinator(self):
		try:
			n = self.cluster.status(timeout=1.0).coordinator() if self.fits(1) else None
		except OSError:
			return False
		if n not in self.free():
			return False
		self.add("kill coordinator", self.kill(n, "kill coordinator"), [n])
		return True

	def try_pause(self):
		if not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		self.add("pause", self.pause([n], .1 * 50 ** self.rnd.random()), [n])
		return True

	def try_pause_two(self):
		if self.held() or len(self.free()) < 2:
			return False
		two = self.rnd.sample(self.free(), 2)
		self.add("pause two", self.pause(two, .1 * 30 ** self.rnd.random()), two)
		return True

	def try_disk(self):
		if not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		self.add("disk", self.disk(n), [n])
		return True

	def try_restart(self):
		if not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		self.add("SIGTERM", self.restart(n), [n])
		return True

	def try_rolling(self):
		if self.held() or not self.free():
			return False
		self.add("rolling restart", self.rolling(), self.free())
		return True

	def try_all(self):
		if self.held() or any(a.cuts for a in self.active):
			return False
		self.add("all killed", self.kill_all(), self.cluster.members(), alone=True)
		return True

	def cut_fault(self, name, run, holds):
		self.add(name, run, holds, cuts=True)
		return True

	def may_cut(self):
		return self.cluster.network.can_cut and not any(a.cuts for a in self.active)

	def try_isolate(self):
		order = self.leaders() if self.may_cut() and self.fits(1) else None
		if not order:
			return False
		n = order[0] if self.rnd.random() < .7 else self.rnd.choice(order)
		pairs = net.both([n.k], self.others(n))
		name = "isolate"
		if self.rnd.random() < .3:
			pairs += net.both([n.k], [net.HERE])
			name = "isolate, also from clients"
		return self.cut_fault(name, self.cut(name, pairs), [n])

	def try_halves(self):
		members = self.cluster.members()
		few = (len(members) - 1) // 2
		if not self.may_cut() or self.held() or few == 0:
			return False
		side = self.rnd.sample(members, few)
		rest = [n.k for n in members if n not in side]
		return self.cut_fault("halves", self.cut("halves", net.both([n.k for n in side], rest)), side)

	def try_one_way(self):
		if not self.may_cut() or not self.fits(1):
			return False
		n, way = self.rnd.choice(self.free()), self.rnd.choice(("one way, in", "one way, out"))
		pairs = [(o, n.k) if way.endswith("in") else (n.k, o) for o in self.others(n)]
		return self.cut_fault(way, self.cut(way, pairs), [n])

	def try_pair(self):
		"""Two nodes that do not hear each other while a third hears both."""
		if not self.may_cut() or not self.fits(1) or len(self.cluster.members()) < 3:
			return False
		n = self.rnd.choice(self.free())
		other = self.rnd.choice(self.others(n))
		pairs = net.both([n.k], [other])
		if self.rnd.random() < .5:
			pairs = pairs[:1]
		return self.cut_fault("one pair", self.cut("one pair", pairs), [n])

	def try_flap(self):
		if not self.may_cut() or not self.fits(1):
			return False
		n = self.rnd.choice(self.free())
		return self.cut_fault("flapping", self.flap(n), [n])

	def try_move(self):
		self.add("move", self.move())
		return True

	def try_members(self):
		if any(a.name == "members" for a in self.active):
			return False
		unused = [n for n in self.cluster.nodes if not n.member and not n.running()]
		if not unused:
			return False
		self.add("members", self.join_and_drain(self.rnd.choice(unused)))
		return True

	# ---- the faults themselves ----
	def others(self, n):
		return [o.k for o in self.cluster.members() if o is not n]

	def start(self, n):
		"""A generator: starts the node and waits until it serves."""
		env, code = None, None
		if self.rnd.random() < .5:
			fault, code = self.rnd.choice(DISK)
			env = rig.faulty(fault, TRIGGER=n.trigger, MATCH="data.")
		if os.path.exists(n.trigger):
			os.unlink(n.trigger)
		n.disk_code = code
		begin = time.monotonic()
		n.start(env, rig.settings(self.rnd))
		while not n.ready() and not n.has_left():
			self.cluster.watch()
			if time.monotonic() - begin > 60:
				raise RuntimeError(f"{n.name} is not ready after 60 s:\n{n.tail()}")
			yield .02
		took = time.monotonic() - begin
		self.tell(f"{n.name} is ready after {took:.1f} s")
		self.slowest_start = max(self.slowest_start, took)

	def snapshot(self):
		"""shard -> (leader, term), and which the node leads, or nothing."""
		try:
			return self.cluster.status(timeout=1.0)
		except OSError:
			return None

	def kill(self, n, name):
		self.tell(f"kills {n.name}")
		before = self.snapshot()
		led = before.leads().get(n.k, []) if before else []
		now = time.monotonic_ns()
		self.count(name, n.kill9())
		if led:
			self.kills.append((now, led))
		yield self.rnd.random() ** 2 * 3
		while self.rnd.random() < 1 / 6:
			n.start(None, rig.settings(self.rnd))
			yield self.rnd.random() * .3
			if n.running():
				self.count("kill in recovery", n.kill9())
		yield from self.start(n)
		after = self.snapshot() if led else None
		if after:
			terms = {g["shard"]: (g["leader"], g["term"]) for g in before.groups}
			self.changes += sum((g["leader"], g["term"]) != terms[g["shard"]] for g in after.groups
			                    if g["shard"] in led and g["leader"])

	def stutter(self, n):
		"""It is killed again and again, each time when it has just begun to serve."""
		for _ in range(self.rnd.randrange(3, 7)):
			self.count("kill in a row", n.kill9())
			yield self.rnd.random() * .2
			yield from self.start(n)
			yield self.rnd.random() * .4

	def pause(self, nodes, seconds):
		for n in nodes:
			n.pause()
		yield .01
		stood = [n.state() == "T" for n in nodes]
		yield seconds
		for n, stands in zip(nodes, stood):
			self.count("pause" if len(nodes) == 1 else "two paused", stands and n.state() == "T")
			n.resume()
		yield .05

	def disk(self, n):
		"""Its disk fails: it must end by itself at once, with 70 (or die in the middle of it)."""
		if getattr(n, "disk_code", None) is None:
			n.kill9()
			self.count("kill")
			while getattr(n, "disk_code", None) is None:
				if n.running():
					n.kill9()
				yield from self.start(n)
			yield self.rnd.random() * .5
		n.ordered = True
		with open(n.trigger, "w", encoding="ascii"):
			pass
		end = time.monotonic() + 15
		while n.running():
			if time.monotonic() > end:
				raise RuntimeError(f"{n.name} runs on although its disk fails:\n{n.tail()}")
			yield .02
		if n.process.returncode != n.disk_code:
			raise RuntimeError(f"{n.name} ended with {n.process.returncode}, not {n.disk_code}, when "
			                   f"its disk failed:\n{n.tail()}")
		self.count("failing disk" if n.disk_code == 70 else "kill at a sync")
		yield self.rnd.random()
		yield from self.start(n)

	def restart(self, n, name="SIGTERM"):
		n.terminate()
		end = time.monotonic() + 30
		while n.running():
			if time.monotonic() > end:
				raise RuntimeError(f"{n.name} does not end after SIGTERM:\n{n.tail()}")
			yield .01
		if n.process.returncode != 0:
			raise RuntimeError(f"{n.name}: {n.process.returncode} after SIGTERM:\n{n.tail()}")
		self.count(name)
		yield self.rnd.random() ** 2
		yield from self.start(n)

	def rolling(self):
		for n in list(self.cluster.members()):
			yield from self.restart(n, "rolling restart")
			yield .3 + self.rnd.random()

	def kill_all(self):
		# One that has left is on its way out; it would not come back.
		nodes = [n for n in self.cluster.nodes if n.running() and (n.member or not n.leaving)]
		for n in nodes:
			n.ordered = True
			n.process.kill()
		self.count("all killed", all(n.kill9() for n in nodes))
		yield self.rnd.random() * .5
		starts = [self.start(n) for n in nodes]
		while starts:
			for s in list(starts):
				if next(s, None) is None:
					starts.remove(s)
			yield .02

	def cut(self, name, pairs):
		network = self.cluster.network
		network.cut(pairs)
		yield .15 + .1 * 40 ** self.rnd.random()
		dropped = network.dropped(pairs)
		# Of a direction in which nobody speaks while the other is cut, nothing can be dropped.
		self.count(name, any(dropped.values()))
		network.heal(pairs)

	def flap(self, n):
		pairs = net.both([n.k], self.others(n))
		for _ in range(self.rnd.randrange(2, 6)):
			self.cluster.network.cut(pairs)
			yield .1 + self.rnd.random() * .5
			self.count("flapping", any(self.cluster.network.dropped(pairs).values()))
			self.cluster.network.heal(pairs)
			yield .05 + self.rnd.random() * .4

	def move(self):
		"""The leader of a shard goes to another of its replicas."""
		status = self.snapshot()
		if status is None:
			return
		group = self.rnd.choice(status.groups)
		held = self.held()
		to = [r["node"] for r in group["replicas"] if r["voter"] and r["node"] != group["leader"]
		      and r["node"] in status.place and status.place[r["node"]].k not in held]
		if not to or not group["leader"]:
			return
		target = self.rnd.choice(to)
		try:
			self.tell(f"moves shard {group['shard']} from {group['leader']} to {target}")
			self.cluster.admin("Move", {"shard": group["shard"], "node": target}, timeout=2.0)
		except OSError:
			self.count("leader moved", False)
			return
		end = time.monotonic() + 5
		while time.monotonic() < end:
			yield .1
			status = self.snapshot()
			if status and status.leader_of(group["shard"]) == target:
				self.count("leader moved")
				return
		self.count("leader moved", False)

	# ---- members come and go ----
	def until(self, holds, what, seconds=90):
		"""A generator: until holds(status); the status is in self.seen."""
		end = time.monotonic() + seconds
		while True:
			self.seen = self.snapshot()
			if self.seen and holds(self.seen):
				return
			if time.monotonic() > end:
				trouble = self.seen.unsettled()[:8] if self.seen else "no status"
				raise RuntimeError(f"not {what} in {seconds} s: {trouble}")
			yield .1

	def kill_coordinator_in_rebalance(self):
		"""A generator: kills it while replicas are being moved, when there is such a moment."""
		end = time.monotonic() + 5
		while time.monotonic() < end:
			status = self.snapshot()
			if status and status.moving():
				n = status.coordinator()
				self.tell(f"coordinator {n.name if n else '?'}, {len(status.moving())} moving")
				if n in self.free() and self.fits(1):
					me = next(a for a in self.active if a.name == "members")
					me.holds = {n.k}
					moving, term = status.moving(), status.raw["term"]
					gone = n.kill9()
					yield self.rnd.random()
					yield from self.start(n)
					me.holds = set()
					yield from self.until(lambda s: s.raw["term"] > term, "another coordinator", 30)
					self.count("coordinator killed in a rebalance", gone and bool(moving))
					return
			yield .02

	def join_and_drain(self, n):
		"""A new node joins; later one of all, maybe it, is drained, leaves and is wiped."""
		yield from self.start(n)
		n.member = True
		if self.rnd.random() < .6:
			yield from self.kill_coordinator_in_rebalance()
		yield from self.until(lambda s: s.row(n) and s.row(n)["replicas"] > 0, "given replicas")
		self.count("node joined")
		yield self.rnd.random() * 3
		while True:
			going = self.rnd.choice(self.cluster.members())
			if going in self.free():
				break
			yield .1
		yield from self.drain(going)

	def drain(self, going):
		yield from self.until(lambda s: s.row(going), "known")
		number = self.seen.number[going.k]
		end = time.monotonic() + 30
		while True:
			try:
				self.tell(f"drains {going.name}, node {number}")
				self.cluster.drain(going, number, 2.0)
				break
			except OSError as error:
				if time.monotonic() > end:
					raise RuntimeError(f"drain of node {number}: {error}") from error
			yield .2
		if self.rnd.random() < .6:
			yield from self.kill_coordinator_in_rebalance()
		yield from self.until(lambda s: any(r["node"] == number and r["state"] == "left"
		                                    for r in s.nodes), f"node {number} left", 120)
		while going.k in self.held():
			yield .05
		going.member = False
		end = time.monotonic() + 30
		while going.running():
			if time.monotonic() > end:
				raise RuntimeError(f"{going.name} has left and runs on:\n{going.tail()}")
			yield .02
		if going.process.returncode != 0 and not going.has_left():
			raise RuntimeError(f"{going.name} left with {going.process.returncode}:\n{going.tail()}")
		self.count("node drained")
		going.wipe()
