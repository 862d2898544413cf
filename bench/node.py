"""A trouped of ours as a process, and the programs of the suite."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

from peers.redis import free_port

BUILD = os.environ.get("BENCH_BUILD", "build/release")
DAEMON = f"{BUILD}/cmd/trouped/trouped"


def end_cleanly():
    """SIGTERM unwinds like Ctrl-C: daemons are stopped, folders and probes removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


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
    """A trouped of ours on free ports, serving when the constructor returns. start: again, with the
    same data, addresses and options."""

    def __init__(self, data, *extra):
        if not os.path.exists(DAEMON):
            raise Absent(f"{DAEMON}: not built")
        self.data, self.port = data, free_port()
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.command = [DAEMON, "--data", data, "--rpc", self.url, "--cluster",
                        f"tcp://127.0.0.1:{free_port()}", *extra]
        self.start()

    def start(self):
        self.begin()
        self.await_ready()

    def begin(self):
        """The process; it may not serve yet."""
        self.log = open(self.data + ".log", "ab")  # pylint: disable=consider-using-with
        self.said = self.log.tell()
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def says(self):
        """Its log since this start."""
        with open(self.log.name, "rb") as file:
            file.seek(self.said)
            return file.read().decode(errors="replace")

    def await_ready(self, seconds=60):
        try:
            while not any(line.startswith("ready ") for line in self.says().splitlines()):
                if self.process.poll() is not None or time.monotonic() - self.started > seconds:
                    raise RuntimeError(f"trouped does not answer, see {self.log.name}")
                time.sleep(0.01)
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
