#!/usr/bin/env python3
"""Damaged, full and failing disks: a node never serves silently less than it answered.

    damage.py [--part torn,flip,lose,full,sync] [--flips 40] [--torn 0] [--faults 12] [--seed N]

torn  the write-ahead log is cut at every byte of its last record (--torn N: at N places), once with
      a record whose sync never finished (must open with all that was answered, and the command can
      be repeated), once with an answered one (must refuse: the end of the log is missing).
flip  one bit of one file is turned, --flips times for every kind of file in the data folder. The
      node serves everything, or refuses to start naming the file, or answers an error naming it.
lose  one file is gone, cut in half, or has a page of zeros; the same has to hold.
full  the file system fills up under load and is freed again.
sync  a sync or write fails under load (fsfault.c), --faults times.
During full and sync 16 clients keep asking; at the end their history is checked as in kill.py.
"""
import argparse
import collections
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import history as h
import powercut
import rig
import wire as w

BLOCK = 32768


# ---- a small store and the truth about it --------------------------------------------------------

class Truth:
	"""What a node held before its files were damaged."""

	def __init__(self, run, streams, feed, balances):
		self.entities = run.plan.entities()
		self.streams, self.feed, self.balances = streams, feed, balances
		acked = {op.id: op for op in run.history() if op.outcome == h.OK and op.kind != h.READ}
		self.acked = [acked[i] for i in sorted(acked)]


class Found(Exception):
	"""A violation."""


def settle(scratch, name, rnd, seed, kill_tail=True):
	"""Makes a data folder with tables (a clean stop) and a write-ahead log (a kill after more
	commands). Returns (folder, truth)."""
	data = os.path.join(scratch.path, name)
	daemon = rig.Daemon(data, rig.free_port(rnd), os.path.join(scratch.path, f"{name}.log"))
	daemon.start()
	daemon.wait_ready()
	run = rig.make_load(rig.Part(os.path.join(scratch.path, f"{name}.load")), daemon.port, seed,
	                    rate=2000, clients=4, shared=12, ref_bytes=200)
	run.start()
	rig.wait_for_answers(run, daemon, 1500)
	if daemon.terminate() != 0:
		raise RuntimeError(f"no clean stop:\n{daemon.tail()}")
	daemon.start()
	daemon.wait_ready()
	rig.wait_for_answers(run, daemon, 600)
	run.finish()
	held = rig.read_everything(daemon.port, run.plan.entities())
	errors = h.check(run.history(), *held)
	if errors:
		raise Found(f"wrong before any damage: {errors[:3]}")
	if kill_tail:
		daemon.kill9()
	else:
		daemon.terminate()
	return data, Truth(run, *held)


