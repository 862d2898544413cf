#!/usr/bin/env python3
"""Clusters of real nodes on this machine: they serve as one, lose nodes and get them back.
cluster_members.py is about who is a member.

    python3 tests/integration/cluster.py        TROUPED and TROUPE name the programs, else build/release
"""
import json
import os
import re
import signal
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli import DONE, UNAVAILABLE, USAGE, Follower, run_troupe  # noqa: E402
from cluster_commands import Running, is_gone  # noqa: E402
from node import Node, troupe  # noqa: E402

SHARDS = 16
PATIENCE = 60  # seconds for what takes a few


class Member(Node):
    """A node with a place for others to call, which it keeps when it starts again. Its data outlives
    it until the test is over."""

    def __init__(self, directory, name, join=None, args=(), **options):
        self.name = name
        self.join = join
        self.peer = "tcp://127.0.0.1:0"
        super().__init__(data=os.path.join(directory, name), args=args, **options)

    def command(self):
        joining = ["--join", self.join] if self.join else []
        return super().command() + ["--cluster", self.peer, "--name", self.name, "--workers", "2",
                                    "--election-ms", "300", "--heartbeat-ms", "50"] + joining

    def wait_ready(self):
        super().wait_ready()
        self.peer = re.search(r"nodes call +(\S+)", self.screen).group(1)


class ClusterTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="troupe-test-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.nodes = []

    # ---- nodes

    def add(self, name, wait=True, args=(), **options):
        """Starts a node: the first one founds the cluster, the others join those that run."""
        join = ",".join(n.url for n in self.nodes if n.running()) or None
        own = [] if join else ["--shards", str(SHARDS)]
        node = Member(self.directory, name, join, own + list(args), start=False, timeout=PATIENCE, **options)
        self.addCleanup(node.close)
        self.nodes.append(node)
        node.start(wait=wait)
        return node

    def start(self, count, *args):
        """A cluster whose shards are spread."""
        for n in range(1, count + 1):
            self.add("n%d" % n, args=args)
        self.wait_even(count)
        return self.nodes

    def logs(self):
        def state(node):
            return "runs" if node.running() else "stopped" if node.process is None else (
                "ended with %s" % node.process.returncode)

        return "".join("---- %s %s\n%s" % (n.name, state(n), n.log()[-2000:]) for n in self.nodes)

    # ---- calls

    @property
    def url(self):
        """Of all nodes, also those that do not run."""
        return ",".join(n.url for n in self.nodes if n.port)

    def call(self, *words, url=None, code=DONE):
        result = run_troupe(*words, "--timeout", "30", url=url or self.url, timeout=120)
        if result.code != code:
            self.fail("troupe %s: exit %d, expected %d\n%s%s%s" % (
                " ".join(words), result.code, code, result.out, result.err, self.logs()))
        return result

    def send(self, entity, command, fields=None, *flags, url=None, code=DONE):
        return self.call("send", entity, command, json.dumps(fields or {}), *flags, url=url, code=code).answer

    def open_accounts(self, prefix, count, url=None):
        return {"account/%s-%d" % (prefix, i): self.send("account/%s-%d" % (prefix, i), "Open", url=url)
                for i in range(count)}

    def assert_open(self, opened, url=None):
        """Each account is there, once."""
        for entity, sent in opened.items():
            events = self.call("events", entity, url=url).lines
            self.assertEqual([e["commandId"] for e in events], [sent["commandId"]], entity)

    # ---- the cluster's view

    def status(self):
        """None while nobody coordinates."""
        result = run_troupe("cluster", "status", "--json", "--timeout", "5", url=self.url)
        return result.answer if result.code == DONE else None

    def wait_for(self, condition, look):
        """Looks until the condition holds of what is seen, or for too long; what was seen last."""
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = look()
            if condition(seen) or time.monotonic() >= deadline:
                return seen
            time.sleep(0.1)

    def wait_status(self, condition, what):
        """Looks until the condition holds of a status; that one."""
        def good(status):
            return status is not None and condition(status)

        last = self.wait_for(good, self.status)
        if not good(last):
            table = run_troupe("cluster", "status", "--shards", "--timeout", "5", url=self.url)
            self.fail("in vain waited until %s\n%s%s%s" % (what, table.out, table.err, self.logs()))
        return last

    def wait_even(self, up, copies=3):
        """So many nodes are up, and each shard is where it should be and led by who should."""
        def even(status):
            reachable = [n for n in status["nodes"] if n["state"] == "up" and n["reachable"]]
            held = [n["replicas"] for n in reachable]
            return (len(reachable) == up and max(held) - min(held) <= 1 and
                    len(status["groups"]) == status["shards"] + 1 and
                    all(placed(g, min(copies, up)) for g in status["groups"]))

        def placed(group, copies):
            voters = sorted(r["node"] for r in group["replicas"] if r["voter"])
            led = group["leader"] != 0 and group["preferred"] in (0, group["leader"])
            return (led and not group["moving"] and voters == sorted(group["target"]) and
                    len(voters) == len(group["replicas"]) == copies)

        return self.wait_status(even, "%d nodes had everything evenly" % up)

    def member(self, status, node):
        return next((m for m in status["nodes"] if m["name"] == node.name), None)

    def check(self):
        """All replicas hold the same."""
        result = self.call("cluster", "check")
        self.assertIn("%d equal, 0 differ" % (SHARDS + 1), result.err)


