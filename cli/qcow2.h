/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon needs to know of a qcow2 image before it may open it: which files it is made of.
 * An image comes from anywhere, and names its backing file itself: without a rule it could name any
 * file that its user can read.
 */
#ifndef CLI_QCOW2_H
#define CLI_QCOW2_H

#include <stdbool.h>
#include <stddef.h>

enum {
	QCOW2_DEPTH = 32,  /* of a chain, the image included */
	QCOW2_NAME = 1024, /* of a backing file, with its end: the format's own limit is 1023 */
	QCOW2_WHY = 512,
};

/* The head of an image. */
struct qcow2_head {
	bool is_qcow2;
	char backing[QCOW2_NAME]; /* as it is written; "": none */
};

struct qcow2_chain {
	char *path[QCOW2_DEPTH]; /* absolute; the image first */
	unsigned int n;
};

/* A file of any kind: 0; or -EINVAL, and why (it is a qcow2 image that is damaged or of a kind that
 * is refused). */
int qcow2_read_head(int fd, struct qcow2_head *ret, char why[QCOW2_WHY]);
/* The files of the image at path. Backing files lie below the folder that it is in, or below
 * `folder` if that is not NULL, after links were followed. 0; or a negative errno, and why, with
 * nothing to free. */
int qcow2_find_chain(struct qcow2_chain *ret, const char *path, const char *folder,
		     char why[QCOW2_WHY]);
void qcow2_chain_done(struct qcow2_chain *chain);

#endif
