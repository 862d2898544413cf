persistence_PREFIX := ps
persistence_SRCS :=
persistence_PROTOS :=
PROTOS += $(persistence_PROTOS)
