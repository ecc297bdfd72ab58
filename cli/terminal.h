/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal: raw while a machine has it, restored on every way out (return, exit, fatal signal),
 * and the escape Ctrl-A.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Make standard input raw; false when it is no terminal (nothing is done then). */
bool terminal_raw(void);
/* Put it back; harmless when it is not raw. */
void terminal_restore(void);

enum terminal_command {
	TERMINAL_NONE,
	TERMINAL_END,       /* Ctrl-A x */
	TERMINAL_POWER,     /* Ctrl-A p */
	TERMINAL_RESET,     /* Ctrl-A r */
	TERMINAL_STATUS,    /* Ctrl-A s */
	TERMINAL_REGISTERS, /* Ctrl-A i */
	TERMINAL_DIRECT,    /* Ctrl-A d */
	TERMINAL_STRICT,    /* Ctrl-A t */
};

struct terminal_filter {
	bool escaped; /* Ctrl-A was the last byte */
};

/* Take escapes out of bytes, in place: how many are left for the guest. Stops at a command, with
 * *command set and *used telling how many bytes of the input were looked at. */
size_t terminal_filter(struct terminal_filter *filter, uint8_t *bytes, size_t n, size_t *used,
		       enum terminal_command *command);

#endif
