#!/usr/bin/env python3
"""Runs every test stage and ends with one line "N passed, N failed".

    tests/run.py [--list] [--only STAGE,STAGE] [--seconds-per-fuzzer N] [--jobs N]

A stage builds what it needs, runs its programs and reports test cases by name. A case counts once,
however many builds (debug, release, asan, tsan) run it, and passes when it passes in all of them. A
program that is missing, crashes, hangs or does not build is a failed case of its own. Logs are in
build/test-logs/; the tail of a failed one is printed. Standard library only.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, "build", "test-logs")
TAIL_LINES = 40


class Result:
    """The cases of all stages so far: name -> passed everywhere."""

    def __init__(self):
        self.cases = {}
        self.failures = []

    def add(self, name, passed, where=""):
        self.cases[name] = self.cases.get(name, True) and passed
        if not passed:
            self.failures.append((name, where))

    def count(self):
        passed = sum(self.cases.values())
        return passed, len(self.cases) - passed


class Run:
    """One finished program: its exit code (None: timed out) and where its output is."""

    def __init__(self, code, log):
        self.code = code
        self.log = log

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def tail(self):
        lines = self.text().splitlines()
        cut = ["    ... all of it in " + os.path.relpath(self.log, ROOT)] if len(lines) > TAIL_LINES else []
        return "\n".join(cut + ["    " + line for line in lines[-TAIL_LINES:]])


def execute(command, log, seconds, env=None):
    """Runs in a process group of its own, so that a time-out takes its children along."""
    path = os.path.join(LOGS, re.sub(r"[^A-Za-z0-9._-]+", "-", log) + ".log")
    with open(path, "wb") as out:
        child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                                 stdin=subprocess.DEVNULL, start_new_session=True,
                                 env={**os.environ, **(env or {})})
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        if code is None:
            out.write(b"\ntimed out after %d s\n" % seconds)
    return Run(code, path)


def how_it_ended(run):
    if run.code is None:
        return "timed out"
    if run.code < 0:
        return "killed by " + signal.Signals(-run.code).name
    return "exit code %d" % run.code


class Driver:
    def __init__(self, args):
        self.args = args
        self.result = Result()
        self.stage = ""

    # ---- reporting

    def say(self, text):
        print(text, flush=True)

    def fail(self, name, run, why=None):
        self.result.add(name, False, self.stage)
        self.say("  FAILED %s (%s)\n%s" % (name, why or how_it_ended(run), run.tail()))

    # ---- building

    def make(self, *words, log, seconds=900):
        """True when it built. A failed build is one failed case."""
        run = execute(["make", "--no-print-directory", "-k", "-j%d" % self.args.jobs, *words], log, seconds)
        if run.code != 0:
            self.fail("build " + " ".join(words), run)
        return run.code == 0

    def build(self, variant):
        return self.make("V=" + variant, "all", "check-build", log="build-" + variant)

    # ---- cmocka

    def cmocka_cases(self, program, run):
        """Each case by its line; a program that says less than it should is a failed case."""
        text = run.text()
        passed = re.findall(r"^\[ +OK \] (\S+)", text, re.M)
        failed = set(re.findall(r"^\[  (?:FAILED|ERROR)  \] (\S+)$", text, re.M))
        skipped = set(re.findall(r"^\[  SKIPPED \] (\S+)$", text, re.M))
        promised = sum(int(n) for n in re.findall(r"Running (\d+) test\(s\)", text))
        for name in passed:
            self.result.add("%s: %s" % (program, name), True)
        for name in sorted(failed):
            self.result.add("%s: %s" % (program, name), False, self.stage)
        whole = promised > 0 and len(set(passed)) + len(failed) + len(skipped) >= promised
        if failed:
            self.say("  FAILED %s: %s\n%s" % (program, ", ".join(sorted(failed)), run.tail()))
        elif run.code != 0 or not whole:
            self.fail(program, run, None if run.code != 0 else "ran fewer cases than it promised")
        return len(set(passed))

    def run_units(self, variant, programs, seconds):
        env = {"TSAN_OPTIONS": "suppressions=tests/tsan.supp", "ASAN_OPTIONS": "detect_leaks=1",
               "LSAN_OPTIONS": "suppressions=tests/lsan.supp:print_suppressions=0"}

        def one(program):
            binary = os.path.join("build", variant, program)
            if not os.path.exists(os.path.join(ROOT, binary)):
                return program, None
            return program, execute([binary], "%s-%s" % (variant, program), seconds, env)

        count = 0
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            for program, run in pool.map(one, programs):
                if run is None:
                    self.result.add(program, False, self.stage)
                    self.say("  FAILED %s: not built" % program)
                else:
                    count += self.cmocka_cases(program, run)
        return count

    def units(self):
        return sorted(p[:-2] for p in glob.glob("tests/unit/**/test_*.c", root_dir=ROOT, recursive=True))

    def unit_stage(self, variant, select=None, seconds=600):
        self.build(variant)
        programs = [p for p in self.units() if select is None or select(p)]
        return self.run_units(variant, programs, seconds)

    # ---- scripts that print unittest's summary or "N passed, N failed"

    def script(self, path, seconds, *words):
        run = execute([sys.executable, path, *words], path, seconds, self.binaries())
        return self.script_cases(path, run)

    def scripts(self, paths, seconds, *words):
        """As many at a time as there are jobs: they wait for their servers most of the time."""
        def one(path):
            return execute([sys.executable, path, *words], path, seconds, self.binaries())

        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            return sum(self.script_cases(path, run) for path, run in zip(paths, pool.map(one, paths)))

    def script_cases(self, path, run):
        text = run.text()
        own = re.findall(r"^(\d+) passed, (\d+) failed$", text, re.M)
        ran = sum(int(n) for n in re.findall(r"^Ran (\d+) tests?", text, re.M))
        skipped = sum(int(n) for n in re.findall(r"\bskipped=(\d+)", text))
        passed = bad = 0
        if ran:
            bad = sum(int(n) for n in re.findall(r"\b(?:failures|errors|unexpected successes)=(\d+)", text))
            passed = ran - bad - skipped
        elif own:
            passed, bad = int(own[-1][0]), int(own[-1][1])
        names = [n.strip() for n in re.findall(r"^(?:FAIL|ERROR): ([^(\n]+)", text, re.M)]
        for i in range(passed):
            self.result.add("%s: passed %d" % (path, i + 1), True)
        for i in range(bad):
            name = names[i] if i < len(names) else "failed %d" % (i + 1)
            self.result.add("%s: %s" % (path, name), False, self.stage)
        if bad:
            self.say("  FAILED %s: %d of %d\n%s" % (path, bad, passed + bad, run.tail()))
        elif run.code != 0 or passed + skipped == 0:
            self.fail(path, run, None if run.code != 0 else "no test case found in its output")
        if skipped:
            self.say("  %s: %d skipped" % (path, skipped))
        return passed

    def binaries(self):
        build = os.path.join(ROOT, "build", "release", "cmd")
        return {"TROUPED": os.path.join(build, "trouped", "trouped"),
                "TROUPE": os.path.join(build, "troupe", "troupe"),
                "PYTHONDONTWRITEBYTECODE": "1"}


# ---- the stages, in the order in which people want to hear bad news --------------------------

# One thread of ours: the thread sanitizer has nothing to see there.
UNTHREADED = (r"proto/test_|actors/(account|calculator)/|runtime/base/test_(base|bytes|err|hash)|"
              r"persistence/test_(damage|store)$|clustersim/test_mem$|sharding/test_raft_")


def stage_debug(driver):
    return driver.unit_stage("debug")


def stage_release(driver):
    return driver.unit_stage("release")


def stage_lint(driver):
    """One case per check; the guards themselves have to go red on planted faults."""
    count = 0
    for check in ("fmt-check", "layers", "headers", "prefixes", "purity", "tidy", "cppcheck"):
        run = execute(["make", "--no-print-directory", "V=debug", check], "lint-" + check, 1800)
        if run.code == 0:
            driver.result.add("lint: " + check, True)
            count += 1
        else:
            driver.fail("lint: " + check, run)
    run = execute(["sh", "tests/lint/selftest.sh"], "lint-selftest", 120)
    return count + driver.script_cases("tests/lint/selftest.sh", run)


def stage_asan(driver):
    return driver.unit_stage("asan")


def stage_tsan(driver):
    count = driver.unit_stage("tsan", lambda p: not re.search(UNTHREADED, p))
    for source in sorted(glob.glob("tests/stress/**/stress_*.c", root_dir=ROOT, recursive=True)):
        program = source[:-2]
        run = execute(["build/tsan/" + program], "tsan-" + program, 300,
                      {"TSAN_OPTIONS": "suppressions=tests/tsan.supp"})
        if run.code == 0:
            driver.result.add(program, True)
            count += 1
        else:
            driver.fail(program, run)
    return count


def stage_integration(driver):
    """Scripts with test cases in tests/integration/ and tests/client/; the others are their tools."""
    driver.build("release")

    def has_cases(path):
        with open(os.path.join(ROOT, path)) as f:
            return "unittest.main" in f.read()

    paths = sorted(glob.glob("tests/integration/*.py", root_dir=ROOT) + glob.glob("tests/client/*.py", root_dir=ROOT))
    return driver.scripts([path for path in paths if has_cases(path)], 900, "-v")


# What: program, folder of its kept seeds, new seeds, seconds that they may take.
SIMULATORS = {"groups": ("tests/sim/sim", 2000, 600), "clusters": ("tests/clustersim/clustersim", 2000, 1200)}


def simulate(driver, what, program, seeds, seconds):
    """Seeds that failed once, new ones, and some twice."""
    binary = "build/release/" + program
    if not os.path.exists(os.path.join(ROOT, binary)):
        driver.result.add("sim of " + what, False, driver.stage)
        return 0
    jobs = "-j%d" % driver.args.jobs
    log = "sim-%s-" % what
    kept = os.path.join(os.path.dirname(program), "seeds.txt")
    twice = [execute([binary, "-s", "1", "-n", "20", "-d"], log + "digest-%d" % i, 120) for i in (1, 2)]
    same = twice[0].code == 0 and len(twice[0].text()) > 0 and twice[0].text() == twice[1].text()
    runs = {"sim of %s: seeds that failed once" % what: execute([binary, jobs, "-f", kept], log + "kept", 120),
            "sim of %s: %d seeds" % (what, seeds): execute([binary, jobs, "-n", str(seeds)], log + "new", seconds)}
    driver.result.add("sim of %s: two runs of a seed are one" % what, same, driver.stage)
    if not same:
        driver.say("  FAILED sim of %s: two runs of 20 seeds differ: %sdigest-1.log, -2.log" % (what, log))
    for name, run in runs.items():
        if run.code == 0:
            driver.result.add(name, True)
        else:
            driver.fail(name, run)
    return sum(run.code == 0 for run in runs.values()) + same


def stage_sim(driver):
    """Whole groups of replicas, and whole clusters, in one thread from one seed."""
    driver.make("V=release", *["build/release/" + program for program, _, _ in SIMULATORS.values()], log="build-sim")
    return sum(simulate(driver, what, *how) for what, how in SIMULATORS.items())


def stage_fuzz(driver):
    sources = sorted(glob.glob("tests/fuzz/**/fuzz_*.c", root_dir=ROOT, recursive=True))
    programs = [s[:-2] for s in sources]
    driver.make("V=fuzz", *["build/fuzz/" + p for p in programs], log="build-fuzz")
    seconds = driver.args.seconds_per_fuzzer

    def one(program):
        corpus = os.path.join("build", "corpus", program)
        os.makedirs(os.path.join(ROOT, corpus), exist_ok=True)
        binary = "build/fuzz/" + program
        if not os.path.exists(os.path.join(ROOT, binary)):
            return None
        return execute([binary, "-max_total_time=%d" % seconds, "-rss_limit_mb=2048",
                        "-artifact_prefix=" + os.path.join("build", "test-logs", ""), corpus],
                       program, seconds + 60)

    count = 0
    with concurrent.futures.ThreadPoolExecutor(driver.args.jobs) as pool:
        for program, run in zip(programs, pool.map(one, programs)):
            if run is None:
                driver.result.add(program, False, driver.stage)
                driver.say("  FAILED %s: not built" % program)
            elif run.code == 0:
                driver.result.add(program, True)
                count += 1
            else:
                driver.fail(program, run)
    return count


def stage_chaos(driver):
    """The short forms: a few kills, cuts and damages; `make chaos` is the long one."""
    path = "tests/chaos/short.py"
    if not os.path.exists(os.path.join(ROOT, path)):
        driver.result.add(path, False, driver.stage)
        driver.say("  FAILED %s: missing" % path)
        return 0
    driver.build("release")
    return driver.script(path, 2400)


def stage_spin(driver):
    """Models of the protocol, whole; each planted fault has to be found."""
    return driver.script("tests/spin/run.py", 600)


def stage_explore(driver):
    """Every order of events in small groups of the real core, to the depths meant for here."""
    driver.build("release")
    run = execute([os.path.join("build", "release", "tests", "explore", "explore"), "--quick"], "explore", 600)
    return driver.script_cases("tests/explore", run)


def stage_mutants(driver):
    """Rules of consensus broken one at a time; the tests have to notice each."""
    driver.build("debug")
    run = execute([sys.executable, "tests/mutants/mutants.py", "--few"], "mutants", 300)
    total = re.findall(r"^(\d+) mutants, (\d+) killed$", run.text(), re.M)
    killed = int(total[-1][1]) if total else 0
    for i in range(killed):
        driver.result.add("mutants: killed %d" % (i + 1), True)
    if run.code != 0 or killed == 0:
        driver.fail("mutants", run)
    return killed


STAGES = {
    "debug": (stage_debug, "unit tests, debug build"),
    "release": (stage_release, "unit tests, release build"),
    "lint": (stage_lint, "format, layers, headers, prefixes, purity, clang-tidy, cppcheck"),
    "integration": (stage_integration, "daemon and command line, release build"),
    "asan": (stage_asan, "unit tests, address and undefined behaviour sanitizers"),
    "tsan": (stage_tsan, "threaded parts, thread sanitizer"),
    "spin": (stage_spin, "models of membership change and hand-off, every state"),
    "mutants": (stage_mutants, "some broken rules of consensus, each seen by its test"),
    "explore": (stage_explore, "every order of events in small groups of the real Raft core"),
    "sim": (stage_sim, "groups of replicas on a simulated network and disk, from seeds"),
    "fuzz": (stage_fuzz, "each fuzzer for some seconds, with sanitizers"),
    "chaos": (stage_chaos, "kill -9, power cut, damaged files: short forms"),
}
# The same tests as those of asan: only when named.
EXTRA = {"debug"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the stages")
    parser.add_argument("--only", default="", metavar="STAGE,STAGE", help="run just these")
    parser.add_argument("--seconds-per-fuzzer", type=int, default=10, metavar="N")
    parser.add_argument("--jobs", type=int, default=max(2, os.cpu_count() or 2), metavar="N")
    return parser.parse_args()


def main():
    args = arguments()
    if args.list:
        for name, (_, text) in STAGES.items():
            print("%-12s %s%s" % (name, text, " (only when named)" if name in EXTRA else ""))
        return 0
    wanted = [name for name in args.only.split(",") if name] or [name for name in STAGES if name not in EXTRA]
    for name in wanted:
        if name not in STAGES:
            print("no stage %s; there are: %s" % (name, ", ".join(STAGES)), file=sys.stderr)
            return 2
    os.chdir(ROOT)
    os.makedirs(LOGS, exist_ok=True)
    driver = Driver(args)
    start = time.monotonic()
    for number, name in enumerate(wanted, 1):
        function, text = STAGES[name]
        driver.stage = name
        driver.say("[%d/%d] %s: %s" % (number, len(wanted), name, text))
        began, failures = time.monotonic(), len(driver.result.failures)
        try:
            count = function(driver)
        except Exception:  # a defect of this file must not look like a shorter test
            count = 0
            driver.result.add("stage " + name, False, name)
            driver.say(traceback.format_exc())
        bad = len(driver.result.failures) - failures
        driver.say("  %d ok, %d failed, %.0f s" % (count, bad, time.monotonic() - began))
    if driver.result.failures:
        driver.say("\nfailed:")
        for name, where in driver.result.failures:
            driver.say("  %s [%s]" % (name, where))
    driver.say("%.0f s" % (time.monotonic() - start))
    passed, failed = driver.result.count()
    driver.say("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
