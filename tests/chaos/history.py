"""Histories of commands and reads, and the check that the stored streams explain them.

A history is what clients saw: one `Op` per operation, from the invocation until the answer. The
streams are what the node has stored, read after the last fault: for every entity its events in
order. `check` compares the two; with unique command ids and one stream per entity that is no
search, and the cost is about that of sorting.

  1 LOST                an answered command's event is not in its entity's stream
  2 DUPLICATE, GAP      a command twice; sequence numbers that are not 1, 2, 3...
  3 PHANTOM             an event nobody asked for
    ALTERED             its argument is not what was sent; its balance is not the fold
    WRONG-ENTITY        it stands in another entity's stream
  4 REJECTED-STORED     a refusal, or a conflict, left an event
    WRONG-REFUSAL       refused although the balance was enough; conflict although it was not
    EXPECTED            accepted at another sequence number than the expected one
  5 TWO-ANSWERS         two answers to one command id differ
  6 REORDERED           p was sent after q's answer, and p stands before q
  7 READ-VALUE          a read at version k is not the fold of the first k events
    STALE-READ          a read misses what was answered before it began
    FUTURE-READ         a read shows what nobody had sent when it ended
    NON-MONOTONIC-READ  a later read shows less
    BEHIND-MARK         a read that may be stale misses the position it had to include
  8 WRONG-ANSWER        the recorded answer is not what replay gives
  9 FEED                the feed is not the streams: other events, other order within an entity
 10 SUM                 money appeared or vanished

A checker counts only when it has caught planted faults, so `plant_all` plants every kind into a
copy of the very history that was checked. Times are CLOCK_MONOTONIC nanoseconds of one machine.
"""
import bisect
import collections
import random
import sys

OK, REJECTED, CONFLICT, UNKNOWN = "ok", "rejected", "conflict", "unknown"
WRITES = ("open", "deposit", "check", "atm")
READ = "balance"
STALE = "stale"  # a read that may lag; `expected`: the version it has to include, or ANY
ANY = -1


class Op(collections.namedtuple("Op", "id client entity kind amount expected t0 t1 outcome seq "
                                      "balance offset repeated attempts late")):
	"""One operation as a client saw it. `id`: of the command, or unique for a read. `expected`:
	sequence number the command named, or ANY. `t1`: 0 without an answer. `seq`, `balance`: of the
	answer; -1 when it has none. `offset`: where the event is; of reads and refusals: number of the node
	that answered. `late`: an attempt without an answer may still have been on its
	way to a living node, so a refusal says nothing about it."""
	__slots__ = ()

	def line(self):
		return "\t".join(map(str, self))

	@classmethod
	def parse(cls, line):
		f = line.rstrip("\n").split("\t")
		n = [int(x) for x in f[4:8]]
		return cls(f[0], int(f[1]), f[2], f[3], *n, f[8], *(int(x) for x in f[9:]))


class Event(collections.namedtuple("Event", "seq id kind amount balance shard offset")):
	"""One stored event; `id` is that of its command, `balance` the one it recorded."""
	__slots__ = ()


def delta(kind, amount):
	return amount if kind == "deposit" else 0 if kind == "open" else -amount


def load(path):
	"""Reads a history file; a last line that an abandoned client did not finish is left out."""
	with open(path, encoding="ascii") as f:
		return [Op.parse(line) for line in f if line.endswith("\n")]


def fold(stream):
	"""Balances after the first 0, 1, 2... events."""
	sums = [0]
	for e in stream:
		sums.append(sums[-1] + delta(e.kind, e.amount))
	return sums


class Rows:
	"""All operations with one command id: the first call and its deliberate repeats."""
	__slots__ = ("ops", "first", "t0", "acked", "op")

	def __init__(self, op):
		self.ops, self.op, self.t0, self.acked = [], op, op.t0, None
		self.first = None  # its first OK answer

	def add(self, op):
		self.ops.append(op)
		self.t0 = min(self.t0, op.t0)
		if op.outcome == OK:
			if self.acked is None or op.t1 < self.acked:
				self.acked, self.first = op.t1, op


