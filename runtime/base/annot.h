/*
 * annot.h - compiler attributes under one name, and thread-role annotations.
 *
 * A role is a capability that no lock implements: "the code that runs here is the owning
 * worker". Under clang with -Wthread-safety the compiler checks it; elsewhere it is documentation.
 * C needs the role to be a global: clang 14 rejects guarded_by(sibling_field) in a C struct.
 */
#ifndef RUNTIME_BASE_ANNOT_H
#define RUNTIME_BASE_ANNOT_H

#define RT_NODISCARD         __attribute__((warn_unused_result))
#define RT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define RT_COLD              __attribute__((cold))
#define RT_NORETURN          _Noreturn
#define RT_CACHELINE         64

#if defined(__clang__)
#define RT_TSA(x) __attribute__((x))
#else
#define RT_TSA(x)
#endif

struct RT_TSA(capability("role")) rt_role {
	char unused;
};

/* The three places code can run. A function without a role is callable from anywhere. */
extern struct rt_role rt_role_worker; /* The worker thread that owns the object. */
extern struct rt_role rt_role_disk;   /* A journal writer thread. */
extern struct rt_role rt_role_main;   /* Start-up and shut-down, no worker running. */

#define RT_ON(role)       RT_TSA(requires_capability(rt_role_##role))
#define RT_OWNED_BY(role) RT_TSA(guarded_by(rt_role_##role))

/* Marks the entry of a role for the compiler's checker. */
#define RT_ASSERT_ROLE(role) rt_role_assert_##role()
static inline void rt_role_assert_worker(void) RT_TSA(assert_capability(rt_role_worker));
static inline void rt_role_assert_worker(void)
{
}
static inline void rt_role_assert_disk(void) RT_TSA(assert_capability(rt_role_disk));
static inline void rt_role_assert_disk(void)
{
}

#endif
