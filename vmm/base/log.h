/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log that belongs to a machine, not to the process: a level, a callback, nothing global.
 *
 * What a guest, a peer or a file can cause over and over goes through log_guest(), which is rate
 * limited per call site's struct, so that nobody can fill the host's disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdint.h>

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
};

/* The sink: any thread may call it, at the same time; text is one line without newline and is
 * valid only during the call; component is a short word ("blk0", "vcpu", "pci"). */
typedef void log_fn(void *opaque, enum log_level level, const char *component, const char *text);

struct log {
	log_fn *fn; /* NULL: silent */
	void *opaque;
	enum log_level level; /* the most detailed level that is delivered */
};

void log_write(const struct log *log, enum log_level level, const char *component, const char *fmt,
	       ...) __attribute__((format(printf, 4, 5)));

#define log_error(log, component, ...) log_write(log, LOG_ERROR, component, __VA_ARGS__)
#define log_warn(log, component, ...)  log_write(log, LOG_WARN, component, __VA_ARGS__)
#define log_info(log, component, ...)  log_write(log, LOG_INFO, component, __VA_ARGS__)
#define log_debug(log, component, ...) log_write(log, LOG_DEBUG, component, __VA_ARGS__)

/* A budget for messages a guest can provoke: ten, then one per second, each saying how many were
 * left out. Zero-initialised; embed one per device. Any thread. */
struct log_limit {
	_Atomic uint64_t window_s;
	_Atomic uint32_t used;
	_Atomic uint32_t dropped;
};

void log_guest(const struct log *log, struct log_limit *limit, const char *component,
	       const char *fmt, ...) __attribute__((format(printf, 4, 5)));

const char *log_level_name(enum log_level level);

#endif
