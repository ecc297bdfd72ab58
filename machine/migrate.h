/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live migration, the side that has the machine (arrival.h is the other). The stream is wire.h's.
 *
 *   GREETING ─► ROUNDS ─► LAST ─► LOADING ─► COMMITTED ─► OVER (the machine ends)
 *      the guest runs   │  it stands still      │
 *      └────────────────┴──── failed: it goes on, OVER      └─ no answer: UNDECIDED
 *
 * The source may run until COMMITTED: then GO is on its way, and only an answer, or whoever decides
 * by resuming it, changes that. Locks of disks are given up right before GO, and taken again before
 * the source goes on: where both can see a disk's lock, it decides too.
 *
 * What is dirty: vCPUs' writes from KVM's log, devices' from gmem's marks (migration/dirty.h), and
 * all of memory after a reset of the guest. Queues are drained before the last round.
 *
 * Threads: the machine's, outside callbacks of its loop.
 */
#ifndef MACHINE_MIGRATE_H
#define MACHINE_MIGRATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct hospes_vm;
struct vm_migration;

struct vm_migrate_request {
	int fd; /* connected; the caller's */
	uint64_t downtime_ns;
};

/* Why this machine cannot be migrated, a text each. NULL: no memory. */
json_t *vm_migrate_obstacles(struct hospes_vm *vm);
/* Begin. arg: a struct vm_migrate_request. */
int vm_do_migrate(struct hospes_vm *vm, void *arg, struct err *err);
/* End it, while the machine is still here for sure. */
int vm_do_migrate_cancel(struct hospes_vm *vm, void *arg, struct err *err);
/* After an iteration of the loop. */
void vm_migrate_act(struct hospes_vm *vm);
/* The guest was reset: memory was written that nobody marked. */
void vm_migrate_reset(struct hospes_vm *vm);
/* The machine has stopped for good. */
void vm_migrate_ended(struct hospes_vm *vm);
/* Before the loop and memory are destroyed. */
void vm_migrate_destroy(struct hospes_vm *vm);
/* -EBUSY: what `verb` says cannot be done while it is under way, or the machine is to arrive. */
int vm_migrate_refuses(struct hospes_vm *vm, const char *verb, struct err *err);
/* May the machine be resumed? Where it was not decided which side goes on, this decides. */
int vm_migrate_may_resume(struct hospes_vm *vm, struct err *err);
/* For the status document; NULL: none. */
json_t *vm_migrate_status(const struct hospes_vm *vm);

/* For both sides: what each device has of the host alone (locks), given up or taken. */
int vm_hold_devices(struct hospes_vm *vm, bool hold, struct err *err);

#endif
