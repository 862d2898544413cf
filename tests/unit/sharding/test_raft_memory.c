/* Every allocation of every input of the core fails once, in the middle of whole stories: the input
 * says RT_E_NOMEM, nothing has changed, and the same input works when there is memory again. The
 * linker puts the functions below between the bench and the core. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/raftbed.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool armed;
static uint32_t left, refusals;

static bool fails(void)
{
	return armed && left-- == 0;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

/* ---- before and after ---- */

struct before {
	struct sh_raft raft;
	struct sh_raft_run *runs;
	struct sh_raft_set *sets;
	struct sh_out_queue queue;
};

static void *copy_of(const void *items, size_t size)
{
	void *copy = malloc(size + 1);
	assert_non_null(copy);
	memcpy(copy, items, size);
	return copy;
}

/* Leaves no room, so that whatever needs some has to ask. */
static void squeeze(struct sh_raft *raft)
{
	raft->run_cap = raft->run_count;
	raft->runs = realloc(raft->runs, raft->run_cap * sizeof(*raft->runs));
	raft->set_cap = raft->set_count;
	raft->sets = realloc(raft->sets, raft->set_cap * sizeof(*raft->sets));
	struct sh_out_queue *queue = raft->out;
	assert_int_equal(queue->head, queue->count);
	free(queue->items);
	memset(queue, 0, sizeof(*queue));
}

static struct before look(const struct sh_raft *raft)
{
	return (struct before){.raft = *raft,
		.runs = copy_of(raft->runs, raft->run_count * sizeof(*raft->runs)),
		.sets = copy_of(raft->sets, raft->set_count * sizeof(*raft->sets)),
		.queue = *raft->out};
}

static void nothing_changed(struct before *before, const struct sh_raft *raft)
{
	assert_memory_equal(before->runs, raft->runs, raft->run_count * sizeof(*raft->runs));
	assert_memory_equal(before->sets, raft->sets, raft->set_count * sizeof(*raft->sets));
	assert_int_equal(before->queue.head, raft->out->head);
	assert_int_equal(before->queue.count, raft->out->count);
	/* Where its arrays are and how much room they have is its own business. */
	before->raft.runs = raft->runs;
	before->raft.sets = raft->sets;
	before->raft.run_cap = raft->run_cap;
	before->raft.set_cap = raft->set_cap;
	assert_memory_equal(&before->raft, raft, sizeof(*raft));
}

/* Runs `call` with the first allocation failing, then the second, until none does. */
#define SWEPT(raft, call)                                       \
	do {                                                    \
		squeeze(raft);                                  \
		for (uint32_t nth = 0;; nth++) {                \
			struct before before = look(raft);      \
			armed = true;                           \
			left = nth;                             \
			rt_err err = (call);                    \
			armed = false;                          \
			if (err == RT_E_NOMEM) {                \
				refusals++;                     \
				nothing_changed(&before, raft); \
			}                                       \
			free(before.runs);                      \
			free(before.sets);                      \
			if (err != RT_E_NOMEM) {                \
				return err;                     \
			}                                       \
		}                                               \
	} while (0)

