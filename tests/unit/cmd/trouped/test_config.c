#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/trouped/config.h"
#include "tests/support/test.h"

#define ARGS_MAX 32

static struct td_config config;
static struct rt_errinfo info;
static char path[64];

static rt_err read_args(const char *const *words)
{
	const char *argv[ARGS_MAX] = {"trouped"};
	int argc = 1;
	for (; words[argc - 1] != NULL; argc++) {
		argv[argc] = words[argc - 1];
	}
	td_config_done(&config);
	memset(&info, 0, sizeof(info));
	return td_config_read(argc, argv, &config, &info);
}
#define READ(...) read_args((const char *const[]){__VA_ARGS__, NULL})

static void write_file(const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
}

static int make_file(void **state)
{
	(void)state;
	strcpy(path, "/tmp/troupe-config-XXXXXX");
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	td_config_done(&config);
	return unlink(path);
}

static void assert_says(const char *part)
{
	if (strstr(info.text, part) == NULL) {
		print_error("\"%s\" lacks \"%s\"\n", info.text, part);
	}
	assert_non_null(strstr(info.text, part));
}

static void has_defaults_for_everything(void **state)
{
	(void)state;
	assert_err(READ("--create=yes"), RT_OK);
	assert_string_equal(config.data, "./troupe-data");
	assert_int_equal(config.rpc.count, 1);
	assert_string_equal(config.rpc.items[0], "tcp://127.0.0.1:7470");
	assert_int_equal(config.memory_bytes, 256u << 20);
	assert_int_equal(config.passivate_s, 120);
	assert_int_equal(config.snapshot_every, 50);
	assert_true(config.create);
	assert_false(config.listen_anywhere);
	assert_int_equal(config.log_level, RT_LOG_INFO);
}

static void a_flag_wins_over_the_file_and_the_file_over_the_default(void **state)
{
	(void)state;
	write_file("# a comment\n\n  data = /from/file  \r\nworkers=3\nmemory = 2G\n"
		   "rpc = tcp://127.0.0.1:1\nrpc = ipc:///tmp/a b\nmodule = x.so\ncreate = no");
	assert_err(READ("--workers", "5", "--config", path, "--module", "y.so", "--module=z.so"),
		RT_OK);
	assert_string_equal(config.data, "/from/file");
	assert_int_equal(config.workers, 5);
	assert_int_equal(config.memory_bytes, 2ull << 30);
	assert_int_equal(config.rpc.count, 2);
	assert_string_equal(config.rpc.items[1], "ipc:///tmp/a b");
	assert_int_equal(config.modules.count, 2);
	assert_string_equal(config.modules.items[0], "y.so");
	assert_string_equal(config.modules.items[1], "z.so");
	assert_false(config.create);
}

static void refuses_an_unknown_key_with_its_line_and_the_nearest(void **state)
{
	(void)state;
	write_file("data = x\n\nmemroy = 5M\n");
	assert_err(READ("--config", path), RT_E_INVAL);
	assert_says(path);
	assert_says(":3: unknown key \"memroy\"; did you mean memory?");
	write_file("config = x\n");
	assert_err(READ("--config", path), RT_E_INVAL);
	assert_says(":1: unknown key \"config\"");
	write_file("data x\n");
	assert_err(READ("--config", path), RT_E_INVAL);
	assert_says(":1: expected key = value");
	write_file("a = 1\n");
	assert_err(READ("--dta", "x"), RT_E_INVAL);
	assert_says("unknown option --dta; did you mean --data?");
	assert_err(READ("data"), RT_E_INVAL);
	assert_says("unexpected word \"data\"");
}

static void refuses_values_that_make_no_sense(void **state)
{
	(void)state;
	assert_err(READ("--workers", "many"), RT_E_INVAL);
	assert_says("--workers: expected a number, found \"many\"");
	assert_err(READ("--workers", "-1"), RT_E_INVAL);
	assert_err(READ("--workers", "1K"), RT_E_INVAL);
	assert_err(READ("--workers", "257"), RT_E_INVAL);
	assert_says("too large");
	assert_err(READ("--memory", "5X"), RT_E_INVAL);
	assert_says("bytes such as 256M");
	assert_err(READ("--memory", "99999999999999999999"), RT_E_INVAL);
	assert_err(READ("--memory", "18446744073709551615G"), RT_E_INVAL);
	assert_err(READ("--create", "maybe"), RT_E_INVAL);
	assert_says("expected yes or no");
	assert_err(READ("--log-level", "loud"), RT_E_INVAL);
	assert_err(READ("--data"), RT_E_INVAL);
	assert_says("--data: a value is missing (DIR)");
	assert_err(READ("--data="), RT_E_INVAL);
	assert_err(READ("--config", "/nonexistent/file"), RT_E_IO);
	assert_says("/nonexistent/file: No such file");
}

