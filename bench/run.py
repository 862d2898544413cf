#!/usr/bin/env python3
"""make bench: every figure of ours beside the same work of a peer, in rounds, with the load shown.

A round measures all of ours and all of the peers' once, next to each other; a row shows the median of
the rounds, its ratio is the median of the rounds' own ratios. BENCH_ROUNDS=3 BENCH_ONLY=row,row
BENCH_SECONDS=2 (of each run) BENCH_LIMIT=840 (of everything, seconds) BENCH_DIR=/var/tmp
BENCH_WAIT=0 (seconds to wait before each run until others use less than a tenth of the machine).
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

from machine import CORES, Watch, filesystem
from node import Absent, end_cleanly
from probes import Probes
from rows import chosen

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
LIMIT = float(os.environ.get("BENCH_LIMIT", "840"))
WAIT = float(os.environ.get("BENCH_WAIT", "0"))
NOISY = 0.15  # of the cores used by others: nothing can be concluded from such a run
OUT = "build/bench.json"


def note(text):
    print(text, file=sys.stderr, flush=True)


class Runs:
    """What the probes gave: results[probe][round] = {field: number, "others": .., "load": ..}."""

    def __init__(self, folder):
        self.folder, self.results, self.problems, self.skipped = folder, {}, {}, 0

    def measure(self, probes, probe, number):
        with Watch() as watch:
            try:
                result = probes.run(probe)
            except Absent as reason:
                self.problems[probe] = str(reason)
                return
            except (OSError, RuntimeError, ValueError, IndexError, KeyError,
                    subprocess.SubprocessError) as error:
                self.problems[probe] = f"{probe.split('.')[0]}: {error}"
                return
        result = {"others": watch.others, "load": watch.load, "took": watch.seconds, **result}
        if result.get("count"):  # Of everything that worked for this figure: server, client, driver.
            result["cpu_us"] = watch.ours * watch.seconds * CORES * 1e6 / result["count"]
        self.results.setdefault(probe, {})[number] = result
        note(f"  {probe:24} {result.get('value', 0):>14,.2f} {result.get('unit', ''):12}"
             f" others {result['others']:4.0%}  load {result['load']:.1f}")

    def series(self, figure):
        """{round: value} of one figure, or of the sum of several."""
        if isinstance(figure, list):
            parts = [self.series(part) for part in figure]
            return {n: sum(part[n] for part in parts)
                    for n in parts[0] if all(n in part for part in parts)}
        probe, field = figure
        return {number: result[field] for number, result in self.results.get(probe, {}).items()
                if field in result}

    def others(self, row):
        """The most that strangers used of the machine, of the medians of the row's probes."""
        return max((statistics.median(result["others"] for result in self.results[probe].values())
                    for probe in row.probes() if probe in self.results), default=0.0)


