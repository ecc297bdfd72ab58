/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon that the command starts may open by path: Landlock, as sandbox/ has it for the
 * machine's threads, which this command sees nothing of.
 *
 * Threads: any; it confines the calling one, and what that starts.
 */
#ifndef CLI_FENCE_H
#define CLI_FENCE_H

#include <stdbool.h>

enum fence_right {
	FENCE_READ,    /* a file, or what is below a directory */
	FENCE_EXECUTE, /* and to execute it */
	FENCE_WRITE,   /* a file or device that is there */
	FENCE_CHANGE,  /* all below a directory: make, remove, rename, write */
};

struct fence_path {
	const char *path; /* one that does not exist is left out */
	enum fence_right right;
};

/* Has this kernel what it takes? */
bool fence_is_there(void);
/* From here on, nothing but n paths, and no new rights. No TCP, no abstract sockets, and, unless it
 * may signal, no signals to others, as far as the kernel can deny that. 0 or a negative errno. */
int fence_enter(const struct fence_path *paths, unsigned int n, bool may_signal);
/* Become argv[0], with nothing but these paths; NULL: not fenced in. For a child after fork. What
 * fails is written to standard error, and the status is 127. */
_Noreturn void fence_exec(const char *const *argv, const struct fence_path *paths, unsigned int n);

#endif
