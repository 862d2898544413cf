#!/usr/bin/env python3
"""Ten million sleeping accounts: how fast a node answers after a start, and what it holds in memory.

python3 bench/cold.py [DIR]    (make bench built the programs; DIR keeps the generated store)

COLD_ENTITIES=10000000 COLD_EVENTS=10 of each, COLD_TOUCH=1000000 woken under COLD_MEMORY=256M.
Generates the store in bulk when DIR has none: minutes, and 10 to 20 GB.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from machine import drop_caches, peak_bytes, resident_bytes
from node import BUILD, Absent, Node, json_lines

ENTITIES = int(os.environ.get("COLD_ENTITIES", "10000000"))
EVENTS = int(os.environ.get("COLD_EVENTS", "10"))
TOUCH = int(os.environ.get("COLD_TOUCH", "1000000"))
MEMORY = os.environ.get("COLD_MEMORY", "256M")
# What bench/store --generate --type account makes: names, events and the balance they add up to.
GENERATED = ["--prefix", "acc-", "--digits", "8", "--events", str(EVENTS), "--balance", str((EVENTS - 1) * 100)]
START_AIM_S, RESIDENT_AIM = 5.0, 300e6


def folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(where, name))
               for where, _, names in os.walk(folder) for name in names)


def say(what, value, unit, aim="", good=None):
    verdict = "" if good is None else ("reached" if good else "missed")
    print(f"{what:46} {value:>12,.2f} {unit:10} {aim:12} {verdict}", flush=True)


def touch(node, count, *extra, timeout=1800):
    """Deposits into count accounts and checks every answer; JSON of bench/touch, wrong answers too."""
    command = [f"{BUILD}/bench/touch", "--url", node.url, "--entities", str(ENTITIES), "--count",
               str(count), *GENERATED, *extra]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=timeout)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        sys.exit("bench/touch did not finish")
    return lines[-1]


class Peak(threading.Thread):
    """Largest resident memory of a node, and largest memory of its entities as it tells itself."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.stop = node, threading.Event()
        self.resident = self.entities = self.passivated = self.recoveries = 0

    def run(self):
        while not self.stop.wait(1.0):
            self.look()

    def look(self):
        self.resident = max(self.resident, resident_bytes(self.node.process.pid))
        status = json_lines([f"{BUILD}/cmd/troupe/troupe", "status", "--url", self.node.url])[-1]
        workers = status["workers"]
        self.entities = max(self.entities, sum(worker["entityBytes"] for worker in workers))
        self.passivated = sum(worker["passivated"] for worker in workers)
        self.recoveries = sum(worker["recoveries"] for worker in workers)


def generate(data):
    start = time.monotonic()
    for line in json_lines([f"{BUILD}/bench/store", "--generate", data, "--entities", str(ENTITIES),
                            "--events", str(EVENTS), "--type", "account"], timeout=3600):
        print(line)
    say("generated events", ENTITIES * EVENTS, "")
    say("in", time.monotonic() - start, "s")


def first_answer(data):
    if not drop_caches():
        print("the page cache stays warm: only root can drop it")
    node = Node(data, "--memory", MEMORY)
    try:
        touch(node, 1, "--query")
        seconds = time.monotonic() - node.started
        resident = peak_bytes(node.process.pid)
    finally:
        node.close()
    say("start to first answer", seconds, "s", f"< {START_AIM_S:g} s", seconds < START_AIM_S)
    say("resident memory then, largest", resident / 1e6, "MB", "< 300 MB", resident < RESIDENT_AIM)


def wake_many(data):
    node = Node(data, "--memory", MEMORY)
    try:
        peak = Peak(node)
        peak.start()
        result = touch(node, TOUCH)
        peak.stop.set()
        peak.join()
        peak.look()
    finally:
        started = time.monotonic()
        node.close()
    say("accounts woken and checked", result["count"] + result["again"], "")
    say("wrong answers", result["wrong"], "", "0", result["wrong"] == 0)
    say("woken a second", result["value"], "/s")
    say("p50", result["p50_us"] / 1e3, "ms")
    say("p99", result["p99_us"] / 1e3, "ms")
    say("woken from disk", peak.recoveries, "")
    say("put to sleep by the budget", peak.passivated, "")
    budget = int(MEMORY[:-1]) << {"K": 10, "M": 20, "G": 30}[MEMORY[-1]]
    say("memory of the entities, largest", peak.entities / 1e6, "MB", f"<= {budget / 1e6:.0f} MB",
        peak.entities <= budget)
    say("resident memory of the node, largest", peak.resident / 1e6, "MB")
    say("clean stop", time.monotonic() - started, "s", "< 5 s", time.monotonic() - started < 5)


def main():
    keep = sys.argv[1] if len(sys.argv) > 1 else None
    root = keep or tempfile.mkdtemp(prefix="troupe-cold.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
    data = os.path.join(root, "data")
    try:
        if not os.path.exists(data):
            generate(data)
        say("on disk", folder_bytes(data) / 1e9, "GB")
        first_answer(data)
        wake_many(data)
    except Absent as reason:
        sys.exit(str(reason))
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
