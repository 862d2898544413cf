#!/usr/bin/env python3
"""A node in 150 lines with faults to order, so that the chaos runs are seen red without the product.

    fake_node.py --data DIR --rpc tcp://127.0.0.1:PORT      CHAOS_FAKE=FAULT in the environment

Faults: none; early-answer (answers before it writes), no-dedupe (forgets command ids at a restart),
stale-read (balances lag behind), short-start (drops the end of its file at every start).
"""
import argparse
import os
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wire as w

NAMES = {name: kind for kind, name in w.COMMANDS.items()}
EVENT_NAMES = {kind: name for name, (kind, _, _) in w.MANIFESTS.items()}


class Node:
	def __init__(self, folder, fault):
		self.lock, self.fault = threading.Lock(), fault
		self.streams, self.money, self.ids, self.log = {}, {}, {}, []
		self.old, self.buffer = {}, []
		os.makedirs(folder, exist_ok=True)
		path = os.path.join(folder, "log")
		if fault == "short-start" and os.path.exists(path):
			with open(path, "r+b") as f:
				f.truncate(max(0, os.path.getsize(path) - 2000))
		self.file = open(path, "a+b", buffering=0)
		self.file.seek(0)
		data = self.file.read()
		for line in data[:data.rfind(b"\n") + 1].decode().splitlines():
			got = line.split(" ")
			if len(got) == 4 and got[3].isdigit():
				self.apply(got[0], got[1], got[2], int(got[3]))
		if fault == "no-dedupe":
			self.ids.clear()
		if data and not data.endswith(b"\n"):
			self.file.write(b"\n")
		if fault == "early-answer":
			threading.Thread(target=self.write_late, daemon=True).start()

	def write_late(self):
		while True:
			time.sleep(.2)
			with self.lock:
				out, self.buffer = self.buffer, []
			self.file.write(b"".join(out))

	def apply(self, entity, cid, kind, amount):
		stream = self.streams.setdefault(entity, [])
		self.old[entity] = (len(stream), self.money.get(entity, 0))
		money = self.money.get(entity, 0)
		self.money[entity] = money + (amount if kind == "deposit" else -amount)
		event = (entity, len(stream) + 1, len(self.log) + 1, cid, kind, amount, self.money[entity])
		stream.append(event)
		self.log.append(event)
		self.ids[cid] = event
		return event

	def command(self, n, f):
		entity, cid, kind = f[3].decode(), f[6].decode(), NAMES[f[4].decode()]
		body = dict(w.fields(f.get(5, b"")))
		amount = 0 if kind == "open" else body.get(2 if kind == "check" else 1, 0)
		seq = len(self.streams.get(entity, []))
		seen = self.ids.get(cid)
		if seen is None:
			if f.get(7, 0) not in (0, seq + 1):
				return w.answer(n, w.CONFLICT, seq)
			money = self.money.get(entity, 0)
			if kind in ("check", "atm") and money < amount:
				return w.answer(n, w.REFUSED, seq, w.number(1, money), "insufficient funds")
			event = self.apply(entity, cid, kind, amount)
			line = f"{entity} {cid} {kind} {amount}\n".encode()
			if self.fault == "early-answer":
				self.buffer.append(line)
			else:
				self.pending.append(line)
		else:
			event = seen
		return w.answer(n, w.OK, event[1], w.number(1, event[6]), offset=event[2], events=1,
		                repeated=int(seen is not None))

	def stored(self, e):
		body = {"open": b"", "deposit": w.number(1, e[5]) + w.number(2, e[6]),
		        "check": w.number(2, e[5]) + w.number(3, e[6]),
		        "atm": w.number(1, e[5]) + w.number(2, e[6])}[e[4]]
		return w.chunk(1, w.chunk(1, "account") + w.chunk(2, e[0]) + w.number(3, e[1])
		               + w.number(5, e[2]) + w.chunk(6, EVENT_NAMES[e[4]]) + w.chunk(8, body)
		               + w.chunk(10, e[3]))

	def one(self, f):
		n, kind = f.get(1, 0), f.get(8, 0)
		body = dict(w.fields(f.get(5, b""))) if kind in (w.EVENTS, w.FEED) else {}
		if kind == w.COMMAND:
			return self.command(n, f)
		if kind == w.QUERY:
			entity = f[3].decode()
			seq, money = len(self.streams.get(entity, [])), self.money.get(entity, 0)
			if self.fault == "stale-read":
				seq, money = self.old.get(entity, (0, 0))
			return w.answer(n, w.OK, seq, w.number(1, money))
		if kind == w.EVENTS:
			at = max(1, body.get(1, 1))
			page = self.streams.get(f[3].decode(), [])[at - 1:at - 1 + body.get(2, 1000)]
			return w.answer(n, w.OK, payload=b"".join(map(self.stored, page))
			                + w.number(3, at + len(page)) + w.number(4, len(page) >= 1000))
		if kind == w.FEED:
			at = int(body.get(1, b"0"))
			page = self.log[at:at + 1000]
			return w.answer(n, w.OK, payload=b"".join(map(self.stored, page))
			                + w.chunk(2, str(at + len(page))))
		if kind == w.STATUS:
			return w.answer(n, w.OK, payload=b'{"workers":[]}')
		return w.answer(n, w.OK)

	def batch(self, message):
		with self.lock:
			self.pending = []
			out = b"".join(self.one(f) for f in w.calls(message))
			if self.pending:
				self.file.write(b"".join(self.pending))
				os.fdatasync(self.file.fileno())
			return out

	def serve(self, sock):
		try:
			sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			w.handshake(sock, w.REP, w.REQ)
			while True:
				message = w.read_message(sock)
				body = message[:4] + self.batch(message[4:])
				sock.sendall(struct.pack(">Q", len(body)) + body)
		except OSError:
			sock.close()


def main():
	args = argparse.ArgumentParser()
	args.add_argument("--data", required=True)
	args.add_argument("--rpc", required=True)
	got, _ = args.parse_known_args()
	signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
	node = Node(got.data, os.environ.get("CHAOS_FAKE", "none"))
	listener = socket.create_server(("127.0.0.1", int(got.rpc.rsplit(":", 1)[1])), backlog=64)
	while True:
		sock, _ = listener.accept()
		threading.Thread(target=node.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
	main()
