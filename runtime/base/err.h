/*
 * err.h - the one error type, and the optional detail that travels with it.
 *
 * A function that can fail returns rt_err; RT_OK is 0. Results go out through pointers named
 * `out` or `out_*`, untouched on failure. Cold paths (open, recover, configure, admin) also take a
 * struct rt_errinfo * last, which may be NULL; hot paths never do.
 *
 * Not errors: a command that a business rule refuses (an answer, see actors/aggregate.h) and a
 * broken invariant (RT_ASSERT, which stops the process).
 */
#ifndef RUNTIME_BASE_ERR_H
#define RUNTIME_BASE_ERR_H

#include <stdbool.h>

#include "runtime/base/annot.h"

/* X(name, retry, text): retry says whether the same call may succeed later without a change. */
#define RT_ERR_LIST(X)                                                         \
	X(OK, false, "success")                                                \
	X(E_NOMEM, true, "out of memory or over a configured limit")           \
	X(E_INVAL, false, "argument out of range")                             \
	X(E_FULL, true, "queue or buffer is full")                             \
	X(E_AGAIN, true, "not ready")                                          \
	X(E_TIMEOUT, true, "no answer in time")                                \
	X(E_CLOSED, false, "object is shutting down")                          \
	X(E_NOTFOUND, false, "no such object")                                 \
	X(E_EXISTS, false, "object exists already")                            \
	X(E_FENCED, false, "a newer owner exists")                             \
	X(E_CORRUPT, false, "stored bytes fail their checksum or schema")      \
	X(E_PROTO, false, "bytes from a peer break the protocol")              \
	X(E_TOOLARGE, false, "over a size limit")                              \
	X(E_NOSPACE, true, "no space left on device")                          \
	X(E_UNAVAILABLE, true, "not served now; nothing was written")          \
	X(E_UNKNOWN, true, "outcome unknown; repeat with the same command id") \
	X(E_VERSION, false, "format or interface version is not supported")    \
	X(E_IO, false, "system call or storage failed; see the detail")

typedef enum rt_err {
#define X(name, retry, text) RT_##name,
	RT_ERR_LIST(X)
#undef X
	RT_ERR_COUNT
} rt_err;

#define RT_ERRINFO_TEXT 512

struct rt_errinfo {
	rt_err code;
	int os_errno;               /* 0 when no system call is to blame. */
	char text[RT_ERRINFO_TEXT]; /* Outermost first: "open store: shard 12: short record". */
};

const char *rt_err_name(rt_err err);
const char *rt_err_text(rt_err err);
bool rt_err_may_retry(rt_err err);

/* Sets code and text; returns code, so that `return rt_errinfo_set(...)` reads well. NULL is fine.
 */
rt_err rt_errinfo_set(struct rt_errinfo *info, rt_err code, const char *fmt, ...) RT_PRINTF(3, 4);
/* Puts "what: " in front of the text that a deeper call left. */
rt_err rt_errinfo_wrap(struct rt_errinfo *info, rt_err code, const char *fmt, ...) RT_PRINTF(3, 4);

#ifdef __clang_analyzer__
/* It looks at one file at a time and would consider that these return RT_OK. */
static inline rt_err rt_errinfo_returns(rt_err code, rt_err same)
{
	(void)same;
	return code;
}
#define rt_errinfo_set(info, code, ...) \
	rt_errinfo_returns((code), rt_errinfo_set((info), (code), __VA_ARGS__))
#define rt_errinfo_wrap(info, code, ...) \
	rt_errinfo_returns((code), rt_errinfo_wrap((info), (code), __VA_ARGS__))
#endif

#endif
