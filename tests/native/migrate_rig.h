/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two machines in one process, and a relay between them that can be cut at any frame, of either
 * direction: what the network, or the death of a side, can do.
 *
 *   source ◄── socketpair ──► relay (the test's thread) ◄── socketpair ──► target
 */
#ifndef TEST_NATIVE_MIGRATE_RIG_H
#define TEST_NATIVE_MIGRATE_RIG_H

#include <stdatomic.h>

#include "machine/vm.h"
#include "migration/wire.h"
#include "rig.h"

/* What its events have told. */
struct told {
	_Atomic int ended;  /* of a migration, so often */
	_Atomic int result; /* of the last */
	_Atomic int rounds;
	char text[600]; /* of the last; to be read when `ended` has changed */
};

struct side {
	struct hospes_vm *vm; /* NULL: not made */
	struct told told;
	int fd;                    /* the relay's end */
	int far;                   /* the machine's */
	struct wire_reader reader; /* what the machine has sent */
};

struct migrate_rig {
	struct rig rig;
	struct side source, target;
	unsigned int frames; /* that were relayed */
	enum wire_kind last;
	bool in_file; /* the source's memory */
	/* Called in the source's thread after each round; may be NULL. */
	void (*on_round)(struct migrate_rig *m);
};

void migrate_rig_init(struct migrate_rig *m);
void migrate_rig_done(struct migrate_rig *m);

/* A source that runs, with these members more in its document ("" or ", …"). */
void migrate_source(struct migrate_rig *m, const char *more);
/* It begins; its document is relayed, and the target made from it, and started. */
void migrate_begin(struct migrate_rig *m);
/* Relay frames until this many in all, or until none comes any more: both sides are through. */
void migrate_relay(struct migrate_rig *m, unsigned int frames);
/* One frame more of that side, given to the other. False: it has ended. */
bool migrate_step(struct migrate_rig *m, struct side *from, struct wire_frame *frame);
/* Nothing more passes. */
void migrate_cut(struct migrate_rig *m);

/* Until the side has been told the end of its migration; its result. */
int migrate_wait(struct side *s);
/* Send a frame to that side, as the other would. */
void migrate_send(struct side *to, enum wire_kind kind, uint64_t at, const void *payload,
		  uint64_t bytes);

#endif
