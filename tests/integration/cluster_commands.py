#!/usr/bin/env python3
"""The commands of troupe cluster against nodes that say what a test wants (scripted_node.py).

    python3 tests/integration/cluster_commands.py       TROUPE names the program, else build/release
"""
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import scripted_node  # noqa: E402
from cli import DONE, REFUSED, UNAVAILABLE, USAGE, run_troupe  # noqa: E402
from node import troupe  # noqa: E402
from scripted_node import CLUSTER, Answer, FakeNode, says, status, wire  # noqa: E402


class Cluster:
    """Fake nodes 1..count with one status; commands are noted and answered by `decide`."""

    def __init__(self, test, count=1, groups=3):
        self.commands = []
        self.decide = lambda call: Answer(seq=8)
        self.hashes = {}       # node -> what it answers to "hash": f(question) -> shards
        self.questions = []    # (node, question) of "hash"
        self.looks = 0
        self.nodes = {}
        for n in range(1, count + 1):
            self.nodes[n] = FakeNode(lambda call, n=n: self.answer(n, call))
            test.addCleanup(self.nodes[n].close)
        self.members = [{"node": n, "rpc": node.url} for n, node in self.nodes.items()]
        self.groups = [{} for _ in range(groups)]
        self.status = lambda: status(self.members, self.groups)

    @property
    def url(self):
        return self.nodes[1].url

    def answer(self, node, call):
        if call.kind == CLUSTER and call.name == "status":
            self.looks += 1
            value = self.status()
            return value if isinstance(value, Answer) else says(value)
        if call.kind == CLUSTER and call.name == "hash":
            question = json.loads(call.payload) if call.payload else None
            self.questions.append((node, question))
            return says({"node": node, "shards": self.hashes[node](question)})
        if call.kind == wire.COMMAND:
            self.commands.append((call.type, call.id, call.name, json.loads(call.payload)))
        return self.decide(call)


class ClusterTest(unittest.TestCase):
    def cluster(self, **options):
        return Cluster(self, **options)

    def call(self, cluster, *words, code=DONE):
        result = run_troupe(*words, url=cluster.url)
        self.assertEqual(result.code, code, "%s\n%s%s" % (" ".join(words), result.out, result.err))
        return result


