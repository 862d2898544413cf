/* container.h - from an embedded member back to the struct that holds it. */
#ifndef RUNTIME_BASE_CONTAINER_H
#define RUNTIME_BASE_CONTAINER_H

#include <stddef.h>

#define RT_CONTAINER(member_ptr, type, member) \
	((type *)(void *)((char *)(member_ptr)-offsetof(type, member)))

#endif
