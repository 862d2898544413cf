"""How each figure is measured: one function per program, each returns {field: number}.

What a probe needs (a Redis, a PostgreSQL, a node of ours) is started when it is first asked for and
stays until the end. Everything listens on loopback and keeps its files in one folder.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

from machine import Watch, thread_seconds
from peers.postgres import Postgres, missing as postgres_missing
from peers.redis import Redis, free_port, missing as redis_missing

BUILD = os.environ.get("BENCH_BUILD", "build/release")
PEERS = "build/bench"
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
DAEMON = f"{BUILD}/cmd/trouped/trouped"


class Absent(Exception):
    """This probe cannot run here; the text says what to do about it."""


def json_lines(command, timeout=60):
    """Runs a program of the suite; its JSON lines."""
    if not shutil.which(command[0]):
        raise Absent(f"{command[0]}: not built")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{os.path.basename(command[0])}: {reason}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Node:
    """A trouped of ours on a free port."""

    def __init__(self, data, *extra):
        if not os.path.exists(DAEMON):
            raise Absent(f"{DAEMON}: not built")
        self.port = free_port()
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.log = open(data + ".log", "ab")  # pylint: disable=consider-using-with
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [DAEMON, "--data", data, "--rpc", self.url, *extra],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self):
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() - self.started > 30:
                    raise RuntimeError(f"trouped does not answer, see {self.log.name}") from None
                time.sleep(0.02)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


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
