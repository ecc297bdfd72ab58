/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's side: which frame may come when, what it may cost, and guest memory filled by it.
 *
 *   MEMORY ── STILL ──► LAST ── WHOLE ──► WHOLE ── receive_loaded ──► LOADED ── GO ──► GONE_ON
 *
 * Bounds: in one round no more pages come than there is memory; as many rounds as a source makes,
 * and a few; a state of RECEIVE_STATE_MAX. Memory is written where there is RAM, and nowhere else.
 * The stages decide when a target may run: after GO, which is taken in LOADED alone.
 *
 * Threads: the caller's; vCPUs and devices do not run.
 */
#ifndef MIGRATION_RECEIVE_H
#define MIGRATION_RECEIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/gmem.h"
#include "core/state.h"
#include "migration/wire.h"

enum {
	RECEIVE_ROUNDS_MAX = 128,
	RECEIVE_STATE_MAX = 256 << 20,
};

enum receive_stage {
	RECEIVE_MEMORY, /* rounds */
	RECEIVE_LAST,   /* the source stands still */
	RECEIVE_WHOLE,  /* all is there: for the caller to load */
	RECEIVE_LOADED,
	RECEIVE_GONE_ON, /* the source never runs again */
	RECEIVE_STAGES,
};

struct receive {
	struct gmem *gmem;
	enum receive_stage stage;
	uint64_t ram_bytes;
	unsigned int rounds;
	uint64_t round_bytes; /* of pages, zero ones too, in this round */
	uint64_t pages, zeroes;
	uint64_t still_ns; /* the source's clock, when it stood still */
	bool run;          /* after GO: the source ran */
	struct state_buffer state;
};

void receive_init(struct receive *r, struct gmem *gmem);
void receive_done(struct receive *r);
/* Take one frame. -EPROTO: it cannot come now, or too much comes; -ECANCELED: the source gives up,
 * text is its reason; -ENOMEM. */
int receive_frame(struct receive *r, const struct wire_frame *frame, struct err *err);
/* The caller has loaded the state. */
void receive_loaded(struct receive *r);

#endif
