// SPDX-License-Identifier: Apache-2.0
// Frames: what is put in comes out, in parts of any size; what is none, too much or too early is
// refused; memory at the other end is the same after the last round; rounds end.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "migration/receive.h"
#include "migration/send.h"
#include "ram.h"

enum { PAGE = 4096, PAGES = 512 };

struct end {
	struct gmem *gmem;
	struct dirty *dirty;
	struct send send;
	struct receive receive;
	struct wire_reader reader;
};
static struct end from, to;
static struct err err;

static void make(struct end *e)
{
	cr_assert_eq(gmem_create(&e->gmem, NULL, &err), 0);
	add_ram(e->gmem, 0, PAGES / 2 * PAGE, 0, GMEM_ANONYMOUS);
	add_ram(e->gmem, PAGES * PAGE, PAGES / 2 * PAGE, 0, GMEM_ANONYMOUS);
	add_ram(e->gmem, 4 * PAGES * PAGE, 16 * PAGE, GMEM_READONLY, GMEM_ANONYMOUS);
	cr_assert_eq(dirty_create(&e->dirty, e->gmem, &err), 0);
	send_init(&e->send, e->gmem, e->dirty);
	receive_init(&e->receive, e->gmem);
	cr_assert_eq(wire_reader_init(&e->reader, &err), 0);
}

static void set_up(void)
{
	make(&from);
	make(&to);
	gmem_set_dirty(from.gmem, dirty_tracker(from.dirty));
}

static void unmake(struct end *e)
{
	wire_reader_done(&e->reader);
	receive_done(&e->receive);
	dirty_destroy(e->dirty);
	gmem_destroy(e->gmem);
}

static void tear_down(void)
{
	unmake(&from);
	unmake(&to);
}

TestSuite(stream, .init = set_up, .fini = tear_down, .timeout = 60);

/* All that is queued, in parts of at most so many bytes. */
static int carry(size_t most)
{
	struct wire_frame frame;
	int rc = 0;

	while (!send_is_empty(&from.send) && rc >= 0) {
		const struct iovec *iov = &from.send.iov[from.send.at];
		size_t room, n = MIN(iov->iov_len, most);
		uint8_t *at = wire_reader_free(&to.reader, &room);

		n = MIN(n, room);
		memcpy(at, iov->iov_base, n);
		wire_reader_filled(&to.reader, n);
		send_gone(&from.send, n);
		while ((rc = wire_reader_take(&to.reader, &frame, &err)) > 0 &&
		       !(rc = receive_frame(&to.receive, &frame, &err)))
			;
	}
	return rc;
}

static void carry_round(size_t most)
{
	int rc;

	dirty_collect(from.dirty);
	while (send_pages(&from.send, &rc))
		cr_assert_geq(carry(most), 0, "%s", err.text);
	cr_assert_eq(rc, 0);
}

static int same_region(void *opaque, const struct gmem_region *region)
{
	(void)opaque;
	return memcmp(region->hva, gmem_host(to.gmem, region->gpa, region->size_bytes, false),
		      region->size_bytes) != 0;
}

static void fill(uint64_t page, uint8_t value)
{
	uint8_t bytes[PAGE];

	memset(bytes, value, sizeof(bytes));
	cr_assert_eq(gmem_write(from.gmem, page * PAGE, bytes, sizeof(bytes)), 0);
}

Test(stream, memory_is_the_same_after_rounds_of_any_cut)
{
	static const size_t cuts[] = {1, 7, 24, 4096, 100000, SIZE_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		for (uint64_t p = 0; p < PAGES / 2; p += 3)
			fill(p + (p % 2) * PAGES, (uint8_t)(p + i));
		dirty_mark_ram(from.dirty);
		carry_round(MAX(cuts[i], (size_t)1));
		from.send.first_round = false;
		send_frame(&from.send, WIRE_ROUND, i, NULL, 0);
		cr_assert_geq(carry(cuts[i]), 0, "%s", err.text);
		fill(3, 0xee);
		fill(PAGES + 9, 0); /* what was something is zero */
		carry_round(cuts[i]);
		send_frame(&from.send, WIRE_ROUND, i, NULL, 0);
		cr_assert_geq(carry(cuts[i]), 0, "%s", err.text);
		cr_expect_eq(gmem_walk(from.gmem, same_region, NULL), 0, "cut %zu", i);
	}
}

