/*
 * The network. Like the product's transport: who wants to talk to a node dials it, and has one
 * connection per lane that carries frames in order, one way, until it breaks; then what it held is
 * lost. A way that is cut holds its frames back until it is whole again or somebody has noticed.
 * The harsher modes lose, double and cut in one direction as no TCP does.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/hash.h"
#include "sharding/outgoing.h"
#include "tests/clustersim/clustersim.h"

#define FULL_OF 1000u /* of so many frames with calls one finds the way full */

/* What a CONN event is about. */
enum {
	DIAL,   /* try to connect */
	NOTICE, /* a cut way is found to be broken */
	BROKEN  /* tell the node */
};
struct news {
	uint32_t from, to, generation, what;
};

static struct cs_conn *conn_of(struct cs *cs, uint32_t from, uint32_t to)
{
	return &cs->nodes[from].out[to];
}

/* An acknowledgement does not get through either, unless the harsher mode says so. */
static bool is_cut(const struct cs *cs, uint32_t from, uint32_t to)
{
	return cs->cut[from][to] || (cs->shape.one_way == 0 && cs->cut[to][from]);
}

static void news_at(struct cs *cs, uint64_t at, const struct news *news)
{
	struct news *copy = malloc(sizeof(*copy));
	RT_ASSERT(copy != NULL);
	*copy = *news;
	cs_at(cs, at, (struct cs_event){.kind = CS_EV_CONN, .node = news->from, .data = copy});
}

static void dial_soon(struct cs *cs, uint32_t from, uint32_t to)
{
	struct news news = {from, to, conn_of(cs, from, to)->generation, DIAL};
	news_at(cs, cs->now + cs_between(cs, 500, cs->healed ? CS_MS(20) : CS_MS(150)), &news);
}

static void drop_held(struct cs *cs, struct cs_conn *conn)
{
	while (conn->held != NULL) {
		struct cs_frame *frame = conn->held;
		conn->held = frame->next;
		free(frame);
		cs->stats->lost++;
	}
	conn->held_end = &conn->held;
}

/* Everything on its way is lost; the node hears of it, and dials again. */
static void break_conn(struct cs *cs, uint32_t from, uint32_t to)
{
	struct cs_conn *conn = conn_of(cs, from, to);
	if (!conn->wanted) {
		return;
	}
	bool was_up = conn->up;
	conn->up = false;
	conn->generation++;
	memset(conn->last_at, 0, sizeof(conn->last_at));
	drop_held(cs, conn);
	if (was_up) {
		CS_TRACE(cs, "n%u loses its connection to n%u", from, to);
		cs->stats->breaks++;
		cs_node_link(&cs->nodes[from], to, false);
	}
	dial_soon(cs, from, to);
}

void cs_net_want(struct cs_node *node, uint32_t to)
{
	struct cs_conn *conn = &node->out[to];
	if (to != node->id && to >= 1 && to <= CS_NODES && !conn->wanted) {
		conn->wanted = true;
		conn->held_end = &conn->held;
		dial_soon(node->cs, node->id, to);
	}
}

/* ---- frames ---- */
static uint64_t arrival(struct cs *cs, struct cs_conn *conn, enum sh_lane lane)
{
	const struct cs_shape *shape = &cs->shape;
	uint64_t at = cs->now + cs_between(cs, shape->delay_min, shape->delay_max);
	if (!cs->healed && cs_chance(cs, shape->late)) {
		at += cs_below(cs, shape->late_max);
	}
	conn->last_at[lane] = at > conn->last_at[lane] ? at : conn->last_at[lane] + 1;
	return conn->last_at[lane];
}

static void fly(struct cs *cs, struct cs_conn *conn, struct cs_frame *frame)
{
	cs_at(cs, arrival(cs, conn, frame->lane),
		(struct cs_event){.kind = CS_EV_FRAME, .node = frame->to, .data = frame});
}

static struct cs_frame *frame_new(
	struct cs_node *node, uint32_t to, enum sh_lane lane, struct rt_bytes bytes)
{
	struct cs_frame *frame = malloc(sizeof(*frame) + bytes.size);
	RT_ASSERT(frame != NULL);
	frame->next = NULL;
	frame->from = node->id;
	frame->to = to;
	frame->generation = node->out[to].generation;
	frame->lane = lane;
	frame->size = bytes.size;
	memcpy(frame->bytes, bytes.data, bytes.size);
	return frame;
}

