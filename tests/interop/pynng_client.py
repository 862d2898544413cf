#!/usr/bin/env python3
"""Talks to a node through pynng: pynng_client.py URL. Protobuf by hand, so that SP alone is under test."""
import asyncio
import sys
import time

import pynng

COMMAND, STATUS, PING = 0, 6, 7


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def run(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def call(call_id, kind, entity="", name="", payload=b"", command_id=b""):
    return (number(1, call_id) + run(2, b"account") + run(3, entity.encode()) + run(4, name.encode()) +
            run(5, payload) + run(6, command_id) + number(8, kind) + number(9, 1))


def take(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    found, at = {}, 0
    while at < len(data):
        tag, at = take(data, at)
        value, at = take(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found.setdefault(tag >> 3, []).append(value)
    return found


def batch(*calls):
    return b"".join(run(1, one) for one in calls)


def answers(reply):
    return [fields(one) for one in fields(reply).get(1, [])]


async def pings(socket, which):
    with socket.new_context() as context:
        for i in range(50):
            call_id = which * 1000 + i + 1
            await context.asend(batch(call(call_id, PING)))
            assert answers(await context.arecv())[0][1] == [call_id]


async def many(url):
    with pynng.Req0(dial=url, resend_time=-1, recv_timeout=10000) as socket:
        await asyncio.gather(*(pings(socket, which) for which in range(64)))


def main(url):
    entity = "pynng-%d" % time.time_ns()
    with pynng.Req0(dial=url, resend_time=-1, recv_timeout=10000, send_timeout=10000) as socket:
        socket.send(batch(call(1, PING), call(2, COMMAND, entity, "Open", b"{}", entity.encode())))
        ping, opened = answers(socket.recv())
        assert ping.get(2, [0]) == [0], ping
        assert opened.get(2, [0]) == [0] and opened[5] == [1], opened
        socket.send(batch(call(3, COMMAND, entity, "Open", b"{}", entity.encode())))
        again = answers(socket.recv())[0]
        assert again[5] == [1] and again[11] == [1], again
        socket.send(batch(call(4, STATUS)))
        assert answers(socket.recv())[0][6][0].startswith(b"{")
    asyncio.run(many(url))
    print("pynng: ok")


if __name__ == "__main__":
    main(sys.argv[1])