def await_quiet():
    """Until others use less than a tenth of the cores, at most WAIT seconds."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        with Watch() as watch:
            time.sleep(0.7)
        if watch.others < 0.1:
            return


def judge(row, runs):
    """One line of the table as a dictionary; per_sync: ours for one fdatasync append of the round."""
    ours, peer = runs.series(row.ours), runs.series(row.peer) if row.peer else {}
    line = {"row": row.name, "text": row.text, "peer_name": row.peer_name, "aim": row.aim(),
            "unit": row.unit, "others": runs.others(row)}
    if ours:
        line["ours"] = figure = statistics.median(ours.values())
    if peer:
        line["peer"] = statistics.median(peer.values())
    both = [ours[n] / peer[n] for n in ours if peer.get(n)]
    if not ours or (row.peer and not both):
        missing = [runs.problems[name] for name in row.probes() if name in runs.problems]
        return dict(line, verdict=(missing or ["not measured"])[0])
    if row.peer:
        line["ratio"] = figure = statistics.median(both)
        line["ratio_low"], line["ratio_high"] = min(both), max(both)
    syncs = runs.series(("floor.sync", "value"))
    if row.unit == "cmd/s" and any(syncs.get(n) for n in ours):
        line["per_sync"] = statistics.median(ours[n] / syncs[n] for n in ours if syncs.get(n))
    reached = row.reached(figure)
    if reached is None:
        return dict(line, verdict="")
    verdict = "reached" if reached else f"gap {row.gap(figure):.2f}x"
    noisy = line["others"] > NOISY
    return dict(line, reached=reached, noisy=noisy, verdict=verdict + (", noisy" if noisy else ""))


def number(value):
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def table(lines):
    head = f"{'row':20} {'what':35} {'ours':>11} {'peer':>11} {'':8} {'of':18} {'ratio':>7}" \
           f" {'(range)':>15}  {'aim':>13} {'others':>6}  verdict"
    print(head)
    print("-" * len(head))
    before = None
    for line in lines:
        name = "" if line["row"] == before else line["row"]
        text = "" if line["row"] == before else line["text"]
        before = line["row"]
        ratio = f"{line['ratio']:.2f}x" if "ratio" in line else ""
        span = f"{line['ratio_low']:.2f}-{line['ratio_high']:.2f}" if "ratio" in line else ""
        print(f"{name:20} {text:35} {number(line.get('ours')):>11}"
              f" {number(line.get('peer')):>11} {line['unit']:8} {line['peer_name']:18} {ratio:>7}"
              f" {span:>15}  {line['aim']:>13} {line['others']:6.0%}  {line['verdict']}")


def foot(lines, runs):
    asked = [line for line in lines if "reached" in line]
    print(f"\n{sum(line['reached'] for line in asked)} of {len(asked)} aims reached,"
          f" {sum(line['aim'] != '-' and 'reached' not in line for line in lines)} not measured;"
          f" {CORES} cores, load {os.getloadavg()[0]:.1f}, medians of {ROUNDS} rounds;"
          f" stores on {filesystem(runs.folder)}")
    noisy = sum(line.get("noisy", False) for line in lines)
    if noisy:
        print(f"{noisy} rows are noisy: others used more than {NOISY:.0%} of the cores meanwhile,"
              " measure these again (BENCH_WAIT=30, BENCH_ONLY=row)")
    for probe, text in (("floor.sync", "fdatasync of a 256-byte append"), ("floor.echo", "nng round trip")):
        series = runs.series((probe, "value"))
        if series:
            print(f"{text}: {statistics.median(series.values()):,.0f}/s,"
                  f" p50 {statistics.median(runs.series((probe, 'p50_us')).values()):.0f} us")
    spent = {name: runs.series((probe, "cpu_us")) for name, probe in (
        ("ours", "rpc.many256"), ("redis, 256 conn.", "redis.many256"),
        ("postgresql", "postgres.many64"))}
    if any(spent.values()):
        print("CPU of server and client per command: " + ", ".join(
            f"{name} {statistics.median(series.values()):.1f} us"
            for name, series in spent.items() if series))
    if runs.skipped:
        print(f"no time was left for {runs.skipped} runs (BENCH_LIMIT={LIMIT:.0f} seconds in all)")
    for reason in sorted(set(runs.problems.values())):
        print(f"missing: {reason}")


def plan(rows):
    """Probes in the order of the rows, each once; the disk's own speed before the commands."""
    order = []
    for row in rows:
        floor = ["floor.sync"] if row.name.startswith(("rpc.", "cluster.")) else []
        for probe in floor + row.probes():
            if probe not in order:
                order.append(probe)
    return order


def main():
    end_cleanly()
    words = [word for word in os.environ.get("BENCH_ONLY", "").split(",") if word]
    rows = chosen(words)
    if not rows:
        sys.exit(f"no row is called {', '.join(words)}")
    probes = Probes()
    order, runs, start = plan(rows), Runs(probes.folder), time.monotonic()
    try:
        for number_of_round in range(1, ROUNDS + 1):
            note(f"round {number_of_round} of {ROUNDS}")
            probes.new_round()
            for probe in order:
                spent = time.monotonic() - start
                if spent > LIMIT:
                    runs.skipped += 1
                    if probe not in runs.results:
                        runs.problems.setdefault(probe, "no time left")
                elif probe not in runs.problems:
                    await_quiet()
                    runs.measure(probes, probe, number_of_round)
    except KeyboardInterrupt:
        note("interrupted: the table has what was measured so far")
    finally:
        probes.close()
    lines = [judge(row, runs) for row in rows]
    table(lines)
    foot(lines, runs)
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w", encoding="utf-8") as file:
        json.dump({"machine": {"cores": CORES, "kernel": platform.release()}, "rounds": ROUNDS,
                   "seconds": time.monotonic() - start, "rows": lines, "runs": runs.results,
                   "problems": runs.problems}, file, indent=1)


if __name__ == "__main__":
    main()
