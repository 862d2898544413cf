#!/usr/bin/env python3
"""tests/run.py is believed by everybody, so it is seen red: programs that fail, crash, hang, say less
than they promised or are missing must all be counted as failed."""

import contextlib
import io
import os
import stat
import sys
import tempfile
import types
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))

import run  # noqa: E402

PASSES = "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\n[       OK ] b\n" \
         "[==========] 2 test(s) run.\n[  PASSED  ] 2 test(s).\n"
FAILS = "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\n[  FAILED  ] b\n" \
        "[  PASSED  ] 1 test(s).\n[  FAILED  ] tests: 1 test(s), listed below:\n[  FAILED  ] b\n"
CRASHES = "[==========] Running 2 test(s).\n[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\n"


class DriverTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.saved = run.ROOT, run.LOGS
        self.addCleanup(lambda: setattr(run, "ROOT", self.saved[0]) or setattr(run, "LOGS", self.saved[1]))
        run.ROOT = run.LOGS = self.directory.name
        self.driver = run.Driver(types.SimpleNamespace(jobs=2, seconds_per_fuzzer=1))
        self.driver.stage = "test"
        self.said = io.StringIO()
        redirect = contextlib.redirect_stdout(self.said)
        redirect.__enter__()
        self.addCleanup(redirect.__exit__, None, None, None)

    def program(self, name, text, ending="exit 0"):
        path = os.path.join(self.directory.name, "build", "debug", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("#!/bin/sh\ncat << 'END'\n%sEND\n%s\n" % (text, ending))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return name

    def counts(self, *programs, seconds=20):
        self.driver.run_units("debug", programs, seconds)
        return self.driver.result.count()

    def test_counts_what_passes(self):
        self.assertEqual(self.counts(self.program("x", PASSES)), (2, 0))

    def test_a_failed_case_is_failed_and_named(self):
        self.assertEqual(self.counts(self.program("x", FAILS, "exit 1")), (1, 1))
        self.assertIn("x: b", [name for name, _ in self.driver.result.failures])

    def test_a_case_that_fails_in_one_build_is_failed(self):
        self.counts(self.program("x", PASSES))
        self.assertEqual(self.counts(self.program("x", FAILS, "exit 1")), (1, 1))
        self.assertEqual(self.counts(self.program("x", PASSES)), (1, 1))

    def test_a_crash_is_failed(self):
        self.assertEqual(self.counts(self.program("x", CRASHES, "kill -SEGV $$")), (1, 1))
        self.assertIn("SIGSEGV", self.said.getvalue())

    def test_an_early_end_with_code_0_is_failed(self):
        self.assertEqual(self.counts(self.program("x", CRASHES)), (1, 1))

    def test_a_good_end_with_a_bad_code_is_failed(self):
        self.assertEqual(self.counts(self.program("x", PASSES, "exit 66")), (2, 1))

    def test_a_hang_is_failed(self):
        self.assertEqual(self.counts(self.program("x", CRASHES, "sleep 60"), seconds=1), (1, 1))

    def test_a_missing_program_is_failed(self):
        self.assertEqual(self.counts("nowhere"), (0, 1))

    def script(self, text, code):
        log = os.path.join(self.directory.name, "script.log")
        with open(log, "w") as f:
            f.write(text)
        self.driver.script_cases("script.py", run.Run(code, log))
        return self.driver.result.count()

    def test_unittest_summaries(self):
        self.assertEqual(self.script("Ran 5 tests in 1.0s\n\nOK (skipped=2)\n", 0), (3, 0))

    def test_unittest_failures(self):
        text = "FAIL: test_a (x)\nERROR: test_b (x)\nRan 5 tests in 1s\n\nFAILED (failures=1, errors=1)\n"
        self.assertEqual(self.script(text, 1), (3, 2))

    def test_own_summaries(self):
        self.assertEqual(self.script("  Ran 7 tests in 1s\n4 passed, 1 failed\n", 1), (4, 1))

    def test_a_script_that_says_nothing_is_failed(self):
        self.assertEqual(self.script("", 0), (0, 1))

    def test_a_script_that_dies_is_failed(self):
        self.assertEqual(self.script("Traceback\n", 1), (0, 1))


if __name__ == "__main__":
    unittest.main()
