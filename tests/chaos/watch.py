"""What clients of the C library saw while something happened: gaps between answers, and errors."""
import collections
import mmap
import os
import signal
import subprocess
import sys

import rig

Seen = collections.namedtuple("Seen", "sent answered attempts code")


class Watch:
	"""gap.c running: `streams` accounts for each client, one client per item of `clients`, which are
	lists of nodes it may talk to."""

	def __init__(self, folder, clients, streams=24, pace_ms=20, prefix="gap"):
		self.clients, self.streams = [list(c) for c in clients], {}
		self.out, counts = os.path.join(folder, f"{prefix}.out"), os.path.join(folder, prefix)
		with open(counts, "wb") as f:
			f.write(bytes(16))
		with open(counts, "r+b") as f:
			self.counts = mmap.mmap(f.fileno(), 16)
		program = os.path.join(rig.ROOT, "build", "release", "tests", "chaos", "gap")
		self.process = subprocess.Popen(
			[program, self.out, counts, prefix, str(streams), str(pace_ms),
			 *(",".join("tcp://%s:%d" % tuple(node) for node in c) for c in self.clients)])

	def count(self):
		return int.from_bytes(self.counts[:8], sys.byteorder)

	def failed(self, which):
		"""Calls that ended without success, and all calls, of the clients which(its nodes)."""
		rows = [s for key, rows in self.streams.items() if which(self.clients[key[0]]) for s in rows]
		return sum(s.code != "OK" for s in rows), len(rows)

	def finish(self):
		"""Ends it and reads what it saw: (client, account) -> rows in order, and its shard."""
		self.process.send_signal(signal.SIGTERM)
		if self.process.wait(60) != 0:
			raise RuntimeError(f"gap ended with {self.process.returncode}")
		self.shard = {}
		with open(self.out, encoding="ascii") as f:
			for line in f:
				account, shard, sent, answered, attempts, code = line.split("\t")
				key = int(account.split("-")[-2]), account
				self.streams.setdefault(key, []).append(
					Seen(int(sent), int(answered), int(attempts), code.strip().upper()))
				if code.strip().upper() == "OK":
					self.shard[key] = int(shard)
		os.unlink(self.out)

	def kill(self):
		self.process.kill()
		self.process.wait()

	def gap_ms(self, key, begin, end):
		"""Longest time between two answers OK of an account, of those that touch [begin, end]; to the
		end when there was none after."""
		longest, last = 0, None
		for seen in self.streams.get(key, ()):
			if seen.code != "OK":
				continue
			if last is not None and seen.answered >= begin and last <= end:
				longest = max(longest, seen.answered - last)
			last = seen.answered
		return longest / 1e6

	def rows(self, key, begin, end):
		"""What was sent or answered in that time."""
		return [s for s in self.streams.get(key, ()) if s.answered >= begin and s.sent <= end]


def percentile(values, share):
	values = sorted(values)
	return values[min(len(values) - 1, int(len(values) * share))] if values else 0
