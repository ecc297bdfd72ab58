/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over a vhost-user socket (QEMU's docs/interop/vhost-user.rst, "Message Specification"
 * and "Front-end message types"): numbers in the order of bytes of this machine. */
#ifndef VIRTIO_VHOST_USER_WIRE_H
#define VIRTIO_VHOST_USER_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
};

/* "Back-end message types" */
enum { VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2 };

enum {
	VHOST_USER_VERSION = 1, /* of flags, bits 0 and 1 */
	VHOST_USER_VERSION_MASK = 3,
	VHOST_USER_REPLY = 1 << 2,
	VHOST_USER_NEED_REPLY = 1 << 3,
};

enum {
	VHOST_USER_F_PROTOCOL_FEATURES = 30, /* among the device's features */
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	VHOST_USER_REGIONS = 8, /* of one table */
	VHOST_USER_SLOTS_MAX = 512,
};

struct vhost_user_header {
	uint32_t request, flags, bytes;
};

struct vhost_user_state {
	uint32_t index, value;
};

struct vhost_user_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct vhost_user_region {
	uint64_t gpa, bytes, user, offset;
};

struct vhost_user_one_region {
	uint64_t padding;
	struct vhost_user_region region;
};

struct vhost_user_table {
	uint32_t n, padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS];
};

struct vhost_user_config {
	uint32_t offset, bytes, flags;
	uint8_t data[256];
};

static_assert(sizeof(struct vhost_user_header) == 12, "Header");
static_assert(sizeof(struct vhost_user_addr) == 40, "A vring address description");
static_assert(sizeof(struct vhost_user_one_region) == 40, "Single memory region description");
static_assert(offsetof(struct vhost_user_config, data) == 12, "Virtio device config space");

#endif
