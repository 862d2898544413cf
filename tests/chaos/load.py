"""The load: client processes that move money between accounts and write down what they saw.

Every client keeps a batch under way on one connection, repeats what got no definite answer with the
same command id until it gets one, and writes one line of history per operation. On purpose it also
repeats commands that were answered long ago, sends twins of a command in one batch, names expected
sequence numbers, and reads balances in between.
"""
import ctypes
import mmap
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque

import history as h
import wire as w

RETRY = {w.BUSY, w.UNAVAILABLE, w.UNKNOWN, w.TIMEOUT}
# After these an attempt may still take effect, so a later refusal proves nothing about it.
OPEN_ENDED = {w.UNKNOWN, w.TIMEOUT}
FIRST_MONEY = 50_000  # on every account


class Plan:
	"""What the clients do. rate: operations per second of all clients together. nodes: a port, or
	the addresses of several nodes; a client goes to any and changes when that one does not answer.
	timeout: seconds until it gives an answer up."""

	def __init__(self, nodes, folder, seed, clients=16, shared=32, rate=3000, batch=16, ref_bytes=0,
	             timeout=10.0):
		self.nodes = [nodes] if isinstance(nodes, int) else list(nodes)
		self.several = len(self.nodes) > 1
		self.timeout, self.folder, self.seed = timeout, folder, seed
		self.clients, self.rate, self.batch, self.ref_bytes = clients, rate, batch, ref_bytes
		self.shared = [f"s{seed}-{i}" for i in range(shared)]
		self.own = [f"p{seed}-{i}" for i in range(clients)]

	def entities(self):
		return self.shared + self.own

	def urls(self):
		return ",".join("tcp://%s:%d" % w.address_of(node) for node in self.nodes)


class Pending:
	"""An operation that has no answer yet."""
	__slots__ = ("id", "entity", "kind", "amount", "expected", "t0", "attempts", "late", "ref",
	             "repeat", "after")

	def __init__(self, cid, entity, kind, amount=0, expected=h.ANY, ref=""):
		self.id, self.entity, self.kind = cid, entity, kind
		self.amount, self.expected, self.ref = amount, expected, ref
		self.t0 = self.attempts = self.late = self.repeat = self.after = 0

	def again(self):
		"""The same command once more, as an operation of its own."""
		op = Pending(self.id, self.entity, self.kind, self.amount, self.expected, self.ref)
		op.repeat = 1
		return op

	def encode(self, call_id):
		if self.kind == h.READ:
			return w.call(call_id, w.QUERY, "account", self.entity, "Balance")
		if self.kind == h.STALE:
			return w.call(call_id, w.QUERY, "account", self.entity, "Balance", stale=1,
			              after=self.after)
		return w.call(call_id, w.COMMAND, "account", self.entity, w.COMMANDS[self.kind],
		              w.command_payload(self.kind, self.amount, self.ref), self.id.encode(),
		              self.expected + 1 if self.expected != h.ANY else 0)


