#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/troupe/cluster/ports.h"
#include "tests/support/test.h"

static char path[64];
static struct rt_errinfo info;

static int make_path(void **state)
{
	(void)state;
	strcpy(path, "/tmp/troupe-ports-XXXXXX");
	int fd = mkstemp(path);
	return fd < 0 || close(fd) != 0 ? -1 : unlink(path);
}

static int remove_path(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

/* Takes a port, any when 0; the descriptor, and which it was. */
static int occupy(uint16_t port, uint16_t *out)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*out = ntohs(address.sin_port);
	return fd;
}

static void a_cluster_that_starts_again_has_its_ports(void **state)
{
	(void)state;
	struct tr_ports first[3], again[4], more[4];
	assert_err(tr_ports_settle(path, 3, 0, first, &info), RT_OK);
	assert_err(tr_ports_settle(path, 3, 0, again, &info), RT_OK);
	assert_memory_equal(first, again, sizeof(first));
	assert_err(tr_ports_settle(path, 4, 0, more, &info), RT_OK);
	assert_memory_equal(first, more, sizeof(first));
	assert_err(tr_ports_settle(path, 1, 0, again, &info), RT_OK);
	assert_err(tr_ports_settle(path, 4, 0, again, &info), RT_OK);
	assert_memory_equal(more, again, sizeof(again));
}

static void no_port_is_given_twice(void **state)
{
	(void)state;
	struct tr_ports ports[TR_NODES_MAX];
	assert_err(tr_ports_settle(path, TR_NODES_MAX, 0, ports, &info), RT_OK);
	for (size_t i = 0; i < TR_NODES_MAX; i++) {
		assert_true(ports[i].rpc >= 7470 && ports[i].rpc != ports[i].peer);
		for (size_t j = 0; j < i; j++) {
			assert_true(ports[i].rpc != ports[j].rpc && ports[i].rpc != ports[j].peer &&
				    ports[i].peer != ports[j].rpc &&
				    ports[i].peer != ports[j].peer);
		}
	}
}

static void only_a_port_that_is_taken_meanwhile_is_replaced(void **state)
{
	(void)state;
	struct tr_ports first[2], again[2];
	uint16_t port = 0;
	assert_err(tr_ports_settle(path, 2, 0, first, &info), RT_OK);
	int fd = occupy(first[0].peer, &port);
	assert_err(tr_ports_settle(path, 2, 0, again, &info), RT_OK);
	assert_true(again[0].peer != first[0].peer && again[0].rpc != first[0].peer);
	assert_memory_equal(&first[1], &again[1], sizeof(first[1]));
	close(fd);
}

static void says_which_wanted_port_is_in_use(void **state)
{
	(void)state;
	struct tr_ports ports[2];
	uint16_t port = 0;
	char expected[64];
	int fd = occupy(0, &port);
	assert_err(tr_ports_settle(path, 1, port, ports, &info), RT_E_FULL);
	snprintf(expected, sizeof(expected), "port %u is in use", port);
	assert_string_equal(info.text, expected);
	assert_err(tr_ports_settle(path, 1, port - 1u, ports, &info), RT_E_FULL);
	assert_string_equal(info.text, expected);
	assert_err(tr_ports_settle(path, 2, 65533, ports, &info), RT_E_FULL);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_cluster_that_starts_again_has_its_ports, make_path, remove_path),
		cmocka_unit_test_setup_teardown(no_port_is_given_twice, make_path, remove_path),
		cmocka_unit_test_setup_teardown(
			only_a_port_that_is_taken_meanwhile_is_replaced, make_path, remove_path),
		cmocka_unit_test_setup_teardown(
			says_which_wanted_port_is_in_use, make_path, remove_path),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