def group(history):
	"""Commands by id, and reads by entity; reads that may be stale are not among them."""
	commands, reads = {}, collections.defaultdict(list)
	for op in history:
		if op.kind == STALE:
			continue
		if op.kind == READ:
			if op.outcome == OK:
				reads[op.entity].append(op)
			continue
		rows = commands.get(op.id)
		if rows is None:
			rows = commands[op.id] = Rows(op)
		rows.add(op)
	return commands, reads


def check_stored(commands, streams, errors):
	"""Checks 2 and 3; returns where each command's event stands: id -> (entity, seq)."""
	where = {}
	for entity, stream in streams.items():
		balance = 0
		for i, e in enumerate(stream):
			if e.seq != i + 1:
				errors.append(("GAP", entity, f"event {i + 1} has sequence number {e.seq}"))
			balance += delta(e.kind, e.amount)
			if e.id in where:
				errors.append(("DUPLICATE", e.id, f"{where[e.id]} and {(entity, i + 1)}"))
				continue
			where[e.id] = (entity, i + 1)
			rows = commands.get(e.id)
			if rows is None:
				errors.append(("PHANTOM", e.id, f"{entity} {i + 1}"))
			elif rows.op.entity != entity:
				errors.append(("WRONG-ENTITY", e.id, f"sent to {rows.op.entity}, is in {entity}"))
			elif (e.kind, e.amount) != (rows.op.kind, rows.op.amount):
				errors.append(("ALTERED", e.id, f"sent {rows.op.kind} {rows.op.amount}, "
				               f"stored {e.kind} {e.amount}"))
			elif e.kind != "open" and e.balance != balance:
				errors.append(("ALTERED", e.id, f"balance {e.balance}, fold {balance}"))
	return where


def check_answers(commands, where, sums, errors):
	"""Checks 1, 4, 5 and 8."""
	for cid, rows in commands.items():
		place = where.get(cid)
		for op in rows.ops:
			if op.outcome == OK:
				check_ok(op, rows, place, sums, errors)
			elif op.outcome in (REJECTED, CONFLICT):
				check_no(op, rows, place, errors)
	return errors


def check_ok(op, rows, place, sums, errors):
	first = rows.first
	if place is None:
		errors.append(("LOST", op.id, f"{op.entity} answered seq {op.seq}"))
	elif place[0] == op.entity:
		if op.seq != place[1]:
			errors.append(("WRONG-ANSWER", op.id, f"answered seq {op.seq}, stands at {place[1]}"))
		elif op.balance >= 0 and op.balance != sums[op.entity][op.seq]:
			errors.append(("WRONG-ANSWER", op.id, f"answered balance {op.balance}, replay "
			               f"{sums[op.entity][op.seq]}"))
		if op.expected != ANY and place[1] != op.expected + 1:
			errors.append(("EXPECTED", op.id, f"expected {op.expected}, stands at {place[1]}"))
	if (op.seq, op.balance, op.offset) != (first.seq, first.balance, first.offset):
		errors.append(("TWO-ANSWERS", op.id, f"{op.seq, op.balance, op.offset} and "
		               f"{first.seq, first.balance, first.offset}"))


def check_no(op, rows, place, errors):
	if op.late:
		return
	if rows.acked is not None and op.t0 > rows.acked:
		errors.append(("TWO-ANSWERS", op.id, f"ok, then {op.outcome}"))
	elif place is not None and all(o.outcome in (REJECTED, CONFLICT) and not o.late
	                               for o in rows.ops):
		errors.append(("REJECTED-STORED", op.id, f"{op.outcome}, stands at {place}"))
	if op.outcome == REJECTED and op.balance >= op.amount:
		errors.append(("WRONG-REFUSAL", op.id, f"{op.amount} of {op.balance}"))
	if op.outcome == CONFLICT and op.seq == op.expected:
		errors.append(("WRONG-REFUSAL", op.id, f"conflict, but both are {op.seq}"))


def check_order(stream, commands, errors):
	"""Check 6: from the right, no command may be sent after one further right was answered."""
	answered, by = None, None
	for e in reversed(stream):
		rows = commands.get(e.id)
		if rows is None:
			continue
		if answered is not None and answered < rows.t0:
			errors.append(("REORDERED", e.id, f"sent after the answer to {by}, which stands later"))
		if rows.acked is not None and (answered is None or rows.acked < answered):
			answered, by = rows.acked, e.id


