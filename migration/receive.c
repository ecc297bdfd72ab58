// SPDX-License-Identifier: Apache-2.0
// Frames into guest memory. See receive.h.
#include "migration/receive.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define IN(stage) (1u << RECEIVE_##stage)

/* In which stages a kind may come. */
static const unsigned int may_come[WIRE_KINDS] = {
	[WIRE_PAGES] = IN(MEMORY) | IN(LAST),
	[WIRE_ZERO] = IN(MEMORY) | IN(LAST),
	[WIRE_ROUND] = IN(MEMORY),
	[WIRE_STILL] = IN(MEMORY),
	[WIRE_STATE] = IN(LAST),
	[WIRE_WHOLE] = IN(LAST),
	[WIRE_GO] = IN(LOADED),
	[WIRE_CANCEL] = IN(MEMORY) | IN(LAST) | IN(WHOLE) | IN(LOADED),
};
static_assert(RECEIVE_STAGES <= 32, "a bit each");

void receive_init(struct receive *r, struct gmem *gmem)
{
	*r = (struct receive){.gmem = gmem, .ram_bytes = gmem_ram_bytes(gmem)};
}

void receive_done(struct receive *r)
{
	free(r->state.bytes);
	r->state = (struct state_buffer){0};
}

static int take_pages(struct receive *r, const struct wire_frame *f, struct err *err)
{
	uint8_t *host;

	if (f->bytes > r->ram_bytes - r->round_bytes)
		return err_set(err, -EPROTO,
			       "migration: more pages in one round than the machine has (%llu MiB)",
			       (unsigned long long)(r->ram_bytes / MiB));
	host = gmem_host(r->gmem, f->at, (size_t)f->bytes, true);
	if (!host)
		return err_set(err, -EPROTO,
			       "migration: %llu bytes at 0x%llx, where this machine has no memory",
			       (unsigned long long)f->bytes, (unsigned long long)f->at);
	r->round_bytes += f->bytes;
	r->pages += f->bytes / WIRE_PAGE_BYTES;
	if (f->payload) {
		memcpy(host, f->payload, (size_t)f->bytes);
		return 0;
	}
	r->zeroes += f->bytes / WIRE_PAGE_BYTES;
	memset(host, 0, (size_t)f->bytes);
	return 0;
}

static int take_round(struct receive *r, struct err *err)
{
	if (++r->rounds > RECEIVE_ROUNDS_MAX)
		return err_set(err, -EPROTO, "migration: more than %d rounds", RECEIVE_ROUNDS_MAX);
	r->round_bytes = 0;
	return 0;
}

static int take_state(struct receive *r, const struct wire_frame *f, struct err *err)
{
	if (f->bytes > RECEIVE_STATE_MAX - r->state.len)
		return err_set(err, -EPROTO, "migration: a state of more than %d bytes",
			       RECEIVE_STATE_MAX);
	if (state_buffer_sink(&r->state, f->payload, (size_t)f->bytes))
		return err_set(err, -ENOMEM, "migration: no memory for the state");
	return 0;
}

static int take_whole(struct receive *r, const struct wire_frame *f, struct err *err)
{
	if (f->at != r->state.len)
		return err_set(err, -EPROTO, "migration: a state of %llu bytes, and %zu have come",
			       (unsigned long long)f->at, r->state.len);
	r->stage = RECEIVE_WHOLE;
	return 0;
}

int receive_frame(struct receive *r, const struct wire_frame *f, struct err *err)
{
	static const char *const stages[] = {"memory comes", "the source stands still",
					     "all has come", "all is loaded", "the source is gone"};
	char text[WIRE_TEXT_MAX + 1];

	static_assert(ARRAY_SIZE(stages) == RECEIVE_STAGES, "each has a name");
	if (!(may_come[f->kind] >> r->stage & 1))
		return err_set(err, -EPROTO, "migration: a frame '%s' while %s", wire_name(f->kind),
			       stages[r->stage]);
	switch (f->kind) {
	case WIRE_PAGES:
	case WIRE_ZERO:
		return take_pages(r, f, err);
	case WIRE_ROUND:
		return take_round(r, err);
	case WIRE_STILL:
		r->stage = RECEIVE_LAST;
		r->still_ns = f->at;
		r->round_bytes = 0;
		return 0;
	case WIRE_STATE:
		return take_state(r, f, err);
	case WIRE_WHOLE:
		return take_whole(r, f, err);
	case WIRE_GO:
		r->stage = RECEIVE_GONE_ON;
		r->run = f->at == 1;
		return 0;
	default: /* WIRE_CANCEL */
		return err_set(err, -ECANCELED, "migration: the source gave up: %s",
			       wire_text(f, text));
	}
}

void receive_loaded(struct receive *r)
{
	assert(r->stage == RECEIVE_WHOLE);
	receive_done(r);
	r->stage = RECEIVE_LOADED;
}
