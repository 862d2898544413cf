#!/usr/bin/env python3
"""The Python client without a node: its bytes are those of docs/protocol.md."""
import os
import socket
import struct
import sys
import threading
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

    def test_a_command_gets_an_id(self):
        self.assertEqual(len(t.command("a", "b", "C").command_id), 16)

    def test_reads_every_field_of_an_answer(self):
        body = (t.number(1, 7) + t.number(2, 1) + t.number(3, 63) + t.number(4, 1 << 40)
                + t.number(5, 9) + t.chunk(6, b"p") + t.chunk(7, "no") + t.number(8, 20)
                + t.number(9, 2) + t.chunk(10, b"id") + t.number(11, 1) + t.number(99, 5))
        self.assertEqual(t.decode_answers(t.chunk(1, body)), [t.Answer(
            1, "no", b"p", 9, 1 << 40, 63, 2, True, b"id", 20, 7)])

    def test_reads_a_page(self):
        event = (t.chunk(1, "a") + t.chunk(2, "b") + t.number(3, 4) + t.chunk(6, "M")
                 + t.number(7, 1) + t.chunk(8, b'{"x":1}') + t.chunk(11, "t1") + t.chunk(11, "t2"))
        page = t.decode_page(t.chunk(1, event) + t.chunk(2, "f1.") + t.number(3, 5) + t.number(4, 1))
        self.assertEqual((page.position, page.next_seq, page.more), ("f1.", 5, True))
        self.assertEqual((page.events[0].payload, page.events[0].tags), ({"x": 1}, ["t1", "t2"]))


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


if __name__ == "__main__":
    unittest.main()
