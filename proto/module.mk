proto_PREFIX := pr|troupe
proto_SRCS :=
proto_PROTOS :=
PROTOS += $(proto_PROTOS)
