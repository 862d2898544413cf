#!/usr/bin/env python3
"""Nodes that look like a cluster and share one file, with faults to order: the chaos of the cluster is
seen red without the product, and green.

    fake_cluster.py --data DIR --rpc URL [--join URL] [--name NAME]     CHAOS_FAKE=FAULT

Faults: none; early-answer, stale-read (as fake_node.py); diverge (every node's copy is another
one); leave (a node ends by itself after some seconds); stuck (nothing is answered any more after some
seconds).
"""
import argparse
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fake_node
import wire as w

SHARDS = 4
REBALANCE_SECONDS = .6


class Shared:
	"""What all nodes know, in a file: members and the view of who is alive."""

	def __init__(self, folder):
		self.path = os.path.join(folder, "shared.json")

	def load(self):
		try:
			with open(self.path, encoding="ascii") as f:
				return json.load(f)
		except FileNotFoundError:
			return {"next": 1, "members": {}, "view": [], "term": 0, "moves": {}, "busy": 0,
			        "founded": time.monotonic()}

	def save(self, state):
		with open(self.path + ".new", "w", encoding="ascii") as f:
			json.dump(state, f)
		os.replace(self.path + ".new", self.path)


def alive(pid):
	try:
		with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
			return f.read().rpartition(")")[2].split()[0] not in "ZTX"
	except OSError:
		return False


class Member(fake_node.Node):
	def __init__(self, got, fault):
		os.makedirs(got.data, exist_ok=True)
		folder = os.path.dirname(got.data)
		super().__init__(folder, "none")
		self.fault, self.read = fault, self.file.tell()
		self.lock_file = open(os.path.join(folder, "lock"), "w", encoding="ascii")
		self.own = open(os.path.join(got.data, "own"), "ab", buffering=0)
		self.shared = Shared(folder)
		with self.locked():
			state, path = self.shared.load(), os.path.join(got.data, "number")
			if not os.path.exists(path):
				with open(path, "w", encoding="ascii") as f:
					f.write(str(state["next"]))
				state["next"] += 1
				state["busy"] = time.monotonic() + REBALANCE_SECONDS
			with open(path, encoding="ascii") as f:
				self.number = f.read()
			old = state["members"].get(self.number, {"state": "up"})
			state["members"][self.number] = {**old, "rpc": got.rpc, "pid": os.getpid()}
			state["term"] += 1
			self.founded = state["founded"]
			self.shared.save(state)
		threading.Thread(target=self.chat, daemon=True).start()
		if fault == "early-answer":
			threading.Thread(target=self.write_late, daemon=True).start()

	def chat(self):
		"""Something to drop when the network is cut, and to write when the disk fails."""
		out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		while True:
			members = self.shared.load()["members"]
			if members[self.number]["state"] == "left":
				print("this node has left its cluster", flush=True)
				os._exit(0)
			for m in members.values():
				host, port = m["rpc"].split("//")[1].rsplit(":", 1)
				out.sendto(b"hello", (host, int(port)))
			self.touch()
			time.sleep(.03)

	def written(self):
		return os.path.getsize(self.file.name)

	def locked(self):
		member = self

		class Locked:
			def __enter__(self):
				fcntl.flock(member.lock_file, fcntl.LOCK_EX)

			def __exit__(self, *_):
				fcntl.flock(member.lock_file, fcntl.LOCK_UN)
		return Locked()

	def refresh(self):
		"""Reads what others have written."""
		self.file.seek(self.read)
		data = self.file.read()
		whole = data[:data.rfind(b"\n") + 1]
		self.read += len(whole)
		for line in whole.decode().splitlines():
			entity, cid, kind, amount = line.split(" ")
			self.apply(entity, cid, kind, int(amount))

	def status(self):
		state, now = self.shared.load(), time.monotonic()
		members = state["members"]
		for m in members.values():
			if m["state"] == "draining" and now > state["busy"]:
				m["state"] = "left"
		holds = [n for n, m in members.items() if m["state"] != "left"]
		view = [n for n in holds if alive(members[n]["pid"])]
		if view != state["view"]:
			state["view"], state["term"] = view, state["term"] + 1
		self.shared.save(state)

		def group(shard):
			leader = state["moves"].get(str(shard))
			leader = leader if leader in view else view[shard % len(view)]
			return {"shard": shard, "name": str(shard), "leader": int(leader), "term": state["term"],
			        "commit": self.written() if shard == 0 else 0, "preferred": int(leader),
			        "replicas": [{"node": int(n), "voter": True, "lag": 0} for n in holds],
			        "target": [int(n) for n in holds], "moving": now < state["busy"]}

		groups = [group(s) for s in range(SHARDS)]
		return {"coordinator": groups[-1]["leader"], "term": state["term"], "groups": groups,
		        "replication": 1,
		        "nodes": [{"node": int(n), "rpc": m["rpc"], "state": m["state"], "reachable": n in view,
		                   "replicas": SHARDS if n in holds else 0,
		                   "leaders": sum(g["leader"] == int(n) for g in groups)}
		                  for n, m in members.items()]}

	def admin(self, name, payload):
		state = self.shared.load()
		if name == "Move":
			state["moves"][str(payload["shard"])] = str(payload["node"])
			state["term"] += 1
		elif name == "Drain":
			state["members"][str(payload["node"])]["state"] = "draining"
			state["busy"] = time.monotonic() + REBALANCE_SECONDS
		self.shared.save(state)
		return {}

	def one(self, f):
		n, kind = f.get(1, 0), f.get(8, 0)
		text = json.loads(f.get(5) or b"{}") if f.get(9) else {}
		answer = None
		if kind == w.CLUSTER and f[4] == b"status":
			answer = self.status()
		elif kind == w.CLUSTER:
			content = self.number if self.fault == "diverge" else "content"
			answer = {"shards": [{"shard": s, "first": 1, "upto": self.written() if s == 0 else 0,
			                      "hash": content} for s in range(SHARDS)]}
		elif kind == w.COMMAND and f.get(2) == b"cluster":
			answer = self.admin(f[4].decode(), text)
		elif kind == w.FEED and dict(w.fields(f.get(5, b""))).get(1) == b"end":
			return w.answer(n, w.OK, payload=w.chunk(2, str(len(self.log))))
		if answer is not None:
			return w.answer(n, w.OK, payload=json.dumps(answer).encode())
		return super().one(f)

	def batch(self, message):
		with self.lock:
			while self.fault == "stuck" and time.monotonic() > self.founded + 5:
				time.sleep(1)
			if self.fault == "leave" and time.monotonic() > self.founded + 5:
				os._exit(3)
			with self.locked():
				self.refresh()
				self.pending = []
				out = b"".join(self.one(f) for f in w.calls(message))
				if self.pending:
					self.keep(b"".join(self.pending))
			return out

	def touch(self):
		try:
			self.own.write(b".")
			os.fdatasync(self.own.fileno())
		except OSError:
			os._exit(70)

	def keep(self, lines):
		self.touch()
		self.file.write(lines)
		self.read += len(lines)


def main():
	args = argparse.ArgumentParser()
	args.add_argument("--data", required=True)
	args.add_argument("--rpc", required=True)
	got, _ = args.parse_known_args()
	signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
	member = Member(got, os.environ.get("CHAOS_FAKE", "none"))
	host, port = got.rpc.split("//")[1].rsplit(":", 1)
	listener = socket.create_server((host, int(port)), backlog=64)
	print("ready", got.rpc, flush=True)
	while True:
		sock, _ = listener.accept()
		threading.Thread(target=member.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
	main()