def running_max(pairs):
	"""Sorts (time, value); returns the times and the largest value so far at each."""
	pairs.sort()
	times, largest, top = [], [], 0
	for t, v in pairs:
		top = max(top, v)
		times.append(t)
		largest.append(top)
	return times, largest


def at(series, t):
	"""Largest value at a time before t."""
	times, largest = series
	i = bisect.bisect_left(times, t)
	return largest[i - 1] if i else 0


def check_prefix(r, sums, sent, errors):
	"""What holds for every read: its version is the fold of that many events, all sent by then."""
	if r.seq >= len(sums) or (r.balance >= 0 and r.balance != sums[r.seq]):
		errors.append(("READ-VALUE", r.id, f"{r.entity} at node {r.offset} version {r.seq} balance {r.balance}, "
		               f"fold {sums[r.seq] if r.seq < len(sums) else 'none'}"))
	if r.seq > bisect.bisect_left(sent, r.t1):
		errors.append(("FUTURE-READ", r.id, f"{r.entity} version {r.seq}"))


def check_reads(stream, sums, commands, reads, stale, errors):
	"""Check 7. A refusal and a conflict show a version too, so they are reads as well."""
	acked = running_max([(rows.acked, i + 1) for i, e in enumerate(stream)
	                     if (rows := commands.get(e.id)) and rows.acked is not None])
	sent, latest = [], 0
	for e in stream:
		rows = commands.get(e.id)
		latest = max(latest, rows.t0 if rows else 0)
		sent.append(latest)
	for r in stale:
		check_prefix(r, sums, sent, errors)
		if r.seq < r.expected:
			errors.append(("BEHIND-MARK", r.id, f"{r.entity} version {r.seq}, "
			               f"{r.expected} was to be included"))
	seen = running_max([(r.t1, r.seq) for r in reads])
	for r in reads:
		check_prefix(r, sums, sent, errors)
		if r.seq < at(acked, r.t0):
			errors.append(("STALE-READ", r.id, f"{r.entity} at node {r.offset} version {r.seq}, "
			               f"{at(acked, r.t0)} was answered before"))
		if r.seq < at(seen, r.t0):
			errors.append(("NON-MONOTONIC-READ", r.id, f"{r.entity} version {r.seq}, "
			               f"{at(seen, r.t0)} was read before"))


def check_feed(streams, feed, errors):
	"""Check 9 for one node: the feed, read from the beginning, is the streams."""
	got, last = collections.defaultdict(list), {}
	for entity, e in feed:
		if e.offset < last.get(e.shard, 0):
			errors.append(("FEED", e.id, f"shard {e.shard}: {e.offset} after {last[e.shard]}"))
		last[e.shard] = e.offset
		got[entity].append(e)
	for entity in streams.keys() | got.keys():
		a, b = streams.get(entity, []), got.get(entity, [])
		if a != b:
			i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
			errors.append(("FEED", entity, f"differs at {i + 1}: stream {a[i:i + 1]}, "
			               f"feed {b[i:i + 1]}"))


def transfer_of(cid):
	"""A transfer is two commands, `NAME.out` and `NAME.in`."""
	return cid.rsplit(".", 1)[0] if cid.endswith((".out", ".in")) else None


def check_sums(commands, streams, balances, errors):
	"""Check 10, at rest: transfers cancel out, what is left came in or went out by itself."""
	outside, moved = 0, collections.Counter()
	for cid, rows in commands.items():
		if rows.acked is None:
			continue
		amount = delta(rows.op.kind, rows.op.amount)
		name = transfer_of(cid)
		if name is None:
			outside += amount
		else:
			moved[name] += amount
	for name, amount in moved.items():
		if amount:
			errors.append(("SUM", name, f"the transfer's two sides differ by {amount}"))
	known = set(commands)
	stored = sum(delta(e.kind, e.amount) for s in streams.values() for e in s
	             if e.id in known and transfer_of(e.id) is None and commands[e.id].acked is None)
	total = sum(balances.values())
	if total != outside + stored:
		errors.append(("SUM", "all", f"balances {total}, in and out {outside + stored}"))


