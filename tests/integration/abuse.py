#!/usr/bin/env python3
"""Clients that mean harm, while a well-behaved one in a process of its own is answered in time.

Its slowest answer is printed per attack. A busy machine is slow by itself, so the best of three
attempts counts: only what the node itself does wrong shows up every time.
"""
import multiprocessing
import os
import random
import socket
import struct
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "client")]

from node import Node  # noqa: E402
import troupe_client as t  # noqa: E402

LIMIT_MS = 250
ATTEMPTS = 3
PAUSE_S = .005
ANSWERS_MIN = 20  # however short the attack
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1, 1_000_000))


def witness(host, port, pipe):
    """Commands and queries until told to stop; reports (slowest in ms, answers, first error)."""
    slowest = count = 0
    error = None
    try:
        with t.TroupeClient(host, port) as client:
            client.command("account", "witness", "Open", {})
            pipe.send("ready")
            while not pipe.poll(PAUSE_S) or count < ANSWERS_MIN:
                began = time.monotonic()
                answer = client.command("account", "witness", "Deposit", {"amount": 1})
                slowest = max(slowest, (time.monotonic() - began) * 1000)
                count += 1
                if answer.code != t.OK:
                    raise t.CallFailed(answer)
    except Exception as caught:  # whatever it is, the test shall say so
        error = repr(caught)
    pipe.send((slowest, count, error))


def frame(body, request=0x80000001):
    return struct.pack(">QI", 4 + len(body), request) + body


def nested(depth):
    """Length-delimited fields in each other."""
    body = b""
    for _ in range(depth):
        body = b"\x0a" + t.varint(len(body)) + body
    return body