class AsOne(ClusterTest):
    """Three nodes that nothing happens to."""

    def test_every_node_serves_every_entity(self):
        nodes = self.start(3)
        for i in range(24):
            entity, at, other = "account/all-%d" % i, nodes[i % 3].url, nodes[(i + 1) % 3].url
            self.send(entity, "Open", url=at)
            sent = self.send(entity, "Deposit", {"amount": 100 + i}, url=other)
            self.assertEqual(self.call("query", entity, "Balance", url=at).answer,
                             {"seq": 2, "reply": {"balance": 100 + i}})
            self.assertEqual(len(self.call("events", entity, url=nodes[(i + 2) % 3].url).lines), 2)
            self.assertEqual(self.call("state", entity, url=at).answer["seq"], sent["seq"])
        self.assertEqual(len({g["leader"] for g in self.status()["groups"]}), 3)
        self.check()

    def test_every_node_reads_its_own_replica_when_asked_to(self):
        nodes = self.start(3)
        self.send("account/near", "Open")
        sent = self.send("account/near", "Deposit", {"amount": 5})
        after = "%d:%d" % (sent["shard"], sent["offset"])
        served = [self.call("query", "account/near", "Balance", "--stale", "--after", after, url=n.url).answer
                  for n in nodes]
        self.assertEqual([a["reply"] for a in served], [{"balance": 5}] * 3)
        numbers = {m["name"]: m["node"] for m in self.status()["nodes"]}
        self.assertEqual([a["node"] for a in served], [numbers[n.name] for n in nodes])
        wrong = "%d:%d" % ((sent["shard"] + 1) % SHARDS, 1)
        self.assertIn("is in shard %d" % sent["shard"],
                      self.call("query", "account/near", "Balance", "--after", wrong, code=USAGE).err)

    def test_every_replica_has_snapshots(self):
        """Who leads next would read an entity's whole history otherwise."""
        nodes = self.start(3)
        self.call("bench", "--entities", "1", "--callers", "16", "--seconds", "1")
        for node in nodes:
            self.assertEqual(node.terminate(), DONE)
        reports = [run_troupe("verify", node.data).answer for node in nodes]
        self.assertEqual([r["problems"] for r in reports], [0, 0, 0])
        self.assertTrue(all(r["snapshots"] > 0 for r in reports), reports)

    def test_a_command_sent_to_two_nodes_is_one(self):
        nodes = self.start(3)
        self.send("account/twice", "Open")
        deposit = ["account/twice", "Deposit", {"amount": 5}, "--command-id", "once"]
        first = self.send(*deposit, url=nodes[0].url)
        again = self.send(*deposit, url=nodes[1].url)
        self.assertTrue(again.pop("repeated"))
        self.assertEqual(first, again)

    def test_a_feed_has_the_events_of_all_nodes(self):
        nodes = self.start(3)
        opened = self.open_accounts("feed", 12)
        expected = sorted(s["commandId"] for s in opened.values())
        for node in nodes:
            # A follower hears of the last commits with the next heartbeat.
            found = self.wait_for(lambda ids: len(ids) >= len(expected), lambda: sorted(
                e["commandId"] for e in self.call("feed", "--type", "account", url=node.url).lines))
            self.assertEqual(found, expected)


