/*
 * raft.h - one member of one replicated log: the consensus core of a shard, pure.
 *
 * Sources: D. Ongaro, "Consensus: Bridging Theory and Practice" (2014), sections named at the
 * functions as [D 3.6.2], and his note on single-server membership changes (2015).
 *
 * Purity:  no clock, I/O, threads or random source of its own. Times are milliseconds of a clock
 *          of the caller that never goes back (an older time counts as the newest seen).
 * Threads: one.
 * Output:  every input appends to the queue given at init, in the order in which the host must act;
 *          the host empties it before the next input.
 * Memory:  holds terms (runs of equal ones) and membership sets, never records. Messages are plain
 *          values. Nothing of the caller's is kept or freed.
 * Failure: RT_E_NOMEM from any input: nothing changed, as if the message had been lost. What a peer
 *          or a disk says is checked: RT_E_PROTO or RT_E_CORRUPT, nothing changed. A failed write
 *          has no input: the host drops the instance.
 */
#ifndef SHARDING_RAFT_H
#define SHARDING_RAFT_H

#include "sharding/members.h"

enum sh_role {
	SH_FOLLOWER,
	SH_PRE_CANDIDATE,
	SH_CANDIDATE,
	SH_LEADER
};

enum sh_message_type {
	SH_MSG_APPEND = 1, /* entries index+1 .. index+count; count 0 is a heartbeat */
	SH_MSG_APPEND_RESULT,
	SH_MSG_VOTE,
	SH_MSG_VOTE_RESULT,
	SH_MSG_INSTALL,     /* entries up to index are gone here: fetch the shard from me */
	SH_MSG_TIMEOUT_NOW, /* leadership transfer: campaign at once [D 3.10] */
	SH_MSG_REMOVED,     /* answer to a campaign: the committed members do not name you */
	/* Between hosts (replica.h), never given to the core. */
	SH_MSG_FETCH, /* records of the shard from index on, please */
	SH_MSG_CHUNK, /* records index .. index+count-1 of an install */
	SH_MSG_TYPES
};

enum sh_message_flag {
	SH_FLAG_PRE = 1,      /* VOTE, VOTE_RESULT: a pre-vote [D 9.6] */
	SH_FLAG_REJECT = 2,   /* APPEND_RESULT: does not fit; hint says where to go on */
	SH_FLAG_GRANTED = 4,  /* VOTE_RESULT */
	SH_FLAG_TRANSFER = 8, /* VOTE: the leader itself asked for this election */
	SH_FLAG_LAST = 16,    /* CHUNK: the install is complete with it */
	SH_FLAG_BEHIND = 32, /* APPEND_RESULT: could not serve at once if it led (sh_raft_behind) */
	SH_FLAGS = 63
};

struct sh_raft_message {
	uint8_t type, flags;
	uint32_t count;    /* APPEND, CHUNK: entries in the message */
	uint64_t from, to; /* nodes */
	uint64_t term;
	/* APPEND: the entry before the first. APPEND_RESULT: stored and verified up to here, or the
	 * rejected index. VOTE: the candidate's last. INSTALL: the floor. REMOVED: of the members.
	 */
	uint64_t index;
	uint64_t log_term; /* the term of the entry at index: APPEND, VOTE, INSTALL, last CHUNK */
	uint64_t commit;   /* APPEND: the leader's */
	uint64_t hint;     /* APPEND_RESULT with REJECT: try with this as the first entry */
	uint64_t round;    /* of leadership confirmation; a result gives back the newest seen */
	uint64_t stamp;    /* sender's clock at the start of that round; given back likewise */
};

/* What the core must know of an entry in a received message or in the log at restart. */
struct sh_raft_entry {
	uint64_t term;
	const struct sh_members *members; /* NULL: an ordinary record */
};

