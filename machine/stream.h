/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket of a migration in the machine's loop, of either side: what has to be waited for is, in
 * the loop; bytes are read and written outside its callbacks, never blocking.
 *
 * Threads: the machine's, outside callbacks of its loop.
 */
#ifndef MACHINE_STREAM_H
#define MACHINE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"
#include "migration/send.h"
#include "migration/wire.h"

struct vm_stream {
	struct loop *loop;
	int fd; /* ours; -1: closed */
	struct wire_reader reader;
	struct loop_op in, out, again, timer;
	bool in_waits, out_waits, again_waits, timer_waits; /* each op is in flight */
	bool over;                                          /* shut down: nothing is waited for */
	uint64_t moved_ns;                                  /* when bytes last moved, either way */
};

/* fd: a connected stream socket, duplicated. */
int stream_open(struct vm_stream *s, struct loop *loop, int fd, struct err *err);
/* The peer sees the end. It is busy until its operations are done, in later iterations. */
void stream_shut(struct vm_stream *s);
bool stream_is_busy(const struct vm_stream *s);
/* After stream_shut; turns the loop until it is not busy, if `turn`. */
void stream_close(struct vm_stream *s, bool turn);

/* Write what is queued: 1: all of it, 0: the rest later, in an iteration after it can be; or a
 * negative errno. */
int stream_write(struct vm_stream *s, struct send *send);
/* The next frame: 1, or 0: none yet, another iteration comes when there is one; or a negative
 * errno. -ECONNRESET: the peer is gone. */
int stream_read(struct vm_stream *s, struct wire_frame *frame, struct err *err);
/* Another iteration at once; and at least one in half a second. */
void stream_again(struct vm_stream *s);
/* One more thing that the peer should hear, if it can be said now. Nothing else is queued. */
void stream_say(struct vm_stream *s, enum wire_kind kind, const char *text);
/* ns since bytes moved. */
uint64_t stream_still_ns(const struct vm_stream *s);

#endif