class Abuse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("SEED=%d" % SEED)
        cls.node = Node()
        cls.pid = cls.node.pid

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def connect(self, handshake=True, receive_buffer=None):
        sock = socket.socket()
        self.open.append(sock)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(5)
        sock.connect((self.node.host, self.node.port))
        if handshake:
            sock.sendall(t.HANDSHAKE)
        return sock

    def is_closed(self, sock):
        """True when the node ends the connection, whatever it sends before."""
        try:
            while sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def under(self, name, attack):
        """The attack with the witness; afterwards the node serves new clients."""
        best = None
        for _ in range(ATTEMPTS):
            slowest = self.attempt(attack)
            best = slowest if best is None else min(best, slowest)
            if best < LIMIT_MS:
                break
        print("%s: slowest answer of the other client %.1f ms" % (name, best), flush=True)
        self.assertLess(best, LIMIT_MS)
        with t.TroupeClient(self.node.host, self.node.port) as client:
            self.assertTrue(client.ping())
        self.assertTrue(self.node.running())
        self.assertEqual(self.node.pid, self.pid)

    def attempt(self, attack):
        fork = multiprocessing.get_context("fork")
        mine, other = fork.Pipe()
        process = fork.Process(target=witness, args=(self.node.host, self.node.port, other), daemon=True)
        process.start()
        self.open = []
        try:
            self.assertEqual(mine.recv(), "ready")
            attack()
            mine.send("stop")
            slowest, count, error = mine.recv()
        finally:
            for sock in self.open:
                sock.close()
            process.join(10)
            if process.is_alive():
                process.kill()
        self.assertIsNone(error)
        self.assertGreater(count, 0)
        return slowest

    def refused(self, body, codes):
        link = t.Link(self.node.host, self.node.port)
        try:
            self.assertTrue({a.code for a in t.decode_answers(link.ask(body))} <= set(codes))
        finally:
            link.close()

    def test_nesting_bomb(self):
        def attack():
            for depth in (100, 2000, 8000):
                bomb = nested(depth)
                self.refused(b"\x0a" + t.varint(len(bomb)) + bomb, (t.BAD_REQUEST, t.TOO_LARGE, t.NOT_FOUND))
                for payload, json in ((bomb, False), (b"[" * 100000, True), (b'{"a":' * 40000, True)):
                    for call in (t.command("account", "b", "Deposit", payload, json=json),
                                 t._call(t.FEED, payload=payload, json=json)):
                        self.refused(t.encode_call(call, 1), (t.BAD_REQUEST, t.TOO_LARGE, t.REFUSED))
        self.under("nesting bomb", attack)

    def test_a_megabyte_of_empty_messages(self):
        def attack():
            for _ in range(3):
                self.refused(b"\x0a\x00" * 500_000, (t.TOO_LARGE,))
                call = t.command("account", "b", "Deposit", b"\x1a\x00" * 120_000, json=False)
                self.refused(t.encode_call(call, 1), (t.TOO_LARGE, t.BAD_REQUEST, t.REFUSED))
        self.under("1 MB of empty messages", attack)

    def test_length_of_8_gib(self):
        def attack():
            for size in (8 << 30, (1 << 20) + 65, 1 << 63, (1 << 64) - 1):
                sock = self.connect()
                try:
                    sock.sendall(struct.pack(">Q", size) + b"x" * 65536)
                except OSError:
                    pass
                self.assertTrue(self.is_closed(sock), size)
        self.under("8 GiB length", attack)

    def test_200_half_open_connections(self):
        def attack():
            for i in range(200):
                sock = self.connect(handshake=i % 2 == 0)
                if i % 4 == 0:
                    sock.sendall(frame(b"x" * 100)[:50])
                elif i % 4 == 1:
                    sock.sendall(t.HANDSHAKE[:4])
            time.sleep(.5)
        self.under("200 half-open connections", attack)

    def test_50_clients_that_never_read(self):
        # Answers of 300 KB that cost the node little: an attack that keeps the processors busy tells
        # nothing about blocking. Sixteen of them are more than the kernel takes for a connection.
        with t.TroupeClient(self.node.host, self.node.port) as client:
            client.command("account", "fat", "Open", {})
            client.send_batch([t.command("account", "fat", "Deposit", {"amount": 1, "ref": "x" * 1000})
                               for _ in range(300)])
        body = t.encode_call(t._call(t.EVENTS, "account", "fat", json=False), 1)

        def attack():
            hogs = [self.connect(receive_buffer=4096) for _ in range(50)]
            for hog in hogs:
                hog.setblocking(False)
            for _ in range(16):
                for hog in list(hogs):
                    try:
                        if hog.send(frame(body)) < len(frame(body)):
                            hogs.remove(hog)
                    except OSError:
                        hogs.remove(hog)
                    time.sleep(.002)  # many at once would be load, which makes everybody slower
            time.sleep(1)

        def given_up():
            with t.TroupeClient(self.node.host, self.node.port) as client:
                return client.status()["rpc"]["sendFailures"]
        before = given_up()
        self.under("50 clients that never read", attack)
        self.assertGreaterEqual(given_up() - before, 25, "answers were taken: that was no attack")

    def test_bad_handshakes(self):
        bad = (b"GET / HTTP/1.1\r\n\r\n", b"\0SP\1\0\x30\0\0", b"\0SQ\0\0\x30\0\0", b"\0SP\0\0\x10\0\0",
               b"\0SP\0\0\x31\0\0", b"\xff" * 8, b"\x16\x03\x01\0\x05hello")

        def attack():
            for first in bad * 3:
                sock = self.connect(handshake=False)
                sock.sendall(first)
                self.assertTrue(self.is_closed(sock), first)
        self.under("bad handshakes", attack)

    def test_random_bytes(self):
        rnd = random.Random(SEED)
        good = t.encode_call(t.command("account", "r", "Deposit", {"amount": 1}, command_id="r"), 1)

        def noise():
            kind = rnd.randrange(6)
            if kind == 0:
                return rnd.randbytes(rnd.randint(1, 400))
            if kind == 1:
                return t.HANDSHAKE + rnd.randbytes(rnd.randint(1, 2000))
            if kind == 2:
                return t.HANDSHAKE + struct.pack(">Q", rnd.randint(0, 3)) + b"abc"
            if kind == 3:
                return t.HANDSHAKE + struct.pack(">Q", 40) + b"\0" * 40
            if kind == 4:
                return t.HANDSHAKE + frame(rnd.randbytes(rnd.randint(0, 500)))
            bits = bytearray(frame(good))
            for _ in range(rnd.randint(1, 4)):
                bits[rnd.randrange(12, len(bits))] ^= 1 << rnd.randrange(8)
            return t.HANDSHAKE + bytes(bits)

        def attack():
            for _ in range(300):
                sock = self.connect(handshake=False)
                try:
                    sock.sendall(noise())
                    if rnd.random() < .2:
                        sock.settimeout(.01)
                        sock.recv(100)
                except OSError:
                    pass
                sock.close()
        self.under("random bytes", attack)


if __name__ == "__main__":
    unittest.main()
