/* The port of a replica: disk and network of its node, and an owner that only remembers. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "tests/sim/sim.h"

static rt_err port_write(void *arg, const struct sh_write *write)
{
	return sim_disk_write(arg, write);
}

static rt_err port_read(void *arg, const struct sh_replica_read *read)
{
	return sim_disk_read(arg, read);
}

static uint64_t port_first(void *arg)
{
	const struct sim_replica *r = arg;
	return r->view.first;
}

static rt_err port_meta(
	void *arg, struct rt_bytes key, struct rt_bytes *out, struct rt_errinfo *info)
{
	const struct sim_replica *r = arg;
	for (uint32_t i = 0; i < SIM_ROWS; i++) {
		const struct sim_row *row = &r->rows[i];
		if (row->key_size > 0 &&
			rt_bytes_equal(key, rt_bytes_of(row->key, row->key_size))) {
			uint8_t *copy = malloc(row->size + 1);
			RT_ASSERT(copy != NULL);
			memcpy(copy, row->bytes, row->size);
			*out = rt_bytes_of(copy, row->size);
			return RT_OK;
		}
	}
	return rt_errinfo_set(info, RT_E_NOTFOUND, "no row");
}

static rt_err port_scan(
	void *arg, uint64_t from, sh_scan_fn *visit, void *visit_arg, struct rt_errinfo *info)
{
	const struct sim_replica *r = arg;
	uint64_t index = from > r->image.first ? from : r->image.first;
	RT_MAYBE(info != NULL);
	for (const struct sim_record *record; (record = sim_log_at(&r->image, index)) != NULL;
		index++) {
		if (!visit(visit_arg, index, rt_bytes_of(record->bytes, record->size))) {
			break;
		}
	}
	return RT_OK;
}

static void port_send(void *arg, const struct sh_message *message)
{
	struct sim_replica *r = arg;
	sim_check_send(r, message);
	sim_net_send(r, message);
}

static void port_lead(void *arg, uint64_t term, uint64_t last)
{
	struct sim_replica *r = arg;
	SIM_TRACE(r->sim, "n%u g%u LEADS term %" PRIu64 " from %" PRIu64, r->node->id, r->group + 1,
		term, last);
	sim_check_lead(r, term, last);
	r->leading = true;
	r->lead_term = term;
	r->sim->stats->leaders++;
	if (!r->sim->healed && sim_chance(r->sim, r->sim->shape.isolate_lead)) {
		sim_net_isolate(r->sim, r->node->id);
	}
}

static void port_follow(void *arg, uint64_t term, uint64_t leader)
{
	struct sim_replica *r = arg;
	SIM_TRACE(r->sim, "n%u g%u follows %" PRIu64 " term %" PRIu64, r->node->id, r->group + 1,
		leader, term);
	r->leading = false;
}

static void port_committed(void *arg, uint64_t upto)
{
	struct sim_replica *r = arg;
	SIM_TRACE(r->sim, "n%u g%u committed %" PRIu64, r->node->id, r->group + 1, upto);
	sim_check_told(r, upto);
}

static void port_installed(void *arg, uint64_t first, uint64_t last)
{
	struct sim_replica *r = arg;
	SIM_TRACE(r->sim, "n%u g%u installed %" PRIu64 "..%" PRIu64, r->node->id, r->group + 1,
		first, last);
	r->sim->stats->installs++;
	r->image_lost = false;
	sim_check_installed(r, first, last);
}

static void port_members(void *arg, const struct sh_raft_set *set, bool removed)
{
	struct sim_replica *r = arg;
	SIM_TRACE(r->sim, "n%u g%u members of %" PRIu64 " committed, %u of them%s", r->node->id,
		r->group + 1, set->index, set->members.count, removed ? ", REMOVED" : "");
	r->told_removed = removed;
	if (removed) {
		r->leading = false;
	}
}

static void port_readable(void *arg, void *ticket, rt_err err, uint64_t index)
{
	struct sim_replica *r = arg;
	struct sim_ticket *t = ticket;
	SIM_TRACE(r->sim, "n%u g%u read %td: %s at %" PRIu64 ", needs %" PRIu64, r->node->id,
		r->group + 1, t - r->tickets, rt_err_name(err), index, t->need);
	SIM_CHECK(r, t->used, "a read was answered twice");
	t->used = false;
	if (err != RT_OK) {
		r->sim->stats->reads_lost++;
		return;
	}
	SIM_CHECK(r, index <= r->committed, "serves %" PRIu64 ", knows of %" PRIu64, index,
		r->committed);
	SIM_CHECK(r, index >= t->need, "STALE READ at %" PRIu64 ", %" PRIu64 " was known (%s)",
		index, t->need, t->lease ? "lease" : "round");
	*(t->lease ? &r->sim->stats->reads_lease : &r->sim->stats->reads_round) += 1;
}

const struct sh_replica_port sim_port = {
	.write = port_write,
	.read = port_read,
	.first = port_first,
	.meta = port_meta,
	.scan = port_scan,
	.send = port_send,
	.lead = port_lead,
	.follow = port_follow,
	.committed = port_committed,
	.installed = port_installed,
	.members = port_members,
	.readable = port_readable,
};
