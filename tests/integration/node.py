"""One trouped for a test: started in a temporary directory on a free port, stopped afterwards.

    with Node() as n:                     # data in a temporary directory that is removed at the end
        client = TroupeClient(n.host, n.port)
        n.kill9(); n.restart()            # same data, same port
        n.terminate()                     # SIGTERM; returns the exit code
        print(n.log())                    # standard error so far

    Node(data=DIR, args=["--workers", "2"], env={"LD_PRELOAD": "x.so"}, start=False)

The program is $TROUPED, or build/release/cmd/trouped/trouped under the root of the repository, or
the debug build. Standard library only.
"""
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def program(variable, path):
    """The binary named by an environment variable, else from the release or the debug build."""
    if os.environ.get(variable):
        return os.environ[variable]
    for variant in ("release", "debug"):
        found = os.path.join(ROOT, "build", variant, path)
        if os.path.exists(found):
            return found
    raise FileNotFoundError("no %s: build it, or set %s" % (path, variable))


def trouped():
    return program("TROUPED", "cmd/trouped/trouped")


def troupe():
    return program("TROUPE", "cmd/troupe/troupe")


def _receive(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def ping(host, port, timeout=10.0):
    """True when a node answers KIND_PING. The SP protocol by hand, so that this file stands alone."""
    try:
        with socket.create_connection((host, port), timeout=timeout) as sock:
            sock.sendall(b"\0SP\0\0\x30\0\0")
            if _receive(sock, 8) != b"\0SP\0\0\x31\0\0":
                return False
            body = struct.pack(">I", 0x80000001) + b"\x0a\x04\x08\x01\x40\x07"
            sock.sendall(struct.pack(">Q", len(body)) + body)
            size, = struct.unpack(">Q", _receive(sock, 8))
            return _receive(sock, size).endswith(b"\x08\x01")
    except OSError:
        return False


class Node:
    """See above. Attributes: host, port, url, data (directory), process, screen (its standard
    output up to the ready line), started_in (seconds from exec to ready)."""

    READY = "ready"

    def __init__(self, data=None, args=(), env=None, start=True, timeout=60.0, port=0, preexec=None):
        self._temporary = None
        if data is None:
            self._temporary = tempfile.mkdtemp(prefix="troupe-test-")
            data = os.path.join(self._temporary, "data")
        self.data = data
        self.args = list(args)
        self.env = dict(os.environ, **(env or {}))
        self.host = "127.0.0.1"
        self.port = port
        self.timeout = timeout
        self.preexec = preexec
        self.process = None
        self.screen = ""
        self.started_in = None
        self._log = []
        self._readers = []
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    @property
    def url(self):
        return "tcp://%s:%d" % (self.host, self.port)

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def command(self):
        # Of two free ports only one would be known to be free: a lone node needs no fixed one for others.
        return [trouped(), "--data", self.data, "--rpc", self.url, "--cluster", "tcp://127.0.0.1:0"] + self.args

    def start(self, wait=True):
        """Starts it and, unless told otherwise, waits until it is ready to serve."""
        assert self.process is None, "already running"
        self.screen = ""
        self._ready = threading.Event()
        began = time.monotonic()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=self.env, preexec_fn=self.preexec)
        self._readers = [
            threading.Thread(target=self._read_screen, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_log, args=(self.process.stderr,), daemon=True)]
        for reader in self._readers:
            reader.start()
        if wait:
            self.wait_ready()
            self.started_in = time.monotonic() - began
        return self

    def wait_ready(self):
        if not self._ready.wait(self.timeout):
            self.kill9()
            raise TimeoutError("trouped was not ready after %g s:\n%s" % (self.timeout, self.log()))
        if not self.port or not ping(self.host, self.port):
            code = self.wait(self.timeout)
            raise RuntimeError("trouped ended with code %s:\n%s" % (code, self.log()))

    def _read_screen(self, stream):
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace")
                self.screen += line
                words = line.split()
                if len(words) == 2 and words[0] == self.READY:
                    if not self.port:
                        self.port = int(words[1].rsplit(":", 1)[1])
                    self._ready.set()
        self._ready.set()

    def _read_log(self, stream):
        with stream:
            for raw in stream:
                self._log.append(raw.decode("utf-8", "replace"))

    def log(self):
        """Standard error of all its runs so far."""
        return "".join(self._log)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout=30.0):
        """Waits for the process to end by itself; its exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        self.process = None
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def kill9(self):
        if self.process is not None:
            self.process.kill()
            self.wait()

    def terminate(self, timeout=30.0):
        """SIGTERM, then the exit code. subprocess.TimeoutExpired when it takes longer."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def restart(self):
        """Starts it again on the same data and port (stops it first when it runs)."""
        self.terminate()
        return self.start()

    def close(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self.kill9()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


if __name__ == "__main__":
    with Node() as node:
        print(node.screen, end="")
        print("%s answers a ping, started in %.3f s" % (node.url, node.started_in))
