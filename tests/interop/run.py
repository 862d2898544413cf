#!/usr/bin/env python3
"""Starts one node and lets foreign clients talk to it: run.py PROGRAM... where each is a command line."""
import os
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from node import Node  # noqa: E402


def main(programs):
    failed = 0
    with Node() as node:
        for program in programs:
            done = subprocess.run([*shlex.split(program), node.url], timeout=120)
            failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
