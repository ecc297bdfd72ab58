/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a file open, for messages that explain why it is not available. Read from /proc, which
 * shows a user's own processes, all processes to root, and none of another pid namespace.
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

/* The first process but `except` (0: any) that has one of n files open. A character device is the
 * same by whatever name, so it is compared by number; other files by device and inode. Opens none
 * of them. */
bool holder_find(struct holder *ret, const struct stat *files, unsigned int n, pid_t except);

/* Announce for what purpose this process has a thing open: an fd, which the caller closes to end
 * it, or a negative errno. It is an empty memory file whose name, "hospes:WHAT:LABEL", others see
 * among our open files, so nothing is left behind however the process ends. WHAT does not end in
 * ':'; labels are cut at HOLDER_LABEL_BYTES - 1, and characters other than printable ASCII become
 * '?'. */
int holder_announce(const char *what, const char *label);
/* The label that the process announced for WHAT; false if there is none, or none is visible from
 * here. The other process is not trusted: for messages only. */
bool holder_announced(pid_t pid, const char *what, char label[HOLDER_LABEL_BYTES]);

#endif