Test(stream, zero_pages_cost_nothing_at_first_and_a_head_later)
{
	dirty_mark_ram(from.dirty);
	carry_round(SIZE_MAX);
	cr_expect_eq(from.send.bytes, 0);
	cr_expect_eq(from.send.zeroes, PAGES);
	from.send.first_round = false;
	dirty_mark_ram(from.dirty);
	carry_round(SIZE_MAX);
	cr_expect_eq(from.send.bytes, 2 * WIRE_HEAD_BYTES, "%llu",
		     (unsigned long long)from.send.bytes);
}

Test(stream, many_single_pages_take_many_batches_and_none_is_lost)
{
	for (uint64_t p = 0; p < PAGES / 2; p += 2)
		fill(p, 7);
	dirty_mark_ram(from.dirty);
	from.send.first_round = false;
	carry_round(SIZE_MAX);
	cr_expect_eq(gmem_walk(from.gmem, same_region, NULL), 0);
	cr_expect_eq(from.send.pages, PAGES);
}

static int feed(enum wire_kind kind, uint64_t at, const void *payload, uint64_t bytes)
{
	send_frame(&from.send, kind, at, payload, bytes);
	return carry(SIZE_MAX);
}

static void refused(enum wire_kind kind, uint64_t at, const void *payload, uint64_t bytes,
		    const char *want)
{
	int rc = feed(kind, at, payload, bytes);

	cr_expect_eq(rc, -EPROTO, "'%s': %d", want, rc);
	cr_expect(strstr(err.text, want), "'%s' does not say '%s'", err.text, want);
	tear_down();
	set_up();
}

Test(stream, what_is_no_frame_is_refused)
{
	static const uint8_t page[PAGE] = {1};

	refused((enum wire_kind)0, 0, NULL, 0, "kind 0x0");
	refused(WIRE_KINDS, 0, NULL, 0, "kind 0xf");
	refused(WIRE_PAGES, 12, page, PAGE, "address");
	refused(WIRE_PAGES, 0, page, 100, "bytes");
	refused(WIRE_PAGES, 0, page, 0, "bytes");
	refused(WIRE_PAGES, 0, NULL, WIRE_PAYLOAD_MAX + PAGE, "bytes");
	refused(WIRE_ZERO, UINT64_MAX - PAGE + 1, NULL, 2 * PAGE, "address");
	refused(WIRE_STATE, 0, NULL, WIRE_PAYLOAD_MAX + 1, "bytes");
	refused(WIRE_STILL, 0, NULL, 1, "bytes");
	refused(WIRE_HELLO, 1, NULL, WIRE_FORMAT, "magic");
}

Test(stream, pages_go_where_there_is_ram_and_nowhere_else)
{
	static const uint8_t page[2 * PAGE] = {1};

	refused(WIRE_PAGES, PAGES / 2 * PAGE, page, PAGE, "no memory");
	refused(WIRE_PAGES, (PAGES / 2 - 1) * PAGE, page, 2 * PAGE, "no memory");
	refused(WIRE_ZERO, (PAGES / 2 - 1) * PAGE, NULL, 2 * PAGE, "no memory");
	refused(WIRE_PAGES, 4 * PAGES * PAGE, page, PAGE, "no memory");
	refused(WIRE_ZERO, 1ull << 50, NULL, PAGE, "no memory");
}

Test(stream, a_stream_costs_what_its_machine_has)
{
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(feed(WIRE_ZERO, 0, NULL, PAGES / 2 * PAGE), 0);
		cr_assert_eq(feed(WIRE_ZERO, PAGES * PAGE, NULL, PAGES / 2 * PAGE), 0);
		cr_assert_eq(feed(WIRE_ROUND, i, NULL, 0), 0);
	}
	cr_assert_eq(feed(WIRE_ZERO, 0, NULL, PAGES / 2 * PAGE), 0);
	cr_assert_eq(feed(WIRE_ZERO, 0, NULL, PAGES / 2 * PAGE), 0);
	refused(WIRE_ZERO, 0, NULL, PAGE, "more pages in one round");
	for (unsigned int i = 0; i < RECEIVE_ROUNDS_MAX; i++)
		cr_assert_eq(feed(WIRE_ROUND, i, NULL, 0), 0);
	refused(WIRE_ROUND, 0, NULL, 0, "rounds");
}

static void reach(enum receive_stage stage)
{
	if (stage > RECEIVE_MEMORY)
		cr_assert_eq(feed(WIRE_STILL, 0, NULL, 0), 0);
	if (stage > RECEIVE_LAST)
		cr_assert_eq(feed(WIRE_WHOLE, 0, NULL, 0), 0);
	if (stage > RECEIVE_WHOLE)
		receive_loaded(&to.receive);
	if (stage > RECEIVE_LOADED)
		cr_assert_eq(feed(WIRE_GO, 1, NULL, 0), 0);
}

