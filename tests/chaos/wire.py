"""Just enough of the wire (docs/protocol.md) to load a node and to read its streams: SP over TCP and
the messages of proto/troupe.proto and actors/account/account.proto, written by hand. Both
directions, because fake_node.py speaks it too.
"""
import collections
import json
import os
import socket
import struct
import time

COMMAND, QUERY, EVENTS, STATE, FEED, TYPES, STATUS, PING, CLUSTER = range(9)
(OK, REFUSED, CONFLICT, BAD_REQUEST, NOT_FOUND, BUSY, UNAVAILABLE, UNKNOWN, QUARANTINED, TOO_LARGE,
 TIMEOUT, INTERNAL) = range(12)
CODE_NAMES = ("OK REFUSED CONFLICT BAD_REQUEST NOT_FOUND BUSY UNAVAILABLE UNKNOWN QUARANTINED "
              "TOO_LARGE TIMEOUT INTERNAL").split()
REQ, REP = 0x30, 0x31
MESSAGE_MAX = 64 << 20


# ---- protobuf ---------------------------------------------------------------------------------

def varint(n):
	out = bytearray()
	while n > 127:
		out.append(n & 127 | 128)
		n >>= 7
	out.append(n)
	return bytes(out)


def number(field, n):
	return varint(field << 3) + varint(n & (1 << 64) - 1) if n else b""


def chunk(field, data, even_empty=False):
	data = data.encode() if isinstance(data, str) else data
	return varint(field << 3 | 2) + varint(len(data)) + data if data or even_empty else b""


def fields(data):
	"""Yields (field number, int or bytes) of one message."""
	at, end = 0, len(data)
	while at < end:
		key, at = read_varint(data, at)
		kind = key & 7
		if kind == 0:
			value, at = read_varint(data, at)
		elif kind == 2:
			size, at = read_varint(data, at)
			value, at = data[at:at + size], at + size
		elif kind in (1, 5):
			size = 8 if kind == 1 else 4
			value, at = data[at:at + size], at + size
		else:
			raise ValueError(f"wire type {kind}")
		if at > end:
			raise ValueError("message ends in a field")
		yield key >> 3, value


def read_varint(data, at):
	byte = data[at]
	at += 1
	if byte < 128:
		return byte, at
	value, shift = byte & 127, 7
	while True:
		byte = data[at]
		at += 1
		value |= (byte & 127) << shift
		if byte < 128:
			return value, at
		shift += 7


def signed(n):
	return n - (1 << 64) if n >> 63 else n


# ---- messages ---------------------------------------------------------------------------------

Answer = collections.namedtuple("Answer", "call_id code shard offset seq payload error "
                                          "retry_after_ms events command_id repeated node")
NO_ANSWER = Answer(0, OK, 0, 0, 0, b"", "", 0, 0, b"", 0, 0)
ANSWER_NAMES = (None,) + Answer._fields


def call(call_id, kind, type_="", id_="", name="", payload=b"", command_id=b"", expected=0,
         json=0, timeout_ms=0, stale=0, after=0):
	"""One Call, as it stands in a Batch. expected: the sequence number plus 1, 0 for any. stale: by
	the asked node's own replica; after: an offset of the entity's shard that it must include."""
	return chunk(1, number(1, call_id) + chunk(2, type_) + chunk(3, id_) + chunk(4, name)
	             + chunk(5, payload) + chunk(6, command_id) + number(7, expected)
	             + number(8, kind) + number(9, json) + number(10, timeout_ms)
	             + number(11, stale) + number(12, after), True)


def calls(batch):
	"""The calls of a Batch as dicts of field numbers."""
	return [dict(fields(value)) for n, value in fields(batch) if n == 1]


def answer(call_id, code, seq=0, payload=b"", error="", shard=0, offset=0, events=0, repeated=0):
	return chunk(1, number(1, call_id) + number(2, code) + number(3, shard) + number(4, offset)
	             + number(5, seq) + chunk(6, payload) + chunk(7, error) + number(9, events)
	             + number(11, repeated), True)


def answers(data):
	out = []
	for n, value in fields(data):
		if n == 1:
			got = {ANSWER_NAMES[k]: v for k, v in fields(value) if k < len(ANSWER_NAMES)}
			if "error" in got:
				got["error"] = got["error"].decode(errors="replace")
			out.append(NO_ANSWER._replace(**got))
	return out


# account.proto: command name, event manifest, and the field numbers of amount and balance.
COMMANDS = {"open": "Open", "deposit": "Deposit", "check": "WriteCheck", "atm": "WithdrawAtm"}
MANIFESTS = {"AccountOpened": ("open", 0, 0), "MoneyDeposited": ("deposit", 1, 2),
             "CheckWritten": ("check", 2, 3), "AtmWithdrawn": ("atm", 1, 2)}


def command_payload(kind, amount, ref=""):
	if kind == "open":
		return b""
	if kind == "check":
		return number(1, 7) + number(2, amount)
	return number(1, amount) + (chunk(2, ref) if kind == "deposit" else b"")


def balance_of(payload, field=1):
	for n, value in fields(payload):
		if n == field:
			return signed(value)
	return 0


