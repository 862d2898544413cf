/*
 * handoff.pml - who may answer reads while leadership moves: leases, transfers, restarts [D 3.10, 6.4].
 *
 * Three voters; node 0 leads term 1. Each has a clock of its own: between two of them never lies more
 * than one tick, so an interval may be measured differently by two. An election timeout is 3 ticks and
 * a lease 1 (-DLONG: 4 and 2). A round is confirmed at any time after its start, a message asking for an
 * election may be late; both may be lost.
 *
 * Claims:  who may answer from its lease knows every answered write; at most one may; a confirmed
 *          round knows every write that was answered when it began; committed entries never change.
 * Faults:  -DNO_LEASE_END   the lease is kept over a transfer
 *          -DLEASE_AGAIN    a transfer ends the lease, the next round of the same term renews it
 *          -DNO_VOTE_HOLD   a restarted voter votes at once
 *          -DNO_MARGIN      the lease is as long as the election timeout, clocks differ
 *          -DNO_OWN_TERM    reads are answered before an entry of the own term is committed
 */
#define N       3
#ifndef TERMS
#define TERMS   3
#endif
#define ENTRIES 3
#ifdef LONG
#define TIMEOUT 4
#define HALF    2
#else
#define TIMEOUT 3
#define HALF    1
#endif
#ifdef NO_MARGIN
#define LEASE   TIMEOUT
#else
#define LEASE   HALF
#endif

typedef node_state {
	byte term;
	byte size;
	byte entry[ENTRIES]; /* term */
	byte age;            /* since the last word of a leader, at most TIMEOUT; a leader: TIMEOUT */
	bit ahead;           /* of the slowest clock */
	bit leads;
	/* leader */
	byte commit;
	byte ack[ENTRIES];   /* who has stored this entry of its own term */
	byte confirmed;      /* of the newest round, while it is younger than LEASE */
	byte round_age;      /* at most LEASE */
	byte lease_age;      /* since the start of the newest confirmed round; LEASE: none */
	bit ended;           /* a transfer was begun in this term */
	bit late;            /* the newest round began without knowing an answered write */
}
node_state node[N];
byte committed[ENTRIES];   /* term of what was ever committed here */
byte leader_of[TERMS + 1]; /* node + 1 */
byte answered;             /* entries that a client may know of */
byte asked, asked_term;    /* node + 1 that was asked to campaign, by the leader of that term */
byte transfers, restarts, writes;

#define BIT(i)     (1 << (i))
#define QUORUM(q)  (((q) & 1) + ((q) >> 1 & 1) + ((q) >> 2 & 1) >= 2)
#define LAST(i)    node[i].entry[node[i].size - 1]
#define FRESH(i,v) (LAST(i) > LAST(v) || (LAST(i) == LAST(v) && node[i].size >= node[v].size))
#ifdef NO_OWN_TERM
#define SERVES(i)  true
#else
#define SERVES(i)  (node[i].commit > 0 && node[i].entry[node[i].commit - 1] == node[i].term)
#endif
#define LEASED(i)  (node[i].leads && node[i].lease_age < LEASE && SERVES(i))
#define HOLDS(v)   (!node[v].leads && node[v].age < TIMEOUT && !wished)
#define GRANTS(v)  (v != i && node[v].term < t && FRESH(i, v) && !HOLDS(v))

inline forget_lead(i)
{
	node[i].leads = 0;
	node[i].commit = 0;
	node[i].ack[0] = 0; node[i].ack[1] = 0; node[i].ack[2] = 0;
	node[i].confirmed = 0;
	node[i].round_age = LEASE;
	node[i].lease_age = LEASE;
	node[i].ended = 0;
	node[i].late = 0
}

inline obey(n, newer)
{
	if
	:: node[n].term < newer -> node[n].term = newer; forget_lead(n)
	:: else
	fi
}

inline ask(v)
{
	if
	:: GRANTS(v) -> votes = votes | BIT(v); obey(v, t)
	:: true
	fi
}

inline append(i)
{
	node[i].entry[node[i].size] = node[i].term;
	node[i].ack[node[i].size] = BIT(i);
	node[i].size++
}

inline lead(i)
{
	d_step {
		printf("node %d leads term %d, votes %d, by wish %d\n", i, t, votes, wished);
		assert(leader_of[t] == 0);
		leader_of[t] = i + 1;
		k = 0;
		do
		:: k < ENTRIES ->
			assert(committed[k] == 0 || (node[i].size > k && node[i].entry[k] == committed[k]));
			k++
		:: else -> break
		od;
		node[i].leads = 1;
		node[i].age = TIMEOUT;
		node[i].commit = 1;
		append(i)
	}
}

