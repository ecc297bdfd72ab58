// SPDX-License-Identifier: Apache-2.0
// Fuzzer: what a debugger's client sends. The first byte says how the rest is divided; a zero byte
// stops the target, if it runs.
//
// Nothing reaches a target that runs; what is to be sent stays within its bound, and is packets and
// acks; a target changes only by packets that were answered with OK; the division changes nothing.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fake_target.h"
#include "fuzz.h"

struct run {
	struct fake_target target;
	struct gdb_session session;
	uint64_t sum; /* of all that was sent */
};

static void take_output(struct run *r)
{
	static struct gdb_reader reader;
	struct gdb_session *s = &r->session;

	check(s->n_out <= sizeof(s->out) && s->sent <= s->n_out);
	memset(&reader, 0, sizeof(reader));
	while (s->sent < s->n_out) {
		const uint8_t *at = (const uint8_t *)s->out + s->sent;
		enum gdb_frame frame;
		size_t used = gdb_reader_feed(&reader, at, s->n_out - s->sent, &frame);

		check(frame == GDB_PACKET || frame == GDB_ACK || frame == GDB_NAK);
		for (size_t i = 0; i < used; i++)
			r->sum = r->sum * 31 + at[i];
		s->sent += used;
	}
}

static void stop(struct run *r)
{
	const struct gdb_stop stop = {.thread = 1, .reason = GDB_WATCH, .gva = FAKE_GVA};

	check(r->target.running == r->session.running || r->session.ended);
	if (!r->target.running)
		return;
	r->target.running = false;
	gdb_session_stopped(&r->session, &stop);
	check(!r->session.running);
}

static void feed(struct run *r, const uint8_t *bytes, size_t n)
{
	while (n) {
		const uint8_t *zero = memchr(bytes, 0, n);
		size_t some = zero ? (size_t)(zero - bytes) : n;
		size_t used = some ? gdb_session_input(&r->session, bytes, some) : 1;

		check(used >= 1 && used <= n);
		if (!some)
			stop(r);
		take_output(r);
		bytes += used;
		n -= used;
	}
}

static void begin(struct run *r)
{
	fake_target_init(&r->target);
	gdb_session_begin(&r->session, &r->target.target);
	r->sum = 0;
}

static void check_target(const struct fake_target *t)
{
	check(t->while_running == 0);
	check(t->n_points <= ARRAY_SIZE(t->points));
	check(t->detaches + t->kills <= 1);
	for (unsigned int i = 0; i < t->n_points; i++)
		check(is_power_of_two(t->points[i].bytes) && t->points[i].bytes <= 8 &&
		      is_aligned(t->points[i].gva, t->points[i].bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct run whole, divided;
	size_t step, n;

	if (size < 1)
		return 0;
	step = data[0] % 16 + 1u;
	n = size - 1;
	begin(&whole);
	begin(&divided);
	feed(&whole, data + 1, n);
	for (size_t at = 0; at < n; at += step)
		feed(&divided, data + 1 + at, MIN(step, n - at));
	check_target(&whole.target);
	check(whole.sum == divided.sum);
	check(whole.target.resumes == divided.target.resumes);
	check(memcmp(whole.target.memory, divided.target.memory, FAKE_BYTES) == 0);
	check(memcmp(whole.target.regs, divided.target.regs, sizeof(whole.target.regs)) == 0);
	return 0;
}
