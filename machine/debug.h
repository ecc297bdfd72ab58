/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A debugger and the machine (the document's "gdb"): which vCPUs run, breakpoints, and who has
 * stopped the machine.
 *
 * A machine is running or paused, whoever did it. While a debugger has it stopped, it is paused,
 * and the debugger alone lets it go on (vm_debug_holds): it continues, detaches, or its connection
 * ends. One that comes, or asks for a stop, takes over a machine that others have paused. Others
 * may pause a machine that the debugger lets run, and resume it; to the debugger it runs all the
 * time.
 *
 * Threads: the machine's, outside callbacks of its loop, unless it says otherwise.
 */
#ifndef MACHINE_DEBUG_H
#define MACHINE_DEBUG_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct hospes_vm;

/* Its socket, before anything is confined. Without one in the document it does nothing, like
 * everything here. */
int vm_debug_create(struct hospes_vm *vm, struct err *err);
/* Before the loop and the vCPUs are destroyed. */
void vm_debug_destroy(struct hospes_vm *vm);
/* Is the guest to wait for a debugger when it is started? */
bool vm_debug_waits(const struct hospes_vm *vm);
/* Has a debugger stopped the machine? */
bool vm_debug_holds(const struct hospes_vm *vm);
/* VCPU_DEBUG; the vCPU's thread. */
void vm_debug_hit(struct hospes_vm *vm, unsigned int index);
/* After an iteration of the loop. */
void vm_debug_act(struct hospes_vm *vm);
/* Is there one now? */
bool vm_debug_attached(const struct hospes_vm *vm);
/* The machine has stopped for good. */
void vm_debug_ended(struct hospes_vm *vm);
/* For the status document; NULL: none. */
json_t *vm_debug_status(const struct hospes_vm *vm);

#endif
