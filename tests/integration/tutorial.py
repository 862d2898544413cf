#!/usr/bin/env python3
"""Does what docs/tutorial.md and the README's tour say, exactly as printed, and compares what they show.

Files of the page ("Save this as `name`:" before a block) are written to an empty directory and must
be those of docs/tutorial/. Lines with "$ " are typed into one shell; the lines below them must come
out. In JSON, values that differ from run to run (times, positions, made ids) are not compared.
The shell has a home and, where the system allows it, a network of its own.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from node import troupe, trouped  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs", "tutorial.md")
PORT = 7470
VOLATILE = {"shard", "offset", "position", "timeMs", "time_ms", "commandId", "command_id", "time"}
MARK = "@@ done "
JOB_NOTE = re.compile(r"(bash: line \d+: +\d+ |\[\d+\]. +)(Killed|Terminated|Done)|\[\d+\] \d+$")
TIMEOUT_S = 240


def blocks(text):
    """(language, file name or None, content) of each fenced block."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        before = text[:match.start()].rstrip().splitlines()[-1:]
        name = re.search(r"[Ss]ave this as `([\w./-]+)`:$", before[0]) if before else None
        found.append((match.group(1), name.group(1) if name else None, match.group(2)))
    return found


def steps(content):
    """(command, expected lines) of a console block; "\\" at the end continues a command."""
    found = []
    lines = content.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("$ "):
            if not found:
                raise ValueError("output before the first command: " + lines[at])
            found[-1][1].append(lines[at])
            at += 1
            continue
        command = lines[at][2:]
        while command.endswith("\\"):
            at += 1
            command += "\n" + lines[at]
        found.append((command, []))
        at += 1
    return found


def comparable(line):
    try:
        value = json.loads(line)
    except ValueError:
        return line
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k not in VOLATILE}
    return value


def own_network():
    """In the child: loopback of its own, when the kernel lets us; else the machine's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        return
    with socket.socket() as s:
        ifreq = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, ifreq)  # SIOCSIFFLAGS


class Shell:
    """One bash, fed a command at a time."""

    def __init__(self, home, directory):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TROUPE", "MAKE", "MFLAGS"))}
        self.process = subprocess.Popen(
            ["bash", "--norc"], cwd=directory, env={**environment, "HOME": home}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=own_network)

    def run(self, command):
        """(exit code, lines)"""
        self.process.stdin.write("%s\ncode=$?; echo \"%s$code\"; (exit $code)\n" % (command, MARK))
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if MARK in line:
                rest, code = line.split(MARK)
                return int(code), lines + ([rest] if rest else [])
            lines.append(line)
        raise AssertionError("the shell ended in: %s\n%s" % (command, "\n".join(lines)))

    def kill(self):
        """A command under way ends with it: run() says which."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self):
        self.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def port_is_ours():
    """True when the shell gets a network of its own or nobody uses the default port."""
    child = os.fork()
    if child == 0:
        os._exit(ctypes.CDLL(None).unshare(0x40000000) != 0)
    if os.waitpid(child, 0)[1] == 0:
        return True
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", PORT)) != 0


class Tutorial(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        if not port_is_ours():
            self.skipTest("port %d is in use" % PORT)
        with open(PAGE) as f:
            self.text = f.read()
        self.home = tempfile.mkdtemp(prefix="tutorial-")
        self.addCleanup(shutil.rmtree, self.home, True)

    def test_the_page_shows_the_files_of_the_folder(self):
        shown = {name: content for _, name, content in blocks(self.text) if name}
        self.assertEqual(set(shown), set(os.listdir(os.path.join(ROOT, "docs", "tutorial"))))
        for name, content in shown.items():
            with open(os.path.join(ROOT, "docs", "tutorial", name)) as f:
                self.assertEqual(f.read(), content, name)

    def test_the_aggregate_has_under_100_lines(self):
        with open(os.path.join(ROOT, "docs", "tutorial", "todo.c")) as f:
            self.assertLess(len(f.readlines()), 100)

    def open_shell(self):
        shell = Shell(self.home, ROOT)
        self.addCleanup(shell.close)
        signal.signal(signal.SIGALRM, lambda *_: shell.kill())
        signal.alarm(TIMEOUT_S)
        self.addCleanup(signal.alarm, 0)
        return shell

    def play(self, shell, content):
        """Number of commands run."""
        done = steps(content)
        for command, expected in done:
            code, lines = shell.run(command)
            if not expected and "2> /dev/null" not in command:
                self.assertEqual(code, 0, "$ %s\n%s" % (command, "\n".join(lines)))
            self.compare(command, expected, lines)
        return len(done)

    def test_every_command_does_what_the_page_shows(self):
        shell = self.open_shell()
        count = 0
        for language, name, content in blocks(self.text):
            if name:
                # The reader's editor: a file lands in the directory the shell is in.
                code, lines = shell.run("pwd")
                self.assertEqual(code, 0)
                with open(os.path.join(lines[0], name), "w") as f:
                    f.write(content)
            elif language == "console":
                count += self.play(shell, content)
        self.assertGreater(count, 10)

    def test_the_tour_of_the_readme(self):
        with open(os.path.join(ROOT, "README.md")) as f:
            text = f.read()
        shell = self.open_shell()
        shell.run('PATH="%s:$PATH"' % os.path.dirname(troupe()))
        shell.run("%s --data '%s/data' > '%s/log' 2>&1 &" % (trouped(), self.home, self.home))
        count = sum(self.play(shell, content) for language, _, content in blocks(text) if language == "console")
        self.assertGreater(count, 8)

    def compare(self, command, expected, lines):
        lines = [line for line in lines if not JOB_NOTE.match(line)]
        if expected and expected[-1] == "...":
            expected = expected[:-1]
            lines = lines[:len(expected)]
        elif not expected and command.startswith("make"):
            return
        self.assertEqual([comparable(e) for e in expected], [comparable(o) for o in lines],
                         "\n$ %s\n%s" % (command, "\n".join(lines)))


if __name__ == "__main__":
    unittest.main()
