"""A client of Troupe in one file of standard Python: docs/protocol.md by example.

    client = TroupeClient("127.0.0.1", 7470)
    answer = client.command("account", "ann", "Deposit", {"amount": 100})
    answers = client.send_batch([command("account", "ann", "Deposit", {"amount": 1}) for _ in range(128)])

TroupeClient never repeats anything: OSError means that the outcome is unknown and that the client is
to be closed. RetryingClient repeats with the same command id until its deadline, and goes from node
to node when it was given several. One thread each.
Payloads are dicts (sent as JSON) or bytes; with json=True answers come back as parsed JSON.
"""
import collections
import json as json_
import os
import random
import socket
import struct
import time
import urllib.parse

COMMAND, QUERY, EVENTS, STATE, FEED, TYPES, STATUS, PING, CLUSTER = range(9)
(OK, REFUSED, CONFLICT, BAD_REQUEST, NOT_FOUND, BUSY, UNAVAILABLE, UNKNOWN, QUARANTINED, TOO_LARGE,
 TIMEOUT, INTERNAL) = range(12)
CODE_NAMES = ("OK REFUSED CONFLICT BAD_REQUEST NOT_FOUND BUSY UNAVAILABLE UNKNOWN QUARANTINED "
              "TOO_LARGE TIMEOUT INTERNAL").split()
REPEATABLE = frozenset((BUSY, UNAVAILABLE, UNKNOWN, TIMEOUT))
HANDSHAKE = b"\0SP\0\0\x30\0\0"
HANDSHAKE_OF_NODE = b"\0SP\0\0\x31\0\0"
MESSAGE_MAX = 64 << 20

Call = collections.namedtuple("Call", "kind type id name payload command_id expected json timeout_ms "
                                      "stale after", defaults=(False, 0))
Answer = collections.namedtuple("Answer", "code error payload seq offset shard events repeated "
                                          "command_id retry_after_ms call_id node", defaults=(0,))
Event = collections.namedtuple("Event", "type id seq shard offset manifest version payload time_ms "
                                        "command_id tags")
Page = collections.namedtuple("Page", "events position next_seq more")


class CallFailed(Exception):
    """A read was answered with a code other than OK; .answer has it whole."""

    def __init__(self, answer):
        name = CODE_NAMES[answer.code] if answer.code < len(CODE_NAMES) else answer.code
        super().__init__("%s: %s" % (name, answer.error))
        self.answer = answer


# ---- protobuf ---------------------------------------------------------------------------------

def varint(value):
    value &= (1 << 64) - 1
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    """A varint field; nothing when it is 0, as proto3 has it."""
    return varint(field << 3) + varint(value) if value else b""


def chunk(field, data):
    """A string, bytes or message field; nothing when it is empty."""
    if isinstance(data, str):
        data = data.encode()
    return varint(field << 3 | 2) + varint(len(data)) + data if data else b""


