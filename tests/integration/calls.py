#!/usr/bin/env python3
"""Every call of the Python client against a node."""
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "client")]

from node import Node  # noqa: E402
import troupe_client as t  # noqa: E402


class Calls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.client = t.TroupeClient(cls.node.host, cls.node.port)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.node.close()

    def opened(self, name, amount=100):
        self.client.command("account", name, "Open", {})
        self.assertEqual(self.client.command("account", name, "Deposit", {"amount": amount}).code, t.OK)

    def test_a_command_in_json_and_in_protobuf(self):
        self.opened("both")
        answer = self.client.command("account", "both", "Deposit", {"amount": 5})
        self.assertEqual((answer.code, answer.seq, answer.events, answer.payload), (t.OK, 3, 1, {"balance": 105}))
        answer = self.client.command("account", "both", "Deposit", t.number(1, 5), json=False)
        self.assertEqual((answer.code, answer.seq, answer.payload), (t.OK, 4, t.number(1, 110)))

    def test_a_refusal_says_why(self):
        self.opened("poor", 1)
        answer = self.client.command("account", "poor", "WithdrawAtm", {"amount": 2})
        self.assertEqual((answer.code, answer.seq, answer.events), (t.REFUSED, 2, 0))
        self.assertTrue(answer.error)

    def test_a_repeat_gets_the_first_answer(self):
        self.opened("again")
        first = self.client.command("account", "again", "Deposit", {"amount": 1}, command_id="again-1")
        second = self.client.command("account", "again", "Deposit", {"amount": 1}, command_id="again-1")
        self.assertEqual((second.repeated, first.repeated), (True, False))
        self.assertEqual(second[:7], first[:7])

    def test_a_command_id_belongs_to_one_entity(self):
        shard = self.client.command("account", "mine", "Open", {}, command_id="mine-1").shard
        for i in range(2000):
            answer = self.client.command("account", "other%d" % i, "Open", {}, command_id="o%d" % i)
            if answer.shard == shard:
                break
        answer = self.client.command("account", "other%d" % i, "Open", {}, command_id="mine-1")
        self.assertEqual(answer.code, t.BAD_REQUEST)

    def test_expected_is_checked(self):
        self.opened("exact")
        wrong = self.client.command("account", "exact", "Deposit", {"amount": 1}, expected=1)
        self.assertEqual((wrong.code, wrong.seq), (t.CONFLICT, 2))
        self.assertEqual(self.client.command("account", "exact", "Deposit", {"amount": 1}, expected=2).code, t.OK)
        self.assertEqual(self.client.command("account", "new", "Open", {}, expected=0).code, t.OK)

    def test_query_and_state(self):
        self.opened("asked", 70)
        answer = self.client.query("account", "asked", "Balance", {})
        self.assertEqual((answer.code, answer.payload["balance"], answer.seq), (t.OK, 70, 2))
        self.assertEqual(self.client.query("account", "nobody", "Balance", {}).code, t.NOT_FOUND)
        state = self.client.state("account", "asked")
        self.assertEqual((state.code, state.payload["seq"], state.payload["state"]["balance"]), (t.OK, 2, 70))
        before = self.client.state("account", "asked", at_seq=1)
        self.assertEqual((before.code, before.payload["state"]["balance"]), (t.OK, 0))

    def test_events_in_pages(self):
        self.opened("told")
        first = self.client.events("account", "told", 1, 1)
        self.assertEqual(([e.manifest for e in first.events], first.next_seq, first.more), (["AccountOpened"], 2, True))
        second = self.client.events("account", "told", first.next_seq)
        self.assertEqual(([e.seq for e in second.events], second.next_seq, second.more), ([2], 3, False))
        self.assertEqual(second.events[0].payload["amount"], 100)

    def test_the_feed_goes_on_where_it_was(self):
        position = self.client.feed("end").position
        self.opened("fed")
        seen = []
        while len(seen) < 2:
            page = self.client.feed(position, type="account", limit=1, wait_ms=10000)
            seen += [(e.id, e.seq) for e in page.events]
            position = page.position
        self.assertEqual(seen, [("fed", 1), ("fed", 2)])
        self.assertEqual(self.client.feed(position).events, [])

    def test_a_bad_position_is_refused(self):
        with self.assertRaises(t.CallFailed) as caught:
            self.client.feed("nonsense")
        self.assertEqual(caught.exception.answer.code, t.BAD_REQUEST)

    def test_types_status_and_ping(self):
        self.assertIn("Deposit", str(self.client.types("account")))
        self.assertIn("account", str(self.client.types()))
        self.assertIn("rpc", self.client.status())
        self.assertTrue(self.client.ping())

    def test_a_batch_is_answered_call_by_call(self):
        self.opened("many")
        calls = [t.command("account", "many", "Deposit", {"amount": 1}) for _ in range(200)]
        calls += [t.query("account", "many", "Balance", {}), t.command("nothing", "x", "Y", {})]
        answers = self.client.send_batch(calls)
        self.assertEqual([a.seq for a in answers[:200]], list(range(3, 203)))
        self.assertEqual((answers[200].payload["balance"], answers[201].code), (300, t.NOT_FOUND))

    def test_what_is_over_a_limit_is_named(self):
        answers = self.client.send_batch([t.query("account", "x", "Balance", b"") for _ in range(1025)])
        self.assertEqual(answers[0].code, t.TOO_LARGE)
        big = self.client.command("account", "x", "Deposit", b"x" * (256 * 1024 + 1), json=False)
        self.assertEqual(big.code, t.TOO_LARGE)
        for bad in ("a b", "a|b", "", "x" * 129):
            self.assertEqual(self.client.command("account", bad, "Open", {}).code, t.BAD_REQUEST, bad)
        self.assertEqual(self.client.command("account", "x", "Open", {}, command_id="c" * 65).code, t.BAD_REQUEST)

    def test_a_retrying_client_outlives_its_node(self):
        with Node() as node, t.RetryingClient(node.host, node.port, 60) as client:
            client.command("account", "a", "Open", {})
            first = client.command("account", "a", "Deposit", {"amount": 9}, command_id="once")
            node.kill9()
            node.restart()
            again = client.command("account", "a", "Deposit", {"amount": 9}, command_id="once")
            self.assertEqual((again.repeated, again.seq, again.offset), (True, first.seq, first.offset))
            self.assertEqual(client.query("account", "a", "Balance", {}).payload["balance"], 9)


if __name__ == "__main__":
    unittest.main()
