#!/usr/bin/env python3
"""Verifies the spin models of this folder, and that spin finds every planted fault.

    run.py [--long] [--model NAME] [--trail]

A model without -D holds its claims in all its states; each -D of its head comment takes one rule away
and has to be found. Prints one line per verification and ends with "N passed, N failed". --long uses
bigger bounds (minutes). --trail prints the steps to each fault that was found; those to a claim that
does not hold are always printed. Needs spin and gcc; says so and passes when spin is missing.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY_MB = {False: 800, True: 3000}
SECONDS = {False: 240, True: 900}

# Bounds in CI, bounds of --long, planted faults.
MODELS = {
    "members": (["-DCHANGES=2"], ["-DCHANGES=3"], [["-DNO_OWN_TERM"], ["-DTWO_AT_ONCE", "-DCHANGES=3"]]),
    "handoff": (["-DTERMS=2"], ["-DTERMS=3", "-DLONG"],
                [["-DNO_LEASE_END"], ["-DLEASE_AGAIN"], ["-DNO_VOTE_HOLD"], ["-DNO_MARGIN"], ["-DNO_OWN_TERM"]]),
}


def call(command, folder, seconds=120):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=seconds, text=True, check=False)
    return done.stdout


def number(text, pattern):
    found = re.search(pattern, text, re.M)
    return int(float(found.group(1))) if found else 0


def steps(folder, model, defines):
    """The counterexample as the model's own lines."""
    out = call(["spin", "-t", "-B", *defines, model + ".pml"], folder)
    return [line.strip() for line in out.splitlines() if re.match(r"\s+(node|a) ", line)]


def verify(model, defines, long):
    """(verdict, line of the table, counterexample)"""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(HERE, model + ".pml"), folder)
        began = time.monotonic()
        build = call(["spin", "-a", *defines, model + ".pml"], folder)
        build += call(["gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DNOREDUCE",
                       "-DMEMLIM=%d" % MEMORY_MB[long], "-o", "pan", "pan.c"], folder)
        try:
            out = call(["./pan", "-m40000"], folder, SECONDS[long])
        except FileNotFoundError:
            return "does not build", "", build.splitlines()
        except subprocess.TimeoutExpired:
            return "out of time", "", []
        line = "%10d states, depth %5d, %4.0f MB, %5.1f s" % (
            number(out, r"^\s*(\S+) states, stored"), number(out, r"depth reached (\d+)"),
            number(out, r"(\S+)\s+total actual memory"), time.monotonic() - began)
        if re.search(r"assertion violated", out):
            return "violated", line, steps(folder, model, defines)
        if re.search(r"errors: 0$", out, re.M) and not re.search(r"max search depth too small|out of memory", out):
            return "holds", line, []
        return "cut short", line, out.splitlines()[:20]


def cases(model, long):
    """(defines, expected verdict) of everything to verify of one model."""
    small, large, faults = MODELS[model]
    yield (large if long else small), "holds"
    for fault in faults:
        bounds = [] if any("=" in word for word in fault) else small
        yield bounds + fault, "violated"


def report(model, defines, expected, found, trail_wanted):
    """One line of the table; the steps below it where they are asked for or are news."""
    verdict, line, trail = found
    name = " ".join([model] + [d[2:] for d in defines])
    blame = "" if verdict == expected else "  FAILED: should be " + expected
    print("%-28s %s  %s%s" % (name, line, verdict, blame), flush=True)
    if trail and (blame or trail_wanted):
        print("\n".join("    " + step for step in trail))
    return verdict == expected


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--model", choices=sorted(MODELS), action="append")
    parser.add_argument("--trail", action="store_true")
    args = parser.parse_args()
    if not shutil.which("spin") or not shutil.which("gcc"):
        print("spin is not installed (Debian package spin): models not verified, skipped=1")
        return 0
    todo = [(m, d, e) for m in args.model or MODELS for d, e in cases(m, args.long)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda case: verify(case[0], case[1], args.long), todo)
        good = [report(*case, f, args.trail) for case, f in zip(todo, found)]
    passed, failed = sum(good), len(good) - sum(good)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
