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
 * The guest has 30 s for all of it. After a reset, it starts with those that are in;
 * those that it was asked for have left.
 *
 * Threads: the machine's. Not inside a callback of a loop.
 */
#ifndef MACHINE_CPUS_H
#define MACHINE_CPUS_H

#include <jansson.h>

#include "base/err.h"
#include "machine/parts.h"

struct acpi_config;
struct hospes_vm;

struct vm_cpus {
	struct vm_parts parts; /* none where all are in for good */
	unsigned int reported; /* how many the last event said there are */
	unsigned int wanted;   /* how many there are to be */
};

/* Among the devices that every machine has. */
int cpus_create(struct hospes_vm *vm, struct err *err);
/* While vCPUs are paused, before the guest starts: they follow, and what firmware says of them. */
void cpus_describe(struct hospes_vm *vm, struct acpi_config *acpi);
unsigned int cpus_count(struct hospes_vm *vm);
/* So many from now on, as far as the guest agrees. */
int cpus_set(struct hospes_vm *vm, unsigned int count, struct err *err);
/* A new reference; NULL: no memory. */
json_t *cpus_status(struct hospes_vm *vm);

#endif
