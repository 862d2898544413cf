"""Redis as a durable event store: a private server whose append-only file is synced before answers."""

import csv
import io
import os
import shutil
import socket
import subprocess
import time

PACKAGES = {"redis-server": "redis-server", "redis-benchmark": "redis-tools"}

# State in a hash, the event in the entity's stream, both or neither, one round trip.
SCRIPT = """
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[1])
redis.call('XADD', KEYS[1] .. ':events', '*', 'event', ARGV[1])
return version
"""
PAYLOAD = "e" * 128
ENTITIES = 10000


def missing():
    """Name of the Debian package to install, None when all is there."""
    return next((pkg for tool, pkg in PACKAGES.items() if not shutil.which(tool)), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    def __init__(self, folder):
        self.port = free_port()
        data = os.path.join(folder, "redis")
        os.makedirs(data, exist_ok=True)
        # No rewrite and no RDB file in the middle of a run: both would only slow Redis down.
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", data,
             "--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no",
             "--auto-aof-rewrite-percentage", "0", "--save", "", "--daemonize", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.sha = self._load()
        except BaseException:
            self.close()
            raise

    def _load(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.ask("SCRIPT", "LOAD", SCRIPT)
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def ask(self, *words):
        """One command; its answer when that is one line, a string or a number."""
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            parts.append(f"${len(word.encode())}\r\n{word}\r\n".encode())
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as conn:
            conn.sendall(b"".join(parts))
            with conn.makefile("rb") as answer:
                line = answer.readline().strip()
                if line.startswith(b"-"):
                    raise RuntimeError(line.decode())
                if line.startswith(b"$"):
                    return answer.read(int(line[1:])).decode()
                return line[1:].decode()

    def run(self, connections, hot, count):
        """{"value": commands/s, "p50_us", "p99_us", ...} of count commands."""
        key = "account:hot" if hot else "account:__rand_int__"
        before = int(self.ask("DBSIZE"))
        out = subprocess.run(
            ["redis-benchmark", "-p", str(self.port), "-c", str(connections), "-n", str(count),
             "-r", str(ENTITIES), "-P", "1", "--csv", "EVALSHA", self.sha, "1", key, PAYLOAD],
            check=True, capture_output=True, text=True, timeout=60).stdout
        row = list(csv.DictReader(io.StringIO(out)))[-1]
        if before == 0 and int(self.ask("DBSIZE")) == 0:
            raise RuntimeError("redis-benchmark stored nothing")
        return {"value": float(row["rps"]), "unit": "commands/s", "count": count,
                "p50_us": float(row["p50_latency_ms"]) * 1e3,
                "p99_us": float(row["p99_latency_ms"]) * 1e3}

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