inline store(i, v)
{
	d_step {
		printf("node %d stores the log of node %d\n", v, i);
		obey(v, node[i].term);
		node[v].age = 0;
		k = 0;
		do
		:: k < node[i].size ->
			node[v].entry[k] = node[i].entry[k];
			if
			:: node[i].entry[k] == node[i].term && k >= node[i].commit ->
				node[i].ack[k] = node[i].ack[k] | BIT(v);
				if
				:: QUORUM(node[i].ack[k]) -> node[i].commit = k + 1
				:: else
				fi
			:: else
			fi;
			k++
		:: k >= node[i].size && k < node[v].size -> node[v].entry[k] = 0; k++
		:: else -> break
		od;
		node[v].size = node[i].size;
		k = 0;
		do
		:: k < node[i].commit ->
			assert(committed[k] == 0 || committed[k] == node[i].entry[k]);
			committed[k] = node[i].entry[k];
			node[i].ack[k] = 0;
			k++
		:: else -> break
		od;
		if
		:: node[i].commit > answered -> answered = node[i].commit
		:: else
		fi
	}
}

inline begin_round(i)
{
	d_step {
		node[i].round_age = 0;
		node[i].confirmed = BIT(i);
		node[i].late = SERVES(i) && node[i].commit < answered;
		printf("node %d begins a round, late %d\n", i, node[i].late)
	}
}

inline confirm(i, v)
{
	d_step {
		printf("node %d confirms the round of node %d\n", v, i);
		obey(v, node[i].term);
		node[v].age = 0;
		node[i].confirmed = node[i].confirmed | BIT(v);
		if
		:: QUORUM(node[i].confirmed) ->
			assert(!node[i].late);
			node[i].confirmed = 7;
			if
			:: !node[i].ended && node[i].round_age < node[i].lease_age ->
				node[i].lease_age = node[i].round_age
			:: else
			fi
		:: else
		fi
	}
}

#define OLDER(x, most) x = ((x) < (most) -> (x) + 1 : (most))
inline tick(i)
{
	d_step {
		printf("a tick of node %d\n", i);
		OLDER(node[i].age, TIMEOUT);
		OLDER(node[i].round_age, LEASE);
		if
		:: node[i].round_age == LEASE -> node[i].confirmed = 0; node[i].late = 0
		:: else
		fi;
		OLDER(node[i].lease_age, LEASE);
		node[i].ahead = 1;
		if
		:: node[0].ahead && node[1].ahead && node[2].ahead ->
			node[0].ahead = 0; node[1].ahead = 0; node[2].ahead = 0
		:: else
		fi
	}
}

inline restart(i)
{
	d_step {
		printf("node %d restarts\n", i);
		restarts++;
		forget_lead(i);
#ifdef NO_VOTE_HOLD
		node[i].age = TIMEOUT
#else
		node[i].age = 0
#endif
	}
}

inline transfer(i, v)
{
	d_step {
		printf("node %d hands over to node %d\n", i, v);
		transfers++;
		asked = v + 1;
		asked_term = node[i].term;
#ifndef NO_LEASE_END
		node[i].lease_age = LEASE;
#ifndef LEASE_AGAIN
		node[i].ended = 1
#endif
#endif
	}
}

inline check()
{
	d_step {
		i = 0;
		k = 0;
		do
		:: i < N ->
			assert(!LEASED(i) || node[i].commit >= answered);
			k = k + LEASED(i);
			i++
		:: else -> break
		od;
		assert(k <= 1);
		if
		:: asked > 0 && node[asked - (asked > 0)].term > asked_term -> asked = 0; asked_term = 0
		:: else
		fi;
		i = 0; k = 0; t = 0; v = 0; votes = 0; wished = 0
	}
}

active proctype group()
{
	byte i, k, t, v, votes;
	bit wished;
	d_step {
		do
		:: i < N ->
			node[i].term = 1; node[i].size = 1; node[i].entry[0] = 1;
			node[i].round_age = LEASE; node[i].lease_age = LEASE;
			i++
		:: else -> break
		od;
		node[0].leads = 1; node[0].age = TIMEOUT; node[0].commit = 1;
		committed[0] = 1; answered = 1; leader_of[1] = 1; i = 0
	}
	do
	:: atomic {
		select(i : 0 .. N - 1);
		select(v : 0 .. N - 1);
		if
		:: v == 0 && !node[i].ahead -> tick(i)
		:: v == 0 && restarts < 1 -> restart(i)
		:: v == 0 && node[i].leads && (node[i].round_age > 0 || node[i].late) -> begin_round(i)
		:: v == 0 && node[i].leads && node[i].size < ENTRIES && writes < 1 -> writes++; append(i)
		:: v != i && node[i].leads && node[v].term <= node[i].term && node[i].round_age < LEASE ->
			confirm(i, v)
		:: v != i && node[i].leads && node[v].term <= node[i].term -> store(i, v)
		:: v != i && node[i].leads && transfers < 1 -> transfer(i, v)
		:: !node[i].leads && node[i].size < ENTRIES && v == 0 &&
		   (node[i].age >= TIMEOUT || (asked == i + 1 && asked_term == node[i].term)) ->
			if
			:: node[i].age >= TIMEOUT
			:: asked == i + 1 && asked_term == node[i].term -> wished = 1; asked = 0; asked_term = 0
			fi;
			select(t : 2 .. TERMS);
			if
			:: t > node[i].term && leader_of[t] == 0 ->
				obey(i, t);
				votes = BIT(i);
				ask(0); ask(1); ask(2);
				if
				:: QUORUM(votes) -> lead(i)
				:: else
				fi
			:: else
			fi
		:: else
		fi;
		check()
	}
	od
}