Test(stream, each_stage_takes_its_frames_and_no_others)
{
	static const char *const takes[RECEIVE_STAGES] = {
		[RECEIVE_MEMORY] = "pages zero round still cancel ",
		[RECEIVE_LAST] = "pages zero state whole cancel ",
		[RECEIVE_WHOLE] = "cancel ",
		[RECEIVE_LOADED] = "go cancel ",
		[RECEIVE_GONE_ON] = "",
	};
	static const uint8_t page[PAGE];

	for (enum receive_stage stage = 0; stage < RECEIVE_STAGES; stage++) {
		char taken[200] = "";

		for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
			bool pages = kind == WIRE_PAGES || kind == WIRE_ZERO;
			uint64_t bytes = pages                                         ? PAGE
					 : kind == WIRE_HELLO                          ? WIRE_FORMAT
					 : kind == WIRE_DOCUMENT || kind == WIRE_STATE ? 2
										       : 0;
			bool payload = bytes && kind != WIRE_ZERO && kind != WIRE_HELLO;
			int rc;

			reach(stage);
			rc = feed(kind, kind == WIRE_HELLO ? WIRE_MAGIC : 0, payload ? page : NULL,
				  bytes);
			cr_expect(rc == 0 || rc == -EPROTO || rc == -ECANCELED);
			if (rc != -EPROTO)
				strcat(strcat(taken, wire_name(kind)), " ");
			tear_down();
			set_up();
		}
		cr_expect_str_eq(taken, takes[stage], "stage %d", (int)stage);
	}
}

Test(stream, a_state_that_is_cut_is_noticed)
{
	cr_assert_eq(feed(WIRE_STILL, 0, NULL, 0), 0);
	cr_assert_eq(feed(WIRE_STATE, 0, "abcd", 4), 0);
	refused(WIRE_WHOLE, 5, NULL, 0, "a state of 5 bytes, and 4");
}

Test(stream, the_text_of_a_peer_is_shown_safely)
{
	cr_assert_eq(feed(WIRE_CANCEL, 0, "a\033[2J\n\x80", 7), -ECANCELED);
	cr_expect_str_eq(err.text, "migration: the source gave up: a?[2J??");
}

Test(rounds, the_last_is_when_the_rest_takes_no_longer_than_the_limit)
{
	struct rounds r = {.downtime_ns = 50 * NS_PER_MS};

	/* 100 MiB/s: 5 MiB take 50 ms */
	cr_assert_eq(rounds_end(&r, 100 * MiB, NS_PER_S, 20 * MiB, 0), ROUND_AGAIN);
	cr_assert_eq(r.pause_ns, 200 * NS_PER_MS);
	cr_assert_eq(rounds_end(&r, 20 * MiB, NS_PER_S / 5, 5 * MiB, 10 * NS_PER_MS), ROUND_AGAIN);
	cr_assert_eq(rounds_end(&r, 5 * MiB, NS_PER_S / 20, 4 * MiB, 10 * NS_PER_MS), ROUND_LAST);
	cr_assert_eq(r.n, 3);
}

Test(rounds, a_few_pages_say_nothing_of_the_rate)
{
	struct rounds r = {.downtime_ns = 1};

	rounds_end(&r, 100 * MiB, NS_PER_S, MiB, 0);
	rounds_end(&r, 4096, NS_PER_S, MiB, 0);
	cr_assert_eq(r.rate, 100 * MiB);
}

Test(rounds, a_guest_that_writes_faster_is_given_up)
{
	struct rounds r = {.downtime_ns = 50 * NS_PER_MS};
	unsigned int n = 0;

	while (rounds_end(&r, 100 * MiB, NS_PER_S, 100 * MiB, 0) == ROUND_AGAIN)
		cr_assert_lt(++n, 1000);
	cr_assert_eq(n, ROUNDS_PATIENCE);
	cr_assert_lt(ROUNDS_MAX, RECEIVE_ROUNDS_MAX, "a source of ours is not refused");
}

Test(rounds, one_that_gets_better_is_waited_for_but_not_for_ever)
{
	struct rounds r = {.downtime_ns = 1};
	unsigned int n = 0;

	while (rounds_end(&r, 100 * MiB, NS_PER_S, 1000 * MiB - n * MiB, 0) == ROUND_AGAIN)
		n++;
	cr_assert_eq(n, ROUNDS_MAX - 1);
}

Test(rounds, a_paused_guest_is_done_after_the_first)
{
	struct rounds r = {.downtime_ns = 1};

	cr_assert_eq(rounds_end(&r, 0, 0, 0, 0), ROUND_LAST);
}