class Losses(ClusterTest):
    def test_a_node_that_is_killed_is_not_missed(self):
        nodes = self.start(3)
        before = self.open_accounts("before", 12)
        nodes[0].kill9()
        left = ",".join(n.url for n in nodes[1:])
        during = self.open_accounts("during", 12, url=left)
        self.assert_open(before, url=left)
        nodes[0].start()
        self.wait_even(3)
        self.assert_open(dict(before, **during), url=nodes[0].url)
        self.check()

    def test_who_follows_an_entity_goes_on_when_its_leader_dies(self):
        nodes = self.start(3)
        sent = self.send("account/live", "Open")
        follower = Follower(self.url, ["events", "account/live", "--follow", "--limit", "3", "--timeout", "60"])
        self.addCleanup(follower.close)
        self.assertEqual(follower.read_line()["seq"], 1)
        status = self.status()
        leader = status["groups"][sent["shard"]]["leader"]
        name = next(m["name"] for m in status["nodes"] if m["node"] == leader)
        next(n for n in nodes if n.name == name).kill9()
        self.send("account/live", "Deposit", {"amount": 1})
        self.send("account/live", "Deposit", {"amount": 2})
        self.assertEqual([follower.read_line(PATIENCE)["seq"] for _ in range(2)], [2, 3])
        self.assertEqual(follower.end(), DONE)

    def test_without_a_majority_nothing_is_acknowledged(self):
        nodes = self.start(3)
        opened = self.open_accounts("some", 4)
        nodes[1].kill9()
        nodes[2].kill9()
        alone = run_troupe("send", "account/lonely", "Open", "--timeout", "3", url=nodes[0].url)
        self.assertEqual(alone.code, UNAVAILABLE, alone.out)
        stale = self.call("query", "account/some-0", "Balance", "--stale", url=nodes[0].url)
        self.assertEqual(stale.answer["seq"], 1)
        nodes[1].start(wait=False)
        self.send("account/together", "Open")
        self.assert_open(opened)

    def test_all_at_once_and_back(self):
        nodes = self.start(3)
        opened = self.open_accounts("kept", 12)
        for node in nodes:
            node.kill9()
        for node in nodes:
            node.start(wait=False)
        self.wait_even(3)
        self.assert_open(opened)
        self.check()

    def test_a_node_is_stopped_and_started_one_after_the_other(self):
        nodes = self.start(3)
        for node in nodes:
            opened = self.open_accounts("while-%s" % node.name, 4)
            self.assertEqual(node.terminate(), 0)
            opened.update(self.open_accounts("without-%s" % node.name, 4))
            node.start()
            self.wait_even(3)
            self.assert_open(opened, url=node.url)
        self.check()


class Up(unittest.TestCase):
    """troupe cluster up with real nodes."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="troupe-test-")
        self.addCleanup(directory.cleanup)
        self.dir = os.path.join(directory.name, "cluster")

    def up(self, count):
        run = Running([troupe(), "cluster", "up", str(count), "--dir", self.dir, "--", "--shards", str(SHARDS)],
                      dict(os.environ))
        self.addCleanup(run.close)
        return run, run.until(r"^ready (\S+)$", 2 * PATIENCE)

    def test_serves_loses_a_node_stops_and_goes_on(self):
        run, urls = self.up(3)
        sent = run_troupe("send", "account/up", "Open", "--timeout", "30", url=urls)
        self.assertEqual(sent.code, DONE, sent.err)
        pids = run.pids()
        os.kill(pids[2], signal.SIGKILL)
        run.until(r"^troupe: n3 was killed by signal 9")
        for url in urls.split(",")[:2]:
            self.assertEqual(run_troupe("send", "account/up", "Deposit", '{"amount": 1}', "--timeout", "30",
                                        url=url).code, DONE)
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), DONE, run.text)
        for pid in pids:
            self.assertTrue(is_gone(pid))

        run, again = self.up(3)
        self.assertEqual(again, urls)
        for url in again.split(","):
            balance = run_troupe("query", "account/up", "Balance", "--timeout", "30", url=url)
            self.assertEqual(balance.answer, {"seq": 3, "reply": {"balance": 2}})
        check = run_troupe("cluster", "check", url=again)
        self.assertEqual(check.code, DONE, check.out + check.err)
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), DONE, run.text)

    def test_grows_when_it_goes_on_with_more(self):
        run, urls = self.up(1)
        self.assertEqual(run_troupe("send", "account/grow", "Open", url=urls).code, DONE)
        run.process.terminate()
        self.assertEqual(run.end(), DONE, run.text)
        run, urls = self.up(3)
        self.assertEqual(len(urls.split(",")), 3)
        self.assertEqual(run_troupe("query", "account/grow", "Balance", url=urls).answer["seq"], 1)
        run.process.terminate()
        self.assertEqual(run.end(), DONE, run.text)


if __name__ == "__main__":
    unittest.main(verbosity=int(os.environ.get("VERBOSE") or 1))