class Status(ClusterTest):
    def test_a_table_for_people(self):
        cluster = self.cluster()
        out = self.call(cluster, "cluster", "status").out
        self.assertRegex(out, r"\n +1  n1 +up +coordinator +3 +0  yes +0.0 s  tcp://127.0.0.1:\d+\n")
        self.assertIn("3 groups: 3 led, 0 with all replicas, 0 moving", out)
        self.assertNotIn("SHARD", out)
        self.assertRegex(self.call(cluster, "cluster", "status", "--shards").out, r"\n meta +1 +3 +10  1 +1 +-\n")

    def test_json_for_programs(self):
        cluster = self.cluster()
        self.assertEqual(self.call(cluster, "cluster", "status", "--json").answer, cluster.status())

    def test_what_cannot_be_read_or_had(self):
        cluster = self.cluster()
        cluster.status = lambda: {}
        self.assertIn("status of the cluster cannot be read", self.call(
            cluster, "cluster", "status", code=UNAVAILABLE).err)
        cluster.status = lambda: Answer(code=wire.BAD_REQUEST, error="not in a cluster")
        self.assertIn("not in a cluster", self.call(cluster, "cluster", "status", code=USAGE).err)
        self.assertEqual(run_troupe("cluster", "status", "--timeout", "0.2", url="tcp://127.0.0.1:9").code, UNAVAILABLE)

    def test_watch_goes_on_until_interrupted(self):
        cluster = self.cluster()
        watch = subprocess.Popen([troupe(), "cluster", "status", "--watch", "--json", "--url", cluster.url],
                                 stdout=subprocess.PIPE, text=True)
        with watch.stdout:
            self.assertEqual(json.loads(watch.stdout.readline()), cluster.status())
            self.assertEqual(json.loads(watch.stdout.readline()), cluster.status())
            watch.send_signal(signal.SIGINT)
            self.assertEqual(watch.wait(10), DONE)

    def test_watch_says_what_is_wrong_and_goes_on(self):
        cluster = self.cluster()
        good, turns = cluster.status, iter([Answer(code=wire.NOT_FOUND, error="gone fishing")])
        cluster.status = lambda: next(turns, None) or good()
        watch = subprocess.Popen([troupe(), "cluster", "status", "--watch", "--url", cluster.url],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with watch.stdout, watch.stderr:
            self.assertIn("gone fishing", watch.stderr.readline())
            line = watch.stdout.readline()
            self.assertTrue(line.startswith("cluster 00ff"), line or watch.stderr.read())
            watch.terminate()
            self.assertEqual(watch.wait(10), DONE)

    def test_watch_on_a_terminal_draws_over_the_last_picture(self):
        cluster = self.cluster()
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        watch = subprocess.Popen([troupe(), "cluster", "status", "--watch", "--url", cluster.url], stdout=slave,
                                 stdin=subprocess.DEVNULL)
        os.close(slave)
        seen = b""
        while seen.count(b"\033[H") < 3:
            seen += os.read(master, 65536)
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(10), DONE)
        while not seen.endswith(b"\033[?7h"):
            seen += os.read(master, 65536)
        self.assertEqual(seen.count(b"\033[2J"), 1)  # once, before the first
        self.assertTrue(seen.startswith(b"\033[?25l"))
        self.assertIn(b"cluster 00ff", seen)

    def test_watch_ends_when_nobody_reads(self):
        cluster = self.cluster()
        done = subprocess.run("'%s' cluster status --watch --url %s | head -1" % (troupe(), cluster.url), shell=True,
                              timeout=30, capture_output=True, text=True)
        self.assertTrue(done.stdout.startswith("cluster 00ff"))


class Decisions(ClusterTest):
    def test_a_node_goes_by_number_or_name(self):
        cluster = self.cluster(count=3)
        self.assertTrue(self.call(cluster, "cluster", "drain", "n3").answer["ok"])
        self.call(cluster, "cluster", "drain", "3", "--cancel")
        self.call(cluster, "cluster", "remove", "n2")
        self.call(cluster, "cluster", "move", "1", "n2")
        self.call(cluster, "cluster", "move", "meta", "2")
        entity = ("cluster", "cluster")
        self.assertEqual(cluster.commands, [
            entity + ("Drain", {"node": 3, "cancel": False}), entity + ("Drain", {"node": 3, "cancel": True}),
            entity + ("Remove", {"node": 2}), entity + ("Move", {"shard": 1, "node": 2}),
            entity + ("Move", {"shard": 2, "node": 2})])

    def test_what_is_not_there_is_not_sent(self):
        cluster = self.cluster()
        for words in (["drain", "n9"], ["remove", "9"], ["move", "0", "n9"], ["move", "7", "n1"], ["configure"],
                      ["configure", "--replication", "6"], ["drain", "n1", "--wait", "--cancel"]):
            self.call(cluster, "cluster", *words, code=USAGE)
        self.assertIn("there are 1 (n1)", self.call(cluster, "cluster", "drain", "n9", code=USAGE).err)
        self.assertEqual(cluster.commands, [])

    def test_the_cluster_may_refuse(self):
        cluster = self.cluster()
        cluster.decide = lambda call: Answer(code=wire.REFUSED, error="node 1 is the last one that is up", seq=7)
        self.assertEqual(self.call(cluster, "cluster", "drain", "n1", code=REFUSED).answer["refused"],
                         "node 1 is the last one that is up")

    def test_configure_leaves_the_rest_as_it_is(self):
        cluster = self.cluster()
        self.call(cluster, "cluster", "configure", "--replication", "5", "--dead-after", "30")
        self.assertEqual(cluster.commands[0][2:], (
            "Configure", {"replication": 5, "moves_max": 0, "dead_after_ms": 30000}))

    def drain(self, cluster, states, code=DONE):
        """Runs drain --wait; states: (state, replicas) of node 2 from look to look."""
        turns = iter(states)

        def look():
            state, replicas = next(turns, states[-1])
            cluster.members[1].update(state=state, replicas=replicas)
            return status(cluster.members, cluster.groups)

        cluster.status = look
        return self.call(cluster, "cluster", "drain", "n2", "--wait", code=code)

    def test_drain_waits_until_the_node_has_left(self):
        result = self.drain(self.cluster(count=2), [("up", 3), ("draining", 3), ("draining", 3), ("draining", 1),
                                                    ("left", 0)])
        self.assertEqual(result.err.splitlines(), ["troupe: n2: 3 replicas left", "troupe: n2: 1 replicas left",
                                                   "troupe: n2 has left"])

    def test_drain_tells_when_somebody_cancels_it(self):
        result = self.drain(self.cluster(count=2), [("up", 3), ("draining", 3), ("up", 3)], code=REFUSED)
        self.assertIn("drains no longer; it is up", result.err)