class Trial:
	"""A copy of a data folder with one damage, and a node started on it."""

	def __init__(self, scratch, data, rnd):
		self.folder = os.path.join(scratch.path, "trial")
		shutil.rmtree(self.folder, ignore_errors=True)
		shutil.copytree(data, self.folder)
		log = os.path.join(scratch.path, "trial.log")
		open(log, "wb").close()
		self.daemon = rig.Daemon(self.folder, rig.free_port(rnd), log)

	def path(self, name):
		return os.path.join(self.folder, name)

	def run(self, truth, names, repeat=20):
		"""Starts it and compares. names: what an error has to name, one of them. Returns
		"refused", "error" or "whole"; raises Found."""
		self.daemon.start()
		try:
			try:
				self.daemon.wait_ready(30)
			except RuntimeError:
				return self.refused(names)
			return self.serves(truth, names, repeat)
		finally:
			if self.daemon.running():
				self.daemon.kill9()

	def refused(self, names):
		code, said = self.daemon.process.poll(), self.daemon.tail(40)
		if code is None:
			raise Found(f"neither serves nor ends:\n{said}")
		if code <= 0:
			raise Found(f"ended with {code}:\n{said}")
		if not any(n in said for n in names):
			raise Found(f"refused without naming {' or '.join(names)}:\n{said}")
		return "refused"

	def serves(self, truth, names, repeat):
		link = w.connect(self.daemon.port)
		errors = []

		def reading(read, *args):
			try:
				return read(link, *args)
			except w.ReadError as error:
				errors.append(str(error))
				if not any(n in str(error) for n in names):
					raise Found(f"an error that does not name {' or '.join(names)}: {error}") \
						from None
				return None

		try:
			self.repeats(link, truth, names, repeat, errors)
			for entity in truth.entities:
				got = reading(w.read_stream, entity)
				if got is not None and list(map(rig.event, got)) != truth.streams[entity]:
					raise Found(f"{entity}: silently {len(got)} events of "
					            f"{len(truth.streams[entity])}")
				got = reading(w.read_balance, entity)
				if got is not None and got[1] != truth.balances[entity]:
					raise Found(f"{entity}: silently balance {got[1]}, was "
					            f"{truth.balances[entity]}")
			got = reading(w.read_feed)
			if got is not None and len(got) != len(truth.feed):
				raise Found(f"feed: silently {len(got)} of {len(truth.feed)}")
		except OSError as error:
			state = self.daemon.process.poll()
			said = self.daemon.tail(40)
			if state is not None and state > 0 and any(n in said for n in names):
				return "error"
			raise Found(f"gone while reading ({error}), exit {state}:\n{said}") from None
		finally:
			link.close()
		return "error" if errors else "whole"

	def repeats(self, link, truth, names, count, errors):
		"""Answered commands are sent again: the same answer or an error, never a second event."""
		step = max(1, len(truth.acked) // count) if count else 1
		for op in truth.acked[::step] if count else ():
			call = w.call(1, w.COMMAND, "account", op.entity, w.COMMANDS[op.kind],
			              w.command_payload(op.kind, op.amount, "r" * 200), op.id.encode(),
			              op.expected + 1 if op.expected != h.ANY else 0)
			got = link.ask(call)[0]
			if got.code == w.OK:
				if (got.seq, got.offset, w.balance_of(got.payload)) != \
						(op.seq, op.offset, op.balance):
					raise Found(f"{op.id}: another answer to an answered command: {got}")
			elif got.code in (w.REFUSED, w.CONFLICT):
				raise Found(f"{op.id}: {w.CODE_NAMES[got.code]} for an answered command")
			else:
				errors.append(got.error)
				if not any(n in got.error for n in names):
					raise Found(f"an error that does not name {' or '.join(names)}: "
					            f"{w.CODE_NAMES[got.code]} {got.error}")


# ---- torn tail --------------------------------------------------------------------------------

def wal_records(path):
	"""(start, end) of every logical record of a RocksDB write-ahead log."""
	with open(path, "rb") as f:
		data = f.read()
	records, at, start = [], 0, None
	while at + 7 <= len(data):
		left = BLOCK - at % BLOCK
		if left < 7:
			at += left
			continue
		size, kind = struct.unpack_from("<HB", data, at + 4)
		if kind == 0 and size == 0:
			break
		head = 11 if kind >= 5 else 7
		kind = kind - 4 if kind >= 5 else kind
		if at + head + size > len(data):
			break
		if kind in (1, 2):
			start = at
		at += head + size
		if kind in (1, 4):
			records.append((start, at))
	return records


def newest_wal(folder):
	"""The log file with data that has the highest number, its path inside folder."""
	logs = [os.path.relpath(os.path.join(top, f), folder)
	        for top, _, files in os.walk(folder) for f in files if re.fullmatch(r"\d+\.log", f)]
	logs = [f for f in logs if wal_records(os.path.join(folder, f))]
	return max(logs, key=lambda f: int(os.path.basename(f)[:-4]))


def cuts_of(record, limit, rnd):
	places = list(range(record[0], record[1]))
	if limit and len(places) > limit:
		places = [places[0], places[-1], *rnd.sample(places[1:-1], limit - 2)]
	return sorted(places)


def unfinished(scratch, data, truth, rnd):
	"""Sends one more command to a copy of data that dies before the sync of it. Returns
	(folder, operation)."""
	folder = os.path.join(scratch.path, "unfinished")
	shutil.rmtree(folder, ignore_errors=True)
	shutil.copytree(data, folder)
	daemon = rig.Daemon(folder, rig.free_port(rnd), os.path.join(scratch.path, "unfinished.log"))
	trigger = os.path.join(scratch.path, "trigger")
	daemon.start(rig.faulty("sync:kill", MATCH=".log", TRIGGER=trigger))
	daemon.wait_ready()
	link = w.connect(daemon.port)
	entity = truth.entities[0]
	open(trigger, "w").close()
	try:
		link.ask(w.call(1, w.COMMAND, "account", entity, "Deposit",
		                w.command_payload("deposit", 123), b"the-last-one"))
		raise Found("answered although its sync never finished")
	except OSError:
		pass
	finally:
		link.close()
		os.unlink(trigger)
		daemon.process.wait(10)
	return folder, entity


def repeat_last(port, entity, truth):
	"""The unfinished command again, twice: one event in the end."""
	link = w.connect(port)
	try:
		call = w.call(1, w.COMMAND, "account", entity, "Deposit",
		              w.command_payload("deposit", 123), b"the-last-one")
		first, second = link.ask(call)[0], link.ask(call)[0]
		stream = w.read_stream(link, entity)
	finally:
		link.close()
	want = len(truth.streams[entity]) + 1
	if (first.code, first.seq, second.code, second.seq) != (w.OK, want, w.OK, want):
		raise Found(f"the torn command repeated: {first} then {second}, wanted seq {want}")
	if not second.repeated or len(stream) != want:
		raise Found(f"the torn command is there {len(stream) - want + 1} times")


def torn(scratch, got, rnd, seed):
	"""Both cases of a torn tail. Returns figures."""
	data, truth = settle(scratch, "torn", rnd, seed)
	figures = collections.Counter()
	folder, entity = unfinished(scratch, data, truth, rnd)
	wal = newest_wal(folder)
	record = wal_records(os.path.join(folder, wal))[-1]
	for at in cuts_of(record, got.torn, rnd):
		trial = Trial(scratch, folder, rnd)
		os.truncate(trial.path(wal), at)
		trial.daemon.start()
		try:
			trial.daemon.wait_ready(30)
			if trial.serves(truth, ["nothing"], 3) != "whole":
				raise Found("errors after a torn tail that nobody was answered for")
			repeat_last(trial.daemon.port, entity, truth)
		except (Found, RuntimeError) as error:
			raise Found(f"unanswered tail of {wal} cut at {at} in {record}: {error}") from None
		finally:
			if trial.daemon.running():
				trial.daemon.kill9()
		figures["unanswered_tail_cuts"] += 1
	wal = newest_wal(data)
	record = wal_records(os.path.join(data, wal))[-1]
	names = [os.path.basename(wal), *own_files(data)]
	for at in cuts_of(record, got.torn, rnd):
		trial = Trial(scratch, data, rnd)
		os.truncate(trial.path(wal), at)
		try:
			how = trial.run(truth, names, 3)
		except Found as error:
			raise Found(f"answered tail of {wal} cut at {at} in {record}: {error}") from None
		figures["answered_tail_cuts"] += 1
		figures[f"answered_{how}"] += 1
	return figures


# ---- one flipped bit ----------------------------------------------------------------------------

KINDS = (("wal", r"\d+\.log"), ("table", r"\d+\.sst"), ("blob", r"\d+\.blob"),
         ("manifest", r"MANIFEST-\d+"), ("current", r"CURRENT"), ("options", r"OPTIONS-\d+"),
         ("identity", r"IDENTITY"), ("info-log", r"LOG(\.old.*)?"), ("lock", r"LOCK"))


def kind_of(name):
	for kind, pattern in KINDS:
		if re.fullmatch(pattern, name):
			return kind
	return f"own:{name}"


def files_by_kind(folder):
	kinds = collections.defaultdict(list)
	for top, _, files in os.walk(folder):
		for f in sorted(files):
			path = os.path.relpath(os.path.join(top, f), folder)
			if os.path.getsize(os.path.join(folder, path)):
				kinds[kind_of(f)].append(path)
	return kinds


def own_files(folder):
	"""Names of the store's own files, without those of the database."""
	return [os.path.basename(p) for kind, paths in files_by_kind(folder).items()
	        if kind.startswith("own:") for p in paths]


def places(folder, paths, count, rnd):
	"""`count` (path, bit): first and last bytes of files first, then anywhere, large files more."""
	sizes = [(p, os.path.getsize(os.path.join(folder, p))) for p in paths]
	total = sum(s for _, s in sizes)
	if total * 8 <= count:
		return [(p, bit) for p, s in sizes for bit in range(s * 8)]
	edges = [(p, bit) for p, s in sizes for bit in (rnd.randrange(8), s * 8 - 1 - rnd.randrange(8))]
	chosen = rnd.sample(edges, min(len(edges), max(1, count // 4)))
	while len(chosen) < count:
		at = rnd.randrange(total)
		for p, s in sizes:
			if at < s:
				chosen.append((p, at * 8 + rnd.randrange(8)))
				break
			at -= s
	return chosen


def flip_bit(path, bit):
	with open(path, "r+b") as f:
		f.seek(bit // 8)
		byte = f.read(1)[0]
		f.seek(bit // 8)
		f.write(bytes([byte ^ 1 << bit % 8]))


def flip(scratch, got, rnd, seed):
	"""Flips one bit at a time. Returns figures; problems are collected, not raised at once."""
	data, truth = settle(scratch, "flip", rnd, seed)
	figures, problems = collections.Counter(), []
	for kind, paths in sorted(files_by_kind(data).items()):
		for path, bit in places(data, paths, got.flips, rnd):
			trial = Trial(scratch, data, rnd)
			flip_bit(trial.path(path), bit)
			try:
				how = trial.run(truth, [os.path.basename(path)], 10)
			except Found as error:
				how = "VIOLATION"
				problems.append(f"{path} bit {bit} of {os.path.getsize(trial.path(path)) * 8}: {error}")
			figures[f"{kind}_{how}"] += 1
			figures["flips"] += 1
	return figures, problems


# ---- files lost, cut or with a hole -------------------------------------------------------------

def cut_file(path):
	os.truncate(path, os.path.getsize(path) // 2)


def hole(path):
	"""A page of zeros in the middle, or over all of a small file."""
	size = os.path.getsize(path)
	at = size // 2 // 4096 * 4096
	with open(path, "r+b") as f:
		f.seek(at)
		f.write(bytes(min(4096, size - at)))


def lose(scratch, got, rnd, seed):
	"""Every file of a store, one at a time: gone, cut in half, with a page of zeros."""
	data, truth = settle(scratch, "lose", rnd, seed)
	figures, problems = collections.Counter(), []
	for kind, paths in sorted(files_by_kind(data).items()):
		for path in paths[:got.flips]:
			for harm in (os.unlink, cut_file, hole):
				trial = Trial(scratch, data, rnd)
				harm(trial.path(path))
				# What is gone cannot always be named, but the log it belonged to can.
				names = [os.path.basename(path)]
				names += ["write-ahead log"] if kind == "wal" else []
				# RocksDB looks for a table under its old ending as well and names that one.
				names += [names[0].replace(".sst", ".ldb")] if harm is os.unlink else []
				try:
					how = trial.run(truth, names, 10)
				except Found as error:
					how = "VIOLATION"
					problems.append(f"{path} {harm.__name__}: {error}")
				figures[f"{kind}_{how}"] += 1
				figures["losses"] += 1
	return figures, problems


# ---- full and failing disks under load ----------------------------------------------------------

class Sufferer:
	"""A node under load on a disk that misbehaves; started again when it stops itself."""

	def __init__(self, scratch, name, data, rnd, seed, rate):
		self.folder = os.path.join(scratch.path, name)
		os.makedirs(self.folder)
		self.trigger = os.path.join(self.folder, "trigger")
		self.rnd, self.seed = rnd, seed
		self.daemon = rig.Daemon(data, rig.free_port(rnd), os.path.join(self.folder, "log"))
		self.daemon.start()
		self.daemon.wait_ready()
		self.load = rig.make_load(rig.Part(self.folder), self.daemon.port, seed, rate=rate)
		self.load.start()
		self.figures = collections.Counter()

	def wait_end_or(self, seconds):
		"""True when the node ended by itself within that time; only fail-stop is allowed."""
		try:
			code = self.daemon.process.wait(seconds)
		except subprocess.TimeoutExpired:
			if "storage failed" not in self.daemon.tail(3):
				return False
			code = self.daemon.process.wait(10)  # on its way
		if code != 70:
			raise Found(f"ended with {code} instead of 70:\n{self.daemon.tail()}")
		self.figures["fail_stops"] += 1
		return True

	def refuses(self, left, seconds=6):
		"""New commands are refused within some seconds; what still fits may be taken until then."""
		end = time.monotonic() + seconds
		while True:
			before = self.load.count()
			time.sleep(.3)
			if self.load.count() == before:
				return
			if time.monotonic() > end:
				raise Found(f"takes commands {seconds} s after the disk had {left >> 20} MiB left")

	def wait_refused(self, seconds):
		"""A start on a full disk may fail in its own way; it has a second for that."""
		try:
			if self.daemon.process.wait(seconds) < 0:
				raise Found(f"crashed on a full disk:\n{self.daemon.tail()}")
		except subprocess.TimeoutExpired:
			pass

	def recovers(self, seconds=30):
		"""Service is back: commands are answered. Starts the node as often as it stops itself."""
		begin = time.monotonic()
		goal = self.load.count() + 100
		while self.load.count() < goal:
			if not self.daemon.running() or self.wait_end_or(.01):
				self.daemon.start()
				self.daemon.wait_ready()
			elif time.monotonic() > begin + seconds:
				raise Found(f"no service {seconds} s after the fault was over:\n"
				            f"{self.daemon.tail()}")
		slow = round(time.monotonic() - begin, 1)
		self.figures["slowest_return_s"] = max(self.figures["slowest_return_s"], slow)

	def verdict(self):
		rig.wait_for_material(self.load, self.daemon)
		self.load.finish()
		verdict = rig.Verdict(self.load, self.daemon.port, self.seed)
		code = self.daemon.terminate()
		if code != 0:
			raise Found(f"clean stop ended with {code}:\n{self.daemon.tail()}")
		rig.verify(self.daemon.data)
		if not verdict.good():
			raise Found(verdict.explain())
		with open(self.daemon.log, encoding="utf-8", errors="replace") as f:
			forgotten = [line for line in f if "still under way" in line]
		if forgotten:
			raise Found(f"calls without an answer when the node stopped: {forgotten}")
		figures = verdict.figures()
		self.figures.update({k: figures[k] for k in ("commands_acked", "unknown_resolved",
		                                             "violations", "planted", "planted_found")})
		for name, n in verdict.codes.items():
			self.figures[f"answered_{name.lower()}"] = n
		return self.figures

	def abandon(self):
		self.load.abandon()
		if self.daemon.running():
			self.daemon.kill9()


def full(scratch, got, rnd, seed):
	"""Fills the disk under load, slowly below the watermark and to the last byte, and frees it."""
	disk = powercut.Disk(scratch.path, 700)
	try:
		sufferer = Sufferer(scratch, "full", os.path.join(disk.path, "data"), rnd, seed, got.rate)
		try:
			for left in (128 << 20, 0, 16 << 20, 0)[:got.fillings]:
				fill_and_free(sufferer, disk, left)
			return sufferer.verdict()
		except BaseException:
			sufferer.abandon()
			raise
	finally:
		disk.done()


def fill_and_free(sufferer, disk, left):
	ballast = os.path.join(disk.path, "ballast")
	rig.wait_for_answers(sufferer.load, sufferer.daemon, 200)
	with open(ballast, "wb", buffering=0) as f:
		try:
			stat = os.statvfs(disk.path)
			os.posix_fallocate(f.fileno(), 0, max(4096, stat.f_bavail * stat.f_frsize - left))
			while left == 0:
				f.seek(0, os.SEEK_END)
				f.write(bytes(4096))
		except OSError:
			pass
	sufferer.figures["fillings"] += 1
	stopped = sufferer.wait_end_or(2.0)
	if stopped and left == 0:
		# A supervisor starts it again on the full disk: it may refuse, but not lose anything.
		sufferer.daemon.start()
		sufferer.wait_refused(1.0)
	sufferer.refuses(left)
	os.unlink(ballast)
	sufferer.recovers()


FAULTS = ("sync:EIO", "sync:late", "write:EIO", "sync:EIO:1:300000", "write:ENOSPC", "write:short",
          "sync:ENOSPC", "open:EIO", "rename:EIO", "alloc:ENOSPC", "open:ENOSPC", "sync:EIO:5")


def sync(scratch, got, rnd, seed):
	"""Lets syncs and writes fail under load; the node stops itself or says so, and comes back."""
	sufferer = Sufferer(scratch, "sync", os.path.join(scratch.path, "sync.data"), rnd, seed, got.rate)
	try:
		for i in range(got.faults):
			fault = FAULTS[i % len(FAULTS)]
			more = {} if fault.startswith(("open", "rename", "alloc")) or i >= len(FAULTS) \
				else {"MATCH": ".log"}
			if sufferer.daemon.running():
				sufferer.daemon.kill9()
			sufferer.daemon.start(rig.faulty(fault, TRIGGER=sufferer.trigger, SEED=seed + i,
			                                 **{"MATCH": "sync.data", **more}))
			sufferer.daemon.wait_ready()
			rig.wait_for_answers(sufferer.load, sufferer.daemon, 50)
			open(sufferer.trigger, "w").close()
			sufferer.figures["faults"] += 1
			ended = sufferer.wait_end_or(2.0)
			print(f"  {fault}: {'stopped itself' if ended else 'runs on'}", flush=True)
			os.unlink(sufferer.trigger)
			if not ended and fault.startswith(("sync:EIO", "sync:late")) and more:
				raise Found(f"{fault}: the node goes on after a failed sync of its log")
			sufferer.recovers()
		return sufferer.verdict()
	except BaseException:
		sufferer.abandon()
		raise


# ---- all of it --------------------------------------------------------------------------------

def run_part(name, got, rnd, seed):
	"""True when it went well or cannot be done here."""
	if name == "full" and (reason := powercut.why_not()):
		print(f"damage full: SKIPPED, {reason}")
		return True
	with rig.Scratch(f"damage-{name}", got.keep) as scratch:
		problems = []
		try:
			figures = {"torn": torn, "flip": flip, "lose": lose, "full": full, "sync": sync}[name](
				scratch, got, rnd, seed)
			if isinstance(figures, tuple):
				figures, problems = figures
		except (Found, RuntimeError) as found:
			figures, problems = {}, [str(found)]
		rig.show(f"damage {name}", {**figures, "violations": len(problems)})
		for problem in problems[:10]:
			print(f"VIOLATION {problem}")
		scratch.keep |= bool(problems)
		return not problems


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--part", default="torn,flip,lose,full,sync")
	args.add_argument("--flips", type=int, default=40, help="flips per kind of file")
	args.add_argument("--torn", type=int, default=0, help="places of the cut; 0: every byte")
	args.add_argument("--faults", type=int, default=2 * len(FAULTS))
	args.add_argument("--fillings", type=int, default=4)
	args.add_argument("--rate", type=int, default=2000)
	args.add_argument("--seed", type=int)
	args.add_argument("--keep", action="store_true", help="keep data, logs and histories")
	got = args.parse_args()
	seed = rig.seed_of(got.seed)
	print(f"damage: seed {seed}", flush=True)
	good = True
	for name in got.part.split(","):
		good &= run_part(name, got, random.Random(seed), seed)
	return 0 if good else 1


if __name__ == "__main__":
	sys.exit(main())
