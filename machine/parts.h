/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of a machine that come and go with the guest's consent, processors or units of memory
 * (cpus.h, memory.h): the registers by which the guest hears of them and answers
 * (platform/plug.h), and the time that it has for that.
 *
 *   parts_begin, plug_add or plug_ask, parts_wait ─► it has answered for all, or its time is over
 *                                                     ─► explain, report
 *
 * Threads: the machine's, not inside a callback of a loop.
 */
#ifndef MACHINE_PARTS_H
#define MACHINE_PARTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"
#include "platform/plug.h"

struct hospes_vm;

struct parts_ops {
	/* What the guest has given up leaves. */
	void (*follow)(struct hospes_vm *vm);
	/* Are there others than the last report said? */
	bool (*differ)(struct hospes_vm *vm);
	/* Why there are not those that were wanted; "": there are. */
	void (*explain)(struct hospes_vm *vm, char *text, size_t bytes);
	void (*report)(struct hospes_vm *vm, const char *text);
};

struct vm_parts {
	struct device *plug; /* NULL: none comes or goes */
	const struct parts_ops *ops;
	struct hospes_vm *vm;
	unsigned int max;
	uint64_t until_ns;    /* the guest's time is over; 0: nothing is asked of it */
	_Atomic bool changed; /* at the guest's side, set by any thread: parts_act is to look */
	struct loop_op timer; /* until then */
	bool timer_set;
};

/* Among the devices that every machine has. Of the configuration all but `changed` and its
 * opaque. */
int parts_create(struct vm_parts *p, struct hospes_vm *vm, const struct parts_ops *ops,
		 const struct plug_config *config, struct err *err);
/* What was asked for before is not wanted any more. */
void parts_begin(struct vm_parts *p);
/* The guest's time begins. */
void parts_wait(struct vm_parts *p);
/* While vCPUs are paused, before the guest starts: the machine follows. */
void parts_restart(struct vm_parts *p);

struct parts_answers {
	unsigned int silent;  /* parts for which the guest has not answered */
	unsigned int refused; /* those that it has refused */
	unsigned int number;  /* of the first of them */
	uint8_t status;       /* and why: of _OST (ACPI 6.5, 6.3.5) */
};
struct parts_answers parts_answers(const struct vm_parts *p);

/* After an iteration of the loop: what the guest has given up and answered, or has not. */
void parts_act(struct vm_parts *p);
/* Before the loop is destroyed: turn it until timer_set is false. */
void parts_cancel(struct vm_parts *p);

#endif