Stored = collections.namedtuple("Stored", "entity seq shard offset command_id kind amount balance")


def event_page(data):
	"""EventPage: (events, position, next_seq, more)."""
	events, position, next_seq, more = [], "", 0, 0
	for n, value in fields(data):
		if n == 1:
			events.append(stored_event(value))
		elif n == 2:
			position = value.decode()
		elif n == 3:
			next_seq = value
		elif n == 4:
			more = value
	return events, position, next_seq, more


def stored_event(data):
	got = dict(fields(data))
	kind, amount_field, balance_field = MANIFESTS[got[6].decode()]
	body = dict(fields(got.get(8, b"")))
	return Stored(got[2].decode(), got.get(3, 0), got.get(4, 0), got.get(5, 0),
	              got.get(10, b"").decode(), kind, signed(body.get(amount_field, 0)),
	              signed(body.get(balance_field, 0)))


# ---- SP over TCP --------------------------------------------------------------------------------

def read_exactly(sock, size):
	data = bytearray(size)
	view, at = memoryview(data), 0
	while at < size:
		n = sock.recv_into(view[at:])
		if n == 0:
			raise ConnectionError("closed by the node")
		at += n
	return bytes(data)


def read_message(sock):
	size, = struct.unpack(">Q", read_exactly(sock, 8))
	if size > MESSAGE_MAX:
		raise ConnectionError(f"message of {size} bytes")
	return read_exactly(sock, size)


def handshake(sock, mine, theirs):
	sock.sendall(struct.pack(">4sHH", b"\0SP\0", mine, 0))
	if struct.unpack(">4sHH", read_exactly(sock, 8)) != (b"\0SP\0", theirs, 0):
		raise ConnectionError("not the peer's protocol")


def address_of(node):
	"""(host, port) of a node that is named by these two, or by its port on this machine."""
	return ("127.0.0.1", node) if isinstance(node, int) else tuple(node)


class Link:
	"""One REQ connection, one batch at a time. Never repeats anything by itself: OSError means that
	the outcome of what was asked is unknown, and the link is to be closed."""

	def __init__(self, node, timeout=10.0, connect_timeout=None):
		self.sock = socket.create_connection(address_of(node), connect_timeout or timeout)
		try:
			self.sock.settimeout(timeout)
			self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			handshake(self.sock, REQ, REP)
		except BaseException:
			self.sock.close()
			raise
		self.request = int.from_bytes(os.urandom(4), "big")

	def ask(self, batch):
		"""batch: encoded calls, joined. Returns the list of answers."""
		self.request = (self.request + 1) & 0x7FFFFFFF
		mark = struct.pack(">I", self.request | 0x80000000)
		self.sock.sendall(struct.pack(">Q", 4 + len(batch)) + mark + batch)
		while True:
			message = read_message(self.sock)
			if message[:4] == mark:
				return answers(message[4:])

	def close(self):
		self.sock.close()


def connect(node, seconds=30.0, alive=lambda: True):
	"""A link to a node that answers a ping, tried until the time is over or alive() is false."""
	end = time.monotonic() + seconds
	while True:
		try:
			link = Link(node)
			if link.ask(call(1, PING))[0].code == OK:
				return link
			link.close()
		except OSError:
			pass
		if not alive() or time.monotonic() > end:
			raise TimeoutError(f"no node answers on {node}")
		time.sleep(.01)


class ReadError(Exception):
	"""The node answered a read with something else than the data; code and text say what."""

	def __init__(self, answer_):
		super().__init__(f"{CODE_NAMES[answer_.code]}: {answer_.error}")
		self.answer = answer_


def ask_one(link, encoded):
	"""One read; BUSY and UNAVAILABLE are asked again for 10 seconds."""
	end = time.monotonic() + 10
	while True:
		got = link.ask(encoded)[0]
		if got.code == OK:
			return got
		if got.code not in (BUSY, UNAVAILABLE) or time.monotonic() > end:
			raise ReadError(got)
		time.sleep(.05)


def read_stream(link, entity, stale=0):
	"""All events of one account, page by page."""
	events, at = [], 1
	while True:
		payload = number(1, at) + number(2, 1000)
		got = ask_one(link, call(1, EVENTS, "account", entity, payload=payload,
		                          stale=stale))
		page, _, next_seq, more = event_page(got.payload)
		events += page
		if not more or next_seq <= at:
			return events
		at = next_seq


def read_feed(link, position=""):
	"""The feed of all shards, from the beginning or a position to the end of now."""
	events = []
	while True:
		payload = chunk(1, position) + number(4, 1000)
		got = ask_one(link, call(1, FEED, payload=payload))
		page, next_position, _, more = event_page(got.payload)
		events += page
		if next_position == position or not (page or more):
			return events
		position = next_position


def read_balance(link, entity):
	got = ask_one(link, call(1, QUERY, "account", entity, "Balance"))
	return got.seq, balance_of(got.payload)


def end_of_feed(link):
	"""Position of what is stored next."""
	return event_page(ask_one(link, call(1, FEED, payload=chunk(1, "end"))).payload)[1]


def read_status(link):
	"""The node's own numbers."""
	return json.loads(ask_one(link, call(1, STATUS)).payload)
