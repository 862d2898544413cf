#!/usr/bin/env python3
"""The history checker against histories made without a server."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import history as h


class Clean(unittest.TestCase):
	def test_a_correct_node_has_no_violations(self):
		for seed in range(20):
			ops, streams = h.generate(3000, 12, 16, seed)
			balances = {e: h.fold(s)[-1] for e, s in streams.items()}
			feed = sorted(((n, e) for n, s in streams.items() for e in s),
			              key=lambda x: x[1].offset)
			self.assertEqual(h.check(ops, streams, feed, balances), [], f"seed {seed}")

	def test_the_generator_makes_every_kind_of_operation(self):
		ops, _ = h.generate(5000, 12, 16, 1)
		self.assertEqual({o.outcome for o in ops}, {h.OK, h.REJECTED, h.CONFLICT, h.UNKNOWN})
		self.assertTrue(any(o.repeated for o in ops))

	def test_a_line_reads_back_as_written(self):
		ops, _ = h.generate(200, 3, 4, 7)
		self.assertEqual([h.Op.parse(o.line() + "\n") for o in ops], ops)

	def test_checking_is_about_sorting(self):
		ops, streams = h.generate(200_000, 64, 16, 3)
		begin = time.process_time()
		self.assertEqual(h.check(ops, streams), [])
		self.assertLess(time.process_time() - begin, 20)


class Planted(unittest.TestCase):
	"""Every kind is found in every one of 25 histories, not in one lucky one."""

	def test_every_planted_fault_is_found_in_every_history(self):
		for seed in range(8):
			ops, streams = h.generate(6000, 10, 16, 100 + seed)
			planted, found, complaints = h.plant_all(ops, streams, seed)
			self.assertEqual(complaints, [], f"seed {seed}")
			self.assertEqual(planted, found)

	def test_a_blind_check_is_reported(self):
		ops, streams = h.generate(6000, 10, 16, 5)
		kept, h.check_order = h.check_order, lambda *_: None
		try:
			_, _, complaints = h.plant_all(ops, streams, 5)
		finally:
			h.check_order = kept
		self.assertTrue(any("REORDERED" in c for c in complaints))

	def test_a_history_without_refusals_is_reported(self):
		ops, streams = h.generate(6000, 10, 16, 5)
		_, _, complaints = h.plant_all([o for o in ops if o.outcome != h.REJECTED], streams, 5)
		self.assertTrue(any("nothing to plant" in c for c in complaints))

	def test_an_unknown_command_may_be_there_or_not(self):
		ops, streams = h.generate(2000, 4, 8, 2)
		name, stream = next(iter(streams.items()))
		gone = h.Op("maybe", 0, name, "deposit", 5, h.ANY, 1, 0, h.UNKNOWN, -1, -1, 0, 0, 1, 1)
		self.assertEqual(h.check(ops + [gone], streams), [])
		there = dict(streams)
		last = stream[-1]
		there[name] = stream + [last._replace(seq=last.seq + 1, id="maybe", kind="deposit",
		                                      amount=5, balance=last.balance + 5)]
		self.assertEqual(h.check(ops + [gone], there), [])


if __name__ == "__main__":
	unittest.main()
