/* The network: encoded messages in frames, one frame for all that a node says to a peer in a turn,
 * or one for each message. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

struct frame {
	size_t size;
	uint8_t bytes[];
};

static void frame_at(struct sim *sim, uint64_t at, uint64_t to, struct rt_bytes bytes)
{
	struct frame *frame = malloc(sizeof(*frame) + bytes.size);
	RT_ASSERT(frame != NULL);
	frame->size = bytes.size;
	memcpy(frame->bytes, bytes.data, bytes.size);
	sim_at(sim, at,
		(struct sim_event){.kind = SIM_EV_FRAME, .node = (uint8_t)to, .data = frame});
}

static uint64_t arrival(struct sim *sim)
{
	const struct sim_shape *shape = &sim->shape;
	uint64_t delay = sim_between(sim, shape->delay_min, shape->delay_max);
	if (!sim->healed && sim_chance(sim, shape->late)) {
		delay += sim_below(sim, shape->late_max);
	}
	return sim->now + delay;
}

static void flush_to(struct sim *sim, struct sim_node *node, uint64_t to)
{
	struct rt_bytes bytes = rt_bytes_of(node->out[to].bytes, node->out[to].size);
	node->out[to].size = 0;
	if (bytes.size == 0) {
		return;
	}
	sim->stats->bytes += bytes.size;
	if (sim->cut[node->id][to] || (!sim->healed && sim_chance(sim, sim->shape.drop))) {
		sim->stats->dropped++;
		return;
	}
	if (!sim->healed && sim_chance(sim, sim->shape.torn)) {
		bytes.size = sim_below(sim, bytes.size);
	}
	frame_at(sim, arrival(sim), to, bytes);
	if (!sim->healed && sim_chance(sim, sim->shape.twice)) {
		sim->stats->doubled++;
		frame_at(sim, arrival(sim), to, bytes);
	}
}

void sim_net_send(struct sim_replica *r, const struct sh_message *message)
{
	struct sim *sim = r->sim;
	uint64_t to = message->head.to;
	sim_trace_message(sim, "send", message);
	SIM_CHECK(
		r, to >= 1 && to <= sim->shape.nodes && to != r->node->id, "sends to %" PRIu64, to);
	sim->stats->messages++;
	size_t size = sh_message_size(message);
	size_t need = r->node->out[to].size + size;
	if (need > r->node->out[to].cap) {
		r->node->out[to].cap = need * 2;
		r->node->out[to].bytes = realloc(r->node->out[to].bytes, need * 2);
		RT_ASSERT(r->node->out[to].bytes != NULL);
	}
	uint8_t *at = r->node->out[to].bytes + r->node->out[to].size;
	SIM_CHECK(r, sh_message_encode(at, message) == at + size, "encoded to another size");
	r->node->out[to].size = need;
	if (!sim->shape.frames) {
		flush_to(sim, r->node, to);
	}
}

void sim_net_flush(struct sim *sim, struct sim_node *node)
{
	for (uint64_t to = 1; to <= sim->shape.nodes; to++) {
		flush_to(sim, node, to);
	}
}

static void receive(struct sim *sim, struct sim_node *node, const struct sh_message *message)
{
	if (sim->cut[message->head.from][node->id]) {
		sim->stats->dropped++;
		return;
	}
	sim_trace_message(sim, "recv", message);
	RT_ASSERT(message->shard >= 1 && message->shard <= sim->shape.groups);
	struct sim_replica *r = &node->replicas[message->shard - 1];
	sim_took(r, sh_replica_recv(r->replica, sim_clock(sim, node), message), "recv");
}

void sim_net_frame(struct sim *sim, struct sim_event *event)
{
	static struct rt_bytes records[SH_MESSAGE_RECORDS];
	struct sim_node *node = sim_node(sim, event->node);
	const struct frame *frame = event->data;
	struct rt_bytes left = rt_bytes_of(frame->bytes, frame->size);
	if (!node->up) {
		return;
	}
	while (left.size > 0) {
		struct sh_message message;
		rt_err err = sh_message_decode(&left, &message, records);
		if (err != RT_OK) {
			/* A torn frame is the only one that may not decode. */
			if (sim->shape.torn == 0) {
				sim_fail(sim, "n%u cannot decode a frame", node->id);
			}
			break;
		}
		receive(sim, node, &message);
	}
	sim_turn_end(sim, node);
}

/* ---- partitions ---- */
void sim_net_heal(struct sim *sim)
{
	memset(sim->cut, 0, sizeof(sim->cut));
}

static void cut_between(struct sim *sim, uint32_t a, uint32_t b, uint32_t ways)
{
	sim->cut[a][b] |= (ways & 1) != 0;
	sim->cut[b][a] |= (ways & 2) != 0;
}

/* Which way: both, or only out, or only in. */
static uint32_t ways(struct sim *sim)
{
	return sim_chance(sim, sim->shape.one_way) ? 1 + sim_below(sim, 2) : 3;
}

void sim_net_isolate(struct sim *sim, uint32_t node)
{
	uint32_t way = ways(sim);
	sim->stats->partitions++;
	SIM_TRACE(sim, "n%u is isolated%s", node,
		way == 3 ? "" : (way == 1 ? ", it only hears" : ", it is only heard"));
	for (uint32_t other = 1; other <= sim->shape.nodes; other++) {
		if (other != node) {
			cut_between(sim, node, other, way);
		}
	}
}

void sim_net_cut(struct sim *sim, uint64_t a, uint64_t b)
{
	SIM_TRACE(sim, "the link of %" PRIu64 " and %" PRIu64 " is cut", a, b);
	cut_between(sim, (uint32_t)a, (uint32_t)b, 3);
}

static void split(struct sim *sim)
{
	uint32_t side = sim_below(sim, 1u << sim->shape.nodes);
	uint32_t way = ways(sim);
	sim->stats->partitions++;
	SIM_TRACE(sim, "links are cut between %x and the rest, ways %u", side << 1, way);
	for (uint32_t a = 1; a <= sim->shape.nodes; a++) {
		for (uint32_t b = 1; b <= sim->shape.nodes; b++) {
			if ((side >> (a - 1) & 1) != 0 && (side >> (b - 1) & 1) == 0) {
				cut_between(sim, a, b, way);
			}
		}
	}
}

void sim_net_links(struct sim *sim)
{
	if (sim->healed) {
		return;
	}
	uint32_t kind = sim_below(sim, 8);
	if (kind < 4) {
		SIM_TRACE(sim, "all links are whole");
		sim_net_heal(sim);
	} else if (kind < 5) {
		sim_net_isolate(sim, 1 + sim_below(sim, sim->shape.nodes));
	} else if (kind < 6) {
		uint32_t a = 1 + sim_below(sim, sim->shape.nodes);
		uint32_t b = 1 + sim_below(sim, sim->shape.nodes);
		SIM_TRACE(sim, "the link of %u and %u is cut", a, b);
		cut_between(sim, a, b, ways(sim));
	} else {
		sim_net_heal(sim);
		split(sim);
	}
}