def check(history, streams, feed=None, balances=None):
	"""Returns a list of (kind, id, text); empty when the streams explain the history."""
	errors = []
	commands, reads = group(history)
	where = check_stored(commands, streams, errors)
	sums = {entity: fold(stream) for entity, stream in streams.items()}
	check_answers(commands, where, sums, errors)
	stale = collections.defaultdict(list)
	for op in history:
		if op.kind == STALE and op.outcome != UNKNOWN:
			stale[op.entity].append(op)
		elif op.outcome in (REJECTED, CONFLICT) and op.seq >= 0:
			reads[op.entity].append(op)
	for entity in streams.keys() | reads.keys() | stale.keys():
		stream = streams.get(entity, [])
		check_order(stream, commands, errors)
		check_reads(stream, sums.get(entity, [0]), commands, reads.get(entity, []),
		            stale.get(entity, []), errors)
	if feed is not None:
		check_feed(streams, feed, errors)
	if balances is not None:
		check_sums(commands, streams, balances, errors)
	return errors


# ---- planted faults ---------------------------------------------------------------------------

class Sample:
	"""A copy of a part of a history that can be damaged: a few entities, whole. The damage is made
	as smooth as a real fault would be: streams are numbered and their balances folded anew."""

	def __init__(self, history, streams, rnd, entities=None):
		self.rnd = rnd
		keep = set(streams if entities is None else entities)
		self.ops = [op for op in history if op.entity in keep]
		self.streams = {e: list(s) for e, s in streams.items() if e in keep}
		self.rows, _ = group(self.ops)
		self.touched = []

	def acked(self, kinds=("deposit", "check", "atm"), least=1):
		"""A random answered command that stands at `least` or later: (entity, position, event)."""
		found = [(entity, i, e) for entity, s in self.streams.items() for i, e in enumerate(s)
		         if i + 1 >= least and e.kind in kinds and e.id in self.rows
		         and self.rows[e.id].acked is not None]
		return self.rnd.choice(found)

	def renumber(self):
		for entity, stream in self.streams.items():
			sums = fold(stream)
			self.streams[entity] = [e._replace(seq=i + 1, balance=sums[i + 1])
			                        for i, e in enumerate(stream)]

	def swap_op(self, old, new):
		self.ops[self.ops.index(old)] = new

	def check(self):
		return check(self.ops, self.streams)


def plant_lost(s):
	entity, i, _ = s.acked()
	del s.streams[entity][i]
	s.renumber()


def plant_lost_tail(s):
	"""What a store that opens silently short does: the end is gone."""
	entity, _, _ = s.acked()
	stream = s.streams[entity]
	while stream:
		rows = s.rows.get(stream.pop().id)
		if rows and rows.acked is not None:
			break


def plant_duplicate(s):
	entity, i, e = s.acked()
	s.streams[entity].insert(s.rnd.randrange(i, len(s.streams[entity])) + 1, e)
	s.renumber()


def plant_reordered(s):
	"""Moves one event behind one that was sent after its answer."""
	found = []
	for entity, stream in s.streams.items():
		for i, e in enumerate(stream):
			rows = s.rows.get(e.id)
			if rows is None or rows.acked is None or e.kind == "open":
				continue
			for j in range(i + 1, min(i + 400, len(stream))):
				later = s.rows.get(stream[j].id)
				if later and later.t0 > rows.acked:
					found.append((entity, i, j))
					break
	entity, i, j = s.rnd.choice(found)
	stream = s.streams[entity]
	stream.insert(j, stream.pop(i))
	s.renumber()


def plant_phantom(s):
	entity, i, e = s.acked()
	s.streams[entity].insert(i, e._replace(id="nobody-sent-this"))
	s.renumber()


def plant_rejected_stored(s):
	op = s.rnd.choice([o for o in s.ops if o.outcome == REJECTED and len(s.rows[o.id].ops) == 1
	                   and not o.late])
	stream = s.streams[op.entity]
	stream.append(Event(0, op.id, op.kind, op.amount, 0, stream[0].shard, stream[-1].offset + 1))
	s.renumber()


