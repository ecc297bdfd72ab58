// SPDX-License-Identifier: Apache-2.0
// The log: formatting, levels, and a budget for what a guest can provoke.
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum {
	LINE_BYTES = 1024,
	FREE_MESSAGES = 10, /* before the limit of one per second sets in */
};

static void log_vwrite(const struct log *log, enum log_level level, const char *component,
		       const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

static void log_vwrite(const struct log *log, enum log_level level, const char *component,
		       const char *fmt, va_list ap)
{
	char line[LINE_BYTES];

	vsnprintf(line, sizeof(line), fmt, ap);
	log->fn(log->opaque, level, component, line);
}

void log_write(const struct log *log, enum log_level level, const char *component, const char *fmt,
	       ...)
{
	va_list ap;

	if (!log || !log->fn || level > log->level)
		return;
	va_start(ap, fmt);
	log_vwrite(log, level, component, fmt, ap);
	va_end(ap);
}

void log_guest(const struct log *log, struct log_limit *limit, const char *component,
	       const char *fmt, ...)
{
	struct timespec now;
	uint32_t dropped;
	va_list ap;

	if (!log || !log->fn || LOG_WARN > log->level)
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (atomic_exchange(&limit->window_s, (uint64_t)now.tv_sec) == (uint64_t)now.tv_sec) {
		if (atomic_load(&limit->used) >= FREE_MESSAGES) {
			atomic_fetch_add(&limit->dropped, 1);
			return;
		}
	}
	if (atomic_load(&limit->used) < FREE_MESSAGES)
		atomic_fetch_add(&limit->used, 1);
	dropped = atomic_exchange(&limit->dropped, 0);
	if (dropped)
		log_write(log, LOG_WARN, component, "%u more messages of this device left out",
			  dropped);
	va_start(ap, fmt);
	log_vwrite(log, LOG_WARN, component, fmt, ap);
	va_end(ap);
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {
		[LOG_ERROR] = "error",
		[LOG_WARN] = "warning",
		[LOG_INFO] = "info",
		[LOG_DEBUG] = "debug",
	};

	return (unsigned int)level < sizeof(names) / sizeof(names[0]) ? names[level] : "?";
}
