"""How each figure is measured: one function per program, each returns {field: number}.

What a probe needs (a Redis, a PostgreSQL, a node of ours) is started when it is first asked for and
stays until the end. Everything listens on loopback and keeps its files in one folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from cluster import QUICK, Cluster, call, split
from machine import Quota, Watch, thread_seconds
from node import BUILD, Absent, Node, json_lines
from peers.postgres import Postgres, missing as postgres_missing
from peers.redis import Redis, missing as redis_missing

PEERS = "build/bench"
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
QUOTA = 0.4  # of a core: three nodes and a client fit on two


class Probes:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="troupe-bench.", dir=os.environ.get("BENCH_DIR", "/var/tmp"))
        os.chmod(self.folder, 0o755)  # PostgreSQL runs as somebody else when we are root.
        self._servers = {}
        self._rates = {}
        self._store_lines = None

    def close(self):
        for server in self._servers.values():
            if not isinstance(server, Exception):
                server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_round(self):
        self._store_lines = None

    def run(self, probe):
        """{field: number} of a probe such as "redis.many64"."""
        kind, _, rest = probe.partition(".")
        return getattr(self, "_" + kind)(rest)

    def _server(self, name, make):
        """Started once; a failure to start is remembered and told again."""
        if name not in self._servers:
            try:
                self._servers[name] = make()
            except (Absent, OSError, RuntimeError, subprocess.SubprocessError) as error:
                detail = getattr(error, "stderr", None)
                self._servers[name] = Absent(f"{name}: {detail or error}") \
                    if not isinstance(error, Absent) else error
        if isinstance(self._servers[name], Exception):
            raise self._servers[name]
        return self._servers[name]

    # ---- local messages ----
    def _actors(self, rest):
        return json_lines([f"{BUILD}/bench/actors", *rest.split(".")])[-1]

    def _caf(self, rest):
        if not os.path.exists(f"{PEERS}/caf"):
            raise Absent("CAF: not installed, apt-get install libcaf-dev")
        return json_lines([f"{PEERS}/caf", rest])[-1]

    def _erlang(self, rest):
        if not shutil.which("erl") or not os.path.exists(f"{PEERS}/actors.beam"):
            raise Absent("Erlang: not installed, apt-get install erlang-base")
        return json_lines(["erl", "+S", "2:2", "+P", "2000000", "-noshell", "-pa", PEERS,
                           "-run", "actors", "main", rest, "-s", "init", "stop"])[-1]

    # ---- durable commands ----
    def _redis(self, rest):
        def make():
            if redis_missing():
                raise Absent(f"Redis: not installed, apt-get install {redis_missing()}")
            return Redis(self.folder)

        server = self._server("redis", make)
        hot, connections = rest.startswith("hot"), int(rest.lstrip("manyhot"))
        # As many commands as take SECONDS, going by the run before; the first one is a short try.
        if rest not in self._rates:
            self._rates[rest] = server.run(connections, hot, 20000)["value"]
        result = server.run(connections, hot, int(self._rates[rest] * SECONDS))
        self._rates[rest] = result["value"]
        return result

    def _postgres(self, rest):
        def make():
            if postgres_missing():
                raise Absent(f"PostgreSQL: not installed, apt-get install {postgres_missing()}")
            return Postgres(self.folder)

        return self._server("postgres", make).run(int(rest.lstrip("many")), max(2, round(SECONDS)))

    def _node_of(self, name, *extra):
        return self._server(name, lambda: Node(os.path.join(self.folder, name), *extra))

    def _rpc(self, rest):
        node = self._node_of("node")
        callers = {"one": 1}.get(rest) or int(rest.lstrip("manyhotforeign"))
        command = [f"{BUILD}/bench/rpc", "--url", node.url, "--callers", str(callers),
                   "--entities", "1" if rest.startswith("hot") else "10000",
                   "--seconds", str(SECONDS), "--server", str(node.process.pid)]
        return json_lines(command + (["--foreign"] if rest.startswith("foreign") else []))[-1]

    def _node(self, rest):
        assert rest == "idle"
        node = self._node_of("idle")
        time.sleep(1)  # Start-up work is not idleness.
        before, start = thread_seconds(node.process.pid), time.monotonic()
        time.sleep(max(3.0, SECONDS))
        used = thread_seconds(node.process.pid) - before
        return {"value": 100 * used / (time.monotonic() - start)}

    def _floor(self, rest):
        where = [self.folder] if rest == "sync" else []
        return json_lines([f"{BUILD}/bench/floor", rest, *where, str(min(SECONDS, 1.0))])[-1]

    # ---- three nodes, and one that is like each of them ----
    def _cluster(self, rest):
        """3.256, 1.16: so many nodes, so many callers. quota3.1024: each node has that share of a core."""
        what, _, callers = rest.partition(".")
        quota, nodes = what.startswith("quota"), int(what.lstrip("quota"))
        name = f"nodes{nodes}"
        cluster = self._server(name, lambda: Cluster(os.path.join(self.folder, name), *QUICK))
        cluster.of(nodes)
        # One caller would open that many for half a minute.
        options = ["--callers", callers, "--entities", 10000 if int(callers) > 64 else 500,
                   "--seconds", SECONDS]
        if not quota:
            result = call(cluster.urls(), cluster.pids(), *options)
        else:
            if Quota.missing():
                raise Absent(f"shares of a core: {Quota.missing()}")
            with Quota(cluster.pids(), QUOTA):
                result = call(cluster.urls(), cluster.pids(), *options)
        if os.environ.get("BENCH_THREADS"):
            for i, threads in enumerate(result["threads"]):
                who = f"node {i + 1}" if i < nodes else "client"
                print(f"    {who}: {split(threads)}", file=sys.stderr)
        return result

    # ---- storage: one program, one run a round; each figure is a line of its own ----
    def _store(self, rest):
        if self._store_lines is None:
            try:
                self._store_lines = self._run_store()
            except (Absent, OSError, RuntimeError, subprocess.SubprocessError) as error:
                self._store_lines = error  # Not tried again for the other figures.
        if isinstance(self._store_lines, Exception):
            raise self._store_lines
        return self._store_lines[f"store.{rest}"]

    def _run_store(self):
        folder = os.path.join(self.folder, "store")
        os.makedirs(folder)
        try:
            with Watch() as watch:
                lines = json_lines([f"{BUILD}/bench/store", "--dir", folder], timeout=180)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {line["bench"]: dict(line, others=watch.others, load=watch.load) for line in lines}

    # ---- replication ----
    def _raft(self, rest):
        command = [f"{BUILD}/bench/raft"]
        if not rest.startswith("one"):
            return json_lines([*command, rest])[-1]
        folder = os.path.join(self.folder, rest)
        os.makedirs(folder)
        try:
            return json_lines([*command, "one", folder, rest.lstrip("one"), str(SECONDS)])[-1]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