def plant_conflict_stored(s):
	op = s.rnd.choice([o for o in s.ops if o.outcome == CONFLICT and len(s.rows[o.id].ops) == 1
	                   and not o.late])
	stream = s.streams[op.entity]
	stream.append(Event(0, op.id, op.kind, op.amount, 0, stream[0].shard, stream[-1].offset + 1))
	s.renumber()


def plant_altered(s):
	entity, i, e = s.acked()
	s.streams[entity][i] = e._replace(amount=e.amount + 1)
	s.renumber()


def plant_altered_balance(s):
	entity, i, e = s.acked()
	s.streams[entity][i] = e._replace(balance=e.balance ^ 4)


def plant_wrong_entity(s):
	entity, i, e = s.acked()
	del s.streams[entity][i]
	other = s.rnd.choice([x for x in s.streams if x != entity])
	s.streams[other].append(e)
	s.renumber()


def plant_gap(s):
	entity, i, e = s.acked(least=2)
	s.streams[entity][i:] = [x._replace(seq=x.seq + 1) for x in s.streams[entity][i:]]


def plant_two_answers(s):
	"""A repeat that ran a second time: the same id, another sequence number."""
	_, _, e = s.acked()
	first = s.rows[e.id].first
	s.ops.append(first._replace(seq=first.seq + 1, t0=first.t1 + 1000, t1=first.t1 + 2000))


def plant_ok_then_refused(s):
	_, _, e = s.acked()
	first = s.rows[e.id].first
	s.ops.append(first._replace(outcome=REJECTED, seq=-1, balance=-1, late=0, t0=first.t1 + 1000,
	                            t1=first.t1 + 2000))


def plant_wrong_answer(s):
	entity, _, e = s.acked(least=2)
	for op in s.rows[e.id].ops:
		if op.outcome == OK:
			s.swap_op(op, op._replace(balance=op.balance + 1))


def plant_expected(s):
	_, _, e = s.acked(least=2)
	for op in s.rows[e.id].ops:
		s.swap_op(op, op._replace(expected=e.seq - 2))


def plant_wrong_refusal(s):
	op = s.rnd.choice([o for o in s.ops if o.outcome == REJECTED and o.balance >= 0 and not o.late])
	s.swap_op(op, op._replace(balance=op.amount))


def reads_of(s):
	return [o for o in s.ops if o.kind == READ and o.outcome == OK]


def reread(s, op, seq):
	s.swap_op(op, op._replace(seq=seq, balance=fold(s.streams[op.entity])[seq]))


def plant_stale_read(s):
	"""The version just before the newest one that was answered when the read began."""
	found = []
	for r in reads_of(s):
		before = [i + 1 for i, e in enumerate(s.streams[r.entity][:r.seq])
		          if e.id in s.rows and (a := s.rows[e.id].acked) is not None and a < r.t0]
		if before:
			found.append((r, before[-1] - 1))
		if len(found) == 50:
			break
	reread(s, *s.rnd.choice(found))


def plant_future_read(s):
	"""The first version that holds something sent after the read had ended."""
	found = []
	for r in reads_of(s):
		stream = s.streams[r.entity]
		after = next((i + 1 for i in range(r.seq, len(stream))
		              if stream[i].id in s.rows and s.rows[stream[i].id].t0 > r.t1), None)
		if after:
			found.append((r, after))
		if len(found) == 50:
			break
	reread(s, *s.rnd.choice(found))


def plant_read_value(s):
	op = s.rnd.choice(reads_of(s))
	s.swap_op(op, op._replace(balance=op.balance + 1))


def plant_non_monotonic_read(s):
	"""Two reads in a row of one client: the second shows one version less than the first."""
	last, found = {}, []
	for r in sorted(reads_of(s), key=lambda r: r.t0):
		before = last.get(r.entity)
		if before and before.t1 < r.t0 and before.seq > 0:
			found.append((r, before.seq - 1))
		if before is None or r.t1 > before.t1:
			last[r.entity] = r
	reread(s, *s.rnd.choice(found))


def stale_reads_of(s):
	return [o for o in s.ops if o.kind == STALE and o.outcome == OK]


def plant_stale_value(s):
	op = s.rnd.choice(stale_reads_of(s))
	s.swap_op(op, op._replace(balance=op.balance + 1))


