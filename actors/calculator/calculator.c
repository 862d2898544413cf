#include "actors/calculator/calculator.h"

#include <math.h>
#include <string.h>

#include "actors/calculator/calculator.pb-c.h"

#define COMMAND_ID_MAX 64u
#define PARENT_ID_SIZE (2u * COMMAND_ID_MAX + 1u)

enum {
	CREATE,
	UPDATE
};
enum {
	VALUE_CREATED,
	VALUE_UPDATED
};

struct value {
	bool exists;
	double number;
	uint64_t updates;
};

/* Printable ids stay as they are, others become hex. */
static void parent_id(const struct troupe_command *command, char text[PARENT_ID_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	size_t size = command->command_id_size < COMMAND_ID_MAX ? command->command_id_size
								: COMMAND_ID_MAX;
	bool printable = true;
	for (size_t i = 0; i < size; i++) {
		printable &= command->command_id[i] >= 0x20 && command->command_id[i] < 0x7f;
	}
	if (printable) {
		if (size > 0) {
			memcpy(text, command->command_id, size);
		}
		text[size] = '\0';
		return;
	}
	for (size_t i = 0; i < size; i++) {
		text[2 * i] = digits[command->command_id[i] >> 4];
		text[2 * i + 1] = digits[command->command_id[i] & 15];
	}
	text[2 * size] = '\0';
}

static void reply_value(struct troupe_out *out, double number)
{
	Calculator__Result reply = CALCULATOR__RESULT__INIT;
	reply.value = number;
	troupe_reply(out, &reply.base);
}

static bool decide_create(
	const struct value *value, const struct troupe_command *command, struct troupe_out *out)
{
	const Calculator__Create *create = (const void *)command->message;
	char parent[PARENT_ID_SIZE];
	if (!isfinite(create->value)) {
		return troupe_refuse(out, "value must be a finite number");
	}
	if (value->exists) {
		return troupe_refuse(out, "value with id %s exists already", command->entity_id);
	}
	Calculator__ValueCreated event = CALCULATOR__VALUE_CREATED__INIT;
	parent_id(command, parent);
	event.parent_id = parent;
	event.value = create->value;
	troupe_emit(out, &event.base);
	reply_value(out, event.value);
	return true;
}

static bool decide_update(
	const struct value *value, const struct troupe_command *command, struct troupe_out *out)
{
	const Calculator__Update *update = (const void *)command->message;
	char parent[PARENT_ID_SIZE];
	double result;
	if (!isfinite(update->value)) {
		return troupe_refuse(out, "value must be a finite number");
	}
	if (update->operation != CALCULATOR__OPERATION__ADD &&
		update->operation != CALCULATOR__OPERATION__MULTIPLY) {
		return troupe_refuse(out, "operation must be ADD or MULTIPLY");
	}
	if (!value->exists) {
		return troupe_refuse(out, "value with id %s does not exist", command->entity_id);
	}
	result = update->operation == CALCULATOR__OPERATION__ADD ? value->number + update->value
								 : value->number * update->value;
	if (!isfinite(result)) {
		return troupe_refuse(out, "the result is too large");
	}
	Calculator__ValueUpdated event = CALCULATOR__VALUE_UPDATED__INIT;
	parent_id(command, parent);
	event.parent_id = parent;
	event.operation = update->operation;
	event.operand = update->value;
	event.value = result;
	troupe_emit(out, &event.base);
	reply_value(out, result);
	return true;
}

static bool decide(const void *state, const struct troupe_command *command, struct troupe_out *out)
{
	return command->index == CREATE ? decide_create(state, command, out)
					: decide_update(state, command, out);
}

static bool evolve(void *state, const struct troupe_event *event)
{
	struct value *value = state;
	if (event->index == VALUE_CREATED) {
		const Calculator__ValueCreated *created = (const void *)event->message;
		if (value->exists || !isfinite(created->value)) {
			return false;
		}
		value->exists = true;
		value->number = created->value;
		return true;
	}
	const Calculator__ValueUpdated *updated = (const void *)event->message;
	if (!value->exists || !isfinite(updated->value)) {
		return false;
	}
	value->number = updated->value;
	value->updates++;
	return true;
}

static bool answer(
	const void *state, uint32_t query, const ProtobufCMessage *message, struct troupe_out *out)
{
	const struct value *value = state;
	(void)query;
	(void)message;
	if (!value->exists) {
		return troupe_refuse(out, "value does not exist");
	}
	reply_value(out, value->number);
	return true;
}

static void save(const void *state, struct troupe_out *out)
{
	const struct value *value = state;
	Calculator__State saved = CALCULATOR__STATE__INIT;
	saved.exists = value->exists;
	saved.value = value->number;
	saved.updates = value->updates;
	troupe_reply(out, &saved.base);
}

static bool restore(void *state, const ProtobufCMessage *snapshot)
{
	struct value *value = state;
	const Calculator__State *saved = (const void *)snapshot;
	value->exists = saved->exists;
	value->number = saved->value;
	value->updates = saved->updates;
	return isfinite(saved->value);
}

static const struct troupe_command_type commands[] = {
	[CREATE] = {"Create", &calculator__create__descriptor, &calculator__result__descriptor},
	[UPDATE] = {"Update", &calculator__update__descriptor, &calculator__result__descriptor},
	{0},
};
static const struct troupe_event_type events[] = {
	[VALUE_CREATED] = {"ValueCreated", 1, &calculator__value_created__descriptor, NULL},
	[VALUE_UPDATED] = {"ValueUpdated", 1, &calculator__value_updated__descriptor, NULL},
	{0},
};
static const struct troupe_query_type queries[] = {
	{"Value", &calculator__value__descriptor, &calculator__result__descriptor},
	{0},
};

const struct troupe_aggregate calculator_aggregate = {
	.name = "calculator",
	.state_size = sizeof(struct value),
	.commands = commands,
	.queries = queries,
	.events = events,
	.decide = decide,
	.evolve = evolve,
	.answer = answer,
	.snapshot = &calculator__state__descriptor,
	.snapshot_version = 1,
	.save = save,
	.restore = restore,
};
