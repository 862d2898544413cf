actors_PREFIX := ac|troupe|account|calculator
actors_SRCS :=
actors_PROTOS :=
PROTOS += $(actors_PROTOS)
