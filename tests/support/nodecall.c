#include "tests/support/nodecall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/troupe.pb-c.h"
#include "tests/support/test.h"

static void open_node(struct t_node *t)
{
	struct rt_errinfo info = {0};
	rt_err err = sh_node_open(&t->options, t->registry, &t->node, &info);
	if (err != RT_OK) {
		print_error("%s\n", info.text);
	}
	assert_err(err, RT_OK);
}

void t_node_open(struct t_node *t, const struct troupe_aggregate *const *aggregates,
	const struct sh_node_options *options)
{
	*t = (struct t_node){.options = *options};
	snprintf(t->dir, sizeof(t->dir), "/tmp/troupe-test-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	assert_err(ac_registry_new(&t->registry), RT_OK);
	for (; *aggregates != NULL; aggregates++) {
		struct rt_errinfo info = {0};
		rt_err err = ac_registry_add(t->registry, *aggregates, &info);
		if (err != RT_OK) {
			print_error("%s\n", info.text);
		}
		assert_err(err, RT_OK);
	}
	t->options.dir = t->dir;
	t->options.create = true;
	if (t->options.workers == 0) {
		t->options.workers = 1;
	}
	open_node(t);
}

void t_node_close(struct t_node *t)
{
	sh_node_close(t->node);
	t->node = NULL;
}

void t_node_reopen(struct t_node *t)
{
	t_node_close(t);
	open_node(t);
}

void t_node_remove(struct t_node *t)
{
	t_node_close(t);
	ac_registry_free(t->registry);
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", t->dir);
	assert_int_equal(system(command), 0);
}

static void answered(struct ac_call *call)
{
	uv_sem_post(&((struct t_call *)call)->answered);
}

void t_submit(struct t_node *t, struct t_call *c, uint32_t kind, const char *path, const char *name,
	const char *json)
{
	const char *slash = strchr(path, '/');
	struct rt_bytes command_id = c->call.in.command_id;
	uint64_t expected = c->call.in.expected;
	uv_sem_init(&c->answered, 0);
	c->call.in = (struct pr_call){.type = rt_bytes_of(path, (size_t)(slash - path)),
		.id = rt_bytes_str(slash + 1),
		.name = rt_bytes_str(name),
		.payload = rt_bytes_str(json),
		.kind = kind,
		.json = true,
		.command_id = command_id,
		.expected = expected};
	c->call.done = answered;
	sh_node_submit(t->node, &c->call);
}

uint32_t t_wait(struct t_call *c)
{
	uv_sem_wait(&c->answered);
	snprintf(c->error, sizeof(c->error), "%.*s", (int)c->call.out.error.size,
		c->call.out.error.size > 0 ? (const char *)c->call.out.error.data : "");
	return c->call.out.code;
}

void t_end(struct t_call *c)
{
	ac_call_clear(&c->call);
	uv_sem_destroy(&c->answered);
}

uint32_t t_call(struct t_node *t, uint32_t kind, const char *path, const char *name,
	const char *json, char *out, size_t out_size)
{
	struct t_call c = {0};
	t_submit(t, &c, kind, path, name, json);
	uint32_t code = t_wait(&c);
	struct rt_bytes text = code == 0 ? c.call.out.payload : c.call.out.error;
	if (out != NULL) {
		snprintf(out, out_size, "%.*s", (int)text.size,
			text.size > 0 ? (const char *)text.data : "");
	}
	t_end(&c);
	return code;
}
