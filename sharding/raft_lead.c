/*
 * The leader: replication to peers, commit, membership changes, reads, hand-over.
 *
 * What it does for a peer:
 *
 *              an entry fits                      a rejection, or silence
 *   PROBE -------------------------> PIPELINE --------------------------> PROBE
 *     |  \______________________ next is at or below the floor ___/
 *     v
 *   INSTALL ----- it has the entry at the floor -----> PROBE
 *
 * Invariant: match < next <= last + 1. match only grows: a peer does not lose what it acknowledged
 * in this term.
 */
#include <string.h>

#include "runtime/base/assert.h"
#include "sharding/raft_core.h"

#define OFFER_MAX 4096u /* entries in one offer; the host's limit is in bytes */

static int peer_count(const struct sh_raft *raft)
{
	return sh_raft_members(raft)->members.count;
}

static bool is_self(const struct sh_raft *raft, const struct sh_raft_peer *peer)
{
	return peer->node == raft->settings.node;
}

static struct sh_raft_peer *find_peer(struct sh_raft *raft, uint64_t node)
{
	int at = sh_members_find(&sh_raft_members(raft)->members, node);
	return at < 0 ? NULL : &raft->peers[at];
}

/* ---- the window of appends in flight ----
 * Messages are counted in groups, each with the last index that it holds: an acknowledgement frees
 * all groups at or below it, so that lost ones cost nothing for good. */
static void window_clear(struct sh_raft_peer *peer)
{
	peer->group_count = 0;
	peer->group_messages = 0;
}

static bool window_full(const struct sh_raft_peer *peer)
{
	return peer->group_count == SH_INFLIGHT_GROUPS;
}

static void window_add(struct sh_raft_peer *peer)
{
	if (++peer->group_messages == SH_INFLIGHT_GROUP) {
		peer->group_end[peer->group_count++] = peer->next - 1;
		peer->group_messages = 0;
	}
}

static void window_free(struct sh_raft_peer *peer)
{
	if (peer->match + 1 >= peer->next) {
		window_clear(peer);
		return;
	}
	uint8_t done = 0;
	while (done < peer->group_count && peer->group_end[done] <= peer->match) {
		done++;
	}
	peer->group_count = (uint8_t)(peer->group_count - done);
	memmove(peer->group_end, peer->group_end + done,
		peer->group_count * sizeof(peer->group_end[0]));
}

/* ---- sending ---- */
static void probe_from(struct sh_raft_peer *peer, uint64_t next)
{
	RT_ASSERT(next > peer->match);
	peer->state = SH_PEER_PROBE;
	peer->next = next;
	peer->probing = false;
	window_clear(peer);
}

/* Below the floor terms are not known here any more: the shard itself is sent [D 5]. */
static void send_install(struct sh_raft *raft, struct sh_raft_peer *peer)
{
	peer->state = SH_PEER_INSTALL;
	peer->install_at = raft->now;
	window_clear(peer);
	struct sh_raft_message *install = sh_core_send(raft, SH_MSG_INSTALL, peer->node);
	install->index = raft->floor;
	install->log_term = sh_raft_term_at(raft, raft->floor);
}

static void send_append(
	struct sh_raft *raft, const struct sh_raft_peer *peer, uint64_t before, uint32_t count)
{
	struct sh_raft_message *append = sh_core_send(raft, SH_MSG_APPEND, peer->node);
	append->index = before;
	append->log_term = sh_raft_term_at(raft, before);
	append->commit = raft->commit;
	append->count = count;
	append->round = raft->round;
	append->stamp = raft->round_at;
}

/* AppendEntries [D 3.5], pipelined [D 10.2.1]: one entry while it is not known where the logs meet,
 * as much as the window takes afterwards. */
static void offer(struct sh_raft *raft, struct sh_raft_peer *peer)
{
	if (is_self(raft, peer) || peer->offered || peer->held || peer->state == SH_PEER_INSTALL) {
		return;
	}
	if (peer->next <= raft->floor) {
		send_install(raft, peer);
		return;
	}
	bool busy = peer->state == SH_PEER_PROBE ? peer->probing : window_full(peer);
	if (busy || peer->next > raft->last) {
		return;
	}
	uint64_t count = peer->state == SH_PEER_PROBE ? 1 : raft->last + 1 - peer->next;
	send_append(raft, peer, peer->next - 1, (uint32_t)(count < OFFER_MAX ? count : OFFER_MAX));
	peer->offered = true;
}

