"""Nodes of ours that form a cluster on this machine, and what each of their threads spends on a
command."""

import json
import os
import subprocess
import time

from machine import thread_split
from node import BUILD, Absent, Node

QUICK = ("--election-ms", "300", "--heartbeat-ms", "50")


class Cluster:
    """Founded by its first node; the others join when they are added."""

    def __init__(self, folder, *options, founding=("--shards", "64")):
        self.folder, self.options, self.founding, self.nodes = folder, options, founding, []
        os.makedirs(folder, exist_ok=True)

    def add(self, data=None):
        number = len(self.nodes) + 1
        more = ["--join", self.urls()] if self.nodes else self.founding
        data = data or os.path.join(self.folder, f"node{number}")
        node = Node(data, "--name", f"n{number}", *self.options, *more)
        self.nodes.append(node)
        return node

    def of(self, count):
        while len(self.nodes) < count:
            self.add()
            self.settle()
        return self

    def urls(self):
        return ",".join(node.url for node in self.nodes)

    def status(self):
        done = subprocess.run([f"{BUILD}/cmd/troupe/troupe", "cluster", "status", "--json", "--url",
                               self.urls()], check=False, capture_output=True, text=True, timeout=30)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def settle(self, seconds=120):
        """Until every shard is where it should be and led by who should lead it."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            wrong = unsettled(status, self.nodes) if status else "no status"
            if not wrong:
                return status
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster does not settle: {wrong}")
            time.sleep(0.1)

    def pids(self):
        return [node.process.pid for node in self.nodes]

    def close(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.terminate()  # All at once: nobody takes over from anybody.
        for node in self.nodes:
            node.close()
        self.nodes = []


def unsettled(status, nodes):
    """What is not as it should be, None when all is. A node of old data must have told its address."""
    up = [node["rpc"] for node in status["nodes"] if node["state"] == "up" and node["reachable"]]
    if sorted(up) != sorted(node.url for node in nodes):
        return f"up are {up}"
    wanted = min(len(nodes), status["replication"])
    for group in status["groups"]:
        nodes = sorted(replica["node"] for replica in group["replicas"] if replica["voter"])
        if nodes != sorted(group["target"]) or len(nodes) < wanted or group["moving"] \
                or group["leader"] != group["preferred"]:
            return f"shard {group['name']}"
    return None


class Spent:
    """CPU seconds by thread name of some processes, between two looks."""

    def __init__(self, pids):
        self.pids = list(pids)
        self.before = {pid: thread_split(pid) for pid in self.pids}

    def end(self):
        """[{thread name: seconds}] in the order of the processes."""
        return [{name: used - self.before[pid].get(name, 0)
                 for name, used in thread_split(pid).items()} for pid in self.pids]


def call(urls, pids, *options, timeout=120, watch=None):
    """bench/rpc against these nodes; its last line, with "threads": [{thread name: us a command}] of
    the nodes and then of the client. watch(line) sees each line before the last one as it comes."""
    command = [f"{BUILD}/bench/rpc", "--url", urls, *map(str, options)]
    if not os.path.exists(command[0]):
        raise Absent(f"{command[0]}: not built")
    lines, spent, used = [], None, None
    deadline = time.monotonic() + timeout
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            line = json.loads(text)
            lines.append(line)
            if line["bench"] == "rpc.begins":
                spent = Spent([*pids, process.pid])
            elif line["bench"] == "rpc.ends":
                used = spent.end()
            if watch:
                watch(line)
            if time.monotonic() > deadline:
                process.kill()
        error = process.stderr.read()
    if process.returncode != 0 or used is None:
        raise RuntimeError((error.strip().splitlines() or [f"bench/rpc: {process.returncode}"])[-1])
    result = lines[-1]
    result["threads"] = [{name: seconds * 1e6 / result["count"] for name, seconds in process.items()}
                         for process in used]
    result["nodes_us"] = sum(sum(node.values()) for node in result["threads"][:-1])
    result["busiest_us"] = max(sum(node.values()) for node in result["threads"][:-1])
    result["machine_us"] = result["nodes_us"] + result["client_us"]
    return result


def split(threads, least=0.05):
    """Text of a {thread name: us}, the largest first."""
    rows = sorted(threads.items(), key=lambda row: -row[1])
    return ", ".join(f"{name} {used:.2f}" for name, used in rows if used >= least)