enum sh_out_kind {
	SH_OUT_HARD,    /* make term and vote durable before any message that follows leaves */
	SH_OUT_APPEND,  /* write entries; sh_raft_stored when durable */
	SH_OUT_INSTALL, /* drop the log, fetch the shard from a node; sh_raft_installed when durable
			 */
	SH_OUT_SEND,    /* APPEND with a count is an offer: answer with sh_raft_sent */
	SH_OUT_COMMIT,
	SH_OUT_MEMBERS, /* the set in use changed, or a set is committed */
	SH_OUT_ROLE,    /* role or known leader changed */
	SH_OUT_REMOVED  /* this node is no member any more, for good */
};

enum sh_entry_source {
	SH_FROM_PROPOSAL, /* the records of the sh_raft_propose that made this output */
	SH_FROM_MESSAGE,  /* records of the received message, from its `skip`th on */
	SH_FROM_NOOP,     /* one record the host makes: first of a term */
	SH_FROM_MEMBERS   /* one record the host makes: the members now in use */
};

struct sh_out {
	enum sh_out_kind kind;
	union {
		struct {
			uint64_t term, vote;
		} hard;
		struct {
			uint64_t from; /* index of the first */
			uint64_t term; /* of the entries, unless they came in a message */
			uint64_t generation;
			uint32_t count;
			uint32_t skip;
			enum sh_entry_source source;
			bool truncate; /* delete everything from `from` on first */
		} append;
		struct {
			uint64_t source; /* node; a later output may name another */
		} install;
		struct sh_raft_message send;
		uint64_t commit;
		struct {
			uint64_t index;
			struct sh_members set;
			bool committed;
		} members;
		struct {
			enum sh_role role;
			uint64_t leader; /* node, 0: none known */
			uint64_t term;
		} role;
		uint64_t removed; /* index of the set that no longer names this node */
	};
};

/* May serve many instances of one thread. The host reads items[head..count). */
struct sh_out_queue {
	struct sh_out *items;
	uint32_t head, count, cap;
};
void sh_out_queue_done(struct sh_out_queue *queue);
/* Takes the next output, copied, since acting on it may call the core. False: there is none. */
bool sh_out_next(struct sh_out_queue *queue, struct sh_out *out);

struct sh_raft_settings {
	uint64_t node;         /* this one, not 0 */
	uint32_t election_ms;  /* 0: 1,000 */
	uint32_t heartbeat_ms; /* 0: 100 */
	uint32_t window; /* a voter is promoted when at most this far behind; 0: 1,000 entries */
	uint32_t rank;   /* turns the order in which voters campaign: the shard */
	uint64_t seed;
};

struct sh_raft_run {
	uint64_t first, term; /* entries from first on, until the next run */
};
struct sh_raft_set {
	uint64_t index; /* of its entry; 0: the members the shard was created with */
	struct sh_members members;
};

enum sh_peer_state {
	SH_PEER_PROBE,
	SH_PEER_PIPELINE,
	SH_PEER_INSTALL
};
#define SH_INFLIGHT_GROUPS 8u /* of SH_INFLIGHT_GROUP messages: 64 in flight per peer */
#define SH_INFLIGHT_GROUP  8u

struct sh_raft_peer { /* What a leader knows of one member. */
	uint64_t node;
	uint64_t match, next;                   /* next > match always */
	uint64_t heard_at;                      /* last message of this term */
	uint64_t round, stamp;                  /* newest it confirmed */
	uint64_t install_at;                    /* when INSTALL was sent last */
	uint64_t group_end[SH_INFLIGHT_GROUPS]; /* last index of each full group in flight */
	uint8_t group_count, group_messages;    /* full groups; messages in the open one */
	uint8_t state;
	bool probing; /* PROBE: one is under way */
	bool offered; /* an offer is in the output queue */
	bool held;    /* the host could not send yet (sh_raft_resume) */
	bool behind;  /* as its last word says */
};

/* Fields are for reading only. */
struct sh_raft {
	struct sh_raft_settings settings;
	struct sh_out_queue *out;
	uint64_t random;

