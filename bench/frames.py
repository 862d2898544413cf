"""What the nodes on this machine say to each other, seen by the kernel where they say it: uprobes on
two functions of the daemon's program, so that nothing is added to it. Root, x86-64 and tracefs only.

A frame is one sh_transport_send; what of it is a message of a shard's group is one sh_outgoing_room.
Acknowledgements of TCP, pings and handshakes are not frames. Each hit costs the daemon some
microseconds, so messages are looked at only where there are few.
"""

import collections
import os
import platform
import re
import subprocess
import threading

TRACING = "/sys/kernel/tracing"
GROUP = "troupe_bench"
LANES = ["RAFT", "CALL", "BULK"]               # enum sh_lane
KINDS = ["RAFT", "BULK", "CALLS", "ANSWERS"]  # enum sh_outgoing_kind
# Arguments where the System V ABI puts them: (transport, node, lane, {data, size}) and
# (outgoing, node, kind, size).
PROBES = {"send": ("sh_transport_send", "what=%dx:u32 size=%r8:u64"),
          "message": ("sh_outgoing_room", "what=%dx:u32 size=%cx:u64")}
LINE = re.compile(rb"-(\d+)\s+\[.*: (send|message): .* what=(\d+) size=(\d+)")


def missing():
    """Why nothing can be seen here, or None."""
    if platform.machine() != "x86_64":
        return "not x86-64"
    if os.geteuid() != 0:
        return "not root"
    if not os.access(f"{TRACING}/uprobe_events", os.W_OK):
        return f"no {TRACING}/uprobe_events"
    return None


def file_offsets(program, symbols):
    """Where in the file the functions begin."""
    def lines(*words):
        return subprocess.run([*words, program], check=True, capture_output=True, text=True).stdout.splitlines()

    loads = [[int(word, 16) for word in line.split()[1:5]]
             for line in lines("readelf", "-lW") if line.split()[:1] == ["LOAD"]]
    found = {}
    for line in lines("nm"):
        words = line.split()
        if len(words) == 3 and words[2] in symbols:
            address = int(words[0], 16)
            found[words[2]] = next(address - virtual + offset for offset, virtual, _, size in loads
                                   if virtual <= address < virtual + size)
    return found


def write(path, text):
    with open(f"{TRACING}/{path}", "w", encoding="ascii") as file:
        file.write(text)


def define(text):
    """One line more in the list of probes, which cannot be opened the usual way: it has no end to
    seek."""
    descriptor = os.open(f"{TRACING}/uprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def remove(group):
    """A group of probes, used or not, and its buffer."""
    instance = f"{TRACING}/instances/{group}"
    if os.path.isdir(instance):
        os.rmdir(instance)  # Nobody uses its events any more.
    for name in PROBES:
        try:
            define(f"-:{group}/{name}")
        except OSError:
            pass  # It was not made.


def sweep():
    """What a run that was killed left behind would slow down every daemon."""
    with open(f"{TRACING}/uprobe_events", encoding="ascii") as file:
        groups = set(re.findall(rf"{GROUP}_\d+", file.read()))
    groups |= {name for name in os.listdir(f"{TRACING}/instances") if name.startswith(f"{GROUP}_")}
    for group in groups:
        if not os.path.exists(f"/proc/{group.rpartition('_')[2]}"):
            remove(group)


class Frames(threading.Thread):
    """with Frames(program) as frames: ... ; then count, size and largest by (event, name), of all
    processes of the program; by_thread has the frames by thread id."""

    def __init__(self, program, messages=False):
        super().__init__(daemon=True)
        self.names = list(PROBES) if messages else ["send"]
        self.group = f"{GROUP}_{os.getpid()}"
        self.instance = f"instances/{self.group}"
        self.program, self.ended = os.path.realpath(program), False
        self.count, self.size = collections.Counter(), collections.Counter()
        self.largest, self.by_thread = collections.Counter(), collections.Counter()

    def __enter__(self):
        sweep()
        offsets = file_offsets(self.program, [symbol for symbol, _ in PROBES.values()])
        try:
            os.mkdir(f"{TRACING}/{self.instance}")
            for name in self.names:
                symbol, arguments = PROBES[name]
                define(f"p:{self.group}/{name} {self.program}:{offsets[symbol]:#x} {arguments}")
                write(f"{self.instance}/events/{self.group}/{name}/enable", "1")
            write(f"{self.instance}/buffer_size_kb", "8192")
            # pylint: disable-next=consider-using-with
            self.pipe = os.open(f"{TRACING}/{self.instance}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self._remove()
            raise
        self.start()
        return self

    def run(self):
        rest = b""
        while True:
            ending = self.ended
            try:
                read = os.read(self.pipe, 1 << 20)
            except BlockingIOError:
                if ending:
                    return
                threading.Event().wait(0.05)
                continue
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line):
        found = LINE.search(line)
        if not found:
            return
        event, what, size = found[2].decode(), int(found[3]), int(found[4])
        key = (event, (LANES if event == "send" else KINDS)[what])
        self.count[key] += 1
        self.size[key] += size
        self.largest[key] = max(self.largest[key], size)
        if event == "send":
            self.by_thread[int(found[1])] += 1

    def lost(self):
        """Events that the kernel had no room for."""
        total = 0
        for core in os.listdir(f"{TRACING}/{self.instance}/per_cpu"):
            with open(f"{TRACING}/{self.instance}/per_cpu/{core}/stats", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("overrun"))
        return total

    def __exit__(self, *_):
        for name in self.names:
            write(f"{self.instance}/events/{self.group}/{name}/enable", "0")
        self.ended = True
        self.join()
        self.overrun = self.lost()
        os.close(self.pipe)
        self._remove()

    def _remove(self):
        remove(self.group)
