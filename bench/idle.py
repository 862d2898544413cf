#!/usr/bin/env python3
"""What a cluster costs that nobody talks to, how fast a node with ten million events is back, and what
a shard with a million log entries holds in memory.

python3 bench/idle.py [idle|restart|memory ...]    (make bench built the programs; all when none is named)

IDLE_SECONDS=20 of silence; IDLE_ENTITIES=1000000 with 10 events each for the restart; IDLE_ENTRIES=1000000
in one shard. Frames are seen by uprobes (frames.py) as root; without them they are left out.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import frames as wire
from cluster import QUICK, Cluster, Spent, call, split
from machine import CORES, Watch, busy_seconds, resident_bytes
from node import BUILD, DAEMON, Absent, end_cleanly, json_lines

SECONDS = float(os.environ.get("IDLE_SECONDS", "20"))
ENTITIES = int(os.environ.get("IDLE_ENTITIES", "1000000"))
ENTRIES = int(os.environ.get("IDLE_ENTRIES", "1000000"))
EVENTS = 10  # of each entity
CPU_AIM, FRAMES_AIM, START_AIM_S, CACHE = 1.0, 200.0, 5.0, 1 << 20


def say(what, value, unit, aim="", good=None):
    verdict = "" if good is None else ("reached" if good else "missed")
    print(f"{what:52} {value:>12,.2f} {unit:8} {aim:14} {verdict}", flush=True)


# ---- nobody talks to it ----
def idle(root):
    for name, options in (("1,000/100 ms", ()), ("300/50 ms", QUICK)):
        cluster = Cluster(os.path.join(root, f"idle{len(options)}"), *options)
        try:
            cluster.of(3)
            time.sleep(3)  # Start-up work is not idleness.
            busy, before, start = busy_seconds(), Spent(cluster.pids()), time.monotonic()
            time.sleep(SECONDS)
            took, used = time.monotonic() - start, before.end()
            ours = sum(sum(threads.values()) for threads in used)
            for i, threads in enumerate(used):
                share = 100 * sum(threads.values()) / took
                say(f"{name}: CPU of node {i + 1}, of one core", share, "%", "<= 1 %", share <= CPU_AIM)
                print("    of a thousand: " + split({k: 1000 * v / took for k, v in threads.items()}, 0.2))
            say(f"{name}: CPU of strangers, of the machine",
                100 * max(0, busy_seconds() - busy - ours) / took / CORES, "%")
            idle_frames(name)
        finally:
            cluster.close()


def idle_frames(name):
    if wire.missing():
        print(f"no frames were seen: {wire.missing()}")
        return
    with wire.Frames(DAEMON, messages=True) as seen:
        start = time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - start
    total = sum(count for (event, _), count in seen.count.items() if event == "send") / took
    say(f"{name}: frames a second, all nodes", total, "/s", "<= 200 /s", total <= FRAMES_AIM)
    for (event, what), count in sorted(seen.count.items()):
        unit = "frames" if event == "send" else "messages in them"
        print(f"    {what}: {count / took:.1f} {unit}/s, {seen.size[event, what] / count:.0f} bytes each")


# ---- ten million events ----
def answers(node, entity):
    """Seconds from the start of the process until it served a read of its own replica."""
    while True:
        done = subprocess.run([f"{BUILD}/cmd/troupe/troupe", "query", f"account/{entity}", "Balance",
                               "--stale", "--url", node.url], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return time.monotonic() - node.started
        if time.monotonic() - node.started > 60:
            raise RuntimeError(done.stderr.strip())
        time.sleep(0.01)


def again(node, what):
    node.log.close()
    node.start()
    ready = time.monotonic() - node.started
    say(f"{what}: ready again after", ready, "s", "< 5 s", ready < START_AIM_S)
    say(f"{what}: a read of its own replica after", answers(node, "acc-00000001"), "s")


def load(cluster, seconds):
    call(cluster.urls(), cluster.pids(), "--seconds", seconds, "--warm", 0)


def kill(node):
    node.process.kill()
    node.process.wait()


def restart(root):
    data = os.path.join(root, "many")
    start = time.monotonic()
    json_lines([f"{BUILD}/bench/store", "--generate", data, "--entities", str(ENTITIES), "--events",
                str(EVENTS), "--type", "account"], timeout=1800)
    say("generated events", ENTITIES * EVENTS, "")
    say("in", time.monotonic() - start, "s")
    cluster = Cluster(os.path.join(root, "restart"), *QUICK, founding=())
    try:
        first = cluster.add(data)
        say("data of a single node, first start", time.monotonic() - first.started, "s")
        start = time.monotonic()
        cluster.of(3)
        say("three nodes hold it after", time.monotonic() - start, "s")
        load(cluster, 5)
        node = cluster.nodes[1]
        kill(node)
        load_elsewhere = Cluster(os.path.join(root, "restart"))  # The others serve on meanwhile.
        load_elsewhere.nodes = [n for n in cluster.nodes if n is not node]
        load(load_elsewhere, 2)
        again(node, "killed under load")
        cluster.settle()
        load(cluster, 5)
        node.close()
        again(node, "stopped")
        cluster.settle()
        load(cluster, 5)
        for node in cluster.nodes:
            kill(node)
        again_all(cluster)
    finally:
        cluster.close()


def again_all(cluster):
    """All at once: none is ready before most are there."""
    start = time.monotonic()
    for node in cluster.nodes:
        node.log.close()
        node.begin()
    for node in cluster.nodes:
        node.await_ready()
    took = time.monotonic() - start
    say("all killed: all ready again after", took, "s", "< 5 s", took < START_AIM_S)
    cluster.settle()


# ---- a million entries in one shard ----
def resident(root, name, entries):
    """Resident bytes of a node that was started with so many log entries, three times."""
    cluster = Cluster(os.path.join(root, name), *QUICK, founding=("--shards", "1"))
    try:
        cluster.of(3)
        made = 0
        while made < entries:
            got = call(cluster.urls(), cluster.pids(), "--seconds", 5 if entries > 100000 else 0.2, "--warm",
                       0, "--entities", 1000)
            made += got["count"] + 1000
        full = [resident_bytes(pid) for pid in cluster.pids()]
        node, seen = cluster.nodes[1], []
        for _ in range(3):
            node.close()
            node.start()
            cluster.settle()
            time.sleep(2)
            seen.append(resident_bytes(node.process.pid))
        return made, statistics.median(full), statistics.median(seen)
    finally:
        cluster.close()


def memory(root):
    some, _, little = resident(root, "few", 1000)
    many, full, much = resident(root, "long", ENTRIES)
    say("resident after a start with log entries", some, "")
    say("    memory", little / 1e6, "MB")
    say("resident after a start with log entries", many, "")
    say("    memory", much / 1e6, "MB")
    say("more than with few", (much - little) / 1e6, "MB", "<= 1 MiB", much - little <= CACHE)
    say("resident when they had just been made", full / 1e6, "MB")
    group = json_lines([f"{BUILD}/bench/raft", "memory"])[-1]["million_kib"]
    say("replica alone, right after 1,000,000 records", group, "KiB", "<= 1,024 KiB", group <= 1024)


def main():
    end_cleanly()
    parts = {"idle": idle, "restart": restart, "memory": memory}
    chosen = sys.argv[1:] or list(parts)
    root = tempfile.mkdtemp(prefix="troupe-idle.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
    try:
        for name in chosen:
            with Watch() as watch:
                parts[name](root)
            print(f"    {name}: others used {watch.others:.0%} of the machine", flush=True)
    except (Absent, KeyError) as reason:
        sys.exit(str(reason))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
