#!/usr/bin/env python3
"""Breaks one rule of consensus at a time and shows which tests notice.

    tests/mutants/mutants.py [--few] [--all] [--only NAME,NAME] [--without LANE] [--seeds N] [--keep]

list.toml says what to break: a text that must occur exactly once in its file (else the list has
rotted, which is an error) and what to put there. Each mutant is compiled into the programs of the
lanes, which run in the order of their cost until one kills it: a failed or aborted test, a violation,
a hang. First the unbroken code must pass all lanes. Exit code 1: a mutant survives, or the directed
test that the list names for it does not see it. Run by `make mutants`; needs the debug build.
Standard library only.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join("build", "mutants")
BUILT = os.path.join("build", "debug")


class Rotten(Exception):
    """The list does not fit the sources."""


class Program:
    """A test program of some source, and how to link it with something else in place of what it is made of."""

    def __init__(self, source, name=None):
        self.name = name or source[:-2]
        self.binary = os.path.join(BUILT, self.name)
        with open(source) as f:
            text = f.read()
        self.tests = re.findall(r"cmocka_unit_test\w*\(\s*(\w+)", text) if "set_test_filter" in text else []
        self.link = None

    def link_with(self, objects, directory):
        """The mutant's objects come before the libraries, so that those of the libraries are not
        taken; programs that list the broken source themselves get it replaced."""
        words, out = [], os.path.join(directory, os.path.basename(self.name))
        for word in self.link:
            name = word[len(BUILT) + 1:-2] + ".c" if word.startswith(BUILT) and word.endswith(".o") else None
            if name in objects:
                continue
            if word.endswith(".a") and objects:
                words += sorted(objects.values())
                objects = {}
            words.append(out if word == self.binary else word)
        subprocess.run(words, check=True)
        return out


def link_lines(programs):
    """What make would do if the libraries were new."""
    if not programs:
        return
    command = ["make", "-n", "V=debug", "VERBOSE=1", "-W", os.path.join(BUILT, "libsharding.a")]
    text = subprocess.run(command + [p.binary for p in programs], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    lines = [shlex.split(line) for line in text.splitlines() if " -o " in line and not line.startswith("\t")]
    for program in programs:
        program.link = next(words for words in lines if program.binary in words)


def compile_line():
    """The compiler and its flags, as the build noted them, without those of the linker."""
    with open(os.path.join(BUILT, ".flags")) as f:
        return shlex.split(f.read())


def run(command, seconds, env=None):
    """None when all is well, else what went wrong."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
                              text=True, errors="replace", env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    return done.stdout.strip() or "exit code %d" % done.returncode


class Lane:
    """Some programs; kill() names the tests that fail and the first reason."""

    def __init__(self, name, sources, seconds, words=()):
        self.name = name
        self.seconds = seconds
        self.words = list(words)
        self.programs = [Program(source) for source in sources]

    def sees(self, objects):
        """The bench has no host, groups alone have no entities, and clusters of them add nothing to groups."""
        core = any(path.startswith("sharding/raft") for path in objects)
        cluster = all(re.match(CLUSTER, path) for path in objects)
        return {"directed": core, "host": not cluster, "sim": not cluster, "explore": not cluster,
                "actors": any(path.startswith("actors/") for path in objects), "clusters": cluster or all(re.match(BETWEEN, path) for path in objects)}[self.name]

    def kill(self, objects, directory, jobs, leaning=None):
        words = self.words + (["-l", str(leaning)] if leaning and self.name == "clusters" else [])
        work = []
        for program in self.programs:
            binary = program.link_with(dict(objects), directory)
            work += [(test, [binary, test]) for test in program.tests] or \
                    [(os.path.basename(program.name), [binary, *words])]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            ends = list(pool.map(lambda item: run(item[1], self.seconds), work))
        failures = []
        for (test, _), end in zip(work, ends):
            if end is not None:
                named = re.findall(r"^\[  FAILED  \] (\w+)$", end, re.M)
                failures += [(name, end) for name in dict.fromkeys(named)] or [(test, end)]
        return failures


# What stands above groups of replicas, and tests that know nothing of a group's host.
CLUSTER = r"actors/|sharding/(ask|calls|coordinator|reconcile|region|report|serve)\.c"
# What is between nodes has unit tests of its own, and clusters see it too.
BETWEEN = r"sharding/(outgoing|region_frame)\.c"
NOT_HOST = "test_(raft_|node|message|members|transport|handshake|cluster|coordinator|allocate|reports)"


def lanes(args):
    """From cheap to dear. A lane without programs in this tree is left out."""
    found = [
        Lane("directed", sorted(glob.glob("tests/unit/sharding/test_raft_*.c")), 20),
        Lane("host", [source for source in sorted(glob.glob("tests/unit/sharding/test_*.c"))
                      if not re.search(NOT_HOST, source)], 60),
        Lane("actors", ["tests/unit/actors/test_%s.c" % name for name in ("after", "dedupe", "shard", "shard_story", "unindexed")],
             120),
    ]
    if not args.few and os.path.exists("tests/sim/main.c"):
        sim = Lane("sim", [], 300, ["-n", str(args.seeds), "-j", str(args.jobs)])
        sim.programs = [Program("tests/sim/main.c", "tests/sim/sim")]
        found.append(sim)
    if not args.few and os.path.exists("tests/explore/explore.c"):
        explore = Lane("explore", [], 300, ["--quick", "--stop", "--seconds", "8"])
        explore.programs = [Program("tests/explore/explore.c", "tests/explore/explore")]
        found.append(explore)
    if not args.few and os.path.exists("tests/clustersim/main.c"):
        clusters = Lane("clusters", [], 600, ["-f", "tests/clustersim/seeds.txt", "-n", str(args.seeds),
                                       "-j", str(args.jobs)])
        clusters.programs = [Program("tests/clustersim/main.c", "tests/clustersim/clustersim")]
        found.append(clusters)
    return [lane for lane in found if lane.programs and lane.name not in args.without.split(",")]