class Check(ClusterTest):
    @staticmethod
    def replica(ends, texts=None):
        """A node whose shards end there; a hash is the text of the shard and where it was cut."""
        def shards(question):
            wanted = {i: end for i, end in enumerate(ends) if end}
            if question is not None:
                wanted = {limit["shard"]: limit["upto"] for limit in question["upto"]}
            return [{"shard": i, "first": 1, "upto": end, "hash": "%s@%d" % ((texts or {}).get(i, "same"), end)}
                    for i, end in wanted.items()]
        return shards

    def test_longer_replicas_are_compared_as_far_as_the_shortest_goes(self):
        cluster = self.cluster(count=3)
        cluster.hashes = {1: self.replica([9, 4, 2]), 2: self.replica([8, 4, 2]), 3: self.replica([9, 4, 3])}
        result = self.call(cluster, "cluster", "check")
        self.assertEqual(result.out.splitlines(), ["shard 0      equal   on 1, 2, 3: 1 to 8, same@8",
                                                   "shard 1      equal   on 1, 2, 3: 1 to 4, same@4",
                                                   "shard meta   equal   on 1, 2, 3: 1 to 2, same@2"])
        self.assertIn("3 equal, 0 differ", result.err)
        self.assertEqual(cluster.questions[3:], [(1, {"upto": [{"shard": 0, "upto": 8}]}),
                                                 (3, {"upto": [{"shard": 0, "upto": 8}, {"shard": 2, "upto": 2}]})])

    def test_a_difference_is_exit_code_1(self):
        cluster = self.cluster(count=2)
        cluster.hashes = {1: self.replica([9, 4, 2]), 2: self.replica([9, 4, 2], {1: "other"})}
        result = self.call(cluster, "cluster", "check", code=REFUSED)
        self.assertIn("shard 1      DIFFERS on 1 (1 to 4: same@4), 2 (1 to 4: other@4)", result.out)
        lines = self.call(cluster, "cluster", "check", "--json", code=REFUSED).lines
        self.assertEqual([line["equal"] for line in lines], [True, False, True])
        self.assertEqual(lines[1]["replicas"][1], {"node": 2, "first": 1, "upto": 4, "hash": "other@4"})

    def test_a_voter_without_its_records_is_a_difference(self):
        cluster = self.cluster(count=2)
        cluster.hashes = {1: self.replica([9, 4, 2]), 2: self.replica([9, 0, 2])}
        self.assertIn("shard 1      DIFFERS on 1 (1 to 4: same@4); nothing on 2",
                      self.call(cluster, "cluster", "check", code=REFUSED).out)
        cluster.groups[1] = {"moving": True}
        self.call(cluster, "cluster", "check")

    def test_who_is_not_asked_is_named(self):
        cluster = self.cluster(count=2)
        cluster.hashes = {1: self.replica([9, 4, 2]), 2: self.replica([9, 4, 2])}
        cluster.members += [{"node": 3, "state": "left"}, {"node": 4, "state": "dead", "reachable": False}]
        self.assertIn("n4 is dead; its replicas were not compared", self.call(cluster, "cluster", "check").err)
        cluster.members[3].update(state="up")
        result = run_troupe("cluster", "check", "--timeout", "0.3", url=cluster.url)
        self.assertEqual(result.code, UNAVAILABLE)
        self.assertIn("n4 did not answer; its replicas were not compared", result.err)


