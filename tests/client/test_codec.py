#!/usr/bin/env python3
"""The Python client without a node: its bytes are those of docs/protocol.md."""
import os
import socket
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import troupe_client as t  # noqa: E402


class Codec(unittest.TestCase):
    def test_varints_go_there_and_back(self):
        for value in (0, 1, 127, 128, 300, 1 << 32, (1 << 63) - 1, (1 << 64) - 1):
            data = t.varint(value)
            self.assertEqual(t.read_varint(data, 0), (value, len(data)))

    def test_a_negative_number_takes_ten_bytes(self):
        self.assertEqual(t.varint(-1), b"\xff" * 9 + b"\x01")

    def test_refuses_cut_and_overlong_varints(self):
        for data in (b"", b"\x80", b"\xff" * 9 + b"\x02", b"\x80" * 11):
            with self.assertRaises(ValueError):
                t.read_varint(data, 0)

    def test_refuses_fields_past_the_end(self):
        for data in (b"\x0a\x05ab", b"\x0b", b"\x09\0\0", b"\x0a\xff\xff\xff\xff\x0f"):
            with self.assertRaises(ValueError):
                list(t.fields(data))

    def test_a_ping_is_six_bytes(self):
        ping = t.Call(t.PING, "", "", "", b"", b"", None, False, 0)
        self.assertEqual(t.encode_call(ping, 1), bytes.fromhex("0a0408014007"))

    def test_expected_is_sent_plus_one(self):
        sent = t.encode_call(t.command("a", "b", "C", command_id=b"x", expected=0, json=False), 1)
        self.assertEqual(dict(t.fields(sent[2:]))[7], 1)

    def test_reads_say_stale_and_after(self):
        sent = t.encode_call(t.query("a", "b", "Q", stale=True, after=300), 1)
        got = dict(t.fields(sent[2:]))
        self.assertEqual((got[8], got[11], got[12]), (t.QUERY, 1, 300))
        got = dict(t.fields(t.encode_call(t.query("a", "b", "Q"), 1)[2:]))
        self.assertNotIn(11, got)
        self.assertNotIn(12, got)

    def test_a_command_gets_an_id(self):
        self.assertEqual(len(t.command("a", "b", "C").command_id), 16)

    def test_reads_every_field_of_an_answer(self):
        body = (t.number(1, 7) + t.number(2, 1) + t.number(3, 63) + t.number(4, 1 << 40)
                + t.number(5, 9) + t.chunk(6, b"p") + t.chunk(7, "no") + t.number(8, 20)
                + t.number(9, 2) + t.chunk(10, b"id") + t.number(11, 1) + t.number(12, 3)
                + t.number(99, 5))
        self.assertEqual(t.decode_answers(t.chunk(1, body)), [t.Answer(
            1, "no", b"p", 9, 1 << 40, 63, 2, True, b"id", 20, 7, 3)])

    def test_reads_a_page(self):
        event = (t.chunk(1, "a") + t.chunk(2, "b") + t.number(3, 4) + t.chunk(6, "M")
                 + t.number(7, 1) + t.chunk(8, b'{"x":1}') + t.chunk(11, "t1") + t.chunk(11, "t2"))
        page = t.decode_page(t.chunk(1, event) + t.chunk(2, "f1.") + t.number(3, 5) + t.number(4, 1))
        self.assertEqual((page.position, page.next_seq, page.more), ("f1.", 5, True))
        self.assertEqual((page.events[0].payload, page.events[0].tags), ({"x": 1}, ["t1", "t2"]))


def OK(call):  # noqa: N802
    return t.number(1, call[1])


class FakeNode:
    """Serves one message on each of a script's connections: a function of the calls, or None to cut."""

    def __init__(self, script):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen = []
        self.thread = threading.Thread(target=self.serve, args=(script,), daemon=True)
        self.thread.start()

    def serve(self, script):
        for answer in script:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as data:
                connection.sendall(t.HANDSHAKE_OF_NODE)
                data.read(8)
                size, = struct.unpack(">Q", data.read(8))
                message = data.read(size)
                calls = [dict(t.fields(v)) for _, v in t.fields(message[4:])]
                self.seen.append(calls)
                if answer is not None:
                    body = message[:4] + b"".join(t.chunk(1, answer(c)) for c in calls)
                    connection.sendall(struct.pack(">Q", len(body)) + body)

    def close(self):
        self.listener.close()
        self.thread.join(10)


