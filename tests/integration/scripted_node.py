"""Nodes of a cluster that only say what a test wants, for the commands of troupe cluster: what a real
cluster does rarely, a test needs at once.

    with FakeNode(answer) as node:         # answer(Call) -> Answer, on the node's threads
        run_troupe("cluster", "status", url=node.url)

As a program it stands in for trouped below troupe cluster up. Its environment says how it fails:
FAKE=dies (ends at once), stubborn (ignores SIGTERM), uneven (shards are never spread).
"""
import argparse
import collections
import glob
import json
import os
import signal
import socket
import struct
import sys
import threading

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "chaos"))
import wire  # noqa: E402

CLUSTER = 8
Call = collections.namedtuple("Call", "kind type id name payload stale after")
Answer = collections.namedtuple("Answer", "code payload error seq shard node",
                                defaults=(wire.OK, b"", "", 0, 0, 0))


def says(value):
    """An answer whose payload is JSON."""
    return Answer(payload=json.dumps(value).encode())


class FakeNode:
    def __init__(self, answer, port=0):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = "tcp://127.0.0.1:%d" % self.port
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        except OSError:
            pass
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            try:
                wire.handshake(connection, wire.REP, wire.REQ)
                while True:
                    message = wire.read_message(connection)
                    body = message[:4] + b"".join(self._one(f) for f in wire.calls(message[4:]))
                    connection.sendall(struct.pack(">Q", len(body)) + body)
            except OSError:
                pass

    def _one(self, f):
        text = lambda n: f.get(n, b"").decode()
        answer = self.answer(Call(f.get(8, 0), text(2), text(3), text(4), text(5), bool(f.get(11, 0)), f.get(12, 0)))
        return wire.chunk(1, wire.number(1, f.get(1, 0)) + wire.number(2, answer.code) + wire.number(3, answer.shard)
                          + wire.number(5, answer.seq) + wire.chunk(6, answer.payload) + wire.chunk(7, answer.error)
                          + wire.number(12, answer.node), True)


def status(nodes, groups, replication=3):
    """The JSON of a status: nodes and groups as dicts of what matters, the rest is filled in."""
    node = lambda n: dict({"name": "n%d" % n["node"], "rpc": "tcp://127.0.0.1:9", "peer": "tcp://127.0.0.1:9",
                           "state": "up", "reachable": True, "heardMs": 10, "replicas": len(groups),
                           "leaders": 0}, **n)
    replica = lambda n: {"node": n, "voter": True, "lag": 0}

    def group(i, g):
        target = g.get("target", [n["node"] for n in nodes])
        return dict({"shard": i, "name": "meta" if i == len(groups) - 1 else str(i), "leader": target[0], "term": 3,
                     "commit": 10, "replicas": [replica(n) for n in target], "target": target,
                     "preferred": target[0], "moving": False}, **g)

    return {"cluster": "00ff" * 8, "version": 7, "coordinator": 1, "term": 3, "replication": replication,
            "shards": len(groups) - 1, "movesMax": 4, "deadAfterMs": 60000, "moves": 0,
            "nodes": [node(n) for n in nodes], "groups": [group(i, g) for i, g in enumerate(groups)]}


# ---- in place of trouped ----------------------------------------------------------------------------

def all_nodes(folder):
    """What the nodes of a cluster have written down beside each other's data."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "*", "node.json"))):
        with open(path) as f:
            found.append(json.load(f))
    return found


def spread_status(folder, uneven):
    nodes = [dict(n, node=i + 1, leaders=1) for i, n in enumerate(all_nodes(folder))]
    numbers = [n["node"] for n in nodes]
    groups = [{"preferred": n, "leader": n, "moving": uneven, "target": numbers} for n in numbers]
    return status(nodes, groups, replication=len(nodes))


def main():
    args = argparse.ArgumentParser()
    for option in ("data", "rpc", "cluster", "name", "join", "election-ms", "heartbeat-ms", "shards"):
        args.add_argument("--" + option)
    got = args.parse_args()
    fault = os.environ.get("FAKE", "")
    os.makedirs(got.data, exist_ok=True)
    if fault == "dies" and got.join:
        print("trouped: the disk is on fire", file=sys.stderr)
        sys.exit(1)
    with open(os.path.join(got.data, "node.json"), "w") as f:
        json.dump({"name": got.name, "rpc": got.rpc}, f)
    with open(os.path.join(got.data, "args.json"), "w") as f:
        json.dump(sys.argv[1:], f)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if fault == "stubborn" else lambda *_: stop.set())
    folder = os.path.dirname(got.data)
    with FakeNode(lambda call: says(spread_status(folder, fault == "uneven")), int(got.rpc.rsplit(":", 1)[1])):
        print("a screen\nready %s" % got.rpc, flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
