/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which vCPUs are in the machine. All that there can be (cpus.max) are made at the start, with
 * their threads, since KVM gives none up alone and a confined machine makes no more: those that are
 * out wait there (core/vcpu.h). Where there can be more than at the start, the guest hears of them
 * by ACPI (platform/plug.h), which also says who is in; vCPUs follow it.
 *
 *   cpus_set ─┬─► more: in at once, and the guest hears it ─► it answers ─┐
 *             └─► fewer: the guest is asked ─► it gives them up ──────────┼─► event: how many there
 *                          └─► it refuses, or its time is over ───────────┘    are, and why
 *
 * The guest has CPUS_ANSWER_NS for all of it. After a reset, it starts with those that are in;
 * those that it was asked for have left.
 *
 * Threads: the machine's. Not inside a callback of a loop.
 */
#ifndef MACHINE_CPUS_H
#define MACHINE_CPUS_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"

struct acpi_config;
struct device;
struct hospes_vm;

#define CPUS_ANSWER_NS 30000000000ull

struct vm_cpus {
	struct device *plug;   /* NULL: all are in, for good */
	unsigned int reported; /* how many the last event said there are */
	unsigned int wanted;   /* how many there are to be */
	uint64_t until_ns;     /* the guest's time is over; 0: nothing is asked of it */
	_Atomic bool changed;  /* at the guest's side, set by any thread: cpus_act is to look */
	struct loop_op timer;  /* until then */
	bool timer_set;
};

/* Among the devices that every machine has. */
int cpus_create(struct hospes_vm *vm, struct err *err);
/* While vCPUs are paused, before the guest starts: they follow, and what firmware says of them. */
void cpus_describe(struct hospes_vm *vm, struct acpi_config *acpi);
unsigned int cpus_count(struct hospes_vm *vm);
/* So many from now on, as far as the guest agrees. */
int cpus_set(struct hospes_vm *vm, unsigned int count, struct err *err);
/* After an iteration of the loop: what the guest has given up and answered, or has not. */
void cpus_act(struct hospes_vm *vm);
/* Before the loop is destroyed: turn it until timer_set is false. */
void cpus_cancel(struct hospes_vm *vm);
/* A new reference; NULL: no memory. */
json_t *cpus_status(struct hospes_vm *vm);

#endif
