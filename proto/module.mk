# proto: the wire, its guard, JSON by descriptor, the client library.
proto_PREFIX := pr|troupe
proto_SRCS := \
	proto/client/blocking.c \
	proto/client/client.c \
	proto/client/nodes.c \
	proto/client/pending.c \
	proto/guard.c \
	proto/json_parse.c \
	proto/json_print.c \
	proto/json_text.c \
	proto/utf8.c \
	proto/wire.c
proto_PROTOS := proto/troupe.proto
PROTOS += $(proto_PROTOS)

# Messages with every kind of field, for the tests only.
PROTOS += tests/unit/proto/kinds.proto tests/unit/proto/kinds2.proto
$(foreach t,guard json,$(eval tests/unit/proto/test_$(t)_PROTOS := \
	tests/unit/proto/kinds.proto tests/unit/proto/kinds2.proto))
$(foreach t,envelope json,$(eval tests/fuzz/fuzz_$(t)_PROTOS := tests/unit/proto/kinds.proto))
$(foreach t,client nodes,$(eval tests/unit/proto/client/test_$(t)_EXTRA := tests/unit/proto/client/fake_node.c))
