# sharding: the Raft core and its host, shard regions, feeds, the node that holds them together.
sharding_PREFIX := sh|troupe__cluster
sharding_SRCS := \
	sharding/allocate.c \
	sharding/ask.c \
	sharding/cache.c \
	sharding/calls.c \
	sharding/cluster.c \
	sharding/cluster_state.c \
	sharding/coordinator.c \
	sharding/coordinator_status.c \
	sharding/feed.c \
	sharding/handshake.c \
	sharding/hash.c \
	sharding/install.c \
	sharding/join.c \
	sharding/mark.c \
	sharding/members.c \
	sharding/message.c \
	sharding/node.c \
	sharding/node_calls.c \
	sharding/outbox.c \
	sharding/outgoing.c \
	sharding/peers.c \
	sharding/raft.c \
	sharding/raft_elect.c \
	sharding/raft_follow.c \
	sharding/raft_lead.c \
	sharding/raft_log.c \
	sharding/reads.c \
	sharding/reconcile.c \
	sharding/region.c \
	sharding/region_frame.c \
	sharding/region_shard.c \
	sharding/replica.c \
	sharding/report.c \
	sharding/reports.c \
	sharding/restore.c \
	sharding/self.c \
	sharding/serve.c \
	sharding/snapshots.c \
	sharding/status.c \
	sharding/transport.c \
	sharding/transport_gate.c \
	sharding/transport_in.c \
	sharding/transport_out.c
sharding_PROTOS := sharding/cluster.proto
PROTOS += $(sharding_PROTOS)
tests/unit/sharding/test_cluster_EXTRA := tests/support/given.c
$(foreach t,coordinator coordinator_memory coordinator_storms, \
	$(eval tests/unit/sharding/test_$(t)_EXTRA := tests/support/clusterbed.c))
tests/unit/sharding/test_coordinator_memory_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc
tests/unit/sharding/test_node_EXTRA := tests/support/nodecall.c
tests/unit/sharding/test_install_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_install_source_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_reads_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_replica_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_replica_end_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_replica_memory_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_replica_memory_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
tests/unit/sharding/test_restore_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_replica_schedules_EXTRA := tests/support/hostbed.c
tests/unit/sharding/test_transport_EXTRA := tests/support/transportbed.c
tests/unit/sharding/test_transport_gate_EXTRA := tests/support/transportbed.c
tests/unit/sharding/test_transport_life_EXTRA := tests/support/transportbed.c
tests/unit/sharding/test_transport_memory_EXTRA := tests/support/transportbed.c
tests/unit/sharding/test_transport_memory_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc,--wrap=strdup

# Only the unit test compiles it: protobuf-c against our own encoding.
tests/unit/sharding/test_message_PROTOS := sharding/peer.proto
PROTOS += sharding/peer.proto