def read_varint(data, at):
    value = shift = 0
    while shift < 64:
        if at >= len(data):
            raise ValueError("a varint is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
        shift += 7
    raise ValueError("a varint has more than 64 bits")


def fields(data):
    """Yields (field number, int or bytes). ValueError: malformed."""
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = read_varint(data, at)
        else:
            if wire == 2:
                size, at = read_varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError("wire type %d" % wire)
            if size > end - at:
                raise ValueError("a field is cut off")
            value, at = data[at:at + size], at + size
        yield key >> 3, value


# ---- messages ---------------------------------------------------------------------------------

def _call(kind, type_="", id_="", name="", payload=b"", command_id=None, expected=None, json=True,
          timeout_ms=0, stale=False, after=0):
    if isinstance(payload, dict):
        if not json:
            raise TypeError("a dict is sent as JSON")
        payload = json_.dumps(payload).encode()
    if isinstance(command_id, str):
        command_id = command_id.encode()
    return Call(kind, type_, id_, name, payload, command_id or b"", expected, json, timeout_ms,
                stale, after)


def command(type_, id_, name, payload=b"", command_id=None, expected=None, json=True, timeout_ms=0):
    """For send_batch. expected: the sequence number the entity must be at; None: any. Without a
    command id it gets a random one here, so that it can be repeated."""
    return _call(COMMAND, type_, id_, name, payload, command_id or os.urandom(16), expected, json,
                 timeout_ms)


def query(type_, id_, name, payload=b"", json=True, timeout_ms=0, stale=False, after=0):
    """For send_batch. stale: from what the node that is asked has. after: an offset in the entity's
    shard that the answer must include."""
    return _call(QUERY, type_, id_, name, payload, json=json, timeout_ms=timeout_ms, stale=stale,
                 after=after)


def encode_call(call, call_id):
    """As it stands in a Batch."""
    expected = 0 if call.expected is None else call.expected + 1
    body = b"".join((
        number(1, call_id), chunk(2, call.type), chunk(3, call.id), chunk(4, call.name),
        chunk(5, call.payload), chunk(6, call.command_id), number(7, expected),
        number(8, call.kind), number(9, call.json), number(10, call.timeout_ms),
        number(11, call.stale), number(12, call.after)))
    return b"\x0a" + varint(len(body)) + body


_ANSWER = (None, "call_id", "code", "shard", "offset", "seq", "payload", "error", "retry_after_ms",
           "events", "command_id", "repeated", "node")
_NOTHING = Answer(0, "", b"", 0, 0, 0, 0, False, b"", 0, 0)


def decode_answers(data):
    """All answers of a message, payloads as bytes."""
    out = []
    for field, value in fields(data):
        if field != 1:
            continue
        got = {_ANSWER[k]: v for k, v in fields(value) if 0 < k < len(_ANSWER)}
        if "error" in got:
            got["error"] = got["error"].decode("utf-8", "replace")
        if "repeated" in got:
            got["repeated"] = bool(got["repeated"])
        out.append(_NOTHING._replace(**got))
    return out


def decode_event(data, json=True):
    got, tags = {}, []
    for field, value in fields(data):
        if field == 11:
            tags.append(value.decode())
        else:
            got[field] = value
    payload = got.get(8, b"")
    return Event(got.get(1, b"").decode(), got.get(2, b"").decode(), got.get(3, 0), got.get(4, 0),
                 got.get(5, 0), got.get(6, b"").decode(), got.get(7, 0),
                 json_.loads(payload) if json and payload else payload, got.get(9, 0),
                 got.get(10, b""), tags)


def decode_page(data, json=True):
    events, rest = [], {}
    for field, value in fields(data):
        if field == 1:
            events.append(decode_event(value, json))
        else:
            rest[field] = value
    return Page(events, rest.get(2, b"").decode(), rest.get(3, 0), bool(rest.get(4, 0)))


def _parsed(answer, json):
    if json and answer.payload:
        return answer._replace(payload=json_.loads(answer.payload))
    return answer


# ---- SP over TCP ------------------------------------------------------------------------------

class Link:
    """One REQ connection. send() any number, receive() in whatever order they are answered."""

    def __init__(self, host, port, timeout=10.0):
        self.socket = socket.create_connection((host, port), timeout)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.input = self.socket.makefile("rb")
            self.socket.sendall(HANDSHAKE)
            if self.exactly(8) != HANDSHAKE_OF_NODE:
                raise ConnectionError("that is no REP socket")
        except BaseException:
            self.socket.close()
            raise
        self.request = int.from_bytes(os.urandom(4), "big")

    def exactly(self, size):
        data = self.input.read(size)
        if len(data) < size:
            raise ConnectionError("closed by the node")
        return data

    def send(self, body):
        """Returns the request id its answer will have."""
        self.request = self.request + 1 & 0x7FFFFFFF
        request = self.request | 0x80000000
        self.socket.sendall(struct.pack(">QI", 4 + len(body), request) + body)
        return request

    def receive(self):
        """(request id, body)"""
        size, = struct.unpack(">Q", self.exactly(8))
        if not 4 <= size <= MESSAGE_MAX:
            raise ConnectionError("message of %d bytes" % size)
        data = self.exactly(size)
        return struct.unpack(">I", data[:4])[0], data[4:]

    def ask(self, body):
        request = self.send(body)
        while True:
            got, answer = self.receive()
            if got == request:
                return answer

    def close(self):
        self.input.close()
        self.socket.close()


class _Calls:
    """The calls by name, over send_batch."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def command(self, type, id, name, payload=b"", command_id=None, expected=None, json=True,
                timeout_ms=0):
        return self.send_batch([command(type, id, name, payload, command_id, expected, json,
                                        timeout_ms)])[0]

    def query(self, type, id, name, payload=b"", json=True, timeout_ms=0, stale=False, after=0):
        return self.send_batch([query(type, id, name, payload, json, timeout_ms, stale, after)])[0]

    def state(self, type, id, at_seq=0, stale=False, after=0):
        """Answer with the state as a dict; at_seq 0: now."""
        return self.send_batch([_call(STATE, type, id, payload=number(1, at_seq), stale=stale,
                                      after=after)])[0]

    def _read(self, call):
        answer = self.send_batch([call])[0]
        if answer.code != OK:
            raise CallFailed(answer)
        return answer.payload

    def events(self, type, id, from_seq=1, limit=0, wait_ms=0, json=True, stale=False, after=0):
        """A page of an entity's stream; go on at .next_seq."""
        payload = number(1, from_seq) + number(2, limit) + number(3, wait_ms)
        return decode_page(self._read(_call(EVENTS, type, id, payload=payload, json=json,
                                            stale=stale, after=after)), json)

    def feed(self, position="", type="", tag="", limit=0, wait_ms=0, json=True):
        """A page of the feed of all shards; go on at .position. "end": only what is new."""
        payload = (chunk(1, position) + chunk(2, type) + chunk(3, tag) + number(4, limit)
                   + number(5, wait_ms))
        return decode_page(self._read(_call(FEED, payload=payload, json=json)), json)

    def types(self, type=""):
        return self._read(_call(TYPES, type))

    def status(self):
        return self._read(_call(STATUS))

    def cluster(self, name="status", payload=b""):
        """name: "status" or "hash"; payload: a dict. Returns a dict."""
        return self._read(_call(CLUSTER, name=name, payload=payload))

    def ping(self):
        self._read(_call(PING))
        return True


_PAGES = (EVENTS, FEED)


class TroupeClient(_Calls):
    def __init__(self, host, port, timeout=30.0):
        self.link = Link(host, port, timeout)

    def close(self):
        self.link.close()

    def send_batch(self, calls):
        """One message, at most 1,024 calls and 1 MiB. The answers in the order of the calls."""
        if not calls:
            return []
        data = self.link.ask(b"".join([encode_call(c, i) for i, c in enumerate(calls, 1)]))
        got = decode_answers(data)
        if len(got) == 1 and got[0].call_id == 0:
            # The message could not be taken apart: this holds for each of its calls.
            return got * len(calls)
        by_id = {answer.call_id: answer for answer in got}
        if len(got) != len(calls) or len(by_id) != len(calls):
            raise ConnectionError("%d answers to %d calls" % (len(got), len(calls)))
        out = []
        for i, call in enumerate(calls, 1):
            if i not in by_id:
                raise ConnectionError("call %d has no answer" % i)
            answer = _parsed(by_id[i], call.json and call.kind not in _PAGES)
            out.append(answer._replace(command_id=answer.command_id or call.command_id))
        return out


def parse_urls(urls):
    """"tcp://host:port,..." as a list of (host, port)."""
    out = []
    for url in urls.split(","):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port:
            raise ValueError("not tcp://HOST:PORT: %r" % url)
        out.append((parts.hostname, parts.port))
    return out


class RetryingClient(_Calls):
    """Reconnects, and repeats what has no definite answer, with the same command id, until
    deadline_s seconds have passed. Then: the last answer, or OSError when there was none.

    RetryingClient("tcp://a:7470,tcp://b:7470") knows several nodes of a cluster. It talks to one of
    them, any, and asks the next when the connection breaks, when an answer takes longer than 2 s (4,
    8 and 16 s in the next tries; for reads that may wait: `timeout`), or when the node serves
    nothing of a message or turns a call away twice."""

    def __init__(self, host, port=None, deadline_s=30.0, timeout=10.0):
        self.nodes = parse_urls(host) if port is None else [(host, port)]
        self.at = random.randrange(len(self.nodes))
        self.deadline_s, self.timeout = deadline_s, timeout
        self.client = None
        self.attempts = 0  # messages sent so far

    def close(self):
        if self.client is not None:
            self.client.close()
            self.client = None

    def move_on(self):
        """The next message goes to the next node, if there is one."""
        if len(self.nodes) > 1:
            self.close()
            self.at = (self.at + 1) % len(self.nodes)

    def _patience(self, calls, tries):
        if len(self.nodes) == 1 or any(c.kind in _PAGES for c in calls):
            return self.timeout
        return min(2.0 * 2 ** min(tries, 3), self.timeout)

    def _attempt(self, calls, left_s, tries):
        patience = max(.05, min(self._patience(calls, tries), left_s))
        if len(self.nodes) > 1:
            # The node is to say in time that it has not begun: then nothing was written.
            most = max(1, int(patience * 1000))
            calls = [c._replace(timeout_ms=min(c.timeout_ms or most, most)) for c in calls]
        try:
            if self.client is None:
                # A node that is stopped takes connections, but says no word.
                self.client = TroupeClient(*self.nodes[self.at], min(
                    patience, 1.0 if len(self.nodes) > 1 else patience))
            self.client.link.socket.settimeout(patience + (.5 if len(self.nodes) > 1 else 0))
            self.attempts += 1
            return self.client.send_batch(calls), None
        except (OSError, ValueError) as error:
            self.close()
            self.move_on()
            return None, error

    def send_batch(self, calls):
        out, open_, pause, tries = [None] * len(calls), list(range(len(calls))), .005, 0
        end = time.monotonic() + self.deadline_s
        while open_:
            answers, error = self._attempt([calls[i] for i in open_], end - time.monotonic(), tries)
            tries += 1
            wait, again = pause, []
            if answers is None:
                again = open_
                if tries < len(self.nodes):
                    wait = 0  # another node has not been asked yet
            else:
                for i, answer in zip(open_, answers):
                    out[i] = answer
                    if answer.code in REPEATABLE:
                        again.append(i)
                        wait = max(wait, answer.retry_after_ms / 1000)
                if again and (tries > 1 or len(again) == len(open_)):
                    self.move_on()
            open_, left = again, end - time.monotonic()
            if open_ and left <= 0:
                if any(out[i] is None for i in open_):
                    raise TimeoutError("no answer in %g s: %s" % (self.deadline_s, error))
                break
            if open_:
                time.sleep(min(left, wait * random.uniform(.5, 1)))
                pause = min(.5, pause * 2)
        return out
