#!/usr/bin/env python3
"""A new replica of a shard with a long log joins while commands go on.

python3 bench/join.py [DIR]    (make bench built the programs; DIR keeps the data for another run)

JOIN_BYTES=1.1e9 of payload in one shard, made by deposits of JOIN_PAYLOAD=900 bytes; JOIN_RATE=0
commands a second while the new node joins (0: JOIN_CALLERS=32 callers, each as fast as it is
answered); JOIN_NODES=2 before; JOIN_SECONDS=45 of load before and after, in which the log's memtable
(128 MiB) fills once on every node, so that it is not taken for the join's; JOIN_WITHIN=180 seconds to join in;
JOIN_NEW_DIR: where the new node's data are, on a disk of its own as on a machine of its own.

A node with nothing joins a cluster of one shard, so it is sent all of it. What goes over the wire is
seen by uprobes (frames.py) as root; without them the sizes are left out.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import frames as wire
from cluster import QUICK, Cluster, call
from machine import Watch, resident_bytes, thread_seconds
from node import BUILD, DAEMON, Absent, end_cleanly

BYTES = float(os.environ.get("JOIN_BYTES", "1.1e9"))
PAYLOAD = int(os.environ.get("JOIN_PAYLOAD", "900"))
RATE = int(os.environ.get("JOIN_RATE", "0"))
CALLERS = int(os.environ.get("JOIN_CALLERS", "32"))
NEW_DIR = os.environ.get("JOIN_NEW_DIR")
NODES = int(os.environ.get("JOIN_NODES", "2"))
SECONDS = float(os.environ.get("JOIN_SECONDS", "45"))
STRETCH = 0.5
APPEND_AIM, MEMORY_AIM, RATE_AIM = 1 << 20, 64e6, 0.8


def say(what, value, unit, aim="", good=None):
    verdict = "" if good is None else ("reached" if good else "missed")
    print(f"{what:52} {value:>12,.2f} {unit:8} {aim:14} {verdict}", flush=True)


def fill(data):
    """A node's data with BYTES of payload in its only shard, unless they are there already."""
    cluster = Cluster(os.path.dirname(data), *QUICK, founding=("--shards", "1"))
    try:
        node = cluster.add(data)
        seconds = 3.0
        while (held := payload_bytes(node)) < BYTES:
            made = call(node.url, cluster.pids(), "--payload", PAYLOAD, "--seconds", f"{seconds:.1f}",
                        "--warm", 0, "--callers", 256, "--entities", 1000, timeout=600)
            seconds = min(60.0, 1 + (BYTES - held) / PAYLOAD / made["value"])
        return held
    finally:
        cluster.close()


def payload_bytes(node):
    """Of the commands in the shard."""
    done = subprocess.run([f"{BUILD}/cmd/troupe/troupe", "status", "--url", node.url], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)["offsets"] * PAYLOAD


class Load(threading.Thread):
    """Deposits from now on; rates: [(time of its end, commands/s, slowest us)] of each stretch."""

    def __init__(self, cluster, seconds):
        super().__init__(daemon=True)
        self.cluster, self.seconds, self.rates = cluster, seconds, []
        self.urls, self.pids, self.error, self.result = cluster.urls(), cluster.pids(), None, None
        self.measuring = threading.Event()

    def run(self):
        try:
            self.result = call(
                self.urls, self.pids, "--payload", PAYLOAD, "--seconds", self.seconds, "--callers",
                CALLERS, "--entities", 1000, "--every", STRETCH, "--rate", RATE,
                timeout=self.seconds + 60, watch=self._see)
        except (RuntimeError, Absent, OSError) as error:
            self.error = error
        self.measuring.set()

    def _see(self, line):
        if line["bench"] == "rpc.begins":
            self.measuring.set()
        elif line["bench"] == "rpc.stretch":
            self.rates.append((time.monotonic(), line["value"], line["max_us"]))

    def between(self, start, end):
        """Stretches that lie in that time whole."""
        return [row for row in self.rates if start <= row[0] - STRETCH and row[0] <= end]


class Memory(threading.Thread):
    """Resident bytes of processes, five times a second: {pid: [bytes]}."""

    def __init__(self):
        super().__init__(daemon=True)
        self.pids, self.seen, self.stop = [], {}, threading.Event()

    def run(self):
        while not self.stop.wait(0.2):
            for pid in list(self.pids):
                self.seen.setdefault(pid, []).append(resident_bytes(pid))


def new_data():
    return os.path.join(NEW_DIR, f"troupe-join.{os.getpid()}")


