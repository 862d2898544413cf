# actors: the aggregate contract, entities, registry and modules, and the example domains.
actors_PREFIX := ac|troupe|account|calculator
actors_DOMAIN_SRCS :=
actors_SRCS := $(actors_DOMAIN_SRCS)
actors_PROTOS :=
PROTOS += $(actors_PROTOS)