static void offer_all(struct sh_raft *raft)
{
	for (int i = 0; i < peer_count(raft); i++) {
		offer(raft, &raft->peers[i]);
	}
}

/* Never waits for the disk, of any side. It names the entry before the next one, so that a peer
 * that lost an append says so [D 3.5]. */
static void heartbeat(struct sh_raft *raft, struct sh_raft_peer *peer)
{
	uint64_t before = peer->next - 1;
	if (peer->state == SH_PEER_INSTALL || before < raft->floor) {
		before = raft->floor;
	}
	send_append(raft, peer, before, 0);
}

static void start_round(struct sh_raft *raft)
{
	raft->round++;
	raft->round_at = raft->now;
	for (int i = 0; i < peer_count(raft); i++) {
		if (!is_self(raft, &raft->peers[i])) {
			heartbeat(raft, &raft->peers[i]);
		}
	}
}

rt_err sh_raft_sent(struct sh_raft *raft, uint64_t node, uint32_t count)
{
	struct sh_raft_peer *peer = raft->role == SH_LEADER ? find_peer(raft, node) : NULL;
	if (peer == NULL || !peer->offered) {
		return RT_OK; /* Leadership or the member is gone since. */
	}
	if (count > raft->last + 1 - peer->next) {
		return RT_E_INVAL;
	}
	rt_err err = sh_core_begin(raft, raft->now, 1);
	if (err != RT_OK) {
		return err;
	}
	peer->offered = false;
	if (count == 0) {
		peer->held = true;
	} else if (peer->state == SH_PEER_PROBE) {
		peer->probing = true;
	} else {
		peer->next += count;
		window_add(peer);
		offer(raft, peer);
	}
	return RT_OK;
}

rt_err sh_raft_resume(struct sh_raft *raft, uint64_t node)
{
	struct sh_raft_peer *peer = raft->role == SH_LEADER ? find_peer(raft, node) : NULL;
	if (peer == NULL || !peer->held) {
		return RT_OK;
	}
	rt_err err = sh_core_begin(raft, raft->now, 1);
	if (err == RT_OK) {
		peer->held = false;
		offer(raft, peer);
	}
	return err;
}

/* ---- becoming, and time ---- */
static struct sh_raft_peer new_peer(const struct sh_raft *raft, uint64_t node)
{
	return (struct sh_raft_peer){.node = node, .next = raft->last + 1, .heard_at = raft->now};
}

/* Multiples of the interval, so that all groups of a node beat together and share their frames. */
static uint64_t next_beat(const struct sh_raft *raft)
{
	uint64_t every = raft->settings.heartbeat_ms;
	return (raft->now / every + 1) * every;
}

/* Leads its term. The first entry is its own, since only entries of the own term are committed by
 * counting, and all before with them [D 3.6.2, 6.4]. */
void sh_core_lead(struct sh_raft *raft)
{
	raft->role = SH_LEADER;
	raft->leader = raft->settings.node;
	raft->lease_ended = false;
	raft->transferee = 0;
	raft->beat_at = next_beat(raft);
	raft->quorum_at = raft->now + raft->settings.election_ms;
	memset(raft->peers, 0, sizeof(raft->peers)); /* also those that are no members now */
	for (int i = 0; i < peer_count(raft); i++) {
		raft->peers[i] = new_peer(raft, sh_raft_members(raft)->members.node[i]);
	}
	sh_core_say_role(raft);
	sh_core_log_push(raft, 1, raft->term, NULL);
	raft->noop = raft->last;
	struct sh_out *out = sh_core_emit(raft, SH_OUT_APPEND);
	out->append.from = raft->last;
	out->append.count = 1;
	out->append.term = raft->term;
	out->append.generation = raft->generation;
	out->append.source = SH_FROM_NOOP;
	start_round(raft);
	offer_all(raft);
}

/* Check-quorum: who is not heard by a majority does not lead [D 6.2]. */
static bool quorum_is_heard(const struct sh_raft *raft)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint32_t heard = 0;
	for (int i = 0; i < members->count; i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		bool recent = is_self(raft, peer) ||
			      raft->now - peer->heard_at <= raft->settings.election_ms;
		heard += recent && (members->voters >> i & 1) != 0;
	}
	return heard > sh_members_voter_count(members) / 2;
}

