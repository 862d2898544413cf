# proto: the wire, its guard, JSON by descriptor, the client library.
proto_PREFIX := pr|troupe
proto_SRCS :=
proto_PROTOS := proto/troupe.proto
PROTOS += $(proto_PROTOS)
