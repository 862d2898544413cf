#!/usr/bin/env python3
"""Who is a member of a cluster: nodes join, leave, die and come back, and nobody is let in who does not
belong.

    python3 tests/integration/cluster_members.py     TROUPED and TROUPE name the programs, else build/release
"""
import json
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli import REFUSED, USAGE, run_troupe, run_trouped  # noqa: E402
from cluster import PATIENCE, SHARDS, ClusterTest, Member  # noqa: E402
from cluster_commands import wait_until  # noqa: E402


class Changes(ClusterTest):
    def test_nodes_join_two_at_a_time_and_get_their_share(self):
        self.start(3)
        opened = self.open_accounts("early", 12)
        joining = [self.add("n4", wait=False), self.add("n5", wait=False)]
        for node in joining:
            node.wait_ready()
        status = self.wait_even(5)
        self.assertEqual(len({m["node"] for m in status["nodes"]}), 5)
        self.assert_open(opened, url=joining[1].url)
        self.call("cluster", "configure", "--replication", "5")
        self.wait_even(5, copies=5)
        self.check()

    def test_a_node_joins_through_one_that_has_just_moved(self):
        """The cluster's answer still names the place where that member was."""
        first = self.start(1)[0]
        first.terminate()
        first.peer = "tcp://127.0.0.1:0"
        first.start()
        self.add("n2")
        self.wait_even(2)

    def test_a_drained_node_has_nothing_left_and_goes(self):
        nodes = self.start(4)
        opened = self.open_accounts("moved", 12)
        result = self.call("cluster", "drain", "n4", "--wait")
        self.assertTrue(result.answer["ok"])
        self.assertIn("n4 has left", result.err)
        self.assertEqual(nodes[3].wait(PATIENCE), 0)
        status = self.wait_even(3)
        gone = self.member(status, nodes[3])
        self.assertEqual((gone["state"], gone["replicas"], gone["leaders"]), ("left", 0, 0))
        self.assert_open(opened, url=nodes[0].url)
        self.check()

    def test_a_drain_can_be_cancelled(self):
        nodes = self.start(4)
        self.call("cluster", "drain", "n4")
        self.call("cluster", "drain", "n4", "--cancel")
        status = self.wait_even(4)
        self.assertEqual(self.member(status, nodes[3])["state"], "up")

    def test_what_a_dead_node_held_goes_to_others_and_it_can_be_removed(self):
        nodes = self.start(4, "--dead-after", "1")
        nodes[3].kill9()
        self.wait_status(lambda s: self.member(s, nodes[3])["state"] == "dead", "n4 was dead")
        self.wait_even(3)
        self.call("cluster", "remove", "n4")
        self.assertEqual(self.member(self.status(), nodes[3])["state"], "left")
        self.check()

    def test_a_node_that_was_dead_comes_back(self):
        nodes = self.start(4, "--dead-after", "1")
        nodes[3].kill9()
        self.wait_status(lambda s: self.member(s, nodes[3])["state"] == "dead", "n4 was dead")
        self.wait_even(3)
        opened = self.open_accounts("meanwhile", 8)
        nodes[3].start()
        self.wait_even(4)
        self.assert_open(opened, url=nodes[3].url)
        self.check()

    def test_an_operator_moves_a_shard(self):
        nodes = self.start(3)
        for node in nodes:
            number = self.member(self.status(), node)["node"]
            self.call("cluster", "move", "3", node.name)
            self.wait_status(lambda s: s["groups"][3]["leader"] == number, "%s led shard 3" % node.name)

    def test_the_cluster_refuses_what_makes_no_sense(self):
        self.start(1)
        self.assertIn("last one", self.call("cluster", "drain", "n1", code=REFUSED).answer["refused"])
        self.assertIn("up", self.call("cluster", "remove", "n1", code=REFUSED).answer["refused"])
        self.call("cluster", "drain", "n9", code=USAGE)
        self.call("cluster", "move", str(SHARDS + 1), "n1", code=USAGE)


class Strangers(ClusterTest):
    """Who does not belong is not let in, and is told so."""

    def test_a_node_of_another_cluster_at_a_members_address(self):
        nodes = self.start(3)
        nodes[2].kill9()
        other = Member(self.directory, "other", None, ["--shards", "4"], start=False)
        other.peer = nodes[2].peer
        self.addCleanup(other.close)
        other.start()
        wait_until(lambda: "refuse" in nodes[0].log() + nodes[1].log() + other.log(), PATIENCE)
        self.send("account/mine", "Open", url=",".join(n.url for n in nodes[:2]))
        run_troupe("send", "account/theirs", "Open", url=other.url)
        status = json.loads(run_troupe("cluster", "status", "--json", url=other.url).out)
        self.assertEqual([m["name"] for m in status["nodes"]], ["other"])
        self.assertNotEqual(status["cluster"], self.status()["cluster"])
        other.terminate()
        nodes[2].start()
        self.wait_even(3)
        self.check()

    def test_a_copy_of_a_node_that_runs(self):
        nodes = self.start(3)
        nodes[2].terminate()
        shutil.copytree(nodes[2].data, os.path.join(self.directory, "copy"))
        nodes[2].start()
        self.wait_even(3)
        copy = Member(self.directory, "copy", start=False)
        self.addCleanup(copy.close)
        copy.start(wait=False)
        self.assertEqual(copy.wait(PATIENCE), 1)
        self.assertIn("refuse", copy.log())
        self.send("account/original", "Open")
        self.wait_even(3)
        self.check()

    def test_a_node_that_has_left_stays_out(self):
        nodes = self.start(4)
        self.call("cluster", "drain", "n4", "--wait")
        nodes[3].wait(PATIENCE)
        nodes[3].start(wait=False)
        nodes[3].wait(PATIENCE)  # whatever its code: it must not stay
        self.wait_even(3)
        shutil.rmtree(nodes[3].data)
        nodes[3].join = nodes[0].url
        nodes[3].start()
        status = self.wait_even(4)
        self.assertEqual([m["state"] for m in status["nodes"]], ["up", "up", "up", "left", "up"])

    def test_join_where_nobody_is(self):
        data = os.path.join(self.directory, "early")
        early = Member(self.directory, "early", "tcp://127.0.0.1:9", start=False)
        self.addCleanup(early.close)
        early.start(wait=False)
        wait_until(lambda: "join" in early.log())
        self.assertTrue(early.running())
        early.kill9()
        self.start(1)
        early.join = self.url
        early.start()  # a first attempt leaves nothing behind that is in the way
        self.wait_even(1 + 1)
        self.assertTrue(os.path.isdir(data))

    def test_join_that_is_wrong(self):
        for url in ("nonsense", "tcp://127.0.0.1:1,,tcp://127.0.0.1:2", "udp://127.0.0.1:1"):
            result = run_trouped("--data", os.path.join(self.directory, "wrong"), "--rpc", "tcp://127.0.0.1:0",
                                 "--join", url)
            self.assertEqual(result.code, USAGE, result.err)
            self.assertIn("join", result.err)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "wrong")))


if __name__ == "__main__":
    unittest.main(verbosity=int(os.environ.get("VERBOSE") or 1))
