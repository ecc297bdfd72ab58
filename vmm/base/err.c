// SPDX-License-Identifier: Apache-2.0
// The error object: formatting into a fixed, caller-owned buffer.
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_vset(struct err *err, int code, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	err->code = code;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	/* One line is the promise; a file name may hold anything. */
	for (char *c = err->text; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	}
	return code;
}

int(err_set)(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(err, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
	char old[sizeof(err->text)];
	va_list ap;
	size_t used;

	if (!err)
		return 0;
	memcpy(old, err->text, sizeof(old));
	va_start(ap, fmt);
	err_vset(err, err->code, fmt, ap);
	va_end(ap);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", old);
	return err->code;
}

const char *err_name(int code)
{
	const char *text = strerrordesc_np(abs(code));

	return text ? text : "unknown error";
}
