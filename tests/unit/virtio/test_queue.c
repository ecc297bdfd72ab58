// SPDX-License-Identifier: Apache-2.0
// The split virtqueue: what chains become, and each way in which a ring can be malformed.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "base/num.h"
#include "queue_rig.h"

Test(queue, a_chain_becomes_host_segments_out_before_in)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	desc(r, 2, r->data, 16, NEXT, 5);
	desc(r, 5, r->data + 4096, 100, NEXT, 1);
	desc(r, 1, r->data + 8192, 512, NEXT | WRITE, 0);
	desc(r, 0, r->data + 300, 1, WRITE, 7);
	offer(r, 2);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert_eq(c->head, 2);
	cr_assert_eq(c->n_out, 2);
	cr_assert_eq(c->out_bytes, 116);
	cr_assert_eq(c->n_in, 2);
	cr_assert_eq(c->in_bytes, 513);
	cr_assert_eq(c->out[0].iov_base, guest_ptr(r->g, r->data, 16));
	cr_assert_eq(c->out[1].iov_len, 100);
	cr_assert_eq(c->in[0].iov_base, guest_ptr(r->g, r->data + 8192, 1));
	cr_assert_eq(c->in[1].iov_base, guest_ptr(r->g, r->data + 300, 1));
	cr_assert_eq(virtq_pop(r->q, &r->chain[1]), 0, "nothing more");
	virtq_push(r->q, c, 77);
	cr_assert_eq(*used(r, 2), 1);
	cr_assert_eq(used_elem(r, 0, 0), 2);
	cr_assert_eq(used_elem(r, 0, 1), 77);
	rig_destroy(r);
}

Test(queue, an_indirect_table_is_followed_also_after_direct_descriptors)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	desc(r, 0, r->data, 8, NEXT, 1);
	/* The write flag of the descriptor that names a table has no meaning. */
	desc(r, 1, r->table, 48, INDIRECT | WRITE, 0);
	table_desc(r, 0, r->data + 100, 10, NEXT, 2);
	table_desc(r, 2, r->data + 200, 20, NEXT | WRITE, 1);
	table_desc(r, 1, r->data + 300, 30, WRITE, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert_eq(c->n_out, 2);
	cr_assert_eq(c->n_in, 2);
	cr_assert_eq(c->out_bytes, 18);
	cr_assert_eq(c->in_bytes, 50);
	virtq_drop(r->q, c);
	rig_destroy(r);
}

Test(queue, an_indirect_table_may_be_longer_than_the_queue)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	for (unsigned int i = 0; i < VIRTQ_MAX_SEGMENTS; i++)
		table_desc(r, (uint16_t)i, r->data + 32u * i, 16,
			   i < VIRTQ_MAX_SEGMENTS - 1 ? NEXT : 0, (uint16_t)(i + 1));
	desc(r, 0, r->table, 16 * VIRTQ_MAX_SEGMENTS, INDIRECT, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert_eq(c->n_out, VIRTQ_MAX_SEGMENTS);
	virtq_drop(r->q, c);
	rig_destroy(r);
}

