/* test.h - what every unit test includes: cmocka and the assertion that prints an error's name. */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/base/err.h"

/* Prints the name of the code, not its number. */
#define assert_err(expr, expected) assert_string_equal(rt_err_name(expr), rt_err_name(expected))

#endif
