/*
 * utf8.h - is it text? Strings of messages and of JSON must be UTF-8 without NUL bytes: C code
 * behind protobuf-c would silently see a shorter string.
 *
 * Refuses overlong forms, surrogates, code points above U+10FFFF and NUL. Threads: any.
 */
#ifndef PROTO_UTF8_H
#define PROTO_UTF8_H

#include "runtime/base/bytes.h"

bool pr_utf8_valid(struct rt_bytes text);
/* Bytes of the character at text.data[0], 1..4; 0: not a character. */
size_t pr_utf8_length(struct rt_bytes text);

#endif
