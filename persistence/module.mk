# persistence: the event store. Records, the RocksDB store, group commit, the index, reads.
persistence_PREFIX := ps
persistence_SRCS := \
	persistence/catchup.c \
	persistence/checkpoint.c \
	persistence/chunk.c \
	persistence/db.c \
	persistence/derived.c \
	persistence/files.c \
	persistence/highwater.c \
	persistence/indexer.c \
	persistence/load.c \
	persistence/log.c \
	persistence/open.c \
	persistence/page.c \
	persistence/reader.c \
	persistence/record.c \
	persistence/store.c \
	persistence/table.c \
	persistence/torn.c \
	persistence/verify.c \
	persistence/writer.c
persistence_PROTOS :=
PROTOS += $(persistence_PROTOS)

# Only the unit test compiles it: protobuf-c against our own encoding.
tests/unit/persistence/test_record_PROTOS := persistence/record.proto
PROTOS += persistence/record.proto
