/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a file open: for messages that say why something cannot be had. Looked up in /proc, which shows
 * a user's own processes, all of them to root, and none of another pid namespace.
 *
 * Threads: no state; any thread.
 */
#ifndef BASE_HOLDER_H
#define BASE_HOLDER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

struct holder {
	pid_t pid;
	char name[64]; /* of its program; "" when that cannot be read */
};
enum { HOLDER_LABEL_BYTES = 64 };

/* The first process but `except` (0: any) that has one of n files open. A character device is the same
 * by whatever name, so it is compared by number; other files by device and inode. Opens none of
 * them. */
bool holder_find(struct holder *ret, const struct stat *files, unsigned int n, pid_t except);

/* Say what for this process has a thing: an fd (the caller's to close, which ends the saying) or a
 * negative errno. It is an empty memory file whose name, "hospes:WHAT:LABEL", others see among our open
 * files: nothing to clean up, whatever end a process comes to. WHAT has no ':' at its end; labels are
 * cut at HOLDER_LABEL_BYTES - 1, and what is no printable ASCII in them is shown as '?'. */
int holder_announce(const char *what, const char *label);
/* What that process said about WHAT; false when nothing, or nothing that may be seen from here. It is
 * the other process's word, for messages only. */
bool holder_announced(pid_t pid, const char *what, char label[HOLDER_LABEL_BYTES]);

#endif