/* A new chance for what was lost on the way. */
static void retry(struct sh_raft *raft, struct sh_raft_peer *peer)
{
	if (peer->state == SH_PEER_INSTALL) {
		/* A timer of its own: heartbeats do not touch it. */
		if (raft->now - peer->install_at >= raft->settings.election_ms) {
			send_install(raft, peer);
		}
		return;
	}
	if (peer->state == SH_PEER_PIPELINE &&
		raft->now - peer->heard_at > raft->settings.election_ms) {
		probe_from(peer, peer->match + 1);
	}
	peer->probing = false;
}

void sh_core_lead_tick(struct sh_raft *raft)
{
	if (raft->transferee != 0 && raft->now >= raft->transfer_until) {
		raft->transferee = 0;
	}
	if (raft->now >= raft->quorum_at) {
		if (!quorum_is_heard(raft)) {
			sh_core_follow(raft, raft->term, 0, 0);
			return;
		}
		raft->quorum_at = raft->now + raft->settings.election_ms / 2;
	}
	if (raft->now >= raft->beat_at) {
		raft->beat_at = next_beat(raft);
		for (int i = 0; i < peer_count(raft); i++) {
			if (!is_self(raft, &raft->peers[i])) {
				retry(raft, &raft->peers[i]);
			}
		}
		start_round(raft);
		offer_all(raft);
	}
}

/* ---- commit ---- */
/* The value that a majority of voters has reached, of one per member. */
static uint64_t quorum_value(const struct sh_raft *raft, const uint64_t *of)
{
	const struct sh_members *members = &sh_raft_members(raft)->members;
	uint64_t value[SH_MEMBERS_MAX];
	uint32_t count = 0;
	for (int i = 0; i < members->count; i++) {
		if ((members->voters >> i & 1) == 0) {
			continue;
		}
		uint32_t at = count++;
		for (; at > 0 && value[at - 1] < of[i]; at--) {
			value[at] = value[at - 1];
		}
		value[at] = of[i];
	}
	return count == 0 ? 0 : value[count / 2];
}

/* Only entries of the own term are committed by counting, all before them with them [D 3.6.2]. A
 * leader that is no voter any more does not count itself and leads until that is committed
 * [D 4.2.2]. */
void sh_core_advance(struct sh_raft *raft)
{
	uint64_t held[SH_MEMBERS_MAX] = {0};
	for (int i = 0; i < peer_count(raft); i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		held[i] = is_self(raft, peer) ? raft->stored : peer->match;
	}
	uint64_t index = quorum_value(raft, held);
	if (index <= raft->commit || sh_raft_term_at(raft, index) != raft->term) {
		return;
	}
	sh_core_commit(raft, index);
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (set->index > raft->commit || sh_core_votes(raft, raft->settings.node)) {
		return;
	}
	bool removed = sh_members_find(&set->members, raft->settings.node) < 0;
	uint64_t at = set->index;
	start_round(raft); /* The others learn of the commit before this node falls silent. */
	sh_core_follow(raft, raft->term, 0, 0);
	if (removed) {
		raft->removed = true;
		sh_core_raise_bar(raft, raft->term, raft->last);
		sh_core_emit(raft, SH_OUT_REMOVED)->removed = at;
	}
}

/* ---- results ---- */
static void hand_over_if_ready(struct sh_raft *raft, const struct sh_raft_peer *peer)
{
	if (raft->transferee == peer->node && peer->match == raft->last) {
		sh_core_send(raft, SH_MSG_TIMEOUT_NOW, peer->node);
	}
}

/* The logs part at or before m->index. A rejection that was overtaken says nothing [D 3.5]. */
static void on_reject(
	struct sh_raft *raft, struct sh_raft_peer *peer, const struct sh_raft_message *m)
{
	if (peer->state == SH_PEER_INSTALL || m->index <= peer->match ||
		(peer->state == SH_PEER_PROBE && m->index != peer->next - 1)) {
		return;
	}
	uint64_t next = m->hint < m->index ? m->hint : m->index;
	probe_from(peer, next > peer->match ? next : peer->match + 1);
	offer(raft, peer);
}

