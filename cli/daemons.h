/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Daemons that the command starts for what a document names by path: virtiofsd for a folder
 * (shares[].path), qemu-storage-daemon for a qcow2 image (disks[].path). The device is then one
 * that a daemon serves (vhost_user_fd, keeper_fd); each daemon has a keeper (keeper.h).
 *
 * Threads: the main one, before there are others. CLI_OK, or another enum cli_status with the
 * message printed.
 */
#ifndef CLI_DAEMONS_H
#define CLI_DAEMONS_H

#include <jansson.h>
#include <stdbool.h>

enum { DAEMONS_MAX = 96 /* 64 disks, 32 shares */ };

/* Zeroed, there are none. */
struct daemons {
	struct daemons_child {
		int connection, lifeline; /* for the machine, which duplicates them; -1 */
		int ended;                /* struct kept */
	} child[DAEMONS_MAX];
	unsigned int n;
};

/* What is left out and can be known without a daemon: the tag of a folder. */
void daemons_complete(json_t *document);
/* Each that the document needs; it is changed. Where one fails, those before it are ended. */
int daemons_start(struct daemons *daemons, json_t *document);
/* Of one device: `list` is the document's key that it could be in. fenced: it is refused where this
 * kernel cannot confine the daemon. */
int daemons_start_for(struct daemons *daemons, const char *list, json_t *item, bool strict,
		      bool fenced);
/* The machine has them, or never will. */
void daemons_release(struct daemons *daemons);
/* After daemons_release and the machine's end: until they have ended, too; 25 s at most. */
void daemons_wait(struct daemons *daemons);

#endif
