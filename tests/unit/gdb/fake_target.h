/* SPDX-License-Identifier: Apache-2.0 */
/* A target of three threads, with 64 bytes of memory at FAKE_GVA and three registers, which counts
 * what it is asked; for tests and the fuzzer of a session. */
#ifndef FAKE_TARGET_H
#define FAKE_TARGET_H

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "gdb/session.h"

enum { FAKE_GVA = 0x1000, FAKE_BYTES = 64, FAKE_THREADS = 3 };

struct fake_target {
	struct gdb_target target;
	uint8_t memory[FAKE_BYTES];
	uint8_t regs[FAKE_THREADS][DEBUG_REGS_BYTES];
	struct debug_point points[8];
	unsigned int n_points;
	enum gdb_action actions[FAKE_THREADS];
	bool running;
	unsigned int resumes, interrupts, detaches, kills;
	unsigned int while_running; /* calls that must not be */
};

static inline struct fake_target *fake_stopped(void *opaque)
{
	struct fake_target *t = opaque;

	t->while_running += t->running;
	return t;
}

static inline int fake_get_regs(void *opaque, unsigned int thread, uint8_t regs[DEBUG_REGS_BYTES])
{
	memcpy(regs, fake_stopped(opaque)->regs[thread], DEBUG_REGS_BYTES);
	return 0;
}

static inline int fake_set_regs(void *opaque, unsigned int thread,
				const uint8_t regs[DEBUG_REGS_BYTES])
{
	memcpy(fake_stopped(opaque)->regs[thread], regs, DEBUG_REGS_BYTES);
	return 0;
}

static inline int fake_read(void *opaque, unsigned int thread, uint64_t gva, uint8_t *buf, size_t n)
{
	struct fake_target *t = fake_stopped(opaque);

	(void)thread;
	if (gva - FAKE_GVA >= FAKE_BYTES)
		return -EFAULT;
	n = MIN(n, (size_t)(FAKE_BYTES - (gva - FAKE_GVA)));
	memcpy(buf, t->memory + (gva - FAKE_GVA), n);
	return (int)n;
}

static inline int fake_write(void *opaque, unsigned int thread, uint64_t gva, const uint8_t *buf,
			     size_t n)
{
	struct fake_target *t = fake_stopped(opaque);

	(void)thread;
	if (!range_inside(gva, n, FAKE_GVA, FAKE_BYTES))
		return -EFAULT;
	memcpy(t->memory + (gva - FAKE_GVA), buf, n);
	return 0;
}

static inline int fake_insert(void *opaque, unsigned int thread, const struct debug_point *point)
{
	struct fake_target *t = fake_stopped(opaque);

	(void)thread;
	if (point->kind == DEBUG_BREAK_READ)
		return -EOPNOTSUPP;
	if (t->n_points == ARRAY_SIZE(t->points))
		return -ENOSPC;
	t->points[t->n_points++] = *point;
	return 0;
}

static inline int fake_remove(void *opaque, const struct debug_point *point)
{
	struct fake_target *t = fake_stopped(opaque);

	t->n_points -= t->n_points > 0 && point->kind != DEBUG_BREAK_READ;
	return point->kind == DEBUG_BREAK_READ ? -EOPNOTSUPP : 0;
}

static inline int fake_resume(void *opaque, const enum gdb_action *actions)
{
	struct fake_target *t = fake_stopped(opaque);

	memcpy(t->actions, actions, sizeof(t->actions));
	t->running = true;
	t->resumes++;
	return 0;
}

static inline void fake_interrupt(void *opaque)
{
	((struct fake_target *)opaque)->interrupts++;
}

static inline void fake_describe(void *opaque, unsigned int thread, char *text, size_t bytes)
{
	fake_stopped(opaque);
	snprintf(text, bytes, "thread %u", thread);
}

static inline void fake_detach(void *opaque)
{
	fake_stopped(opaque)->detaches++;
}

static inline void fake_kill(void *opaque)
{
	fake_stopped(opaque)->kills++;
}

static const struct gdb_target_ops fake_ops = {
	.get_regs = fake_get_regs,
	.set_regs = fake_set_regs,
	.read = fake_read,
	.write = fake_write,
	.insert = fake_insert,
	.remove = fake_remove,
	.resume = fake_resume,
	.interrupt = fake_interrupt,
	.describe = fake_describe,
	.detach = fake_detach,
	.kill = fake_kill,
};

static inline void fake_target_init(struct fake_target *t)
{
	*t = (struct fake_target){.target = {
					  .ops = &fake_ops,
					  .opaque = t,
					  .n_threads = FAKE_THREADS,
					  .description = "<target>*}#$</target>",
					  .n_regs = 3,
					  .regs = {{0, 8}, {8, 4}, {12, 16}},
				  }};
	for (unsigned int i = 0; i < FAKE_BYTES; i++)
		t->memory[i] = (uint8_t)i;
}

#endif
