/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that executes commands, one line each, from its serial console.
 *
 * It is the user's own kernel and root disk (or initial RAM disk); process 1 is its /bin/sh, with a
 * script of ours that a small read-only disk holds. The guest says "@hospes WORD…", and waits for a
 * line:
 *
 *     guest                                   host
 *     @hospes ready TARGET KERNEL TOOL   ──►
 *                                        ◄──  block 4096 1 2
 *     @hospes begin                      ──►  counters are read
 *                                        ◄──  go
 *     @hospes end                        ──►  and again
 *                                        ◄──  go
 *     @hospes result …                   ──►  (or: failed WHY)
 *
 * so that nothing of the guest's runs while counters are read, and programs start and end outside.
 */
#ifndef COMPARE_GUEST_H
#define COMPARE_GUEST_H

#include "compare/compare.h"
#include "output.h"

struct compare_guest;

struct compare_guest_config {
	json_t *document;    /* the user's, borrowed; not changed */
	const char *device;  /* of the host */
	const char *target;  /* in the guest: /dev/nvme0n1, eth0; NULL: found there */
	const char *address; /* network: of the guest, with its length; NULL */
	const char *peer;    /* network: where iperf3 -s listens; NULL */
	unsigned int timeout_s;
	struct output *output;
};

/* The document of the guest of that row: for hospes_config_check, and used by start. New
 * reference. */
json_t *compare_guest_document(const struct compare_guest_config *config,
			       const struct compare_row *row, int in, int out, int script);
/* 0 when it is ready, else a negative errno and why: with the end of what it said. The guest's own
 * words are put to c->guest. */
int compare_guest_start(struct compare_guest **ret, const struct compare_guest_config *config,
			const struct compare_row *row, struct compare *c, char *why, size_t bytes);
/* One sample. -EAGAIN: what it said could not be read; worth another try. */
int compare_guest_run(struct compare_guest *guest, const struct compare_case *at,
		      unsigned int seconds, double figures[COMPARE_FIGURES], char *why,
		      size_t bytes);
/* NULL is allowed. */
void compare_guest_end(struct compare_guest *guest);

#endif
