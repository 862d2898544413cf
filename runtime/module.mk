# runtime: errors, bytes, memory, loops, the actor scheduler. Uses nothing else of ours.
runtime_PREFIX := rt
runtime_SRCS := \
	runtime/base/annot.c \
	runtime/base/arena.c \
	runtime/base/assert.c \
	runtime/base/err.c \
	runtime/base/hist.c \
	runtime/base/log.c
