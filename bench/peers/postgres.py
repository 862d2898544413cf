"""PostgreSQL as a durable event store: a private cluster, the command is one function call."""

import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import time

from peers.redis import free_port

ENTITIES = 10000
SCHEMA = f"""
CREATE TABLE head (stream int PRIMARY KEY, seq bigint NOT NULL, state bytea NOT NULL)
    WITH (fillfactor = 50);
CREATE TABLE event (stream int NOT NULL, seq bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (stream, seq));
INSERT INTO head SELECT id, 0, decode(repeat('65', 128), 'hex')
    FROM generate_series(1, {ENTITIES}) AS id;
CREATE FUNCTION cmd(which int, body bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE version bigint;
BEGIN
    SELECT seq + 1 INTO STRICT version FROM head WHERE stream = which FOR UPDATE;
    UPDATE head SET seq = version, state = body WHERE stream = which;
    INSERT INTO event VALUES (which, version, body);
    RETURN version;
END $$;
VACUUM ANALYZE;
CHECKPOINT;
"""
SCRIPT = """\\set id random(1, {entities})
SELECT cmd(:id, '{body}'::bytea);
"""
SETTINGS = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "100",
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
    "huge_pages": "off", "logging_collector": "off", "log_min_messages": "fatal",
}


def _bin():
    folders = glob.glob("/usr/lib/postgresql/*/bin")
    return max(folders, key=lambda path: int(path.split("/")[4]), default=None)


def missing():
    folder = _bin()
    if not folder or not os.path.exists(f"{folder}/initdb"):
        return "postgresql"
    if not shutil.which("pgbench") and not os.path.exists(f"{folder}/pgbench"):
        return "postgresql-contrib"
    return None


class Postgres:
    def __init__(self, folder):
        self.bin = _bin()
        self.port = free_port()
        self.data = os.path.join(folder, "postgres")
        os.makedirs(self.data, mode=0o700, exist_ok=True)
        self.user = {}
        if os.geteuid() == 0:  # The server refuses to run as root.
            owner = pwd.getpwnam("postgres")
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
                 "stderr": subprocess.PIPE, "cwd": "/"}
        subprocess.run([f"{self.bin}/initdb", "-D", self.data, "-U", "bench", "-A", "trust",
                        "--no-sync", "--no-locale", "-E", "UTF8"],
                       check=True, timeout=60, **quiet, **self.user)
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        # In the foreground: the CPU of its children is counted below this process.
        self.process = subprocess.Popen(
            [f"{self.bin}/postgres", "-D", self.data, "-p", str(self.port), *settings],
            **dict(quiet, stderr=subprocess.DEVNULL), **self.user)
        try:
            self._await()
            self._sql(SCHEMA)
            self.script = os.path.join(folder, "cmd.sql")
            with open(self.script, "w", encoding="ascii") as file:
                file.write(SCRIPT.format(entities=ENTITIES, body="\\x" + "65" * 128))
        except BaseException:
            self.close()
            raise

    def _client(self):
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "bench"]

    def _await(self):
        deadline = time.monotonic() + 20
        while subprocess.run([f"{self.bin}/pg_isready", "-q", *self._client()],
                             check=False).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("postgres does not answer")
            time.sleep(0.1)

    def _sql(self, text):
        done = subprocess.run(
            [f"{self.bin}/psql", *self._client(), "-d", "postgres", "-qAtX",
             "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=text, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def run(self, connections, seconds):
        before = int(self._sql("SELECT count(*) FROM event"))
        out = subprocess.run(
            [f"{self.bin}/pgbench", *self._client(), "-n", "-M", "prepared", "-j", "2",
             "-c", str(connections), "-T", str(seconds), "-f", self.script, "postgres"],
            check=True, capture_output=True, text=True, timeout=60 + seconds).stdout
        count = int(re.search(r"actually processed: (\d+)", out).group(1))
        after = int(self._sql("SELECT count(*) FROM event"))
        if after - before != count:
            raise RuntimeError(f"postgres stored {after - before} events of {count} commands")
        return {"value": float(re.search(r"tps = ([\d.]+)", out).group(1)), "unit": "commands/s",
                "count": count,
                "mean_us": float(re.search(r"latency average = ([\d.]+)", out).group(1)) * 1e3}

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # "fast": does not wait for clients.
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
