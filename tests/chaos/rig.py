"""What all chaos runs share: the daemon under test, its folder, and the verdict at the end."""
import collections
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import history as h
import load
import wire as w

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def program(name):
	"""Path of trouped or troupe: the environment (TROUPED, TROUPE) or the release build."""
	return os.environ.get(name.upper()) or os.path.join(ROOT, "build", "release", "cmd", name, name)


def shim():
	"""The preloaded library that makes file system calls fail (tests/support/fsfault.c), built when
	it is missing or old."""
	source = os.path.join(ROOT, "tests", "support", "fsfault.c")
	library = os.path.join(ROOT, "build", "chaos", "fsfault.so")
	if not os.path.exists(library) or os.path.getmtime(library) < os.path.getmtime(source):
		os.makedirs(os.path.dirname(library), exist_ok=True)
		made = f"{library}.{os.getpid()}"
		subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-o", made,
		                source, "-ldl"], check=True)
		os.replace(made, library)
	return library


def faulty(fault, **more):
	"""Environment of a daemon whose file system calls fail; more: MATCH, TRIGGER, SEED."""
	# The last one lets a build with the address sanitizer be preloaded to.
	return {"LD_PRELOAD": shim(), "FS_FAULT": fault, "ASAN_OPTIONS": "verify_asan_link_order=0",
	        **{f"FS_{k}": str(v) for k, v in more.items()}}


def free_port(rnd):
	"""A free port below the range of outgoing connections, so that no reconnecting client can sit
	on it while the node is down."""
	while True:
		port = rnd.randrange(20_000, 32_000)
		with socket.socket() as s:
			try:
				s.bind(("127.0.0.1", port))
				return port
			except OSError:
				continue


class Daemon:
	"""One trouped on a data folder; started many times, always on the same port."""

	def __init__(self, data, port, log, args=()):
		self.data, self.port, self.log, self.args = data, port, log, list(args)
		self.process = None

	def start(self, env=None):
		command = [program("trouped"), "--data", self.data, "--rpc",
		           f"tcp://127.0.0.1:{self.port}", *self.args]
		with open(self.log, "ab") as out:
			self.process = subprocess.Popen(command, stdout=out, stderr=out,
			                                stdin=subprocess.DEVNULL,
			                                env={**os.environ, **(env or {})})

	def running(self):
		return self.process is not None and self.process.poll() is None

	def wait_ready(self, seconds=60):
		"""Seconds until it answered a ping. RuntimeError when it ended instead."""
		begin = time.monotonic()
		try:
			w.connect(self.port, seconds, self.running).close()
		except TimeoutError:
			state = "runs" if self.running() else f"ended with {self.process.returncode}"
			raise RuntimeError(f"trouped {state} and does not answer:\n{self.tail()}") from None
		return time.monotonic() - begin

	def kill9(self):
		self.process.kill()
		self.process.wait()

	def pause(self):
		"""Returns when every thread of it stands still."""
		self.process.send_signal(signal.SIGSTOP)
		while os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT) is None:
			pass

	def terminate(self, seconds=20):
		"""Clean stop; returns the exit code."""
		self.process.terminate()
		try:
			return self.process.wait(seconds)
		except subprocess.TimeoutExpired:
			self.kill9()
			return None

	def tail(self, lines=15):
		with open(self.log, encoding="utf-8", errors="replace") as f:
			return "".join(f.readlines()[-lines:])


def settings(rnd):
	"""Arguments of one start: mostly as a user has them, else squeezed so that entities sleep and
	wake all the time, snapshots are many or few, and shards move between workers."""
	if rnd.random() < .4:
		return []
	return ["--workers", str(rnd.choice((1, 2, 3))),
	        "--memory", rnd.choice(("64K", "1M", "256M")),
	        "--passivate", str(rnd.choice((1, 1, 120))),
	        "--snapshot-every", str(rnd.choice((1, 3, 20, 1000)))]


class Scratch:
	"""A folder that is gone afterwards, unless something was found."""

	def __init__(self, name, keep=False):
		self.path = tempfile.mkdtemp(prefix=f"troupe-{name}-", dir=os.environ.get("CHAOS_TMP"))
		self.keep = keep

	def __enter__(self):
		return self

	def __exit__(self, kind, value, trace):
		if kind is not None or self.keep:
			print(f"kept: {self.path}", file=sys.stderr)
		else:
			shutil.rmtree(self.path, ignore_errors=True)


class Part:
	"""A folder inside a scratch folder."""

	def __init__(self, path):
		self.path = path


