#!/usr/bin/env python3
"""troupe and trouped as their users meet them: every subcommand, every exit code, start and stop.

    python3 tests/integration/cli.py        TROUPED and TROUPE name the programs, else build/release
"""
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from node import Node, ping, troupe, trouped  # noqa: E402

DONE, REFUSED, USAGE, UNAVAILABLE = 0, 1, 2, 3


class Result:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        self.lines = [json.loads(line) for line in self.out.splitlines()] if self.out.startswith("{") else []

    @property
    def answer(self):
        assert len(self.lines) == 1, "one line expected:\n%s%s" % (self.out, self.err)
        return self.lines[0]


def run_troupe(*words, url=None, stdin=None, timeout=60):
    env = dict(os.environ)
    env.pop("TROUPE_URL", None)
    if url:
        env["TROUPE_URL"] = url
    return Result(subprocess.run([troupe(), *words], env=env, input=stdin, timeout=timeout,
                                 capture_output=True, text=True))


def run_trouped(*words, timeout=60):
    return Result(subprocess.run([trouped(), *words], timeout=timeout, capture_output=True, text=True,
                                 stdin=subprocess.DEVNULL))


class OneNode(unittest.TestCase):
    """All tests of the class share one node; each uses entities of its own."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def call(self, *words, code=DONE, **options):
        result = run_troupe(*words, url=self.node.url, **options)
        if result.code != code:
            state = "runs" if self.node.running() else "ended with %s" % self.node.process.returncode
            self.fail("troupe %s: exit %d, expected %d\n%s%sthe node %s; its log:\n%s" % (
                " ".join(words), result.code, code, result.out, result.err, state, self.node.log()[-3000:]))
        return result

    def send(self, entity, command, fields=None, *flags, code=DONE):
        words = [] if fields is None else [json.dumps(fields)]
        return self.call("send", entity, command, *words, *flags, code=code).answer


class AccountRegister(OneNode):
    """The register of the article, through the command line."""

    def test_walk_through(self):
        entity = "account/walk"
        opened = self.send(entity, "Open")
        self.assertEqual((opened["ok"], opened["seq"], opened["events"]), (True, 1, 1))
        deposit = self.send(entity, "Deposit", {"amount": 1000000, "ref": "salary"})
        self.assertEqual((deposit["seq"], deposit["reply"]), (2, {"balance": 1000000}))
        check = self.send(entity, "WriteCheck", {"number": 1, "amount": 400000})
        self.assertEqual((check["seq"], check["reply"]), (3, {"balance": 600000}))
        atm = self.send(entity, "WithdrawAtm", {"amount": 20000})
        self.assertEqual((atm["seq"], atm["reply"]), (4, {"balance": 580000}))

        overdraw = self.send(entity, "WriteCheck", {"number": 2, "amount": 580001}, code=REFUSED)
        self.assertEqual(overdraw["refused"], "insufficient funds")
        self.assertEqual((overdraw["seq"], overdraw["reply"]), (4, {"balance": 580000}))

        events = self.call("events", entity).lines
        self.assertEqual([e["event"] for e in events],
                         ["AccountOpened", "MoneyDeposited", "CheckWritten", "AtmWithdrawn"])
        self.assertEqual([e["seq"] for e in events], [1, 2, 3, 4])
        self.assertEqual([e["data"].get("balance") for e in events], [None, 1000000, 600000, 580000])
        self.assertEqual(events[2]["commandId"], check["commandId"])
        self.assertEqual(events[2]["offset"], check["offset"])

        self.assertEqual(self.call("query", entity, "Balance").answer,
                         {"seq": 4, "reply": {"balance": 580000}})
        then = self.call("state", entity, "--at", "2").answer
        self.assertEqual((then["seq"], then["state"]["balance"]), (2, 1000000))
        now = self.call("state", entity).answer
        self.assertEqual((now["seq"], now["state"]["balance"]), (4, 580000))

    def test_the_same_command_id_has_one_effect(self):
        self.send("account/once", "Open")
        first = self.send("account/once", "Deposit", {"amount": 5}, "--command-id", "pay day #1")
        again = self.send("account/once", "Deposit", {"amount": 5}, "--command-id", "pay day #1")
        self.assertEqual(first["commandId"], "pay day #1")
        self.assertTrue(again.pop("repeated"))
        self.assertEqual(first, again)
        self.assertEqual(len(self.call("events", "account/once").lines), 2)

    def test_a_made_command_id_can_be_given_again(self):
        first = self.send("account/made", "Open")
        again = self.send("account/made", "Open", {}, "--command-id", first["commandId"])
        self.assertTrue(again.pop("repeated"))
        self.assertEqual(first, again)  # its reply too, in which every field has its default

    def test_expect_an_old_number_is_a_conflict(self):
        self.send("account/expect", "Open", {}, "--expect", "0")
        self.send("account/expect", "Deposit", {"amount": 1}, "--expect", "1")
        conflict = self.send("account/expect", "Deposit", {"amount": 1}, "--expect", "1", code=REFUSED)
        self.assertEqual((conflict["conflict"], conflict["seq"], conflict["expected"]), (True, 2, 1))
        self.assertEqual(len(self.call("events", "account/expect").lines), 2)


class Reading(OneNode):
    def fill(self, entity, count):
        self.send(entity, "Open")
        for amount in range(1, count):
            self.send(entity, "Deposit", {"amount": amount})

    def test_events_from_and_limit(self):
        self.fill("account/pages", 5)
        pick = lambda *flags: [e["seq"] for e in self.call("events", "account/pages", *flags).lines]
        self.assertEqual(pick(), [1, 2, 3, 4, 5])
        self.assertEqual(pick("--from", "3"), [3, 4, 5])
        self.assertEqual(pick("--limit", "2"), [1, 2])
        self.assertEqual(pick("--from", "4", "--limit", "9"), [4, 5])
        self.assertEqual(pick("--from", "6"), [])

    def test_events_follow_shows_what_is_committed_later(self):
        self.fill("account/live", 2)
        seen = self.follow("events", "account/live", "--limit", "3", "--follow")
        self.assertEqual(seen.read_line()["seq"], 1)
        self.assertEqual(seen.read_line()["seq"], 2)
        self.send("account/live", "Deposit", {"amount": 7})
        self.assertEqual(seen.read_line()["data"]["amount"], 7)
        self.assertEqual(seen.end(), DONE)

    def test_feed_goes_on_from_its_position(self):
        self.fill("account/feed", 4)
        first = self.call("feed", "--limit", "2")
        self.assertEqual(len(first.lines), 2)
        position = first.lines[-1]["position"]
        self.assertIn(position, first.err)
        rest = self.call("feed", "--from", position)
        everything = self.call("feed")
        names = lambda events: sorted((e["shard"], e["offset"], e["seq"]) for e in events)
        self.assertEqual(names(everything.lines), names(first.lines + rest.lines))
        end = rest.lines[-1]["position"]
        self.assertEqual(self.call("feed", "--from", end).lines, [])

    def test_feed_filters_by_type(self):
        self.send("calculator/9d8c", "Create", {"value": 3})
        self.send("account/filter", "Open")
        self.assertEqual({e["type"] for e in self.call("feed", "--type", "calculator").lines}, {"calculator"})
        self.assertEqual(self.call("feed", "--type", "nothing").lines, [])

    def test_feed_from_the_end_shows_only_new_events(self):
        self.send("account/tail", "Open")
        seen = self.follow("feed", "--from", "end", "--follow")
        # When the first long poll has come in is not visible from here: deposit until one shows up.
        for amount in range(1, 100):
            self.send("account/tail", "Deposit", {"amount": amount})
            line = seen.try_line(0.2)
            if line is not None:
                break
        self.assertEqual((line["id"], line["event"]), ("tail", "MoneyDeposited"))

    def test_state_of_what_does_not_exist(self):
        self.assertIn("no events", self.call("state", "account/nobody", code=USAGE).err)
        self.assertEqual(self.call("events", "account/nobody").lines, [])

    def follow(self, *words):
        follower = Follower(self.node.url, words)
        self.addCleanup(follower.close)
        return follower


class Follower:
    """A troupe that runs on while the test does."""

    def __init__(self, url, words):
        self.process = subprocess.Popen([troupe(), *words, "--url", url], stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(json.loads(line))
                self.changed.notify_all()

    def read_line(self, timeout=20):
        with self.changed:
            assert self.changed.wait_for(lambda: self.lines, timeout), "nothing came"
            return self.lines.pop(0)

    def try_line(self, timeout):
        with self.changed:
            return self.lines.pop(0) if self.changed.wait_for(lambda: self.lines, timeout) else None

    def end(self):
        code = self.process.wait(20)
        self.reader.join(20)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(20)
        self.process.stdout.close()


class AboutTheNode(OneNode):
    def test_types_and_describe(self):
        types = self.call("types").lines
        self.assertEqual([t["type"] for t in types], ["account", "calculator", "cluster"])
        self.assertIn("Deposit", types[0]["commands"])
        account = self.call("describe", "account").answer
        deposit, = [c for c in account["commands"] if c["name"] == "Deposit"]
        self.assertEqual(deposit["fields"], {"amount": "int64", "ref": "string"})
        self.assertEqual(deposit["reply"], {"balance": "int64"})

    def test_status_counts(self):
        self.send("account/count", "Open")
        status = self.call("status").answer
        self.assertEqual(len(status["shards"]), 64)
        self.assertGreaterEqual(sum(w["commands"] for w in status["workers"]), 1)
        self.assertGreaterEqual(status["rpc"]["calls"], 2)
        self.assertTrue(status["store"]["id"])

    def test_screen_says_what_is_served_and_where(self):
        for part in ("Troupe", "data", "64", self.node.url, "account", "Deposit", "Balance", "calculator",
                     "troupe --url %s send account/alice Open" % self.node.url):
            self.assertIn(part, self.node.screen)
        self.assertLessEqual(len(self.node.screen.splitlines()), 24)

    def test_bench_prints_its_figures(self):
        figures = self.call("bench", "--seconds", "1", "--callers", "16", "--entities", "20").answer
        self.assertGreater(figures["commands"], 0)
        self.assertEqual(figures["failed"], 0)
        self.assertEqual(figures["payload"], 128)
        self.call("bench", "--callers", "0", code=USAGE)


class Mistakes(OneNode):
    """What is wrong is named, with what was probably meant."""

    def test_unknown_words_suggest_the_nearest(self):
        self.assertIn("did you mean send?", run_troupe("sned", "a/b", "C").err)
        self.assertIn("did you mean --follow?", run_troupe("events", "a/b", "--folow").err)
        self.assertIn("did you mean account?", self.call("send", "acount/a", "Open", code=USAGE).err)
        self.assertIn("did you mean Deposit?", self.call("send", "account/a", "Depsoit", code=USAGE).err)
        self.assertIn("did you mean Balance?", self.call("query", "account/a", "balanc", code=USAGE).err)
        self.assertIn("did you mean calculator?", self.call("describe", "calcultor", code=USAGE).err)

    def test_json_that_does_not_fit_names_the_field(self):
        self.send("account/json", "Open")
        wrong = lambda text: self.call("send", "account/json", "Deposit", text, code=USAGE).err
        self.assertIn("amount", wrong('{"amount": "x"}'))
        self.assertIn("amuont", wrong('{"amuont": 5}'))
        self.assertIn("amount", wrong('{"amount": 1, "amount": 2}'))
        self.assertIn("amount", wrong('{"amount": 1.5}'))
        self.assertTrue(wrong('{"amount": 1'))
        self.assertTrue(wrong("[]"))
        self.assertTrue(wrong("nonsense"))
        self.assertEqual(len(self.call("events", "account/json").lines), 1)

    def test_json_from_standard_input(self):
        self.send("account/stdin", "Open")
        answer = self.call("send", "account/stdin", "Deposit", "-", stdin='{"amount": 12}\n').answer
        self.assertEqual(answer["reply"], {"balance": 12})
        self.call("send", "account/stdin", "Deposit", "-", stdin="x" * 600000, code=USAGE)

    def test_wrong_ids(self):
        for entity in ("account", "account/", "/x", "account/a b", "account/a|b", "account/" + "x" * 129,
                       "account/a\nb"):
            self.call("send", entity, "Open", code=USAGE)
        self.send("account/" + "x" * 128, "Open")
        self.send("account/a/b:c@d=é", "Open")

    def test_wrong_usage(self):
        for words in (["send"], ["send", "account/a"], ["events"], ["state"], ["describe"], ["verify"],
                      ["types", "x"], ["state", "account/a", "--at", "x"], ["send", "account/a", "Open", "--expect"],
                      ["send", "account/a", "Open", "--command-id", "x" * 65], ["events", "account/a", "--from", "x"],
                      ["feed", "--from", "nonsense"], ["status", "--timeout", "0"], [], ["--nothing"],
                      ["state", "account/wrong", "--at", "99"]):
            self.call(*words, code=USAGE)

    def test_wrong_url(self):
        self.assertEqual(run_troupe("status", "--url", "nonsense").code, USAGE)

    def test_help_everywhere(self):
        self.assertIn("describe", run_troupe("help").out)
        self.assertIn("describe", run_troupe("--help").out)
        for command in ("send", "query", "events", "state", "feed", "types", "describe", "status", "verify", "bench",
                        "cluster", "cluster status", "cluster drain", "cluster move", "cluster remove",
                        "cluster configure", "cluster check", "cluster up"):
            for words in ([*command.split(), "--help"], ["help", *command.split()]):
                result = run_troupe(*words)
                self.assertEqual(result.code, DONE)
                self.assertIn("Usage: troupe %s" % command, result.out)
        self.assertRegex(run_troupe("version").out, r"^troupe \d+\.\d+\.\d+$")
        self.assertRegex(run_troupe("--version").out, r"^troupe \d+\.\d+\.\d+$")
        self.assertEqual(run_troupe("help", "nothing").code, USAGE)

    def test_nobody_there(self):
        began = time.monotonic()
        result = run_troupe("status", "--url", "tcp://127.0.0.1:9", "--timeout", "0.5")
        self.assertEqual(result.code, UNAVAILABLE)
        self.assertIn("tcp://127.0.0.1:9", result.err)
        self.assertLess(time.monotonic() - began, 5)

    def test_nobody_reads_the_output(self):
        self.send("account/pipe", "Open")
        process = subprocess.run("'%s' feed --url %s | head -0" % (troupe(), self.node.url), shell=True,
                                 timeout=30, capture_output=True, text=True)
        self.assertEqual(process.returncode, 0)


class Daemon(unittest.TestCase):
    """Start, stop, start again; settings that are wrong."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="troupe-test-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name, text=None):
        path = os.path.join(self.directory, name)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def test_sigterm_ends_it_within_5_s_and_the_next_start_replays_nothing(self):
        with Node() as node:
            for i in range(20):
                run_troupe("send", "account/%d" % i, "Open", url=node.url)
            began = time.monotonic()
            self.assertEqual(node.terminate(), 0)
            self.assertLess(time.monotonic() - began, 5)
            logs = [name for name in os.listdir(node.data) if name.endswith(".log")]
            store = node.data
            if not logs:  # the database may live one level down
                store = next(os.path.join(node.data, d) for d in os.listdir(node.data)
                             if os.path.isdir(os.path.join(node.data, d)))
                logs = [name for name in os.listdir(store) if name.endswith(".log")]
            self.assertEqual([os.path.getsize(os.path.join(store, name)) for name in logs
                              if os.path.getsize(os.path.join(store, name)) > 4096], [])
            node.start()
            self.assertEqual(len(run_troupe("events", "account/7", url=node.url).lines), 1)

    def test_sigint_ends_it_too(self):
        with Node() as node:
            node.signal(signal.SIGINT)
            self.assertEqual(node.wait(5), 0)

    def test_sigterm_answers_what_waits(self):
        with Node() as node:
            run_troupe("send", "account/x", "Open", url=node.url)
            follower = subprocess.Popen([troupe(), "events", "account/x", "--follow", "--url", node.url,
                                         "--timeout", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.assertEqual(json.loads(follower.stdout.readline())["seq"], 1)
            began = time.monotonic()
            self.assertEqual(node.terminate(), 0)
            self.assertLess(time.monotonic() - began, 5)
            self.addCleanup(follower.stderr.close)
            self.addCleanup(follower.stdout.close)
            follower.kill()
            follower.wait()

    def test_kill_9_loses_nothing(self):
        with Node() as node:
            sent = run_troupe("send", "account/k", "Open", url=node.url).answer
            node.kill9()
            node.start()
            events = run_troupe("events", "account/k", url=node.url).lines
            self.assertEqual([e["commandId"] for e in events], [sent["commandId"]])
            again = run_troupe("send", "account/k", "Open", "--command-id", sent["commandId"], url=node.url).answer
            self.assertTrue(again["repeated"])

    def test_a_client_waits_for_a_node_that_comes_back(self):
        with Node() as node:
            node.terminate()
            client = subprocess.Popen([troupe(), "send", "account/w", "Open", "--url", node.url, "--timeout", "30"],
                                      stdout=subprocess.PIPE, text=True)
            node.start()
            out, _ = client.communicate(timeout=40)
            self.assertTrue(json.loads(out)["ok"])

    def test_verify_a_stopped_store(self):
        with Node() as node:
            run_troupe("send", "account/v", "Open", url=node.url)
            self.assertNotEqual(run_troupe("verify", node.data).code, DONE)  # it is open
            node.terminate()
            report = run_troupe("verify", node.data)
            self.assertEqual((report.code, report.answer["ok"], report.answer["problems"]), (DONE, True, 0), report.err)
            self.assertEqual(report.answer["entities"], 2)  # the account, and the cluster of one
            self.assertGreaterEqual(report.answer["events"], 2)
        self.assertEqual(run_troupe("verify", self.path("nothing-here")).code, USAGE)

    def test_two_nodes_on_one_store(self):
        with Node() as node:
            second = run_trouped("--data", node.data, "--rpc", "tcp://127.0.0.1:0")
            self.assertEqual(second.code, 1)
            self.assertIn("trouped:", second.err)
            self.assertTrue(ping(node.host, node.port))

    def test_an_address_in_use_is_named(self):
        with Node() as node:
            second = run_trouped("--data", self.path("other"), "--rpc", node.url)
            self.assertEqual(second.code, 1)
            self.assertIn(node.url, second.err)

    def test_settings_that_are_wrong(self):
        config = self.path("bad.conf", "data = x\n\nmemroy = 5M\n")
        result = run_trouped("--config", config)
        self.assertEqual(result.code, USAGE)
        self.assertIn("bad.conf:3", result.err)
        self.assertIn("did you mean memory?", result.err)
        self.assertIn("did you mean --data?", run_trouped("--dta", "x").err)
        world = run_trouped("--rpc", "tcp://0.0.0.0:0")
        self.assertEqual(world.code, USAGE)
        self.assertIn("--insecure-listen-anywhere", world.err)
        missing = run_trouped("--data", self.path("missing"), "--create", "no", "--rpc", "tcp://127.0.0.1:0")
        self.assertEqual(missing.code, 1)
        self.assertFalse(os.path.exists(self.path("missing/CURRENT")))

    def test_print_config_reads_back(self):
        first = run_trouped("--print-config", "--memory", "1G", "--data", "/somewhere")
        self.assertEqual(first.code, 0)
        again = run_trouped("--print-config", "--config", self.path("printed.conf", first.out))
        self.assertEqual(first.out, again.out)
        self.assertIn("memory = 1073741824", first.out)

    def test_help_and_version(self):
        self.assertIn("--module", run_trouped("--help").out)
        self.assertRegex(run_trouped("--version").out, r"^trouped \d+\.\d+\.\d+$")

    def test_a_config_file_is_used(self):
        socket = self.path("rpc.sock")
        config = self.path("node.conf", "rpc = ipc://%s\nshards = 8\nlog-level = warn\n" % socket)
        process = subprocess.Popen([trouped(), "--config", config, "--data", self.path("data")],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        for line in process.stdout:
            if line.startswith("ready"):
                break
        try:
            status = run_troupe("status", "--url", "ipc://" + socket)
            self.assertEqual(len(status.answer["shards"]), 8)
        finally:
            process.terminate()
            self.assertEqual(process.wait(10), 0)

    def test_modules_that_are_wrong(self):
        start = lambda module: run_trouped("--data", self.path("data"), "--rpc", "tcp://127.0.0.1:0", "--module", module)
        missing = start(self.path("missing.so"))
        self.assertEqual(missing.code, 1)
        self.assertIn("missing.so", missing.err)
        garbage = self.path("garbage.so", "not a shared object")
        self.assertEqual(start(garbage).code, 1)
        os.chmod(garbage, stat.S_IRWXU | stat.S_IWOTH | stat.S_IROTH)
        writable = start(garbage)
        self.assertEqual(writable.code, 1)
        self.assertIn("garbage.so", writable.err)


if __name__ == "__main__":
    unittest.main(verbosity=int(os.environ.get("VERBOSE") or 1))