def plant_behind_mark(s):
	op = s.rnd.choice([o for o in stale_reads_of(s) if o.expected > 0])
	reread(s, op, op.expected - 1)


PLANTS = {
	"LOST": (plant_lost, plant_lost_tail),
	"DUPLICATE": (plant_duplicate,),
	"GAP": (plant_gap,),
	"PHANTOM": (plant_phantom,),
	"ALTERED": (plant_altered, plant_altered_balance),
	"WRONG-ENTITY": (plant_wrong_entity,),
	"REJECTED-STORED": (plant_rejected_stored, plant_conflict_stored),
	"WRONG-REFUSAL": (plant_wrong_refusal,),
	"EXPECTED": (plant_expected,),
	"TWO-ANSWERS": (plant_two_answers, plant_ok_then_refused),
	"REORDERED": (plant_reordered,),
	"READ-VALUE": (plant_read_value,),
	"STALE-READ": (plant_stale_read,),
	"FUTURE-READ": (plant_future_read,),
	"NON-MONOTONIC-READ": (plant_non_monotonic_read,),
	"WRONG-ANSWER": (plant_wrong_answer,),
}
# Only where clients ask for reads that may be stale.
STALE_PLANTS = {
	"READ-VALUE": (plant_stale_value,),
	"BEHIND-MARK": (plant_behind_mark,),
}


def plant_feed(history, streams, rnd):
	"""The feed skips one event."""
	feed = sorted(((entity, e) for entity, s in streams.items() for e in s),
	              key=lambda x: (x[1].shard, x[1].offset))
	del feed[rnd.randrange(len(feed))]
	return check(history, streams, feed=feed)


def plant_sum(history, streams, rnd):
	"""One side of a transfer is gone without a trace, from the clients' memory as well."""
	stored = [(entity, e) for entity, s in streams.items() for e in s if e.id.endswith(".in")]
	entity, gone = rnd.choice(stored)
	ops = [op for op in history if op.id != gone.id]
	changed = dict(streams)
	changed[entity] = [e for e in streams[entity] if e.id != gone.id]
	return check(ops, changed, balances={e: fold(s)[-1] for e, s in changed.items()})


def plant_all(history, streams, seed, entities=6):
	"""Plants every kind of fault, each into its own copy of the longest `entities` streams (but for
	the longest of all, where others are long enough), and checks that it is found under its own name.
	Returns (planted, found, complaints). A history
	without the material (no refusal, no conflict, no read) is a complaint too."""
	rnd = random.Random(seed)
	longest = sorted(streams, key=lambda e: len(streams[e]), reverse=True)
	hot = len(longest) > entities and len(streams[longest[entities]]) > 500
	longest = longest[hot:entities + hot]
	base = Sample(history, streams, rnd, longest)
	planted, found, complaints = 0, 0, []

	def judge(kind, name, errors):
		nonlocal found
		if any(e[0] == kind for e in errors):
			found += 1
		else:
			complaints.append(f"{name}: planted {kind}, found {sorted({e[0] for e in errors})}")

	if base.check():
		complaints.append("the sample is not clean before anything is planted")
	plants = list(PLANTS.items())
	if any(op.kind == STALE for op in base.ops):
		plants += STALE_PLANTS.items()
	for kind, ways in plants:
		for plant in ways:
			planted += 1
			sample = Sample(base.ops, base.streams, rnd)
			try:
				plant(sample)
			except IndexError:
				complaints.append(f"{plant.__name__}: nothing to plant {kind} in")
				continue
			judge(kind, plant.__name__, sample.check())
	planted += 2
	judge("FEED", "plant_feed", plant_feed(base.ops, base.streams, rnd))
	try:
		judge("SUM", "plant_sum", plant_sum(history, streams, rnd))
	except IndexError:
		complaints.append("plant_sum: no transfer to plant SUM in")
	return planted, found, complaints


# ---- a history without a server, for the tests of this file -------------------------------------