class Client:
	def __init__(self, plan, number, acked, stop):
		self.plan, self.number, self.acked, self.stop = plan, number, acked, stop
		self.rnd = random.Random(plan.seed * 1000 + number)
		self.made = 0
		self.link = None
		self.ready = deque()            # to be sent, in this order
		self.old = deque(maxlen=400)    # answered lately
		self.ancient = []               # answered at any time, a fair sample of 200
		self.answered = 0
		self.known = {}                 # entity -> newest sequence number seen
		self.marks = {}                 # entity -> sequence number and offset of an answer
		self.odd = {}                   # answers nobody should get: text -> count
		self.codes = {}                 # codes that were repeated: name -> count
		self.file = open(os.path.join(plan.folder, f"history.{number}"), "a", encoding="ascii")

	# ---- what to do next ----
	def fresh(self):
		self.made += 1
		return f"{self.plan.seed}-{self.number}-{self.made}"

	def entity(self):
		own = self.plan.own[self.number % len(self.plan.own)]
		if self.rnd.random() < .15:
			return own
		# Half of the rest goes to the first one: a hot entity.
		shared = self.plan.shared
		return shared[0] if self.rnd.random() < .2 else self.rnd.choice(shared)

	def deposit(self, cid, entity, amount, expected=h.ANY):
		return Pending(cid, entity, "deposit", amount, expected, "r" * self.plan.ref_bytes)

	def stale_read(self, entity):
		"""One of a replica, every other time not older than an answer this client has."""
		op = Pending(self.fresh(), entity, h.STALE)
		if entity in self.marks and self.rnd.random() < .5:
			op.expected, op.after = self.marks[entity]
		return op

	def make(self):
		"""Appends one or two operations."""
		x, entity, rnd = self.rnd.random(), self.entity(), self.rnd
		if x < .04 and self.plan.several:
			self.ready.append(self.stale_read(entity))
		elif x < .20:
			self.ready.append(Pending(self.fresh(), entity, h.READ))
		elif x < .50:
			self.ready.append(self.deposit(self.fresh(), entity, rnd.randrange(1, 10_000)))
		elif x < .72:
			kind = rnd.choice(("check", "atm"))
			self.ready.append(Pending(self.fresh(), entity, kind, rnd.randrange(1, 20_000)))
		elif x < .78:
			entity = self.plan.own[self.number % len(self.plan.own)] if rnd.random() < .5 else entity
			self.ready.append(self.deposit(self.fresh(), entity, rnd.randrange(1, 100),
			                               self.known.get(entity, 1)))
		elif x < .82 and self.old:
			source = self.ancient if rnd.random() < .3 else self.old
			self.ready.append(rnd.choice(source).again())
		elif x < .85:
			twin = self.deposit(self.fresh(), entity, rnd.randrange(1, 100))
			self.ready += (twin, twin.again())
		else:
			self.ready.append(Pending(f"{self.fresh()}.out", entity, "atm", rnd.randrange(1, 500)))

	# ---- one batch ----
	def turn(self):
		batch = []
		while self.ready and len(batch) < self.plan.batch:
			batch.append(self.ready.popleft())
		now = time.monotonic_ns()
		for op in batch:
			op.t0 = op.t0 or now
			op.attempts += 1
		try:
			if self.link is None:
				self.link = w.Link(self.rnd.choice(self.plan.nodes), self.plan.timeout,
				                   min(self.plan.timeout, 1.0))
		except OSError:
			self.drop(batch, False)
			return
		try:
			got = self.link.ask(b"".join(op.encode(i + 1) for i, op in enumerate(batch)))
		except OSError as error:
			self.drop(batch, self.plan.several or isinstance(error, TimeoutError))
			return
		end = time.monotonic_ns()
		by_id = {a.call_id: a for a in got}
		again = [op for i, op in enumerate(batch) if not self.take(op, by_id.get(i + 1), end)]
		self.ready.extendleft(reversed(again))
		self.file.flush()
		if again:
			time.sleep(self.rnd.uniform(.005, .03))

	def drop(self, batch, late):
		"""Nothing is known about a batch. A timeout leaves it under way on a living node, and so
		does the end of one that others have had it from."""
		if self.link is not None:
			self.link.close()
			self.link = None
		for op in batch:
			op.late |= late
		self.ready.extendleft(reversed(batch))
		time.sleep(self.rnd.uniform(.005, .04))

	def take(self, op, got, now):
		"""Writes the line of an answered operation; False when it is to be sent again."""
		if got is None:
			self.note("no answer in the message")
			op.late = 1
			return False
		if got.code in RETRY:
			op.late |= got.code in OPEN_ENDED and op.kind in h.WRITES
			name = w.CODE_NAMES[got.code]
			self.codes[name] = self.codes.get(name, 0) + 1
			return False
		outcome = {w.OK: h.OK, w.REFUSED: h.REJECTED, w.CONFLICT: h.CONFLICT}.get(got.code)
		if op.kind == h.STALE and got.code == w.NOT_FOUND:
			outcome = h.OK  # that replica has not heard of the account: its version is 0
		if outcome is None:
			self.note(f"{w.CODE_NAMES[got.code]}: {got.error}")
			op.late = 1
			return False
		balance = w.balance_of(got.payload) if outcome == h.OK or got.payload else -1
		offset = got.offset if op.kind in h.WRITES and outcome == h.OK else got.node
		self.file.write(h.Op(op.id, self.number, op.entity, op.kind, op.amount, op.expected, op.t0,
		                     now, outcome, got.seq, balance, offset, int(got.repeated),
		                     op.attempts, int(op.late)).line() + "\n")
		self.known[op.entity] = max(got.seq, self.known.get(op.entity, 0))
		if outcome == h.OK and op.kind in h.WRITES:
			self.marks[op.entity] = got.seq, got.offset
			self.settled(op)
		return True

	def settled(self, op):
		if not op.repeat:  # a repeat is answered by a node that takes nothing new
			self.acked[self.number] += 1
		self.old.append(op)
		self.answered += 1
		if len(self.ancient) < 200:
			self.ancient.append(op)
		elif self.rnd.random() < 200 / self.answered:
			self.ancient[self.rnd.randrange(200)] = op
		if op.id.endswith(".out") and not op.repeat:
			other = self.rnd.choice(self.plan.shared)
			self.ready.append(self.deposit(op.id[:-4] + ".in", other, op.amount))

	def note(self, text):
		self.odd[text] = self.odd.get(text, 0) + 1

	# ---- life ----
	def run(self):
		pace = self.plan.batch * self.plan.clients / self.plan.rate
		due = time.monotonic() + self.rnd.random() * pace
		while not self.stop.value:
			while len(self.ready) < self.plan.batch:
				self.make()
			self.turn()
			due += pace
			wait = due - time.monotonic()
			if wait > 0:
				time.sleep(wait)
			else:
				due = max(due, time.monotonic() - .2)  # catch up a little, not minutes
		self.finish()

	def drain(self, seconds=60):
		"""Asks until everything is answered, or the time is over."""
		end = time.monotonic() + seconds
		while self.ready and time.monotonic() < end:
			self.turn()

	def finish(self):
		"""What has no answer after all becomes unknown."""
		self.drain()
		for op in self.ready:
			if op.t0:
				self.file.write(h.Op(op.id, self.number, op.entity, op.kind, op.amount, op.expected,
				                     op.t0, 0, h.UNKNOWN, -1, -1, 0, 0, op.attempts, 1).line() + "\n")
		self.file.close()
		with open(os.path.join(self.plan.folder, f"odd.{self.number}"), "w", encoding="utf-8") as f:
			for kind, table in (("odd", self.odd), ("code", self.codes)):
				for text, count in table.items():
					f.write(f"{kind}\t{count}\t{text}\n")


