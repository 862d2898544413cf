sharding_PREFIX := sh
sharding_SRCS :=
sharding_PROTOS :=
PROTOS += $(sharding_PROTOS)