def generate(ops, entities, clients, seed):
	"""A clean history of a correct node: every operation takes effect at one moment between its
	invocation and its answer. Answers get lost and are asked for again, ids are repeated."""
	rnd = random.Random(seed)
	names = [f"e{i}" for i in range(entities)]
	streams, money = {n: [] for n in names}, dict.fromkeys(names, 0)
	history, offset, plan = [], 0, []
	for client in range(clients):
		now = rnd.randrange(1000)
		for _ in range(ops // clients):
			effect = now + 1 + rnd.randrange(4000)
			end = effect + 1 + rnd.randrange(4000)
			plan.append((effect, now, end, client))
			now = end + rnd.randrange(1000)
	plan.sort()
	done, owed = {}, collections.defaultdict(list)

	def write(cid, kind, entity, amount, times, expected=ANY):
		nonlocal offset
		effect, t0, t1, client = times
		stream = streams[entity]
		head = (cid, client, entity, kind, amount, expected, t0, t1)
		if cid in done:
			history.append(Op(*head, OK, *done[cid], 1, 1, 0))
		elif expected not in (ANY, len(stream)):
			history.append(Op(*head, CONFLICT, len(stream), -1, 0, 0, 1, 0))
		elif money[entity] + delta(kind, amount) < 0:
			history.append(Op(*head, REJECTED, len(stream), money[entity], 0, 0, 1, 0))
		else:
			offset += 1
			money[entity] += delta(kind, amount)
			stream.append(Event(len(stream) + 1, cid, kind, amount, money[entity], 0, offset))
			done[cid] = (len(stream), money[entity], offset)
			if rnd.random() < .02:
				history.append(Op(*head[:7], 0, UNKNOWN, -1, -1, 0, 0, 1, 1))
			else:
				history.append(Op(*head, OK, *done[cid], 0, 1, 0))

	opened = set()
	for n, times in enumerate(plan):
		client, entity = times[3], rnd.choice(names)
		if owed[client]:
			write(*owed[client].pop(), times)
			continue
		x = rnd.random()
		if entity not in opened:
			opened.add(entity)
			write(f"c{n}", "open", entity, 0, times)
		elif x < .25:
			history.append(Op(f"r{n}", client, entity, READ, 0, ANY, times[1], times[2], OK,
			                  len(streams[entity]), money[entity], 0, 0, 1, 0))
		elif x < .30:
			stream, mark = streams[entity], rnd.choice((ANY, 1, len(streams[entity])))
			seq = rnd.randrange(max(mark, 0), len(stream) + 1)
			history.append(Op(f"r{n}", client, entity, STALE, 0, mark, times[1], times[2], OK, seq,
			                  fold(stream)[seq], 0, 0, 1, 0))
		elif x < .55:
			write(f"c{n}", "deposit", entity, rnd.randrange(1, 1000), times)
		elif x < .75:
			write(f"c{n}", rnd.choice(("check", "atm")), entity, rnd.randrange(1, 2000), times)
		elif x < .80 and done:
			again = [op for op in history[-200:] if op.id in done]
			if again:
				op = rnd.choice(again)
				write(op.id, op.kind, op.entity, op.amount, times, op.expected)
		elif x < .88:
			write(f"c{n}", "deposit", entity, 5, times,
			      max(0, len(streams[entity]) - rnd.randrange(2)))
		else:
			amount = rnd.randrange(1, 50)
			if money[entity] >= amount:
				write(f"t{n}.out", "atm", entity, amount, times)
				owed[client].append((f"t{n}.in", "deposit", rnd.choice(sorted(opened)), amount))
	end = plan[-1][2] + 1
	for client, rest in owed.items():
		for leg in rest:
			write(*leg, (end, end, end + 1, client))
			end += 2
	# A client repeats an unknown one until it is answered.
	for op in [o for o in history if o.outcome == UNKNOWN]:
		write(op.id, op.kind, op.entity, op.amount, (end, end, end + 1, op.client), op.expected)
		end += 2
	return history, streams


def main():
	"""history.py FILE...: checks nothing, prints what the files hold."""
	counts = collections.Counter()
	for path in sys.argv[1:]:
		for op in load(path):
			counts[op.kind, op.outcome] += 1
	for (kind, outcome), n in sorted(counts.items()):
		print(f"{kind:8} {outcome:9} {n}")


if __name__ == "__main__":
	main()
