#!/usr/bin/env python3
"""Power cuts under load: only what was synced is still there, and that has to be everything answered.

    powercut.py [--rounds 30] [--seed N] [--rate 3000] [--clients 16]

The data lies on an ext4 file system in a loop device. A cut is the ioctl EXT4_IOC_SHUTDOWN without a
flush of the journal: what was not synced is gone after the next mount. Every cut is shown to have
happened (a file written without a sync must be gone, a synced one must be there), and one more run
with a sync that lies (fsfault.c) must be found guilty. Needs root, loop devices and mkfs.ext4.

What this does not show: the loop device keeps whatever reached it, so a sync that forgets to flush
the cache of a real disk is not noticed.
"""
import argparse
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
PATH = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"


def sh(*words):
	done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
	if done.returncode != 0:
		raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


class Disk:
	"""An ext4 file system that can lose its power."""

	def __init__(self, folder, megabytes=1024):
		self.image, self.path = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
		os.makedirs(self.path)
		with open(self.image, "wb") as f:
			f.truncate(megabytes << 20)
		sh("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
		self.mounted = False
		self.cuts = 0
		self.mount()

	def mount(self):
		sh("mount", "-o", "loop", self.image, self.path)
		self.mounted = True

	def unmount(self):
		for _ in range(100):
			try:
				sh("umount", self.path)
				break
			except RuntimeError:
				time.sleep(.05)
		else:
			sh("umount", self.path)
		self.mounted = False

	def witness(self, name, synced):
		fd = os.open(os.path.join(self.path, name), os.O_CREAT | os.O_WRONLY)
		os.write(fd, b"witness")
		if synced:
			os.fsync(fd)
		os.close(fd)

	def holds(self, name):
		path = os.path.join(self.path, name)
		return os.path.exists(path) and os.path.getsize(path) == 7

	def cut(self):
		"""No power from now on. Whoever writes gets errors."""
		self.cuts += 1
		self.witness(f"synced{self.cuts}", True)
		self.witness(f"lost{self.cuts}", False)
		fd = os.open(self.path, os.O_RDONLY)
		try:
			fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
		finally:
			os.close(fd)

	def power_on(self):
		self.unmount()
		self.mount()
		if self.holds(f"lost{self.cuts}") or not self.holds(f"synced{self.cuts}"):
			raise RuntimeError("the cut did not happen: the witnesses are not as they should be")

	def done(self):
		if self.mounted:
			self.unmount()


def why_not():
	"""A sentence when this machine cannot do it, else None."""
	if os.geteuid() != 0:
		return "needs root"
	for tool in ("mkfs.ext4", "mount", "umount", "losetup"):
		if shutil.which(tool, path=PATH) is None:
			return f"needs {tool}"
	try:
		sh("losetup", "-f")
	except RuntimeError as error:
		return f"no loop device ({error})"
	with rig.Scratch("probe") as scratch:
		try:
			Disk(scratch.path, 16).done()
		except RuntimeError as error:
			return f"cannot mount an image ({error})"
	return None


class Cutter:
	"""Rounds of cuts on one disk."""

	def __init__(self, run, daemon, disk, rnd, ways):
		self.run, self.daemon, self.disk, self.rnd, self.ways = run, daemon, disk, rnd, ways
		self.figures = dict.fromkeys(("cuts", "gone_at_once", "saw_errors", "killed_before",
		                              "cuts_in_recovery"), 0)

	def gone_at_once(self):
		"""Node and disk stop in the same instant."""
		self.daemon.pause()
		self.disk.cut()
		self.daemon.kill9()

	def saw_errors(self):
		"""The disk goes first; the node lives on a while and must not answer what it cannot keep."""
		self.disk.cut()
		try:
			code = self.daemon.process.wait(self.rnd.random() * .5)
		except subprocess.TimeoutExpired:
			self.daemon.kill9()
			return
		if code != 70:
			raise RuntimeError(f"ended with {code} when the disk failed:\n{self.daemon.tail()}")

	def killed_before(self):
		self.daemon.kill9()
		self.disk.cut()

	def one(self, env=None):
		rig.wait_for_answers(self.run, self.daemon, 20 + self.rnd.randrange(300))
		time.sleep(self.rnd.random() ** 2)
		way = self.rnd.choice(self.ways)
		getattr(self, way)()
		self.figures[way] += 1
		self.figures["cuts"] += 1
		self.disk.power_on()
		while self.rnd.random() < 1 / 6:
			self.daemon.start(env)
			time.sleep(self.rnd.random() * .15)
			self.gone_at_once()
			self.disk.power_on()
			self.figures["cuts_in_recovery"] += 1
		self.daemon.start(env)
		self.daemon.wait_ready()


def honest(got, scratch, disk, rnd, seed):
	"""The real thing. Returns (figures, verdict)."""
	daemon = rig.Daemon(os.path.join(disk.path, "data"), rig.free_port(rnd),
	                    os.path.join(scratch.path, "log"))
	daemon.start()
	try:
		daemon.wait_ready()
		run = rig.make_load(scratch, daemon.port, seed, rate=got.rate, clients=got.clients,
		                    ref_bytes=got.ref_bytes, library=got.library)
		run.start()
		cutter = Cutter(run, daemon, disk, rnd, got.ways.split(","))
		while cutter.figures["cuts"] < got.rounds:
			cutter.one()
		rig.wait_for_material(run, daemon)
		run.finish()
		verdict = rig.Verdict(run, daemon.port, seed)
		daemon.terminate()
		rig.verify(daemon.data)
	finally:
		if daemon.running():
			daemon.kill9()
	with open(daemon.log, encoding="utf-8", errors="replace") as f:
		cutter.figures["torn_ends_mended"] = sum("half-written" in line for line in f)
	return cutter.figures | verdict.figures(), verdict


def control(got, scratch, disk, rnd, seed):
	"""The same with a sync that does nothing: has to be found out. Returns how."""
	folder = os.path.join(scratch.path, "control")
	os.makedirs(folder)
	daemon = rig.Daemon(os.path.join(disk.path, "liar"), rig.free_port(rnd),
	                    os.path.join(folder, "log"))
	daemon.start()
	daemon.wait_ready()
	daemon.terminate()
	os.sync()
	daemon.start(rig.faulty("sync:lie"))
	try:
		daemon.wait_ready()
		run = rig.make_load(rig.Part(folder), daemon.port, seed + 1, rate=got.rate,
		                    clients=got.clients)
		run.start()
		rig.wait_for_answers(run, daemon, 500)
		daemon.pause()
		run.abandon()
		disk.cut()
		daemon.kill9()
		disk.power_on()
		daemon.start()
		try:
			daemon.wait_ready()
		except RuntimeError:
			return "refused to start"
		verdict = rig.Verdict(run, daemon.port, seed, plant=False)
		lost = sum(e[0] == "LOST" for e in verdict.errors)
		return f"{lost} lost" if lost else None
	finally:
		if daemon.running():
			daemon.kill9()


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--rounds", type=int, default=30)
	args.add_argument("--seed", type=int)
	args.add_argument("--rate", type=int, default=3000, help="operations per second, all clients")
	args.add_argument("--clients", type=int, default=16)
	args.add_argument("--library", action="store_true",
	                  help="load through the C client library: larger groups in a sync")
	args.add_argument("--ref-bytes", type=int, default=300, help="makes records span pages")
	args.add_argument("--ways", default="gone_at_once,gone_at_once,saw_errors,killed_before")
	args.add_argument("--keep", action="store_true", help="keep logs and histories")
	got = args.parse_args()
	reason = why_not()
	if reason:
		print(f"powercut: SKIPPED, {reason}")
		return 77
	seed = rig.seed_of(got.seed)
	rnd = random.Random(seed)
	print(f"powercut: seed {seed}", flush=True)
	with rig.Scratch("powercut", got.keep) as scratch:
		disk = Disk(scratch.path)
		try:
			figures, verdict = honest(got, scratch, disk, rnd, seed)
			found = control(got, scratch, disk, rnd, seed)
		finally:
			disk.done()
		figures["lying_sync"] = (found or "NOT FOUND").replace(" ", "_")
		rig.show("powercut", figures)
		if not verdict.good() or not found:
			scratch.keep = True
			print(verdict.explain())
			return 1
	return 0


if __name__ == "__main__":
	sys.exit(main())
