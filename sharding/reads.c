/* Linearizable reads: with a lease at once, else one round for all that wait [D 6.4]. */
#include <stdlib.h>

#include "runtime/base/assert.h"
#include "sharding/host.h"

#define READS_MAX 65536u

struct read {
	void *ticket;
	uint64_t index;
};

/* Three groups one behind the other: [0, confirmed) wait until their index is durable here,
 * [confirmed, asked) for the round under way, [asked, count) for the next one: a round confirms
 * only what came before it began. */
struct sh_reads {
	struct sh_raft_read round;
	uint32_t confirmed, asked, count, cap;
	struct read items[];
};

static rt_err make_room(struct sh_replica *replica)
{
	struct sh_reads *reads = replica->reads;
	uint32_t cap = reads == NULL ? 4 : reads->cap;
	if (reads != NULL && reads->count == cap) {
		cap *= 2;
	} else if (reads != NULL) {
		return RT_OK;
	}
	if (cap > READS_MAX) {
		return RT_E_FULL;
	}
	struct sh_reads *grown = realloc(reads, sizeof(*reads) + cap * sizeof(struct read));
	if (grown == NULL) {
		return RT_E_NOMEM;
	}
	if (reads == NULL) {
		*grown = (struct sh_reads){0};
	}
	grown->cap = cap;
	replica->reads = grown;
	return RT_OK;
}

static void add_confirmed(struct sh_reads *reads, struct read read)
{
	/* The first of each group behind steps to that group's end. */
	reads->items[reads->count++] = reads->items[reads->asked];
	reads->items[reads->asked++] = reads->items[reads->confirmed];
	reads->items[reads->confirmed++] = read;
}

rt_err sh_reads_add(struct sh_replica *replica, void *ticket)
{
	bool lease = sh_raft_lease(&replica->raft, replica->now);
	uint64_t index = replica->raft.commit;
	if (lease && index <= replica->told) {
		replica->port->readable(replica->arg, ticket, RT_OK, index);
		return RT_OK;
	}
	rt_err err = make_room(replica);
	if (err != RT_OK) {
		return err;
	}
	struct sh_reads *reads = replica->reads;
	if (lease) {
		add_confirmed(reads, (struct read){ticket, index});
	} else {
		reads->items[reads->count++] = (struct read){ticket, 0};
	}
	return RT_OK;
}

/* True: something changed. */
static rt_err step_round(struct sh_replica *replica, bool *out_changed)
{
	struct sh_reads *reads = replica->reads;
	*out_changed = false;
	if (reads->asked > reads->confirmed) {
		rt_err err = sh_raft_read_ok(&replica->raft, &reads->round);
		if (err == RT_OK) {
			for (uint32_t i = reads->confirmed; i < reads->asked; i++) {
				reads->items[i].index = reads->round.index;
			}
			reads->confirmed = reads->asked;
			*out_changed = true;
		}
		/* RT_E_FENCED comes with a change of role, which ends them all. */
	} else if (reads->count > reads->asked) {
		struct sh_raft_read round;
		rt_err err = sh_raft_read_begin(&replica->raft, replica->now, &round);
		if (err != RT_OK) {
			return RT_OK; /* Memory is short: with the next input. */
		}
		reads->round = round;
		reads->asked = reads->count;
		*out_changed = true;
		return sh_host_pump(replica, RT_OK);
	}
	return RT_OK;
}

static void answer(struct sh_replica *replica)
{
	struct sh_reads *reads = replica->reads;
	uint32_t done = 0;
	while (done < reads->confirmed && reads->items[done].index <= replica->told) {
		replica->port->readable(
			replica->arg, reads->items[done].ticket, RT_OK, reads->items[done].index);
		done++;
	}
	reads->confirmed -= done;
	reads->asked -= done;
	reads->count -= done;
	if (reads->count == 0) {
		free(reads);
		replica->reads = NULL;
	} else if (done > 0) {
		memmove(reads->items, reads->items + done, reads->count * sizeof(struct read));
	}
}

rt_err sh_reads_settle(struct sh_replica *replica)
{
	bool changed = true;
	while (replica->reads != NULL && changed) {
		rt_err err = step_round(replica, &changed);
		if (err != RT_OK) {
			return err;
		}
	}
	if (replica->reads != NULL) {
		answer(replica);
	}
	return RT_OK;
}

void sh_reads_end(struct sh_replica *replica, rt_err err)
{
	struct sh_reads *reads = replica->reads;
	replica->reads = NULL;
	for (uint32_t i = 0; reads != NULL && i < reads->count; i++) {
		replica->port->readable(replica->arg, reads->items[i].ticket, err, 0);
	}
	free(reads);
}

uint64_t sh_reads_memory(const struct sh_replica *replica)
{
	const struct sh_reads *reads = replica->reads;
	return reads == NULL ? 0 : sizeof(*reads) + reads->cap * sizeof(struct read);
}