static void on_match(struct sh_raft *raft, struct sh_raft_peer *peer, uint64_t index)
{
	bool advanced = index > peer->match;
	if (advanced) {
		peer->match = index;
	}
	if (peer->next <= peer->match) {
		peer->next = peer->match + 1;
	}
	if (peer->state == SH_PEER_INSTALL && peer->match >= raft->floor) {
		probe_from(peer, peer->match + 1);
	}
	if (peer->state == SH_PEER_PROBE && (advanced || peer->match + 1 >= peer->next)) {
		probe_from(peer, peer->match + 1);
		peer->state = SH_PEER_PIPELINE;
	}
	window_free(peer);
	if (advanced) {
		sh_core_advance(raft);
	}
}

rt_err sh_core_on_append_result(struct sh_raft *raft, const struct sh_raft_message *m)
{
	if (raft->role != SH_LEADER || m->term != raft->term) {
		return RT_OK;
	}
	struct sh_raft_peer *peer = find_peer(raft, m->from);
	if (peer == NULL) {
		return RT_OK;
	}
	if (m->index > raft->last || m->round > raft->round || m->stamp > raft->now) {
		return RT_E_PROTO;
	}
	if (m->round < peer->round) {
		return RT_OK; /* A later answer said as much, or it was another membership. */
	}
	peer->heard_at = raft->now;
	peer->behind = (m->flags & SH_FLAG_BEHIND) != 0;
	peer->round = m->round;
	peer->stamp = m->stamp > peer->stamp ? m->stamp : peer->stamp;
	if ((m->flags & SH_FLAG_REJECT) != 0) {
		on_reject(raft, peer, m);
		return RT_OK;
	}
	on_match(raft, peer, m->index);
	if (raft->role == SH_LEADER) {
		offer(raft, peer);
		hand_over_if_ready(raft, peer);
	}
	return RT_OK;
}

/* ---- proposals ---- */
static rt_err may_propose(const struct sh_raft *raft)
{
	if (raft->role != SH_LEADER) {
		return RT_E_FENCED;
	}
	return raft->transferee != 0 ? RT_E_AGAIN : RT_OK;
}

static struct sh_out *append_own(struct sh_raft *raft, uint32_t count, enum sh_entry_source source)
{
	struct sh_out *out = sh_core_emit(raft, SH_OUT_APPEND);
	out->append.from = raft->last + 1 - count;
	out->append.count = count;
	out->append.term = raft->term;
	out->append.generation = raft->generation;
	out->append.source = source;
	return out;
}

rt_err sh_raft_propose(struct sh_raft *raft, uint32_t count, uint64_t *out_first)
{
	rt_err err = count == 0 ? RT_E_INVAL : may_propose(raft);
	if (err == RT_OK) {
		err = sh_core_begin(raft, raft->now, 1);
	}
	if (err != RT_OK) {
		return err;
	}
	*out_first = raft->last + 1;
	sh_core_log_push(raft, count, raft->term, NULL);
	append_own(raft, count, SH_FROM_PROPOSAL);
	offer_all(raft);
	return RT_OK;
}

/* Peers keep what is known of them; who is new begins at the end of the log, and in a round of its
 * own: what it said in an earlier membership of this term, with a log that it may have lost since,
 * carries an older one. */
void sh_core_sync_peers(struct sh_raft *raft)
{
	struct sh_raft_peer old[SH_MEMBERS_MAX];
	memcpy(old, raft->peers, sizeof(old));
	const struct sh_members *members = &sh_raft_members(raft)->members;
	memset(raft->peers, 0, sizeof(raft->peers));
	raft->round++;
	raft->round_at = raft->now;
	for (int i = 0; i < members->count; i++) {
		raft->peers[i] = new_peer(raft, members->node[i]);
		raft->peers[i].round = raft->round;
		for (uint32_t k = 0; k < SH_MEMBERS_MAX; k++) {
			if (old[k].node == members->node[i]) {
				raft->peers[i] = old[k];
			}
		}
	}
}

/* A voter that has most of the log still to come would make every commit wait for it [D 4.2.1], and
 * one that never answered, for ever. */