def client_main(plan, number, acked, stop):
	signal.signal(signal.SIGINT, signal.SIG_IGN)
	Client(plan, number, acked, stop).run()


def open_accounts(plan, stop):
	"""Opens every account, puts some money on it and asks for more than that; part of the history,
	as one more client. The refusals are clear ones, which a short run under faults may not have."""
	acked = [0] * (plan.clients + 1)
	client = Client(plan, plan.clients, acked, stop)
	for entity in plan.entities():
		client.ready.append(Pending(client.fresh(), entity, "open"))
	client.drain()
	for entity in plan.entities():
		client.ready.append(client.deposit(client.fresh(), entity, FIRST_MONEY))
	client.drain()
	for entity in plan.entities():
		client.ready.append(Pending(client.fresh(), entity, "atm", FIRST_MONEY + 1))
	client.finish()
	if client.odd or sum(acked) != 2 * len(plan.entities()):
		raise RuntimeError(f"accounts cannot be opened: {acked[-1]} answers, {client.odd}")


class Load:
	"""The client processes of a plan."""

	def __init__(self, plan):
		self.plan = plan
		self.acked = multiprocessing.RawArray(ctypes.c_uint64, plan.clients)
		self.stop = multiprocessing.RawValue(ctypes.c_int, 0)
		self.processes = []

	def start(self):
		open_accounts(self.plan, self.stop)
		fork = multiprocessing.get_context("fork")
		for i in range(self.plan.clients):
			p = fork.Process(target=client_main, args=(self.plan, i, self.acked, self.stop),
			                 daemon=True)
			p.start()
			self.processes.append(p)

	def count(self):
		"""Commands answered OK so far."""
		return sum(self.acked)

	def finish(self):
		"""Stops new operations and waits until every client has its answers."""
		self.stop.value = 1
		for p in self.processes:
			p.join(90)
		bad = [p.exitcode for p in self.processes if p.exitcode != 0]
		for p in self.processes:
			p.kill()
		if bad:
			raise RuntimeError(f"clients ended with {bad}")

	def abandon(self):
		"""Stops the clients without their last answers; what was answered is in the files."""
		self.stop.value = 2
		for p in self.processes:
			p.kill()
			p.join()

	def history(self):
		ops = []
		for i in range(self.plan.clients + 1):
			ops += h.load(os.path.join(self.plan.folder, f"history.{i}"))
		return ops

	def notes(self, kind):
		"""Counts of what clients noted: "odd" answers, or "code"s that made them repeat."""
		total = {}
		for i in range(self.plan.clients + 1):
			path = os.path.join(self.plan.folder, f"odd.{i}")
			if not os.path.exists(path):
				continue  # abandoned
			with open(path, encoding="utf-8") as f:
				for line in f:
					k, count, text = line.rstrip("\n").split("\t", 2)
					if k == kind:
						total[text] = total.get(text, 0) + int(count)
		return total


class LibraryLoad(Load):
	"""The same through the C client library: one program (load.c), 256 operations under way."""

	def __init__(self, plan, program, under_way=256):
		super().__init__(plan)
		self.program, self.under_way = program, under_way
		self.count_path = os.path.join(plan.folder, "acked")
		self.history_path = os.path.join(plan.folder, "history.library")
		self.opener = os.path.join(plan.folder, f"history.{plan.clients}")

	def start(self):
		open_accounts(self.plan, self.stop)
		with open(self.count_path, "wb") as f:
			f.write(bytes(16))
		with open(self.count_path, "r+b") as f:
			self.counter = mmap.mmap(f.fileno(), 16)
		self.process = subprocess.Popen(
			[self.program, self.plan.urls(), self.history_path, self.count_path,
			 str(self.plan.seed), str(self.plan.rate), str(self.under_way), *self.plan.entities()])

	def count(self):
		return int.from_bytes(self.counter[:8], sys.byteorder)

	def failures(self):
		"""Operations that the library gave up and this program asked for again."""
		return int.from_bytes(self.counter[8:16], sys.byteorder)

	def finish(self):
		self.process.terminate()
		code = self.process.wait(90)
		if code != 0:
			raise RuntimeError(f"load ended with {code}")

	def abandon(self):
		self.process.kill()
		self.process.wait()

	def history(self):
		return h.load(self.opener) + h.load(self.history_path)

	def notes(self, kind):
		return {}
