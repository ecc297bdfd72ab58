/* SPDX-License-Identifier: Apache-2.0 */
/* A balloon, which a machine has if its document says so: what it takes from the guest's memory is
 * the host's, also beside passed-through devices (core/reclaim.h). */
#ifndef MACHINE_KIND_BALLOON_H
#define MACHINE_KIND_BALLOON_H

#include "machine/kind.h"

struct config_balloon {
	struct config_device base;
	uint32_t stats_s; /* statistics are asked for so often; 0: never */
	bool deflate_on_oom;
	bool reporting;
	uint64_t granule_bytes; /* in which memory leaves that a device has all of */
};

extern const struct device_kind kind_balloon;

/* What the balloon is to hold. -ENOENT: the machine has none. -EINVAL. */
int balloon_set(struct hospes_vm *vm, uint64_t bytes, struct err *err);

#endif