def read_everything(node, entities, position=""):
	"""Streams by entity, the feed from a position (None: no feed), and the balances, as the node tells
	them now."""
	link = w.connect(node)
	try:
		streams, balances = {}, {}
		for entity in entities:
			streams[entity] = [event(s) for s in w.read_stream(link, entity)]
			_, balances[entity] = w.read_balance(link, entity)
		known = set(entities)
		feed = None
		if position is not None:
			feed = [(s.entity, event(s)) for s in w.read_feed(link, position) if s.entity in known]
		return streams, feed, balances
	finally:
		link.close()


def event(s):
	return h.Event(s.seq, s.command_id, s.kind, s.amount, s.balance, s.shard, s.offset)


class Verdict:
	"""Compares a load's history with what the node holds, and, when nothing was found, shows that
	faults would have been."""

	def __init__(self, run, node, seed, plant=True, position="", entities=6):
		self.ops = run.history()
		self.streams, feed, balances = read_everything(node, run.plan.entities(), position)
		self.errors = h.check(self.ops, self.streams, feed, balances)
		self.planted, self.found, self.complaints = \
			h.plant_all(self.ops, self.streams, seed, entities) if plant and not self.errors else (0, 0, [])
		self.odd, self.codes = run.notes("odd"), run.notes("code")

	def good(self):
		return not (self.errors or self.complaints or self.odd)

	def figures(self):
		writes = [op for op in self.ops if op.kind in h.WRITES]
		ok = {op.id for op in writes if op.outcome == h.OK}
		retried = [op for op in writes if op.attempts > 1]
		return {
			"operations": len(self.ops),
			"commands_acked": len(ok),
			"reads": len(self.ops) - len(writes),
			"refused": sum(op.outcome == h.REJECTED for op in writes),
			"conflicts": sum(op.outcome == h.CONFLICT for op in writes),
			"unknown_resolved": sum(op.outcome != h.UNKNOWN for op in retried),
			"of_these_stored_before": sum(op.repeated for op in retried),
			"never_resolved": sum(op.outcome == h.UNKNOWN for op in writes),
			"refused_but_an_earlier_attempt_stored": len(
				{op.id for op in writes if op.outcome in (h.REJECTED, h.CONFLICT)}
				& {e.id for s in self.streams.values() for e in s} - ok),
			"repeated_answers_agreeing": sum(op.outcome == h.OK and op.repeated for op in writes)
			- sum(e[0] == "TWO-ANSWERS" for e in self.errors),
			"events": sum(map(len, self.streams.values())),
			"violations": len(self.errors),
			"planted": self.planted, "planted_found": self.found,
		}

	def explain(self, limit=20):
		kinds = collections.Counter(e[0] for e in self.errors)
		lines = [f"VIOLATION {kind} x{n}" for kind, n in kinds.most_common()]
		lines += [f"  {kind} {cid}: {text}" for kind, cid, text in self.errors[:limit]]
		lines += [f"CHECKER {c}" for c in self.complaints]
		lines += [f"ODD ANSWER x{n}: {text}" for text, n in self.odd.items()]
		lines += [f"repeated after {name} x{n}" for name, n in self.codes.items()]
		return "\n".join(lines)


def verify(data):
	"""`troupe verify` of a stopped node's data: every checksum, offset, number and index row."""
	if os.environ.get("CHAOS_VERIFY") == "no":
		return
	done = subprocess.run([program("troupe"), "verify", data], capture_output=True, text=True)
	if done.returncode != 0:
		raise RuntimeError(f"troupe verify: {done.returncode}\n{done.stdout}{done.stderr[-2000:]}")


def seed_of(value):
	return value if value is not None else random.SystemRandom().randrange(1, 1_000_000)


def show(name, figures):
	"""One line per run that people and programs can read."""
	print(f"{name}: " + " ".join(f"{k}={v}" for k, v in figures.items()), flush=True)


def wait_for_answers(run, daemon, count, seconds=60):
	"""Until `count` more commands were answered, so that a fault hits a node under load."""
	goal, end = run.count() + count, time.monotonic() + seconds
	while run.count() < goal:
		if not daemon.running():
			raise RuntimeError(f"trouped ended by itself with {daemon.process.returncode}:\n"
			                   f"{daemon.tail()}")
		if time.monotonic() > end:
			raise RuntimeError(f"no progress for {seconds} s:\n{daemon.tail()}")
		time.sleep(.005)


def wait_for_material(run, daemon, least=1500):
	"""Until the history is long enough to plant every kind of fault in it."""
	wait_for_answers(run, daemon, max(0, least - run.count()))


def make_load(scratch, nodes, seed, library=False, **more):
	folder = os.path.join(scratch.path, "history")
	os.makedirs(folder, exist_ok=True)
	plan = load.Plan(nodes, folder, seed, **more)
	if not library:
		return load.Load(plan)
	return load.LibraryLoad(plan, os.path.join(ROOT, "build", "release", "tests", "chaos", "load"))
