/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command says: one-line errors, and the log (standard error or a file, as text or as JSON
 * lines).
 *
 * A reader that takes nothing (a full pipe, a stopped terminal, a journal that hangs) stops neither
 * the command nor the machine, whose threads log: after one second lines are left out, until one is
 * taken, which is preceded by how many there were.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include "hospes/hospes.h"

/* "hospes: ..." on standard error, one line. */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Text of any length on standard error, as it is. */
void cli_show(const char *text);

struct output {
	FILE *to;
	bool json;
	atomic_uint left_out; /* lines, since one was taken */
};

/* path NULL: standard error. CLI_OK, or CLI_FAILED with the message printed. */
int output_open(struct output *output, const char *path, bool json);
void output_close(struct output *output);
/* A hospes_log_fn; opaque is the struct output. Any thread: a line is one write. */
void output_log(void *opaque, enum hospes_log_level level, const char *component, const char *text);

#endif
