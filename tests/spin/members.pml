/*
 * members.pml - one node more or less at a time [D 4.1], with the rule of the 2015 note.
 *
 * Four nodes, who all vote at first. An election and a round of replication to one node are one step
 * each: what a message can do late is then the choice of the step's time. Every entry carries the set
 * in force with it, so that the set in use is the last entry's.
 *
 * Claims:  one leader per term; entries committed at one index are one entry; a leader holds all that
 *          is committed, sets of members too.
 * Faults:  -DNO_OWN_TERM   change members before an entry of the own term is committed
 *          -DTWO_AT_ONCE   change members before the previous change is committed
 */
#define N       4
#define ALL     15
#ifndef TERMS
#define TERMS   3
#endif
#define ENTRIES 4
#ifndef CHANGES
#define CHANGES 2
#endif

typedef node_state {
	byte term;
	byte size;
	byte commit;           /* leader: entries it knows to be committed */
	bit leads;
	byte entry[ENTRIES];   /* term */
	byte set[ENTRIES];     /* mask of voters */
	byte ack[ENTRIES];     /* leader: who has stored this entry of its own term */
}
node_state node[N];
byte committed[ENTRIES];   /* term of what was ever committed here, 0: nothing */
byte leader_of[TERMS + 1]; /* node + 1 */
byte changes;

#define BIT(i)      (1 << (i))
#define COUNT(m)    (((m) & 1) + ((m) >> 1 & 1) + ((m) >> 2 & 1) + ((m) >> 3 & 1))
#define QUORUM(q,m) (2 * COUNT((q) & (m)) > COUNT(m))
#define SET_AT(i,n) ((n) == 0 -> ALL : node[i].set[(n) - 1 + ((n) == 0)])
#define SET(i)      SET_AT(i, node[i].size)
#define LAST(i)     (node[i].size == 0 -> 0 : node[i].entry[node[i].size - 1 + (node[i].size == 0)])
#define FRESH(i,v)  (LAST(i) > LAST(v) || (LAST(i) == LAST(v) && node[i].size >= node[v].size))
#define GRANTS(v)   (v != i && (SET(i) & BIT(v)) && node[v].term < t && FRESH(i, v))

inline forget_lead(i)
{
	node[i].leads = 0;
	node[i].commit = 0;
	k = 0;
	do
	:: k < ENTRIES -> node[i].ack[k] = 0; k++
	:: else -> break
	od
}

/* With each one that would grant it, a candidate may have been heard or not. */
inline ask(v)
{
	if
	:: GRANTS(v) -> votes = votes | BIT(v); node[v].term = t; forget_lead(v)
	:: true
	fi
}

inline append(i, m)
{
	node[i].entry[node[i].size] = node[i].term;
	node[i].set[node[i].size] = m;
	node[i].ack[node[i].size] = BIT(i);
	node[i].size++
}

inline advance(i)
{
	k = node[i].commit;
	do
	:: k < node[i].size ->
		if
		:: node[i].entry[k] == node[i].term && QUORUM(node[i].ack[k], SET(i)) ->
			j = 0;
			do
			:: j <= k ->
				assert(committed[j] == 0 || committed[j] == node[i].entry[j]);
				committed[j] = node[i].entry[j];
				j++
			:: else -> break
			od;
			node[i].commit = k + 1;
			printf("node %d commits entry %d of term %d\n", i, k, node[i].term)
		:: else
		fi;
		k++
	:: else -> break
	od;
	k = 0
}

inline lead(i)
{
	d_step {
		printf("node %d leads term %d, votes %d\n", i, t, votes);
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
		m = SET(i);
		append(i, m);
		advance(i)
	}
}

/* The next entry that `to` lacks, or just the news of the term. */
inline replicate(i, to)
{
	d_step {
		if
		:: node[to].term < node[i].term -> node[to].term = node[i].term; forget_lead(to)
		:: else
		fi;
		k = 0;
		do
		:: k < node[i].size && k < node[to].size && node[to].entry[k] == node[i].entry[k] -> k++
		:: else -> break
		od;
		if
		:: k < node[i].size ->
			printf("node %d has entry %d of term %d from node %d\n", to, k, node[i].entry[k], i);
			j = k + 1;
			do
			:: j < node[to].size -> node[to].entry[j] = 0; node[to].set[j] = 0; j++
			:: else -> break
			od;
			node[to].entry[k] = node[i].entry[k];
			node[to].set[k] = node[i].set[k];
			node[to].size = k + 1;
			k++
		:: else
		fi;
		j = 0;
		do
		:: j < k ->
			if
			:: node[i].entry[j] == node[i].term -> node[i].ack[j] = node[i].ack[j] | BIT(to)
			:: else
			fi;
			j++
		:: else -> break
		od;
		advance(i)
	}
}

#ifdef NO_OWN_TERM
#define OWN_TERM(i) true
#else
#define OWN_TERM(i) (node[i].commit > 0)
#endif
#ifdef TWO_AT_ONCE
#define SETTLED(i) true
#else
#define SETTLED(i) (SET_AT(i, node[i].commit) == SET(i))
#endif

inline change(i, b)
{
	d_step {
		m = SET(i) ^ BIT(b);
		if
		:: m != 0 ->
			changes++;
			append(i, m);
			printf("node %d appends members %d\n", i, m);
			advance(i)
		:: else
		fi
	}
}

inline forget_scratch()
{
	i = 0; j = 0; k = 0; t = 0; m = 0; votes = 0; to = 0
}

active proctype group()
{
	byte i, j, k, t, m, votes, to;
	do
	:: atomic {
		select(i : 0 .. N - 1);
		if
		:: node[i].term < TERMS && node[i].size < ENTRIES && (SET(i) & BIT(i)) ->
			select(t : 1 .. TERMS);
			if
			:: t > node[i].term && leader_of[t] == 0 ->
				forget_lead(i);
				node[i].term = t;
				votes = BIT(i);
				ask(0); ask(1); ask(2); ask(3);
				if
				:: QUORUM(votes, SET(i)) -> lead(i)
				:: else
				fi
			:: else
			fi
		:: node[i].leads ->
			select(to : 0 .. N - 1);
			if
			:: to != i && (SET(i) & BIT(to)) && node[to].term <= node[i].term -> replicate(i, to)
			:: else
			fi
		:: node[i].leads && node[i].size < ENTRIES && changes < CHANGES && OWN_TERM(i) && SETTLED(i) ->
			select(to : 0 .. N - 1);
			change(i, to)
		:: else
		fi;
		forget_scratch()
	}
	od
}
