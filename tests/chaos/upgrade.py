#!/usr/bin/env python3
"""A data folder that a single node wrote before there were clusters becomes a member of one.

    upgrade.py [--seed N]

The folder (first_issue/) is opened by a node with cluster options; two more nodes join it. Every stream
is the old one on each of the three nodes, commands that were answered back then are recognised, the
cluster takes new ones, and does all this without the node that brought the data.
"""
import argparse
import json
import lzma
import os
import random
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import history as h
import net
import nodes
import rig
import wire as w

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "first_issue")
TIMING = ["--election-ms", "300", "--heartbeat-ms", "50"]


def recorded():
	"""entity -> its events."""
	streams = {}
	with lzma.open(os.path.join(HERE, "streams.jsonl.xz"), "rt") as f:
		for line in f:
			entity, *event = json.loads(line)
			streams.setdefault(entity, []).append(h.Event(*event))
	return {entity: sorted(events) for entity, events in streams.items()}


def unpack(data):
	with tarfile.open(os.path.join(HERE, "data.tar.xz")) as tar:
		for member in tar:
			member.name = os.path.join(os.path.basename(data), *member.name.split("/")[1:])
			tar.extract(member, os.path.dirname(data))


def differences(node, streams, stale):
	"""What the node tells differently."""
	link, out = w.connect(node.rpc), []
	try:
		for entity, events in streams.items():
			got = [rig.event(s) for s in w.read_stream(link, entity, stale=stale)]
			if got != events:
				at = next((i for i, (a, b) in enumerate(zip(got, events)) if a != b),
				          min(len(got), len(events)))
				out.append(f"{node.name} {entity} at {at + 1}: {got[at:at + 1]}, was {events[at:at + 1]}")
	finally:
		link.close()
	return out


def copy_differs(node, streams, seconds=5):
	"""What the node's own replica tells differently; it may lag for a while."""
	end = time.monotonic() + seconds
	while True:
		found = differences(node, streams, 1)
		if not found or time.monotonic() > end:
			return found
		time.sleep(.2)


def repeats(node, streams):
	"""The newest command of each entity once more: it is answered as it was."""
	link, out = w.connect(node.rpc), []
	try:
		for entity, events in streams.items():
			e = events[-1]
			got = w.ask_one(link, w.call(1, w.COMMAND, "account", entity, w.COMMANDS[e.kind],
			                             w.command_payload(e.kind, e.amount), e.id.encode()))
			if (got.seq, bool(got.repeated)) != (e.seq, True):
				out.append(f"{e.id}: repeated={got.repeated} seq={got.seq}, was {e.seq}")
	finally:
		link.close()
	return out


def whole(cluster, streams):
	first = cluster[1]
	unpack(first.data)
	cluster.begin(3)
	cluster.wait_settled(60, even=True)
	nodes.wait_equal(cluster, 15, time.monotonic())
	found = differences(first, streams, 0)
	for n in cluster.members():
		found += copy_differs(n, streams)
	found += repeats(cluster[2], streams)
	first.kill9()
	found += [f"without {first.name}: {d}" for d in differences(cluster[3], streams, 0)]
	found += [f"without {first.name}: {r}" for r in repeats(cluster[3], streams)]
	for entity, events in streams.items():
		e, link = events[-1], w.connect(cluster[2].rpc)
		got = w.ask_one(link, w.call(1, w.COMMAND, "account", entity, "Deposit",
		                             w.command_payload("deposit", 1), f"new-{entity}".encode()))
		link.close()
		if got.seq != e.seq + 1:
			found.append(f"{entity} goes on at {got.seq}, was at {e.seq}")
	first.start()
	first.wait_ready()
	cluster.wait_settled(60)
	bad = cluster.stop()
	return found + ([f"ended with {bad} after SIGTERM"] if bad else [])


def main():
	args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
	args.add_argument("--seed", type=int)
	seed = rig.seed_of(args.parse_args().seed)
	print(f"upgrade: seed {seed}", flush=True)
	streams = recorded()
	with rig.Scratch("upgrade") as scratch:
		network = net.make(3, random.Random(seed))
		cluster = nodes.Cluster(os.path.join(scratch.path, "cluster"), network, 3, TIMING)
		try:
			found = whole(cluster, streams)
			for n in cluster.members():
				rig.verify(n.data)
		except (RuntimeError, OSError, w.ReadError) as error:
			found = [f"{type(error).__name__}: {error}"]
		finally:
			cluster.kill()
			network.close()
		for one in found[:20]:
			print(f"FOUND {one}", flush=True)
		scratch.keep |= bool(found)
		rig.show("upgrade", {"streams": len(streams), "events": sum(map(len, streams.values())),
		                     "found": len(found)})
	return 1 if found else 0


if __name__ == "__main__":
	sys.exit(main())