	uint64_t term, vote; /* as last given to SH_OUT_HARD */
	uint64_t leader;     /* of this term, 0: unknown */
	enum sh_role role;
	uint8_t granted;    /* candidate: bit i: member i granted */
	bool transfer_vote; /* candidate: by the leader's wish */
	bool installing;    /* between SH_OUT_INSTALL and sh_raft_installed */
	uint64_t install_source;
	uint64_t install_index; /* known to be committed when it began: no less is fetched */
	bool removed;

	/* Log. floor <= commit <= last; stored <= last. Runs and sets lie above the floor, but for
	 * the first of each, which is in force at the floor. */
	uint64_t floor, last, stored, commit, applied;
	uint64_t verified; /* equal to the log of this term's leader up to here */
	/* End of a log that this node had and forgot, removed or to be installed anew. Majorities
	 * may have counted on it, so votes are given as if it were here still. */
	uint64_t bar_index, bar_term;
	uint64_t generation; /* of truncations */
	struct sh_raft_run *runs;
	uint32_t run_count, run_cap;
	struct sh_raft_set *sets;
	uint32_t set_count, set_cap;

	uint64_t now;
	uint64_t contact; /* last word of a leader; votes are refused for an election timeout */
	bool had_contact;
	bool behind;
	uint64_t deadline;               /* follower, candidate: campaign then */
	uint64_t echo_round, echo_stamp; /* follower: newest of this leader */

	/* Leader. */
	uint64_t noop;      /* first entry of the own term */
	uint64_t beat_at;   /* next heartbeat */
	uint64_t quorum_at; /* next check that a quorum is heard */
	uint64_t round,
		round_at; /* newest round of confirmation and its start; campaigns count too */
	uint64_t transferee, transfer_until;
	bool lease_ended;                          /* a transfer was begun in this term */
	struct sh_raft_peer peers[SH_MEMBERS_MAX]; /* in the order of the members, itself too */
};

/* ---- life ---- */
struct sh_raft_restore {
	uint64_t term, vote;
	uint64_t floor, floor_term;
	uint64_t set_index;           /* of the members in force at the floor */
	struct sh_members members;    /* count 0: knows none, waits to be added */
	uint64_t commit;              /* known to be committed, at least the floor */
	uint64_t bar_index, bar_term; /* as they were */
};
/* A member whose log is what restore says; then each entry above the floor in order; then start. A
 * new shard restores term 0, floor 0 and its first members. */
RT_NODISCARD rt_err sh_raft_init(struct sh_raft *raft, const struct sh_raft_settings *settings,
	const struct sh_raft_restore *restore, struct sh_out_queue *out);
/* The next `count` entries of the log. RT_E_CORRUPT: terms fall, or one over the hard state's. */
RT_NODISCARD rt_err sh_raft_restore_entries(
	struct sh_raft *raft, uint32_t count, uint64_t term, const struct sh_members *members);
/* A sole voter that is known to be it for good leads at once; everybody else waits. All that was
 * restored is stored. */
RT_NODISCARD rt_err sh_raft_start(struct sh_raft *raft, uint64_t now);
void sh_raft_done(struct sh_raft *raft);

/* ---- inputs ---- */
RT_NODISCARD rt_err sh_raft_tick(struct sh_raft *raft, uint64_t now);
/* When to tick next; UINT64_MAX: not needed. */
uint64_t sh_raft_next_timeout(const struct sh_raft *raft);
/* entries: message->count of them for an APPEND, else NULL. */
RT_NODISCARD rt_err sh_raft_recv(struct sh_raft *raft, uint64_t now,
	const struct sh_raft_message *message, const struct sh_raft_entry *entries);
/* count ordinary records. RT_E_FENCED: does not lead. RT_E_AGAIN: leadership is on its way to
 * another node. */