/* __real_f and __wrap_f for the linker. */
#define INPUT(f, params, args)                \
	rt_err __real_##f params;             \
	rt_err __wrap_##f params;             \
	rt_err __wrap_##f params              \
	{                                     \
		SWEPT(raft, __real_##f args); \
	}

INPUT(sh_raft_restore_entries,
	(struct sh_raft * raft, uint32_t count, uint64_t term, const struct sh_members *members),
	(raft, count, term, members))
INPUT(sh_raft_start, (struct sh_raft * raft, uint64_t now), (raft, now))
INPUT(sh_raft_tick, (struct sh_raft * raft, uint64_t now), (raft, now))
INPUT(sh_raft_recv,
	(struct sh_raft * raft, uint64_t now, const struct sh_raft_message *message,
		const struct sh_raft_entry *entries),
	(raft, now, message, entries))
INPUT(sh_raft_propose, (struct sh_raft * raft, uint32_t count, uint64_t *out_first),
	(raft, count, out_first))
INPUT(sh_raft_propose_members,
	(struct sh_raft * raft, const struct sh_members *members, uint64_t *out_index),
	(raft, members, out_index))
INPUT(sh_raft_stored, (struct sh_raft * raft, uint64_t index, uint64_t generation),
	(raft, index, generation))
INPUT(sh_raft_sent, (struct sh_raft * raft, uint64_t node, uint32_t count), (raft, node, count))
INPUT(sh_raft_resume, (struct sh_raft * raft, uint64_t node), (raft, node))
INPUT(sh_raft_installed,
	(struct sh_raft * raft, uint64_t index, uint64_t term, const struct sh_raft_set *set),
	(raft, index, term, set))
INPUT(sh_raft_transfer, (struct sh_raft * raft, uint64_t now, uint64_t node), (raft, now, node))
INPUT(sh_raft_read_begin, (struct sh_raft * raft, uint64_t now, struct sh_raft_read *out),
	(raft, now, out))

rt_err __real_sh_raft_init(struct sh_raft *raft, const struct sh_raft_settings *settings,
	const struct sh_raft_restore *restore, struct sh_out_queue *out);
rt_err __wrap_sh_raft_init(struct sh_raft *raft, const struct sh_raft_settings *settings,
	const struct sh_raft_restore *restore, struct sh_out_queue *out);
rt_err __wrap_sh_raft_init(struct sh_raft *raft, const struct sh_raft_settings *settings,
	const struct sh_raft_restore *restore, struct sh_out_queue *out)
{
	rt_err err = RT_E_NOMEM;
	for (uint32_t nth = 0; err == RT_E_NOMEM; nth++) {
		armed = true;
		left = nth;
		err = __real_sh_raft_init(raft, settings, restore, out);
		armed = false;
		refusals += err == RT_E_NOMEM;
	}
	return err;
}

/* ---- stories ---- */

static void no_allocation_is_missed(uint32_t at_least)
{
	assert_in_range(refusals, at_least, UINT32_MAX);
	refusals = 0;
}

static void elections_and_appends_survive_any_failed_allocation(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 10);
	bed->nodes[1].most = 0;
	bed_write(bed, 1, 5);
	bed->nodes[1].most = 2;
	for (uint64_t i = 2; i <= 3; i++) {
		assert_err(sh_raft_resume(bed_raft(bed, 1), i), RT_OK);
		bed_drain(&bed->nodes[1]);
	}
	bed_settle(bed);
	struct sh_raft_read read;
	assert_err(sh_raft_read_begin(bed_raft(bed, 1), bed->now, &read), RT_OK);
	bed_drain(&bed->nodes[1]);
	bed_settle(bed);
	assert_err(sh_raft_read_ok(bed_raft(bed, 1), &read), RT_OK);
	assert_err(bed_transfer(bed, 1, 2), RT_OK);
	bed_run(bed, 200);
	assert_true(bed_leads(bed, 2));
	bed_isolate(bed, 2);
	bed_write(bed, 2, 5);
	bed_elect(bed, 3);
	bed_write(bed, 3, 5);
	bed_heal(bed);
	bed_run(bed, 300);
	assert_true(bed_converged(bed));
	bed_free(bed);
	no_allocation_is_missed(200);
}

static void changes_and_installs_survive_any_failed_allocation(void **state)
{
	(void)state;
	struct bed *bed = bed_new("1 2 3");
	bed_elect(bed, 1);
	bed_write(bed, 1, 10);
	bed_crash(bed, 3);
	bed_boot(bed, 4);
	bed_change(bed, 1, "1 2 3 4s");
	bed_run(bed, 200);
	bed_change(bed, 1, "1 2 3 4");
	bed_run(bed, 200);
	bed_write(bed, 1, 10);
	bed_compact(bed, 1, bed_commit(bed, 1));
	bed_start(bed, 3);
	bed_run(bed, 2500);
	assert_true(bed_converged(bed));
	assert_true(bed_raft(bed, 3)->floor > 20);
	bed_change(bed, 1, "2 3 4");
	bed_run(bed, 200);
	bed_awake(bed);
	uint64_t leader = bed_any_leader(bed, 5000);
	bed_crash(bed, leader == 2 ? 3 : 2);
	bed_start(bed, leader == 2 ? 3 : 2);
	bed_write(bed, leader, 5);
	bed_run(bed, 3000);
	assert_true(bed_raft(bed, 1)->removed);
	bed_free(bed);
	no_allocation_is_missed(500);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		cmocka_set_test_filter(argv[1]);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elections_and_appends_survive_any_failed_allocation),
		cmocka_unit_test(changes_and_installs_survive_any_failed_allocation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
