#!/usr/bin/env python3
"""The short form of every chaos run, for the tests: all.py --short."""
import sys

import all as runs

if __name__ == "__main__":
	sys.exit(runs.main(short=True))