class Reads(ClusterTest):
    def test_stale_and_after_are_sent(self):
        seen = []

        def answer(call):
            seen.append((call.kind, call.stale, call.after))
            return Answer(payload=b"{}", seq=3, shard=5, node=2)

        with FakeNode(answer) as node:
            plain = run_troupe("query", "account/a", "Balance", url=node.url)
            self.assertEqual(plain.answer, {"seq": 3, "reply": {}})
            stale = run_troupe("query", "account/a", "Balance", "--stale", "--after", "5:17", url=node.url)
            self.assertEqual(stale.answer, {"seq": 3, "node": 2, "shard": 5, "reply": {}})
            self.assertEqual(run_troupe("state", "account/a", "--after", "9", url=node.url).code, DONE)
            wrong = run_troupe("query", "account/a", "Balance", "--after", "6:17", url=node.url)
            self.assertEqual(wrong.code, USAGE)
            self.assertIn("account/a is in shard 5, not in 6", wrong.err)
        self.assertEqual(seen[:3], [(wire.QUERY, False, 0), (wire.QUERY, True, 17), (wire.STATE, False, 9)])


class Up(unittest.TestCase):
    """troupe cluster up with nodes that are none."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="troupe-test-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.dir = os.path.join(directory.name, "cluster")
        self.trouped = os.path.join(directory.name, "fake-trouped")
        with open(self.trouped, "w") as f:
            f.write("#!/bin/sh\nexec '%s' '%s' \"$@\"\n" % (sys.executable, os.path.abspath(scripted_node.__file__)))
        os.chmod(self.trouped, os.stat(self.trouped).st_mode | stat.S_IXUSR)

    def up(self, *words, fake=""):
        run = Running([troupe(), "cluster", "up", *words[:1], "--dir", self.dir, "--trouped", self.trouped, *words[1:]],
                      dict(os.environ, FAKE=fake))
        self.addCleanup(run.close)
        return run

    def args(self, name):
        with open(os.path.join(self.dir, name, "args.json")) as f:
            return json.load(f)

    def log(self, name):
        with open(os.path.join(self.dir, name + ".log")) as f:
            return f.read()

    def test_starts_shows_and_stops(self):
        run = self.up("3", "--", "--shards", "8")
        urls = run.until(r"^ready (\S+)$").split(",")
        self.assertEqual(len(set(urls)), 3)
        for n, url in enumerate(urls, 1):
            self.assertRegex(run.text, r"n%d +%s +\d+ +3 +1  \S+/n%d\.log\n" % (n, url, n))
            self.assertIn("n%d | ready %s\n" % (n, url), self.log("n%d" % n))
        first, third = self.args("n1"), self.args("n3")
        self.assertNotIn("--join", first)
        self.assertEqual(third[third.index("--join") + 1], urls[0])
        for words in (["--election-ms", "300"], ["--heartbeat-ms", "50"], ["--shards", "8"]):
            self.assertIn(" ".join(words), " ".join(third))
        self.assertIn("export TROUPE_URL=" + ",".join(urls), run.text)
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), DONE)
        for pid in run.pids():
            self.assertTrue(is_gone(pid))

    def test_goes_on_with_the_same_nodes_at_the_same_ports(self):
        first = self.up("2")
        urls = first.until(r"^ready (\S+)$")
        first.process.terminate()
        self.assertEqual(first.end(), DONE)
        again = self.up("3")
        more = again.until(r"^ready (\S+)$")
        self.assertTrue(more.startswith(urls + ","))
        self.assertNotIn("--join", self.args("n1"))
        self.assertIn("--join", self.args("n3"))
        again.process.terminate()
        self.assertEqual(again.end(), DONE)

    def test_tells_when_a_node_dies_and_leaves_the_others(self):
        run = self.up("3")
        run.until(r"^ready ")
        os.kill(run.pids()[1], signal.SIGKILL)
        run.until(r"^troupe: n2 was killed by signal 9")
        self.assertFalse(is_gone(run.pids()[0]))
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), DONE)

    def test_ends_when_nobody_is_left(self):
        run = self.up("2")
        run.until(r"^ready ")
        for pid in run.pids():
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(run.end(), UNAVAILABLE)

    def test_a_node_that_cannot_start_is_quoted(self):
        run = self.up("2", fake="dies")
        self.assertEqual(run.end(), UNAVAILABLE)
        self.assertRegex(run.text, r"n2 ended with exit code 1; \S+/n2.log has more: trouped: the disk is on fire")

    def test_a_second_interrupt_kills(self):
        run = self.up("2", fake="stubborn")
        run.until(r"^ready ")
        run.process.send_signal(signal.SIGINT)
        run.until(r"^troupe: stopping 2 nodes")
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), UNAVAILABLE)
        for pid in run.pids():
            self.assertTrue(is_gone(pid))

    def test_can_be_interrupted_before_all_is_well(self):
        run = self.up("2", fake="uneven")
        run.until(r"^troupe: 2 of 2 nodes are reachable; of 2 groups 0 have all replicas, 2 are led by who should")
        run.process.send_signal(signal.SIGTERM)
        self.assertEqual(run.end(), DONE)

    def test_nodes_end_with_a_troupe_that_is_killed(self):
        run = self.up("2")
        run.until(r"^ready ")
        pids = run.pids()
        run.process.kill()
        run.end()
        wait_until(lambda: all(is_gone(pid) for pid in pids))

    def test_wrong_usage(self):
        for words in (["0"], ["x"], ["17"], ["2", "--", "--data", "x"], ["2", "--", "--rpc=tcp://127.0.0.1:1"]):
            self.assertEqual(self.up(*words).end(), USAGE)
        self.trouped = os.path.join(self.directory, "nothing")
        run = self.up("1")
        self.assertEqual(run.end(), UNAVAILABLE)
        self.assertIn("cannot be run", run.text)


def is_gone(pid):
    """Not there, or only to be reaped by whoever inherited it."""
    try:
        with open("/proc/%d/cmdline" % pid) as f:
            return f.read() == ""
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Running:
    """A program whose output of both kinds is read as it comes."""

    def __init__(self, words, env):
        self.text = ""
        self.changed = threading.Condition()
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=env, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.ended = False
        self.reader.start()

    def _read(self):
        with self.process.stdout as stream:
            for line in stream:
                with self.changed:
                    self.text += line
                    self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def until(self, pattern, timeout=60):
        """Waits for a line; its first group when it has one."""
        find = lambda: re.search(pattern, self.text, re.M)
        with self.changed:
            self.changed.wait_for(lambda: find() or self.ended, timeout)
            found = find()
            assert found, "%s: not in\n%s" % (pattern, self.text)
            return found.group(1) if found.groups() else None

    def pids(self):
        return [int(pid) for pid in re.findall(r"^n\d+ +tcp://\S+ +(\d+) ", self.text, re.M)]

    def end(self, timeout=60):
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.reader.join(20)


if __name__ == "__main__":
    unittest.main(verbosity=int(os.environ.get("VERBOSE") or 1))