# ---- mutants ---------------------------------------------------------------------------------


def edits(mutant):
    return [mutant] + mutant.get("also", [])


def broken_texts(mutant):
    """Each source that it breaks, as it is then."""
    texts = {}
    for edit in edits(mutant):
        path = edit.get("file", mutant["file"])
        if path not in texts:
            with open(path) as f:
                texts[path] = f.read()
        count = texts[path].count(edit["old"])
        if count != 1:
            raise Rotten("%s: the text to replace occurs %d times in %s" % (mutant["name"], count, path))
        texts[path] = texts[path].replace(edit["old"], edit["new"])
    return texts


def break_sources(mutant, directory):
    """Writes the broken files, compiles them: source -> object."""
    objects = {}
    for path, text in broken_texts(mutant).items():
        broken = os.path.join(directory, path)
        os.makedirs(os.path.dirname(broken), exist_ok=True)
        with open(broken, "w") as f:
            f.write(text)
        objects[path] = broken[:-2] + ".o"
        flags = [w for w in compile_line() if w != "-Werror"] + ["-w"]
        done = subprocess.run([*flags, "-c", broken, "-o", objects[path]], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise Rotten("%s does not compile:\n%s" % (mutant["name"], done.stdout))
    return objects


def rot(mutant):
    """Why it cannot be applied any more, None: it can."""
    try:
        broken_texts(mutant)
    except Rotten as why:
        return str(why)
    return None


def try_mutant(mutant, all_lanes, args):
    """(names of the lanes that kill it, failures in the first, seconds)."""
    directory = os.path.join(OUT, mutant["name"])
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    began = time.monotonic()
    objects = break_sources(mutant, directory)
    killers, first = [], []
    for lane in all_lanes:
        leaning = mutant.get("leaning")
        failures = lane.kill(objects, directory, args.jobs, leaning) if lane.sees(objects) else []
        if failures:
            killers.append(lane.name)
            first = first or failures
            if not args.all:
                break
    if not args.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return killers, first, time.monotonic() - began


def control(all_lanes, args):
    directory = os.path.join(OUT, "control")
    os.makedirs(directory, exist_ok=True)
    bad = False
    for lane in all_lanes:
        began = time.monotonic()
        failures = lane.kill({}, directory, args.jobs)
        tests = sum(max(1, len(p.tests)) for p in lane.programs)
        print("control: %-9s %3d tests, %5.1f s%s" % (
            lane.name, tests, time.monotonic() - began, "" if not failures else "  FAILED"), flush=True)
        for test, end in failures:
            print("    %s: %s" % (test, end[-300:]))
        bad = bad or bool(failures)
    return not bad


def report(mutant, killers, failures, seconds):
    """One line of the table; True when it is as it should be."""
    names = [test for test, _ in failures]
    wanted = mutant.get("by")
    missed = wanted is not None and wanted not in names
    others = sorted(set(names) - {wanted})
    shown = ([wanted] if wanted in names else []) + others
    more = "" if len(shown) <= 1 else " (and %d more)" % (len(shown) - 1)
    print("%-40s %-4s %-9s %5.1f  %s%s" % (
        mutant["name"], mutant["rule"], "+".join(killers) or "SURVIVES", seconds,
        shown[0] if shown else "-", more), flush=True)
    if missed:
        print("    NOT SEEN by %s" % wanted)
    return bool(killers) and not missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--few", action="store_true", help="some per rule and the cheap lanes, for every merge")
    parser.add_argument("--only", default="", metavar="NAME,NAME")
    parser.add_argument("--all", action="store_true", help="all lanes, not only up to the first that kills")
    parser.add_argument("--without", default="", metavar="LANE,LANE")
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="of the simulation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument("--keep", action="store_true", help="keep the broken sources and programs")
    args = parser.parse_args()
    os.chdir(ROOT)
    with open(os.path.join("tests", "mutants", "list.toml"), "rb") as f:
        mutants = tomllib.load(f)["mutant"]
    only = [name for name in args.only.split(",") if name]
    rotten = [text for text in map(rot, mutants) if text]
    mutants = [m for m in mutants if (not only or m["name"] in only) and (not args.few or m.get("few"))]
    all_lanes = lanes(args)
    link_lines([p for lane in all_lanes for p in lane.programs])
    began = time.monotonic()
    if not control(all_lanes, args):
        return 1
    print("\n%-40s %-4s %-9s %5s  %s" % ("mutant", "rule", "killed by", "s", "test"))
    for why in rotten:
        print("ROTTEN: %s" % why)
    killed, good = 0, True
    for mutant in mutants:
        try:
            killers, failures, seconds = try_mutant(mutant, all_lanes, args)
        except Rotten as why:
            print(why)
            good = False
            continue
        killed += bool(killers)
        good = report(mutant, killers, failures, seconds) and good
    print("%.0f s" % (time.monotonic() - began))
    print("%d mutants, %d killed" % (len(mutants), killed))
    return 0 if good and not rotten else 1


if __name__ == "__main__":
    sys.exit(main())
