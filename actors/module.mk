# actors: the aggregate contract, entities, registry and modules, and the example domains.
actors_PREFIX := ac|troupe|account|calculator
actors_DOMAIN_SRCS := \
	actors/account/account.c \
	actors/calculator/calculator.c
actors_SRCS := $(actors_DOMAIN_SRCS)
actors_PROTOS := \
	actors/account/account.proto \
	actors/calculator/calculator.proto
PROTOS += $(actors_PROTOS)
