/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal: raw while a machine has it, restored on return, exit and fatal signals; and the
 * escape Ctrl-A. While this is a background job the terminal is somebody else's, and stays as it
 * is.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* May this process read it and change it? Not as a background job of its session. */
bool terminal_is_ours(void);
/* Make standard input raw; false when it is no terminal, or not ours (nothing is done then). Once
 * more after a time in the background: what is put back is what was there at the first call. */
bool terminal_raw(void);
/* Put it back; harmless when it is not raw. */
void terminal_restore(void);
/* Also before this signal ends the process, unless it is ignored. */
void terminal_restore_at(int signal);

enum terminal_command {
	TERMINAL_NONE,
	TERMINAL_END,       /* Ctrl-A x */
	TERMINAL_POWER,     /* Ctrl-A p */
	TERMINAL_RESET,     /* Ctrl-A r */
	TERMINAL_STATUS,    /* Ctrl-A s */
	TERMINAL_REGISTERS, /* Ctrl-A i */
	TERMINAL_STRATEGY,  /* Ctrl-A 1 to 9: filter->strategy */
	TERMINAL_HELP,      /* Ctrl-A h, and any other key */
};

struct terminal_filter {
	bool escaped;          /* Ctrl-A was the last byte */
	unsigned int strategy; /* from 0 */
};

/* What the keys do, but for those of the strategies; lines. */
extern const char terminal_help[];

/* Remove escapes from bytes, in place: how many bytes are left for the guest. Stops at a command,
 * with *command set, and *used set to the number of input bytes that were looked at. */
size_t terminal_filter(struct terminal_filter *filter, uint8_t *bytes, size_t n, size_t *used,
		       enum terminal_command *command);

#endif
