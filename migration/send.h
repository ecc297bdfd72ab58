/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side: frames on their way to a socket, pages taken from guest memory as they are
 * sent; and when a round is the last but one.
 *
 * Pages that are zero are sent as their address, or, in the first round, not at all: the target's
 * memory is new. A page is looked at once, and sent from where it is: what changes meanwhile is
 * marked dirty.
 *
 * Threads: the caller's.
 */
#ifndef MIGRATION_SEND_H
#define MIGRATION_SEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "migration/dirty.h"
#include "migration/wire.h"

enum {
	SEND_FRAMES = 64,
	SEND_BYTES = 1 << 20,   /* of pages, in one batch */
	SEND_SCAN_PAGES = 4096, /* looked at for one batch */
};

struct send {
	const struct gmem *gmem;
	struct dirty *dirty;
	bool first_round;
	struct wire_head heads[SEND_FRAMES];
	struct iovec iov[2 * SEND_FRAMES];
	unsigned int n_heads, n_iov, at; /* of iov, those before `at` are gone */
	uint64_t pages, zeroes;          /* so far */
	uint64_t bytes;                  /* of the stream, so far */
};

void send_init(struct send *s, const struct gmem *gmem, struct dirty *dirty);
/* Nothing waits to be sent. */
bool send_is_empty(const struct send *s);
/* Add a frame; payload stays in place until it is sent. There is room: a batch is empty, or has
 * fewer than SEND_FRAMES. */
void send_frame(struct send *s, enum wire_kind kind, uint64_t at, const void *payload,
		uint64_t bytes);
/* The next pages of the round. False: there are none, and the batch is as it was. The batch may
 * stay empty, where all that was looked at is zero. -EFAULT in *rc: memory has left the machine. */
bool send_pages(struct send *s, int *rc);
/* So many bytes have gone. */
void send_gone(struct send *s, size_t bytes);

/* After a round. */
enum round_next {
	ROUND_AGAIN,
	ROUND_LAST,  /* stand still and send the rest: it takes less than the limit */
	ROUND_NEVER, /* the guest writes faster than the stream is */
};
struct rounds {
	uint64_t downtime_ns; /* the limit */
	unsigned int n;
	uint64_t rate; /* bytes per second; 0: not known yet */
	uint64_t left_bytes;
	uint64_t pause_ns;   /* expected */
	uint64_t best_bytes; /* the least that was ever left */
	unsigned int since;  /* rounds without a new best */
};
enum {
	ROUNDS_MAX = 100,
	ROUNDS_PATIENCE = 20, /* rounds that bring nothing */
};
/* It took so long for so many bytes of the stream, and this is dirty now. fixed_ns: what a pause
 * takes beside memory. */
enum round_next rounds_end(struct rounds *r, uint64_t bytes, uint64_t ns, uint64_t left_bytes,
			   uint64_t fixed_ns);

#endif
