#!/usr/bin/env python3
"""The calculator and the account register under the recorded workloads of ../shared/data/apps.

Counts, answers and digests are those of flight.md section 6.4 (also in summary.json). A symbolic
handle h becomes an entity id; a request that is 400 there must be turned away at the door here.
Transfers of the ledger are two commands of the client: a withdrawal, then a deposit.
"""

import collections
import gzip
import hashlib
import json
import os
import struct
import sys
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "client")]

from node import Node  # noqa: E402
from troupe_client import BAD_REQUEST, OK, REFUSED, TroupeClient  # noqa: E402

APPS = os.path.join(ROOT, os.environ.get("TROUPE_SHARED", "../shared"), "data", "apps")
CLIENTS = 64


def workload(name):
    with gzip.open(os.path.join(APPS, name + ".jsonl.gz"), "rt") as f:
        return [json.loads(line) for line in f]


def summary(name):
    with open(os.path.join(APPS, "summary.json")) as f:
        return json.load(f)[name]


def digest(lines):
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


class Calculator:
    """Plays requests and keeps count."""

    def __init__(self, node):
        self.node = node
        self.counts = collections.Counter()
        self.wrong = []
        self.lock = threading.Lock()

    @staticmethod
    def entity(request):
        return request["id"] if request["h"] is None else "value-%d" % request["h"]

    def one(self, client, index, request):
        payload = {"value": request["value"]}
        if request["op"] == "create":
            name = "Create"
        else:
            name = "Update"
            payload["operation"] = request["operation"]
        answer = client.command("calculator", self.entity(request), name, payload, command_id=b"calc-%d" % index)
        wanted = OK
        if request["status"] == 400:
            wanted = BAD_REQUEST
        elif request.get("outcome") == "rejected":
            wanted = REFUSED
        with self.lock:
            self.counts[answer.code] += 1
            self.counts["events"] += answer.events
            if answer.code == OK and request["op"] == "update":
                self.counts["updates"] += 1
            if answer.code != wanted:
                self.wrong.append((index, request, answer.code, answer.error))

    def play(self, numbered):
        client = TroupeClient(self.node.host, self.node.port)
        try:
            for index, request in numbered:
                self.one(client, index, request)
        finally:
            client.close()

    def values(self, count):
        client = TroupeClient(self.node.host, self.node.port)
        try:
            return [client.query("calculator", "value-%d" % i, "Value", {}).payload["value"] for i in range(count)]
        finally:
            client.close()


@unittest.skipUnless(os.path.isdir(APPS), "no workloads at " + APPS)
class CalcTest(unittest.TestCase):
    def check(self, calculator):
        expected = summary("calc")
        self.assertEqual(calculator.wrong[:5], [])
        self.assertEqual(calculator.counts["updates"], expected["updates_accepted"])
        self.assertEqual(calculator.counts[REFUSED], expected["updates_rejected"])
        self.assertEqual(calculator.counts[BAD_REQUEST], expected["bad_requests"])
        self.assertEqual(calculator.counts["events"], expected["events"])
        self.check_values(calculator)

    def check_values(self, calculator):
        expected = summary("calc")
        values = calculator.values(expected["values"])
        self.assertEqual(values[:5], expected["first_values"])
        lines = ["%d %s" % (i, struct.pack(">d", v).hex()) for i, v in enumerate(values)]
        self.assertEqual(digest(lines), expected["sha_values"])

    def test_sequential_then_replayed_after_a_kill(self):
        with Node() as node:
            calculator = Calculator(node)
            calculator.play(enumerate(workload("calc")))
            self.check(calculator)
            node.kill9()
            node.restart()
            self.check_values(calculator)

    def test_64_parallel_clients(self):
        requests = list(enumerate(workload("calc")))
        shares = [[] for _ in range(CLIENTS)]
        for index, request in requests:
            share = index if request["h"] is None else request["h"]
            shares[share % CLIENTS].append((index, request))
        with Node() as node:
            calculator = Calculator(node)
            failures = []

            def client(share):
                try:
                    calculator.play(share)
                except Exception as error:  # a thread's exception must fail the test
                    failures.append(repr(error))

            threads = [threading.Thread(target=client, args=(share,)) for share in shares]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            self.check(calculator)


@unittest.skipUnless(os.path.isdir(APPS), "no workloads at " + APPS)
class LedgerTest(unittest.TestCase):
    COMMANDS = {"open": "Open", "deposit": "Deposit", "check": "WriteCheck", "atm": "WithdrawAtm",
                "transfer": "WithdrawAtm"}

    def send(self, client, index, name, h, payload):
        return client.command("account", "a%d" % h, name, payload,
                              command_id=b"ledger-%s-%s" % (str(index).encode(), name.encode()))

    def one(self, client, index, request):
        if request.get("reason") == "same account":
            return  # a rule of transfers, which are not an aggregate's command yet
        payload = {} if request["op"] == "open" else {"amount": request["amount"]}
        answer = self.send(client, index, self.COMMANDS[request["op"]], request["h"], payload)
        if request["status"] == 422:
            self.assertEqual((answer.code, answer.error), (REFUSED, request["reason"]), request)
            return
        self.assertEqual(answer.code, OK, (request, answer.error))
        if "balance" in request:
            self.assertEqual(answer.payload["balance"], request["balance"], request)
        if request["op"] == "transfer":
            answer = self.send(client, index, "Deposit", request["to"],
                               {"amount": request["amount"], "ref": "transfer"})
            self.assertEqual(answer.code, OK, (request, answer.error))

    def test_every_answer_and_the_final_balances(self):
        expected = summary("ledger")
        with Node() as node:
            client = TroupeClient(node.host, node.port)
            self.addCleanup(client.close)
            for index, request in enumerate(workload("ledger")):
                self.one(client, index, request)
            ids = ["a%d" % i for i in range(expected["accounts"])]
            balances = [client.query("account", i, "Balance", {}).payload["balance"] for i in ids]
            self.assertEqual(balances[:5], expected["first_balances"])
            self.assertEqual(sum(balances), expected["total_cents"])
            self.assertEqual(digest("%d %d" % pair for pair in enumerate(balances)), expected["sha_balances"])
            self.check_ledgers(client, ids, balances, expected["entries"])

    def check_ledgers(self, client, ids, balances, wanted):
        """Each ledger ends in the balance; kept entries and streams agree on how many there are."""
        entries = 0
        for entity, balance in zip(ids, balances):
            page = client.query("account", entity, "Ledger", {}).payload
            self.assertEqual(page["entries"][-1]["balance"], balance)
            self.assertEqual(page["older_in_events"], page["oldest_kept_seq"] > 2)
            entries += page["entries"][-1]["seq"] - 1  # the first event opened it
        self.assertEqual(entries, wanted)


if __name__ == "__main__":
    unittest.main()
