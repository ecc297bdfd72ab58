/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a disk or a network may move in a second: the keys of their kinds, and the change while
 * the machine runs. The queues keep to it (virtio/rate.h).
 *
 * Threads: the machine's.
 */
#ifndef MACHINE_RATE_H
#define MACHINE_RATE_H

#include <jansson.h>
#include <stdint.h>

#include "machine/kind.h"
#include "machine/schema.h"

/* In a kind's configuration. 0: no limit. */
struct config_rate {
	uint64_t bytes_per_s;
	uint32_t ops_per_s;
};

/* Its keys, where `rate` is a member of the kind's struct. */
#define CONFIG_RATE_FIELDS(type, member)                                              \
	{"bytes_per_s", SCHEMA_SIZE, .offset = offsetof(type, member.bytes_per_s),    \
	 .max = INT64_MAX},                                                           \
	{                                                                             \
		"ops_per_s", SCHEMA_UINT, .offset = offsetof(type, member.ops_per_s), \
			.max = UINT32_MAX                                             \
	}

/* For validate. elsewhere: the host's kernel or a daemon serves the queues, which count nothing for
 * us. */
int config_rate_check(const struct config_rate *rate, const struct config_device *device,
		      bool elsewhere, struct err *err);
/* For create: before the device is plugged. */
void config_rate_apply(const struct config_rate *rate, struct virtio_device *vdev);

/* UINT64_MAX: as it is. -EOPNOTSUPP: not a device that has one. */
int vm_device_set_rate(struct vm_device *d, uint64_t bytes_per_s, uint64_t ops_per_s,
		       struct err *err);
/* For status: what it may move, if that is limited, and how often it had to wait. */
void vm_device_rate_status(struct vm_device *d, json_t *item);

#endif