Test(queue, an_indirect_table_at_an_odd_address_is_copied)
{
	struct rig *r = rig_create(false);

	r->table += 4095 - 16;
	table_desc(r, 0, r->data, 10, NEXT, 1);
	table_desc(r, 1, r->data + 100, 20, WRITE, 0);
	desc(r, 0, r->table, 32, INDIRECT, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
	cr_assert_eq(r->chain[0].out_bytes, 10);
	cr_assert_eq(r->chain[0].in_bytes, 20);
	virtq_drop(r->q, &r->chain[0]);
	rig_destroy(r);
}

Test(queue, descriptors_of_length_zero_add_no_segment)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	desc(r, 0, ~0ull, 0, NEXT, 1);
	desc(r, 1, r->data, 4, NEXT, 2);
	desc(r, 2, 0, 0, WRITE, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert_eq(c->n_out, 1);
	cr_assert_eq(c->n_in, 0);
	virtq_drop(r->q, c);
	rig_destroy(r);
}

struct marks {
	struct gmem_dirty dirty;
	uint64_t bytes; /* of the data of chains */
	uint64_t data;
};

static void count_marks(struct gmem_dirty *dirty, uint64_t gpa, uint64_t len)
{
	struct marks *m = container_of(dirty, struct marks, dirty);

	if (gpa >= m->data && gpa < m->data + 65536)
		m->bytes += len;
}

/* A read that failed, or was under way at a reset, has written all the same. */
Test(queue, what_a_device_may_have_written_is_marked_however_its_request_ends)
{
	static void (*const ends[])(struct virtq *, struct virtq_chain *) = {virtq_drop,
									     virtq_unpop};
	struct rig *r = rig_create(false);
	struct marks m = {.dirty.mark = count_marks, .data = r->data};

	gmem_set_dirty(guest_memory(r->g), &m.dirty);
	desc(r, 0, r->data, 16, NEXT, 1);
	desc(r, 1, r->data + 4096, 8192, WRITE, 0);
	offer(r, 0);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
		cr_assert_eq(m.bytes, 0);
		ends[1 - i](r->q, &r->chain[0]);
		cr_expect_eq(m.bytes, 8192, "%u: %llu", i, (unsigned long long)m.bytes);
		m.bytes = 0;
	}
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
	virtq_push(r->q, &r->chain[0], 1);
	cr_expect_eq(m.bytes, 8192);
	m.bytes = 0;
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
	virtq_set_state(r->q, VIRTQ_ABANDONING);
	virtq_push(r->q, &r->chain[0], 1);
	cr_expect_eq(m.bytes, 8192, "also of a queue that is reset");
	gmem_set_dirty(guest_memory(r->g), NULL);
	rig_destroy(r);
}

/* Malformed rings */

static void head_beyond(struct rig *r)
{
	offer(r, SIZE);
}

static void next_beyond(struct rig *r)
{
	desc(r, 0, r->data, 4, NEXT, SIZE);
	offer(r, 0);
}

static void loop_of_two(struct rig *r)
{
	desc(r, 0, r->data, 4, NEXT, 1);
	desc(r, 1, r->data, 4, NEXT, 0);
	offer(r, 0);
}

static void loop_of_empty_ones(struct rig *r)
{
	desc(r, 0, r->data, 0, NEXT, 0);
	offer(r, 0);
}

static void nested(struct rig *r)
{
	desc(r, 0, r->table, 32, INDIRECT, 0);
	table_desc(r, 0, r->table, 16, INDIRECT, 0);
	offer(r, 0);
}

static void indirect_with_next(struct rig *r)
{
	desc(r, 0, r->table, 32, INDIRECT | NEXT, 1);
	table_desc(r, 0, r->data, 4, 0, 0);
	offer(r, 0);
}

static void empty_table(struct rig *r)
{
	desc(r, 0, r->table, 0, INDIRECT, 0);
	offer(r, 0);
}

static void odd_table(struct rig *r)
{
	desc(r, 0, r->table, 40, INDIRECT, 0);
	offer(r, 0);
}

static void table_nowhere(struct rig *r)
{
	desc(r, 0, HIGH - 16, 32, INDIRECT, 0);
	offer(r, 0);
}

static void table_wraps(struct rig *r)
{
	desc(r, 0, ~0ull - 15, 32, INDIRECT, 0);
	offer(r, 0);
}

static void table_next_beyond(struct rig *r)
{
	desc(r, 0, r->table, 32, INDIRECT, 0);
	table_desc(r, 0, r->data, 4, NEXT, 2);
	offer(r, 0);
}

static void table_loops(struct rig *r)
{
	desc(r, 0, r->table, 32, INDIRECT, 0);
	table_desc(r, 0, r->data, 0, NEXT, 1);
	table_desc(r, 1, r->data, 0, NEXT, 0);
	offer(r, 0);
}

static void readable_after_writable(struct rig *r)
{
	desc(r, 0, r->data, 4, NEXT | WRITE, 1);
	desc(r, 1, r->data, 4, 0, 0);
	offer(r, 0);
}

static void readable_after_empty_writable(struct rig *r)
{
	desc(r, 0, r->data, 0, NEXT | WRITE, 1);
	desc(r, 1, r->data, 4, 0, 0);
	offer(r, 0);
}

static void data_nowhere(struct rig *r)
{
	desc(r, 0, HIGH - 4, 8, 0, 0);
	offer(r, 0);
}

static void data_far(struct rig *r)
{
	desc(r, 0, 1ull << 52, 8, WRITE, 0);
	offer(r, 0);
}