rt_err cs_net_send(void *arg, uint64_t to, enum sh_lane lane, struct rt_bytes bytes)
{
	struct cs_node *node = arg;
	struct cs *cs = node->cs;
	if (node->muted) {
		return RT_E_CLOSED;
	}
	CS_CHECK(cs, to >= 1 && to <= CS_NODES && to != node->id, "n%u sends to %" PRIu64, node->id,
		to);
	struct cs_conn *conn = &node->out[to];
	if (!conn->up) {
		return RT_E_CLOSED;
	}
	/* Of calls nothing may be lost by that: nobody ran them. */
	if (bytes.size > 0 && lane == SH_LANE_CALL && bytes.data[0] == SH_FRAME_CALLS &&
		cs_below(cs, FULL_OF) == 0) {
		CS_TRACE(cs, "n%u->n%u is full", node->id, (uint32_t)to);
		return RT_E_FULL;
	}
	cs->stats->frames++;
	CS_TRACE(cs, "n%u->n%u lane %d %zu bytes %016" PRIx64, node->id, (uint32_t)to, (int)lane,
		bytes.size, rt_hash(bytes.data, bytes.size));
	bool harsh = cs->faults && !cs->healed;
	if (harsh && cs_chance(cs, cs->shape.drop)) {
		cs->stats->lost++;
		return RT_OK;
	}
	struct cs_frame *frame = frame_new(node, (uint32_t)to, lane, bytes);
	fly(cs, conn, frame);
	/* A doubled call would run twice, each with its own answer: its caller would be told
	 * either. */
	if (harsh && lane != SH_LANE_CALL && cs_chance(cs, cs->shape.twice)) {
		fly(cs, conn, frame_new(node, (uint32_t)to, lane, bytes));
	}
	if (harsh && cs->shape.break_ppm > 0 && cs_below(cs, 1000000) < cs->shape.break_ppm) {
		struct news news = {node->id, (uint32_t)to, conn->generation, BROKEN};
		news_at(cs, cs->now + cs_below(cs, CS_MS(2)), &news);
	}
	return RT_OK;
}

bool cs_net_up(void *arg, uint64_t to)
{
	const struct cs_node *node = arg;
	return !node->muted && to >= 1 && to <= CS_NODES && node->out[to].up;
}

void cs_net_frame(struct cs *cs, struct cs_event *event)
{
	struct cs_frame *frame = event->data;
	struct cs_conn *conn = conn_of(cs, frame->from, frame->to);
	if (frame->generation != conn->generation || !cs->nodes[frame->to].up) {
		cs->stats->lost++;
		return;
	}
	if (is_cut(cs, frame->from, frame->to)) {
		*conn->held_end = frame;
		conn->held_end = &frame->next;
		event->data = NULL;
		return;
	}
	cs_node_frame(&cs->nodes[frame->to], frame);
}

/* ---- connections ---- */
static void dial(struct cs *cs, const struct news *news)
{
	struct cs_conn *conn = conn_of(cs, news->from, news->to);
	struct cs_node *from = &cs->nodes[news->from];
	struct cs_node *to = &cs->nodes[news->to];
	if (!from->up || conn->up || news->generation != conn->generation || to->gone) {
		return;
	}
	/* Who has not heard of a member yet refuses it. */
	bool known = to->out[from->id].wanted;
	if (!to->up || !known || is_cut(cs, from->id, to->id) || to->paused_until > cs->now) {
		dial_soon(cs, from->id, to->id);
		return;
	}
	conn->up = true;
	CS_TRACE(cs, "n%u is connected to n%u", from->id, to->id);
	cs_node_link(from, to->id, true);
}

void cs_net_conn(struct cs *cs, const struct cs_event *event)
{
	const struct news *news = event->data;
	struct cs_conn *conn = conn_of(cs, news->from, news->to);
	if (news->what == DIAL) {
		dial(cs, news);
		return;
	}
	bool same = news->generation == conn->generation && conn->up;
	bool cut =
		is_cut(cs, news->from, news->to) && conn->cut_at + cs->shape.silence_us <= cs->now;
	if (same && (news->what == BROKEN || cut)) {
		break_conn(cs, news->from, news->to);
	}
}

void cs_net_down(struct cs_node *node)
{
	struct cs *cs = node->cs;
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		struct cs_conn *own = &node->out[id];
		own->up = false;
		own->wanted = false;
		own->generation++;
		drop_held(cs, own);
		struct cs_conn *conn = conn_of(cs, id, node->id);
		if (id != node->id && conn->up) {
			/* What is under way falls on nobody. They hear of it soon, or by silence.
			 */
			uint64_t wait = cs_chance(cs, 80) ? CS_MS(2) : cs->shape.silence_us;
			struct news news = {id, node->id, conn->generation, BROKEN};
			news_at(cs, cs->now + cs_below(cs, wait), &news);
		}
	}
}

/* Connections of an earlier process are none of this one's. */
void cs_net_started(struct cs_node *node)
{
	for (uint32_t id = 1; id <= CS_NODES; id++) {
		if (id != node->id && conn_of(node->cs, id, node->id)->up) {
			break_conn(node->cs, id, node->id);
		}
	}
}