class Join:
    """One node joins under load; what was seen meanwhile."""

    def __init__(self, cluster):
        self.cluster, self.memory = cluster, Memory()
        self.load = Load(cluster, self.longest())
        self.data = new_data() if NEW_DIR else None

    @staticmethod
    def longest():
        return SECONDS * 2 + float(os.environ.get("JOIN_WITHIN", "180"))

    def run(self):
        cluster, load, memory = self.cluster, self.load, self.memory
        memory.pids = cluster.pids()
        memory.start()
        load.start()
        load.measuring.wait()
        self.began = time.monotonic()
        time.sleep(SECONDS)
        self.steady = [max(memory.seen[pid]) for pid in cluster.pids()]
        self.spent = [thread_seconds(pid) for pid in cluster.pids()]
        self.start = time.monotonic()
        with Watch() as watch:
            self.node = cluster.add(self.data)
            memory.pids.append(self.node.process.pid)
            self.ready = time.monotonic()
            cluster.settle(300)
            self.end = time.monotonic()
            self.peak = [max(memory.seen[pid]) for pid in cluster.pids()]
            self.spent = [thread_seconds(pid) - before for pid, before in
                          zip(cluster.pids(), [*self.spent, 0.0])]
        self.others = watch.others
        time.sleep(SECONDS)
        self.after = time.monotonic()
        load.join()
        memory.stop.set()
        memory.join()
        if load.error:
            raise load.error

    def median(self, start, end):
        rates = [rate for _, rate, _ in self.load.between(start, end)]
        return statistics.median(rates) if rates else 0.0

    def report(self):
        took = self.end - self.start
        say("node is ready after", self.ready - self.start, "s")
        say("new replicas vote after", took, "s")
        before = self.median(self.began, self.start)
        during = [row for row in self.load.between(self.start, self.end)]
        mean = statistics.mean(rate for _, rate, _ in during) if during else 0.0
        say("commands before", before, "/s")
        say("commands meanwhile, mean", mean, "/s", f">= {RATE_AIM:.0%}", mean >= RATE_AIM * before)
        say("of the rate before", mean / before if before else 0, "x")
        if during:
            say("of it in the worst half second", min(row[1] for row in during) / before, "x")
            say("slowest answer meanwhile", max(row[2] for row in during) / 1e3, "ms")
        say("commands afterwards", self.median(self.end, self.after), "/s")
        for i, (steady, peak) in enumerate(zip(self.steady, self.peak)):
            say(f"node {i + 1}: resident before", steady / 1e6, "MB")
            say(f"node {i + 1}: more while the other joined", (peak - steady) / 1e6, "MB",
                "< 64 MB", peak - steady < MEMORY_AIM)
        own, there = self.peak[-1], max(self.steady)
        say("new node: resident, largest", own / 1e6, "MB")
        say("new node: more than the fullest of the others", max(0.0, own - there) / 1e6, "MB",
            "< 64 MB", own - there < MEMORY_AIM)
        say("CPU of the new node meanwhile, of a core", self.spent[-1] / took, "x")
        say("CPU of the others meanwhile, of a core", sum(self.spent[:-1]) / took, "x")
        say("CPU of strangers meanwhile, of the machine", self.others * 100, "%")
        self.report_installs()

    def report_installs(self):
        rows = re.findall(r"shard (\d+): offsets (\d+) to (\d+) were fetched from a peer", self.node.says())
        long = [row for row in rows if int(row[2]) - int(row[1]) > 1000]
        for shard, first, last in rows:
            print(f"    shard {shard}: offsets {first} to {last} were fetched whole")
        say("installs of the long shard", len(long), "", "<= 1", len(long) <= 1)


def report_frames(seen):
    """An append is never larger than the frame that it is in."""
    for (_, lane), count in sorted(seen.count.items()):
        largest = seen.largest["send", lane]
        say(f"frames on lane {lane}", count, "")
        say(f"frames on lane {lane}: in all", seen.size["send", lane] / 1e6, "MB")
        say(f"frames on lane {lane}: largest", largest / 1024, "KiB", "<= 1 MiB", largest <= APPEND_AIM)
    if seen.overrun:
        print(f"    {seen.overrun} were not seen: the kernel's buffer was full")


def run(root):
    filled, folder = os.path.join(root, "filled"), os.path.join(root, "cluster")
    start = time.monotonic()
    say("payload in the shard", fill(filled) / 1e9, "GB")
    say("made in", time.monotonic() - start, "s")
    shutil.rmtree(folder, ignore_errors=True)
    cluster = Cluster(folder, *QUICK, founding=())
    shutil.copytree(filled, os.path.join(folder, "node1"))
    try:
        cluster.of(1)
        start = time.monotonic()
        cluster.of(NODES)
        say(f"nodes: {NODES}; all hold it after", time.monotonic() - start, "s")
        join = Join(cluster)
        if wire.missing():
            join.run()
            print(f"no frames were seen: {wire.missing()}")
        else:
            with wire.Frames(DAEMON) as seen:
                join.run()
            report_frames(seen)
        join.report()
    finally:
        cluster.close()
        if NEW_DIR:
            shutil.rmtree(new_data(), ignore_errors=True)
            os.remove(new_data() + ".log")


def main():
    end_cleanly()
    keep = sys.argv[1] if len(sys.argv) > 1 else None
    root = keep or tempfile.mkdtemp(prefix="troupe-join.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
    try:
        run(root)
    except Absent as reason:
        sys.exit(str(reason))
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