static void data_wraps(struct rig *r)
{
	desc(r, 0, ~0ull - 3, 8, 0, 0);
	offer(r, 0);
}

static void index_jumps(struct rig *r)
{
	*avail(r, 2) = SIZE + 1;
}

static void index_goes_back(struct rig *r)
{
	*avail(r, 2) = 0xffff;
}

/* A chain of one byte to read, then `n` segments of 16 bytes to read or write, each apart. */
static void many_segments(struct rig *r, unsigned int n, uint16_t flags)
{
	for (unsigned int i = 0; i < n; i++)
		table_desc(r, (uint16_t)i, r->data + 32u * i, 16,
			   (uint16_t)(flags | (i < n - 1 ? NEXT : 0)), (uint16_t)(i + 1));
	desc(r, 0, r->data, 1, NEXT, 1);
	desc(r, 1, r->table, 16 * n, INDIRECT, 0);
	offer(r, 0);
}

static void last_byte_nowhere(struct rig *r)
{
	many_segments(r, VIRTQ_MAX_SEGMENTS, WRITE);
	table_desc(r, VIRTQ_MAX_SEGMENTS - 1, HIGH - 4, 8, WRITE, 0);
}

struct malformed {
	void (*make)(struct rig *r);
	const char *says;
};

static struct malformed cases[] = {
	{head_beyond, "descriptor 8 of 8"},
	{next_beyond, "next 8 of 8"},
	{loop_of_two, "longer than the queue"},
	{loop_of_empty_ones, "longer than the queue"},
	{nested, "nested"},
	{indirect_with_next, "with a next"},
	{empty_table, "table of 0 bytes"},
	{odd_table, "table of 40 bytes"},
	{table_nowhere, "not in memory"},
	{table_wraps, "not in memory"},
	{table_next_beyond, "next 2 of 2"},
	{table_loops, "endless"},
	{last_byte_nowhere, "last byte"},
	{readable_after_writable, "readable descriptor after a writable"},
	{readable_after_empty_writable, "readable descriptor after a writable"},
	{data_nowhere, "may read"},
	{data_far, "may write"},
	{data_wraps, "may read"},
	{index_jumps, "available index 9"},
	{index_goes_back, "available index 65535"},
};

Test(queue, chain_of_too_many_segments_to_write_is_cut_and_its_last_byte_is_found)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	many_segments(r, VIRTQ_MAX_SEGMENTS, WRITE);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert(c->truncated);
	cr_assert_eq(c->n_out, 1);
	cr_assert_eq(c->n_in, VIRTQ_MAX_SEGMENTS - 1);
	cr_assert_eq(c->in_bytes, 16 * (VIRTQ_MAX_SEGMENTS - 1));
	*c->last_in = 0x5a;
	virtq_push(r->q, c, 1);
	uint64_t end = r->data + 32 * (VIRTQ_MAX_SEGMENTS - 1) + 15;
	cr_assert_eq(*(uint8_t *)guest_ptr(r->g, end, 1), 0x5a);
	cr_assert_eq(*used(r, 2), 1);
	cr_assert_eq(r->broken, 0);
	rig_destroy(r);
}

Test(queue, chain_of_too_many_segments_to_read_has_no_last_byte)
{
	struct rig *r = rig_create(false);
	struct virtq_chain *c = &r->chain[0];

	many_segments(r, VIRTQ_MAX_SEGMENTS, 0);
	cr_assert_eq(virtq_pop(r->q, c), 1);
	cr_assert(c->truncated);
	cr_assert_eq(c->n_out, VIRTQ_MAX_SEGMENTS);
	cr_assert_null(c->last_in);
	virtq_push(r->q, c, 0);
	rig_destroy(r);
}

Test(queue, each_malformed_ring_breaks_the_queue_once_and_for_good)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig *r = rig_create(false);

		cases[i].make(r);
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), -EPROTO, "case %zu", i);
		cr_assert_eq(r->broken, 1);
		cr_assert(strstr(r->text, cases[i].says), "case %zu says: %s", i, r->text);
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), -EPROTO);
		cr_assert_not(virtq_has_avail(r->q));
		cr_assert_not(virtq_kick_enable(r->q));
		virtq_flush(r->q);
		cr_assert_eq(r->broken, 1);
		cr_assert_eq(r->notified, 0);
		cr_assert_eq(*used(r, 2), 0, "nothing is used");
		rig_destroy(r);
	}
}

