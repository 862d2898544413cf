"""What the machine did while something was measured: CPU of our processes, of everybody else, load."""

import os
import time

TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


def _stat(pid):
    """(parent, CPU seconds of the process and the children it waited for), None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(field) for field in fields[11:15]) / TICK


def tree_seconds(root=None):
    """CPU seconds of root (this process when None) and everything below it, finished or not.

    A finished process counts in the parent that waited for it, so the sum only grows as long as no
    child leaves the tree: servers run in the foreground."""
    root = root or os.getpid()
    parents, seconds = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat:
                parents[int(name)], seconds[int(name)] = stat
    total = 0.0
    for pid, used in seconds.items():
        at = pid
        while at in parents and at != root:
            at = parents[at]
        if at == root:
            total += used
    return total


def thread_seconds(pid):
    """CPU seconds of all threads of a process in nanosecond steps (tree_seconds has 10 ms)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:
            pass  # The thread ended in between.
    return total / 1e9


def thread_split(pid):
    """{name: CPU seconds} of the threads of a process. A daemon's threads without a name of their own
    are its workers, but for the one that waits for the end."""
    used = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                seconds = int(file.read().split()[0]) / 1e9
        except OSError:
            continue  # The thread ended in between.
        if name == "trouped":
            name = "main" if task == str(pid) else "worker"
        used[name] = used.get(name, 0.0) + seconds
    return used


class Quota:
    """with Quota(pids, share): each process gets at most so much of a core, in steps of 1 ms."""

    ROOT = "/sys/fs/cgroup/cpu"

    @classmethod
    def missing(cls):
        """Why there are no quotas here, or None."""
        if not os.access(cls.ROOT, os.W_OK):
            return f"{cls.ROOT} cannot be written (root, and the cpu controller of cgroups v1)"
        return None if os.path.exists(f"{cls.ROOT}/cpu.cfs_quota_us") or \
            os.path.exists(f"{cls.ROOT}/cpu.shares") else "no cpu controller"

    def __init__(self, pids, share):
        self.share = share
        self.groups = {pid: f"{self.ROOT}/troupe-bench-{pid}" for pid in pids}

    def __enter__(self):
        for pid, group in self.groups.items():
            os.makedirs(group, exist_ok=True)
            self._write(group, "cpu.cfs_period_us", round(1000 / self.share))
            self._write(group, "cpu.cfs_quota_us", 1000)
            self._write(group, "cgroup.procs", pid)
        return self

    def __exit__(self, *_):
        for pid, group in self.groups.items():
            self._write(self.ROOT, "cgroup.procs", pid)
            os.rmdir(group)

    @staticmethod
    def _write(group, name, value):
        with open(f"{group}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def busy_seconds():
    """CPU seconds the whole machine spent on anything, stolen time included."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def filesystem(path):
    """Type of the file system that holds path, with a warning when a sync means nothing there."""
    best, kind = "", "?"
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, point, found = line.split()[:3]
            if os.path.commonpath([os.path.abspath(path), point]) == point and len(point) > len(best):
                best, kind = point, found
    return f"{kind} (NOT A DISK: set BENCH_DIR)" if kind in ("tmpfs", "ramfs") else kind


class Watch:
    """with Watch() as watch: ... ; then watch.seconds, .ours, .others (fractions of all cores)."""

    def __enter__(self):
        self._ours, self._busy, self._start = tree_seconds(), busy_seconds(), time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = max(time.monotonic() - self._start, 1e-6)
        room = self.seconds * CORES
        ours = tree_seconds() - self._ours
        self.ours = ours / room
        self.others = max(0.0, (busy_seconds() - self._busy - ours) / room)
        self.load = os.getloadavg()[0]


def drop_caches():
    """Empties the page cache. False: not allowed (we are not root)."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
        return True
    except OSError:
        return False