class Retries(unittest.TestCase):
    def test_repeats_with_the_same_command_id_until_there_is_an_answer(self):
        for first in (None, *t.REPEATABLE):
            node = FakeNode([
                first if first is None else lambda c: t.number(1, c[1]) + t.number(2, first),
                lambda c: t.number(1, c[1]) + t.number(5, 3)])
            client = t.RetryingClient("127.0.0.1", node.port, 10)
            self.assertEqual(client.command("a", "b", "C").seq, 3)
            self.assertEqual(node.seen[0][0][6], node.seen[1][0][6])
            client.close()
            node.close()

    def test_only_what_is_open_is_sent_again(self):
        node = FakeNode([
            lambda c: t.number(1, c[1]) + t.number(2, t.BUSY if c[1] == 2 else t.OK),
            lambda c: t.number(1, c[1])])
        client = t.RetryingClient("127.0.0.1", node.port, 10)
        calls = [t.command("a", str(i), "C") for i in range(3)]
        self.assertEqual([a.code for a in client.send_batch(calls)], [t.OK] * 3)
        self.assertEqual([c[3] for c in node.seen[1]], [b"1"])
        client.close()
        node.close()

    def test_a_refusal_is_final(self):
        node = FakeNode([lambda c: t.number(1, c[1]) + t.number(2, t.REFUSED)])
        client = t.RetryingClient("127.0.0.1", node.port, 10)
        self.assertEqual(client.command("a", "b", "C").code, t.REFUSED)
        client.close()
        node.close()

    def test_gives_up_at_the_deadline(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        with self.assertRaises(OSError):
            t.RetryingClient("127.0.0.1", port, .05).ping()

    def test_answers_to_other_calls_are_an_error(self):
        node = FakeNode([lambda c: t.number(1, c[1] + 1)])
        client = t.TroupeClient("127.0.0.1", node.port)
        with self.assertRaises(ConnectionError):
            client.ping()
        client.close()
        node.close()


class Several(unittest.TestCase):
    """A client that knows two nodes, beginning with each."""

    def both_ways(self, first, second, deadline_s=10):
        """Yields client, the node it begins with, and the other."""
        for order in (0, 1):
            nodes = [FakeNode(first), FakeNode(second)]
            urls = ["tcp://127.0.0.1:%d" % n.port for n in nodes]
            client = t.RetryingClient(",".join(urls if order == 0 else urls[::-1]), None, deadline_s)
            client.at = order
            with self.subTest(order=order):
                yield client, nodes[0], nodes[1]
            client.close()
            for node in nodes:
                node.close()

    def test_reads_a_list_of_urls(self):
        self.assertEqual(t.parse_urls("tcp://a:1,tcp://[::1]:2"), [("a", 1), ("::1", 2)])
        for bad in ("", "tcp://a:1,", "ipc:///x", "tcp://a", "tcp://a:1,,tcp://b:2"):
            with self.assertRaises(ValueError):
                t.parse_urls(bad)

    def test_goes_to_the_next_node_with_the_same_command_id(self):
        for answer in (None, *(lambda c, code=code: t.number(1, c[1]) + t.number(2, code)
                               for code in t.REPEATABLE)):
            for client, first, second in self.both_ways([answer], [OK]):
                self.assertEqual(client.command("a", "b", "C").code, t.OK)
                self.assertEqual(first.seen[0][0][6], second.seen[0][0][6])
                self.assertEqual(client.attempts, 2)

    def test_a_dead_node_costs_no_pause(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        node = FakeNode([OK])
        client = t.RetryingClient("tcp://127.0.0.1:%d,tcp://127.0.0.1:%d" % (port, node.port), None, 10)
        client.at = 0
        start = time.monotonic()
        self.assertEqual(client.command("a", "b", "C").code, t.OK)
        self.assertLess(time.monotonic() - start, 1)
        self.assertEqual(client.attempts, 1)
        client.close()
        node.close()

    def test_a_node_that_says_nothing_is_left(self):
        # It takes the connection and not a byte of it, as a process that is stopped.
        frozen = socket.create_server(("127.0.0.1", 0))
        node = FakeNode([OK])
        client = t.RetryingClient("tcp://127.0.0.1:%d,tcp://127.0.0.1:%d"
                                  % (frozen.getsockname()[1], node.port), None, 10)
        client.at = 0
        start = time.monotonic()
        self.assertEqual(client.command("a", "b", "C").code, t.OK)
        self.assertLess(time.monotonic() - start, 5)
        client.close()
        node.close()
        frozen.close()

    def test_the_node_is_told_how_long_the_client_waits(self):
        for client, first, _ in self.both_ways([OK], []):
            client.command("a", "b", "C")
            self.assertEqual(first.seen[0][0][10], 2000)
        for client, first, _ in self.both_ways([OK], []):
            client.command("a", "b", "C", timeout_ms=30)
            self.assertEqual(first.seen[0][0][10], 30)

    def test_gives_up_at_the_deadline(self):
        client = t.RetryingClient("tcp://127.0.0.1:1,tcp://127.0.0.1:2", None, .05)
        with self.assertRaises(OSError):
            client.ping()


if __name__ == "__main__":
    unittest.main()
