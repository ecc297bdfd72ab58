/* SPDX-License-Identifier: Apache-2.0 */
/* What the queues of a disk or a network have done, and how long a disk's requests took, for the
 * status document. Threads: the machine's. */
#ifndef MACHINE_QUEUES_H
#define MACHINE_QUEUES_H

#include <jansson.h>

#include "machine/kind.h"

/* "queues": a list of objects, in the order of the device's queues. */
void vm_device_queues_status(const struct vm_device *d, json_t *item);
/* "latency": of a disk. */
void vm_device_latency_status(const struct vm_device *d, json_t *item);

#endif