static void refuses_to_listen_to_the_world_unless_told(void **state)
{
	(void)state;
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470"), RT_E_INVAL);
	assert_says("--insecure-listen-anywhere");
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470", "--insecure-listen-anywhere"), RT_OK);
	assert_err(READ("--rpc", "nonsense"), RT_E_INVAL);
	assert_says("rpc: \"nonsense\" is not a URL");
	write_file("insecure-listen-anywhere = yes\n");
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470", "--config", path), RT_OK);
}

static void other_nodes_call_the_port_after_the_clients(void **state)
{
	(void)state;
	assert_err(READ("--create=yes"), RT_OK);
	assert_string_equal(config.cluster, "tcp://127.0.0.1:7471");
	assert_err(READ("--rpc", "tcp://127.0.0.1:0"), RT_OK);
	assert_string_equal(config.cluster, "tcp://127.0.0.1:0");
	assert_err(READ("--rpc", "ipc:///tmp/x", "--rpc", "tcp6://[::1]:81"), RT_OK);
	assert_string_equal(config.cluster, "tcp6://[::1]:82");
	assert_err(READ("--rpc", "ipc:///tmp/x"), RT_OK);
	assert_string_equal(config.cluster, "tcp://127.0.0.1:0");
	assert_err(READ("--rpc", "tcp://127.0.0.1:65535"), RT_E_INVAL);
	assert_says("--cluster");
	assert_err(READ("--rpc", "tcp://127.0.0.1:65535", "--cluster", "ipc:///tmp/c"), RT_OK);
	assert_string_equal(config.cluster, "ipc:///tmp/c");
	assert_err(READ("--cluster", "ws://127.0.0.1:5/x"), RT_E_INVAL);
	assert_says("nodes talk over tcp or ipc");
	assert_err(READ("--cluster", "x"), RT_E_INVAL);
	assert_says("cluster: \"x\" is not a URL");
}

static void refuses_a_cluster_port_for_the_world_unless_told(void **state)
{
	(void)state;
	assert_err(READ("--cluster", "tcp://10.0.0.1:7471"), RT_E_INVAL);
	assert_says("cluster: other machines can reach tcp://10.0.0.1:7471");
	assert_says("--insecure-listen-anywhere");
	assert_err(READ("--cluster", "tcp://10.0.0.1:7471", "--insecure-listen-anywhere"), RT_OK);
	/* Clients from everywhere are no reason to let in nodes from everywhere. */
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470", "--insecure-listen-anywhere"), RT_OK);
	assert_string_equal(config.cluster, "tcp://127.0.0.1:7471");
}

static void an_address_for_everybody_needs_one_that_can_be_called(void **state)
{
	(void)state;
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470", "--insecure-listen-anywhere", "--join",
			   "tcp://10.0.0.1:7470"),
		RT_E_INVAL);
	assert_says("--advertise-rpc");
	assert_err(
		READ("--cluster", "tcp://0.0.0.0:7471", "--insecure-listen-anywhere"), RT_E_INVAL);
	assert_says("--advertise-cluster");
	assert_err(READ("--rpc", "tcp://0.0.0.0:7470", "--advertise-rpc", "tcp://n1:7470",
			   "--advertise-cluster", "tcp://n1:7471", "--insecure-listen-anywhere"),
		RT_OK);
	assert_string_equal(config.cluster, "tcp://0.0.0.0:7471");
	assert_string_equal(config.advertise_rpc, "tcp://n1:7470");
	assert_err(READ("--advertise-cluster", "tcp://0.0.0.0:7471"), RT_E_INVAL);
	assert_says("advertise-cluster: nobody can call");
	assert_err(READ("--advertise-rpc", "tcp://n1:0"), RT_E_INVAL);
	assert_says("advertise-rpc: tcp://n1:0 has no port");
	assert_err(READ("--advertise-rpc", "n1"), RT_E_INVAL);
	assert_says("advertise-rpc: \"n1\" is not a URL");
}

