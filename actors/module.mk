# actors: the aggregate contract, entities, registry and modules, and the example domains.
actors_PREFIX := ac|troupe|account|calculator
actors_DOMAIN_SRCS := \
	actors/account/account.c \
	actors/calculator/calculator.c
actors_SRCS := $(actors_DOMAIN_SRCS) \
	actors/after.c \
	actors/call.c \
	actors/decide.c \
	actors/dedupe.c \
	actors/describe.c \
	actors/entity.c \
	actors/out.c \
	actors/page.c \
	actors/read.c \
	actors/recover.c \
	actors/registry.c \
	actors/repeat.c \
	actors/reply.c \
	actors/shard.c \
	actors/stream.c \
	actors/unindexed.c
actors_PROTOS := \
	actors/account/account.proto \
	actors/calculator/calculator.proto
PROTOS += $(actors_PROTOS)
PROTOS += tests/unit/actors/probe.proto
tests/unit/actors/test_entity_PROTOS := tests/unit/actors/probe.proto
tests/unit/actors/test_entity_EXTRA := tests/support/nodecall.c
tests/unit/actors/test_shard_EXTRA := tests/support/shardbed.c
tests/unit/actors/test_shard_story_EXTRA := tests/support/shardbed.c
tests/unit/actors/test_after_EXTRA := tests/support/shardbed.c
