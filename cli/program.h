/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of this host that the command starts: where it is, what it may open (fence.h), and one
 * that runs to its end. CLI_OK, or another enum cli_status with the message printed.
 */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "fence.h"

enum { PROGRAM_PATHS = 48 };

struct program {
	/* The caller's. */
	const char *what;    /* it is for, which messages begin with: "share" */
	const char *of;      /* the name of that */
	const char *name;    /* of the program */
	const char *package; /* Debian's, and what else to type */
	bool fenced;         /* where this kernel can; strict: not without */
	bool strict;
	/* program_find's */
	char path[PATH_MAX];
	struct fence_path paths[PROGRAM_PATHS];
	unsigned int n_paths;
};

/* It is in $PATH, or in /usr/libexec. It may use what every program does of this host. */
int program_find(struct program *p);
/* path is to stay until the program has started. At most PROGRAM_PATHS - 16 times. */
void program_may(struct program *p, const char *path, enum fence_right right);
/* To its end, with `fd` as descriptor 3, and n bytes as its input. argv ends with NULL; its first
 * is the path. It has 30 s. */
int program_run(const struct program *p, const char *const *argv, int fd, const char *input,
		size_t n);

#endif
