#include <string.h>
#include <troupe/aggregate.h>

#include "todo.pb-c.h"

struct list {
	size_t count;
	Todo__Item **items; /* item number n is items[n - 1] */
};

static bool decide(const void *state, const struct troupe_command *command, struct troupe_out *out)
{
	const struct list *list = state;
	if (command->index == 0) {
		const Todo__Add *add = (const void *)command->message;
		Todo__ItemAdded added = TODO__ITEM_ADDED__INIT;
		if (add->text[0] == '\0') {
			return troupe_refuse(out, "an item needs a text");
		}
		added.number = (uint32_t)list->count + 1;
		added.text = add->text;
		troupe_emit(out, &added.base);
		return true;
	}
	const Todo__Finish *finish = (const void *)command->message;
	Todo__ItemFinished finished = TODO__ITEM_FINISHED__INIT;
	if (finish->number == 0 || finish->number > list->count) {
		return troupe_refuse(out, "there is no item %u", finish->number);
	}
	if (list->items[finish->number - 1]->finished) {
		return troupe_refuse(out, "item %u is finished already", finish->number);
	}
	finished.number = finish->number;
	troupe_emit(out, &finished.base);
	return true;
}

static bool evolve(void *state, const struct troupe_event *event)
{
	struct list *list = state;
	if (event->index == 0) {
		const Todo__ItemAdded *added = (const void *)event->message;
		Todo__Item *item = troupe_alloc(sizeof *item);
		todo__item__init(item);
		item->number = added->number;
		item->text = troupe_strdup(added->text);
		list->items = troupe_realloc(list->items, (list->count + 1) * sizeof *list->items);
		list->items[list->count++] = item;
		return added->number == list->count;
	}
	const Todo__ItemFinished *finished = (const void *)event->message;
	if (finished->number == 0 || finished->number > list->count) {
		return false; /* not a history of ours: this list stops, the node goes on */
	}
	list->items[finished->number - 1]->finished = true;
	return true;
}

static bool answer(
	const void *state, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out)
{
	const struct list *list = state;
	Todo__Items page = TODO__ITEMS__INIT;
	page.n_items = list->count;
	page.items = list->items;
	troupe_reply(out, &page.base);
	(void)query, (void)message; /* there is one, and it asks for everything */
	return true;
}

static void done(void *state)
{
	struct list *list = state;
	for (size_t i = 0; i < list->count; i++) {
		troupe_free(list->items[i]->text);
		troupe_free(list->items[i]);
	}
	troupe_free(list->items);
}

static const struct troupe_command_type commands[] = {
	{"Add", &todo__add__descriptor, NULL}, {"Finish", &todo__finish__descriptor, NULL}, {0}};
static const struct troupe_event_type events[] = {
	{"ItemAdded", 1, &todo__item_added__descriptor, NULL},
	{"ItemFinished", 1, &todo__item_finished__descriptor, NULL}, {0}};
static const struct troupe_query_type queries[] = {
	{"Show", &todo__show__descriptor, &todo__items__descriptor}, {0}};

static const struct troupe_aggregate todo = {.name = "todo",
	.state_size = sizeof(struct list),
	.commands = commands,
	.queries = queries,
	.events = events,
	.done = done,
	.decide = decide,
	.evolve = evolve,
	.answer = answer};
static const struct troupe_aggregate *const aggregates[] = {&todo, NULL};
const struct troupe_module troupe_module = {TROUPE_ABI, "todo", "1.0", aggregates};