Test(queue, indirect_without_negotiation_is_malformed)
{
	struct rig *r = rig_create_sized(false, SIZE, NULL);

	r->layout.indirect = false;
	cr_assert_eq(virtq_start(r->q, &r->layout, 0), 0);
	desc(r, 0, r->table, 16, INDIRECT, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), -EPROTO);
	rig_destroy(r);
}

Test(queue, a_chain_of_more_than_4_gib_is_malformed)
{
	struct rig *r = rig_create(false);

	/* 129 times the same 32 MiB. */
	for (uint16_t i = 0; i < 129; i++)
		table_desc(r, i, 0, 32 << 20, WRITE | (i < 128 ? NEXT : 0), (uint16_t)(i + 1));
	desc(r, 0, r->table, 129 * 16, INDIRECT, 0);
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), -EPROTO);
	cr_assert(strstr(r->text, "2^32"), "%s", r->text);
	rig_destroy(r);
}

Test(queue, more_chains_than_descriptors_in_flight_are_malformed)
{
	struct rig *r = rig_create(false);

	desc(r, 0, r->data, 4, 0, 0);
	for (unsigned int i = 0; i < SIZE; i++) {
		offer(r, 0);
		cr_assert_eq(virtq_pop(r->q, &r->chain[i]), 1);
	}
	offer(r, 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[SIZE]), -EPROTO);
	for (unsigned int i = 0; i < SIZE; i++)
		virtq_push(r->q, &r->chain[i], 0);
	cr_assert_eq(*used(r, 2), 0, "a broken queue answers nothing");
	rig_destroy(r);
}

Test(queue, start_refuses_layouts_that_cannot_be)
{
	struct rig *r = rig_create_sized(false, SIZE, NULL);
	struct virtq_layout good = r->layout, bad;

#define REFUSED(code, field, value)                             \
	do {                                                    \
		bad = good;                                     \
		bad.field = value;                              \
		cr_assert_eq(virtq_start(r->q, &bad, 0), code); \
		cr_assert_not(virtq_state(r->q) != VIRTQ_OFF);  \
	} while (0)
	REFUSED(-EINVAL, size, 0);
	REFUSED(-EINVAL, size, 6);
	REFUSED(-EINVAL, size, 0xffff);
	REFUSED(-EINVAL, desc_iova, good.desc_iova + 8);
	REFUSED(-EINVAL, avail_iova, good.avail_iova + 1);
	REFUSED(-EINVAL, used_iova, good.used_iova + 2);
	REFUSED(-EINVAL, desc_iova, ~0ull << 4);
	REFUSED(-EFAULT, desc_iova, HIGH - 16);
	REFUSED(-EFAULT, avail_iova, HIGH);
	REFUSED(-EFAULT, used_iova, 1ull << 60);
#undef REFUSED
	cr_assert_eq(virtq_start(r->q, &good, 0), 0);
	rig_destroy(r);
}

/* Segments */

Test(iov, copies_and_slices_skip_across_segments)
{
	char a[3] = "abc", b[4] = "defg", c[2] = "hi", out[16] = "";
	struct iovec iov[3] = {{a, 3}, {b, 4}, {c, 2}}, s[3];

	cr_assert_eq(iov_to_buf(iov, 3, 2, out, 6), 6);
	cr_assert_eq(memcmp(out, "cdefgh", 6), 0);
	cr_assert_eq(iov_to_buf(iov, 3, 9, out, 6), 0);
	cr_assert_eq(iov_from_buf(iov, 3, 6, "XYZW", 4), 3);
	cr_assert_eq(b[3], 'X');
	cr_assert_eq(memcmp(c, "YZ", 2), 0);
	cr_assert_eq(iov_slice(s, 3, iov, 3, 2, 6), 3);
	cr_assert_eq(s[0].iov_base, a + 2);
	cr_assert_eq(s[2].iov_len, 1);
	cr_assert_eq(iov_slice(s, 2, iov, 3, 2, 6), -E2BIG);
	cr_assert_eq(iov_slice(s, 3, iov, 3, 3, 4), 1);
	cr_assert_eq(iov_slice(s, 3, iov, 3, 9, 4), 0);
}
