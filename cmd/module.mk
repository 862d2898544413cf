# cmd: the daemon and the command line. Nothing else includes from here.
cmd_LISTENER_SRCS := \
	cmd/trouped/callpool.c \
	cmd/trouped/connection.c \
	cmd/trouped/listener.c \
	cmd/trouped/peers.c \
	cmd/trouped/url.c

tests/unit/cmd/trouped/test_listener_EXTRA := $(cmd_LISTENER_SRCS) tests/unit/cmd/trouped/fake_node.c
tests/unit/cmd/trouped/test_peers_EXTRA := cmd/trouped/peers.c cmd/trouped/connection.c
tests/unit/cmd/test_nearest_EXTRA := cmd/nearest.c
tests/unit/cmd/trouped/test_config_EXTRA := cmd/trouped/address.c cmd/trouped/config.c cmd/trouped/url.c cmd/nearest.c
tests/unit/cmd/troupe/test_options_EXTRA := cmd/troupe/options.c cmd/nearest.c
tests/unit/cmd/troupe/cluster/test_hashes_EXTRA := cmd/troupe/cluster/hashes.c
tests/unit/cmd/troupe/cluster/test_ports_EXTRA := cmd/troupe/cluster/ports.c
tests/unit/cmd/troupe/cluster/test_table_EXTRA := \
	$(addprefix cmd/troupe/cluster/,table.c view.c watch.c)
tests/unit/cmd/troupe/cluster/test_view_EXTRA := cmd/troupe/cluster/view.c

PROGRAMS += cmd/trouped/trouped
cmd/trouped/trouped_SRCS := $(cmd_LISTENER_SRCS) \
	cmd/nearest.c \
	cmd/trouped/address.c \
	cmd/trouped/config.c \
	cmd/trouped/main.c \
	cmd/trouped/screen.c
# Modules resolve troupe_* and protobuf_c_* in the program that loads them.
cmd/trouped/trouped_LDFLAGS := -rdynamic

# It needs the client library: built from the moment that is there.
ifneq ($(wildcard proto/client/client.c),)
PROGRAMS += cmd/troupe/troupe
endif
cmd/troupe/troupe_SRCS := \
	cmd/nearest.c \
	cmd/troupe/bench.c \
	cmd/troupe/client.c \
	cmd/troupe/cluster/admin.c \
	cmd/troupe/cluster/ask.c \
	cmd/troupe/cluster/check.c \
	cmd/troupe/cluster/child.c \
	cmd/troupe/cluster/hashes.c \
	cmd/troupe/cluster/ports.c \
	cmd/troupe/cluster/status.c \
	cmd/troupe/cluster/table.c \
	cmd/troupe/cluster/up.c \
	cmd/troupe/cluster/view.c \
	cmd/troupe/cluster/watch.c \
	cmd/troupe/main.c \
	cmd/troupe/node.c \
	cmd/troupe/options.c \
	cmd/troupe/read.c \
	cmd/troupe/send.c \
	cmd/troupe/verify.c
