/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signals of a command that stays with a machine: which it takes, and when. They are read from
 * a descriptor, and come to no thread.
 */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include <stdbool.h>

enum signals_what {
	SIGNALS_NONE, /* nothing was there, or the terminal changed its size */
	SIGNALS_END,
	SIGNALS_POWER,
	SIGNALS_STATUS,
	SIGNALS_FOREGROUND, /* a shell had its turn with the terminal */
};

/* At once. Those that end a process still end this one. */
void signals_keep_others(void);
/* Once there is a machine, which they end, however long its creation took. */
void signals_keep_ending(void);
/* All of them, to be read; -1 with errno. */
int signals_open(void);
enum signals_what signals_read(int fd);

#endif