static void joins_any_of_several_members(void **state)
{
	(void)state;
	write_file("join = tcp://a:1,tcp://b:2\njoin = ipc:///c\n");
	assert_err(READ("--config", path), RT_OK);
	assert_int_equal(config.join.count, 3);
	assert_string_equal(config.join.items[1], "tcp://b:2");
	assert_err(READ("--config", path, "--join", "tcp://d:4"), RT_OK);
	assert_int_equal(config.join.count, 1);
	assert_string_equal(config.join.items[0], "tcp://d:4");
	assert_err(READ("--join", "tcp://a:1,,tcp://b:2"), RT_E_INVAL);
	assert_says("--join: \"tcp://a:1,,tcp://b:2\" has an empty item");
	assert_err(READ("--join", "tcp://a:1,b"), RT_E_INVAL);
	assert_says("join: \"b\" is not a URL");
}

static void a_heartbeat_comes_twice_within_an_election_timeout(void **state)
{
	(void)state;
	assert_err(READ("--create=yes"), RT_OK);
	assert_int_equal(config.replication, 3);
	assert_int_equal(config.election_ms, 1000);
	assert_int_equal(config.heartbeat_ms, 100);
	assert_int_equal(config.dead_after_s, 60);
	assert_err(READ("--election-ms", "300", "--heartbeat-ms", "149"), RT_OK);
	assert_err(READ("--election-ms", "300", "--heartbeat-ms", "150"), RT_E_INVAL);
	assert_says("less than half");
	assert_err(READ("--election-ms", "200"), RT_E_INVAL);
	assert_err(READ("--replication", "0"), RT_E_INVAL);
	assert_says("--replication: 0 is too small; at least 1");
	assert_err(READ("--replication", "6"), RT_E_INVAL);
	assert_says("at most 5");
}

static void a_name_is_no_number(void **state)
{
	(void)state;
	assert_err(READ("--name", "rack-2.n1_a"), RT_OK);
	assert_string_equal(config.name, "rack-2.n1_a");
	assert_err(READ("--name", "12"), RT_E_INVAL);
	assert_says("name: not a number, found \"12\"");
	assert_err(READ("--name", "a b"), RT_E_INVAL);
	assert_says("name: letters, digits");
	assert_err(
		READ("--name", "12345678901234567890123456789012345678901234567890123456789012345"
			       "x"),
		RT_E_INVAL);
	assert_says("at most 64 bytes");
}

static void prints_what_reads_back_the_same(void **state)
{
	(void)state;
	assert_err(READ("--data", "/d", "--rpc", "ipc:///tmp/q", "--rpc", "tcp://127.0.0.1:9",
			   "--memory", "1G", "--create", "no", "--log-level", "warn", "--name",
			   "n1", "--join", "tcp://127.0.0.1:1,tcp://127.0.0.1:2"),
		RT_OK);
	char *first = NULL, *second = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&first, &size);
	td_config_print(&config, to);
	fclose(to);
	write_file(first);
	assert_err(READ("--config", path), RT_OK);
	to = open_memstream(&second, &size);
	td_config_print(&config, to);
	fclose(to);
	assert_string_equal(first, second);
	assert_non_null(strstr(first, "\nmemory = 1073741824\n"));
	assert_non_null(strstr(first, "\njoin = tcp://127.0.0.1:2\n"));
	assert_non_null(strstr(first, "\ncluster = tcp://127.0.0.1:10\n"));
	assert_non_null(strstr(first, "\n# advertise-rpc = URL\n"));
	free(first);
	free(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_defaults_for_everything),
		cmocka_unit_test(a_flag_wins_over_the_file_and_the_file_over_the_default),
		cmocka_unit_test(refuses_an_unknown_key_with_its_line_and_the_nearest),
		cmocka_unit_test(refuses_values_that_make_no_sense),
		cmocka_unit_test(refuses_to_listen_to_the_world_unless_told),
		cmocka_unit_test(other_nodes_call_the_port_after_the_clients),
		cmocka_unit_test(refuses_a_cluster_port_for_the_world_unless_told),
		cmocka_unit_test(an_address_for_everybody_needs_one_that_can_be_called),
		cmocka_unit_test(joins_any_of_several_members),
		cmocka_unit_test(a_heartbeat_comes_twice_within_an_election_timeout),
		cmocka_unit_test(a_name_is_no_number),
		cmocka_unit_test(prints_what_reads_back_the_same),
	};
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
