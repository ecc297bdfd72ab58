/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The error object of set-up paths: caller-owned, a fixed buffer, no allocation.
 *
 * Convention of the whole tree: a function returns 0 or a negative errno. A set-up function takes a
 * struct err * as its last argument and leaves in it one line that names the thing, the value and
 * the remedy. Callers add context in front. Hot paths return the bare code.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

struct err {
	int code;       /* negative errno of the last err_set, 0 when none */
	char text[760]; /* one line without newline, always terminated */
};

#define ERR_INIT {.code = 0, .text = ""}

/* Set code (a negative errno) and text; returns code, for `return err_set(err, -EINVAL, ...)`.
 * err may be NULL when the caller wants only the code. Overlong text is cut. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *err, int code, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

/* Put "context: " before the text; returns err->code (or 0 when err is NULL). */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The name and meaning of a negative or positive errno: thread-safe, static storage. */
const char *err_name(int code);

/* Shows the caller's compiler that the code is returned: an optimizer, or a checker that sees one
 * file at a time, then knows that no result was left unset on success. */
#define err_set(err, code, ...)                                 \
	({                                                      \
		const int err_code_ = (code);                   \
		(void)(err_set)((err), err_code_, __VA_ARGS__); \
		err_code_;                                      \
	})

#endif