RT_NODISCARD rt_err sh_raft_propose(struct sh_raft *raft, uint32_t count, uint64_t *out_first);
/* One node more, one less, or one vote changed [D 4.1]. A node joins without a vote and is promoted
 * later, which shows that it is there: one that was a member once may not have heard yet that it is
 * none, and a majority that needs it would wait for ever. RT_E_FENCED and RT_E_AGAIN as above;
 * AGAIN too while an earlier change or the first entry of this term is not committed, and while a
 * node that is to vote is no member yet, silent, or over the window behind. RT_E_INVAL: more than
 * one difference, no voter left. */
RT_NODISCARD rt_err sh_raft_propose_members(
	struct sh_raft *raft, const struct sh_members *members, uint64_t *out_index);
/* Everything up to index, written under this generation, is durable. */
RT_NODISCARD rt_err sh_raft_stored(struct sh_raft *raft, uint64_t index, uint64_t generation);
/* The first `count` entries of the offer to this node were sent. 0: they are not at hand; there is
 * no new offer before sh_raft_resume. */
RT_NODISCARD rt_err sh_raft_sent(struct sh_raft *raft, uint64_t node, uint32_t count);
RT_NODISCARD rt_err sh_raft_resume(struct sh_raft *raft, uint64_t node);
/* The shard up to index is here and durable, fetched from a committed log. */
RT_NODISCARD rt_err sh_raft_installed(
	struct sh_raft *raft, uint64_t index, uint64_t term, const struct sh_raft_set *set);
/* The host acted on commits up to here; the floor never passes it. */
void sh_raft_applied(struct sh_raft *raft, uint64_t index);
/* The host still has to take over much of what is committed: leaders are told, so that they do not
 * hand over to a node whose clients would wait for that. */
void sh_raft_behind(struct sh_raft *raft, bool behind);
/* Forgets terms and sets up to floor, or as far as commit, stored, applied and installs under way
 * allow. */
void sh_raft_compact(struct sh_raft *raft, uint64_t floor);
/* RT_E_INVAL: no voter or itself. RT_E_FENCED: does not lead. Given up after an election timeout.
 */
RT_NODISCARD rt_err sh_raft_transfer(struct sh_raft *raft, uint64_t now, uint64_t node);

/* A campaign that nobody of the members known here answers: maybe all of them were replaced. Asks a
 * node that is said to lead the group now, which says so when this node was removed. Does nothing
 * when no pre-vote is under way or the node is a member. */
RT_NODISCARD rt_err sh_raft_knock(struct sh_raft *raft, uint64_t now, uint64_t node);

/* ---- linearizable reads [D 6.4] ---- */
struct sh_raft_read {
	uint64_t term, round;
	uint64_t index; /* serve from a state that has applied this */
};
/* Starts a round to every voter. RT_E_FENCED: does not lead. RT_E_AGAIN: the first entry of the
 * term is not committed yet. */
RT_NODISCARD rt_err sh_raft_read_begin(
	struct sh_raft *raft, uint64_t now, struct sh_raft_read *out);
/* RT_OK: a quorum confirmed the round. RT_E_AGAIN: not yet. RT_E_FENCED: leadership was lost. */
RT_NODISCARD rt_err sh_raft_read_ok(const struct sh_raft *raft, const struct sh_raft_read *read);
/* A quorum confirmed a round that began within half an election timeout: reads need no round. */
bool sh_raft_lease(const struct sh_raft *raft, uint64_t now);

/* ---- looking ---- */
/* Term of an entry at or above the floor, 0: not known here. */
uint64_t sh_raft_term_at(const struct sh_raft *raft, uint64_t index);
/* The members in use (appended, committed or not). */
const struct sh_raft_set *sh_raft_members(const struct sh_raft *raft);
/* The set in force at an index at or above the floor. */
const struct sh_raft_set *sh_raft_members_at(const struct sh_raft *raft, uint64_t index);
static inline bool sh_raft_leads(const struct sh_raft *raft)
{
	return raft->role == SH_LEADER;
}
/* Debug and simulation: every invariant of the struct. */
void sh_raft_check(const struct sh_raft *raft);

#endif