static bool is_caught_up(struct sh_raft *raft, const struct sh_members *members)
{
	for (int i = 0; i < members->count; i++) {
		uint64_t node = members->node[i];
		if ((members->voters >> i & 1) == 0 || sh_core_votes(raft, node)) {
			continue;
		}
		const struct sh_raft_peer *peer = find_peer(raft, node);
		if (peer == NULL || peer->match == 0 ||
			peer->match + raft->settings.window < raft->last ||
			raft->now - peer->heard_at > raft->settings.election_ms) {
			return false;
		}
	}
	return true;
}

/* One change at a time, the one before committed [D 4.1], and an entry of the own term too (Ongaro
 * 2015): else two sets could be in use whose majorities do not meet. */
rt_err sh_raft_propose_members(
	struct sh_raft *raft, const struct sh_members *members, uint64_t *out_index)
{
	rt_err err = may_propose(raft);
	if (err != RT_OK) {
		return err;
	}
	const struct sh_raft_set *set = sh_raft_members(raft);
	if (!sh_members_valid(members) || sh_members_voter_count(members) == 0 ||
		sh_members_distance(&set->members, members) != 1) {
		return RT_E_INVAL;
	}
	if (raft->commit < raft->noop || set->index > raft->commit ||
		!is_caught_up(raft, members)) {
		return RT_E_AGAIN;
	}
	err = sh_core_begin(raft, raft->now, 1);
	if (err != RT_OK) {
		return err;
	}
	sh_core_log_push(raft, 1, raft->term, members);
	*out_index = raft->last;
	sh_core_sync_peers(raft);
	append_own(raft, 1, SH_FROM_MEMBERS);
	sh_core_say_members(raft, sh_raft_members(raft), false);
	offer_all(raft);
	return RT_OK;
}

/* Leadership transfer [D 3.10]. Its votes pass by the protection of the leader, so the lease ends
 * for the rest of the term: the word may arrive late, after the attempt was given up [D 6.4.1]. */
rt_err sh_raft_transfer(struct sh_raft *raft, uint64_t now, uint64_t node)
{
	if (raft->role != SH_LEADER) {
		return RT_E_FENCED;
	}
	if (node == raft->settings.node || !sh_core_votes(raft, node)) {
		return RT_E_INVAL;
	}
	rt_err err = sh_core_begin(raft, now, 1);
	if (err != RT_OK) {
		return err;
	}
	raft->lease_ended = true;
	raft->transferee = node;
	raft->transfer_until = raft->now + raft->settings.election_ms;
	hand_over_if_ready(raft, find_peer(raft, node));
	return RT_OK;
}

/* ---- reads [D 6.4] ---- */
rt_err sh_raft_read_begin(struct sh_raft *raft, uint64_t now, struct sh_raft_read *out)
{
	if (raft->role != SH_LEADER) {
		return RT_E_FENCED;
	}
	if (raft->commit < raft->noop) {
		return RT_E_AGAIN;
	}
	rt_err err = sh_core_begin(raft, now, 1);
	if (err != RT_OK) {
		return err;
	}
	start_round(raft);
	*out = (struct sh_raft_read){raft->term, raft->round, raft->commit};
	return RT_OK;
}

rt_err sh_raft_read_ok(const struct sh_raft *raft, const struct sh_raft_read *read)
{
	if (raft->role != SH_LEADER || raft->term != read->term) {
		return RT_E_FENCED;
	}
	uint64_t rounds[SH_MEMBERS_MAX] = {0};
	for (int i = 0; i < peer_count(raft); i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		rounds[i] = is_self(raft, peer) ? raft->round : peer->round;
	}
	return quorum_value(raft, rounds) >= read->round ? RT_OK : RT_E_AGAIN;
}

/* Voters refuse votes for an election timeout after a leader's word; half of it leaves room for
 * clocks that run apart [D 6.4.1]. */
bool sh_raft_lease(const struct sh_raft *raft, uint64_t now)
{
	if (raft->role != SH_LEADER || raft->commit < raft->noop || raft->lease_ended) {
		return false;
	}
	uint64_t stamps[SH_MEMBERS_MAX] = {0};
	now = now > raft->now ? now : raft->now;
	for (int i = 0; i < peer_count(raft); i++) {
		const struct sh_raft_peer *peer = &raft->peers[i];
		stamps[i] = is_self(raft, peer) ? now : peer->stamp;
	}
	uint64_t since = quorum_value(raft, stamps);
	return since != 0 && now - since < raft->settings.election_ms / 2;
}