/* ---- partitions ---- */
static void look_at_ways(struct cs *cs)
{
	for (uint32_t from = 1; from <= CS_NODES; from++) {
		for (uint32_t to = 1; to <= CS_NODES; to++) {
			struct cs_conn *conn = conn_of(cs, from, to);
			if (from == to || !conn->wanted) {
				continue;
			}
			if (is_cut(cs, from, to)) {
				struct news news = {from, to, conn->generation, NOTICE};
				conn->cut_at = conn->cut_at == 0 ? cs->now : conn->cut_at;
				news_at(cs, conn->cut_at + cs->shape.silence_us, &news);
				continue;
			}
			conn->cut_at = 0;
			while (conn->held != NULL) {
				struct cs_frame *frame = conn->held;
				conn->held = frame->next;
				frame->next = NULL;
				fly(cs, conn, frame);
			}
			conn->held_end = &conn->held;
		}
	}
}

static void cut_between(struct cs *cs, uint32_t a, uint32_t b, uint32_t ways)
{
	cs->cut[a][b] |= (ways & 1) != 0;
	cs->cut[b][a] |= (ways & 2) != 0;
}

/* Which way: both, or only out, or only in. */
static uint32_t ways(struct cs *cs)
{
	return cs_chance(cs, cs->shape.one_way) ? 1 + cs_below(cs, 2) : 3;
}

static void isolate(struct cs *cs, uint32_t node)
{
	cs->stats->partitions++;
	uint32_t way = ways(cs);
	CS_TRACE(cs, "n%u is isolated, ways %u", node, way);
	for (uint32_t other = 1; other <= CS_NODES; other++) {
		if (other != node) {
			cut_between(cs, node, other, way);
		}
	}
}

void cs_net_isolate(struct cs *cs, uint32_t node)
{
	memset(cs->cut, 0, sizeof(cs->cut));
	isolate(cs, node);
	look_at_ways(cs);
}

static void split(struct cs *cs)
{
	uint32_t side = cs_below(cs, 1u << CS_NODES);
	uint32_t way = ways(cs);
	CS_TRACE(cs, "links are cut between %x and the rest, ways %u", side << 1, way);
	for (uint32_t a = 1; a <= CS_NODES; a++) {
		for (uint32_t b = 1; b <= CS_NODES; b++) {
			if ((side >> (a - 1) & 1) != 0 && (side >> (b - 1) & 1) == 0) {
				cut_between(cs, a, b, way);
			}
		}
	}
}

/* Everybody hears two neighbours only. */
static void ring(struct cs *cs)
{
	CS_TRACE(cs, "the network is a ring");
	for (uint32_t a = 1; a <= cs->shape.nodes; a++) {
		for (uint32_t b = 1; b <= cs->shape.nodes; b++) {
			uint32_t apart = a > b ? a - b : b - a;
			if (apart > 1 && apart != cs->shape.nodes - 1) {
				cs->cut[a][b] = true;
			}
		}
	}
}

void cs_net_links(struct cs *cs)
{
	uint32_t kind = cs_below(cs, 10);
	if (cs->now < cs->alone_until) {
		return;
	}
	if (kind < 5) {
		CS_TRACE(cs, "all links are whole");
		memset(cs->cut, 0, sizeof(cs->cut));
	}
	cs->stats->partitions += kind >= 7;
	const struct cs_node *victim = cs_victim(cs);
	if ((kind == 5 || kind == 6) && victim != NULL) {
		isolate(cs, victim->id);
	} else if (kind == 7) {
		uint32_t a = 1 + cs_below(cs, cs->shape.nodes);
		uint32_t b = 1 + cs_below(cs, cs->shape.nodes);
		CS_TRACE(cs, "the link of n%u and n%u is cut", a, b);
		cut_between(cs, a, b, ways(cs));
	} else if (kind == 8) {
		memset(cs->cut, 0, sizeof(cs->cut));
		split(cs);
	} else if (kind == 9) {
		ring(cs);
	}
	look_at_ways(cs);
}

void cs_net_heal(struct cs *cs)
{
	memset(cs->cut, 0, sizeof(cs->cut));
	look_at_ways(cs);
}

bool cs_net_reaches(struct cs *cs, uint32_t node)
{
	bool harsh = cs->faults && !cs->healed;
	return cs->nodes[node].up && !(harsh && cs_chance(cs, cs->shape.client_loss));
}

void cs_net_done(struct cs *cs)
{
	for (uint32_t from = 1; from <= CS_NODES; from++) {
		for (uint32_t to = 1; to <= CS_NODES; to++) {
			drop_held(cs, conn_of(cs, from, to));
		}
	}
}
