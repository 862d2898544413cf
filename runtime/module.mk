# runtime: errors, bytes, memory, loops, the actor scheduler. Uses nothing else of ours.
runtime_PREFIX := rt
runtime_SRCS := \
	runtime/base/annot.c \
	runtime/base/arena.c \
	runtime/base/assert.c \
	runtime/base/err.c \
	runtime/base/hist.c \
	runtime/base/log.c \
	runtime/sched/actor.c \
	runtime/sched/ask.c \
	runtime/sched/family.c \
	runtime/sched/lane.c \
	runtime/sched/loop.c \
	runtime/sched/post.c \
	runtime/sched/send.c \
	runtime/sched/sim.c \
	runtime/sched/slice.c \
	runtime/sched/stats.c \
	runtime/sched/supervise.c \
	runtime/sched/system.c \
	runtime/sched/timer.c

# Its malloc says no when told to.
tests/unit/runtime/test_alloc_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc
