/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks: what a document says of one, opening its tap, socket or vhost (open_net.c), and
 * virtio-net over it (kind_net.c).
 *
 * Threads: opening has no state; the rest is the machine's thread's.
 */
#ifndef MACHINE_KIND_NET_H
#define MACHINE_KIND_NET_H

#include "machine/kind.h"
#include "machine/rate.h"
#include "machine/vhost_user.h"

enum {
	CONFIG_NET_QUEUES = 32,
	CONFIG_NET_MODERATION_US = 500, /* unless the document says else */
	CONFIG_NET_MODERATION_US_MAX = 1000,
};

struct config_net {
	struct config_device base;
	char *tap;
	bool create;
	int fd;       /* a tap, opened with IFF_VNET_HDR, or a socket that is connected to passt */
	int vhost_fd; /* an open /dev/vhost-net; -1: opened here */
	char *socket; /* passt's */
	struct config_vhost_user daemon;
	struct schema_mac mac;
	uint32_t queues; /* pairs, up to CONFIG_NET_QUEUES */
	uint32_t queue_size;
	uint32_t mtu; /* 0: not offered to the guest */
	bool vhost;
	bool offload;
	bool link;
	struct config_rate rate; /* each way its own */
	uint32_t moderation_us;  /* the longest delay of a queue that streams; 0: none */
};

extern const struct device_kind kind_net;

/* Link up or down. */
int net_set_link(struct vm_device *d, bool up, struct err *err);

/* Is what open_net gave passt's socket, and no tap? */
bool open_net_is_socket(int fd);
/* One fd per queue pair, IFF_VNET_HDR set; a tap that is made has the net's mtu. fds: net->queues
 * entries, filled with -1 on failure; else the caller's. */
int open_net(const struct config_net *net, int *fds, struct err *err);
/* Of the tap that fd is a queue of: its name, and its MTU; 0 when it is not to be seen from here
 * (another network namespace). name: IFNAMSIZ bytes. */
unsigned int open_tap_mtu(int fd, char *name);
/* /dev/vhost-net, once per queue pair; likewise. net->vhost_fd is duplicated. */
int open_vhost(const struct config_net *net, int *fds, struct err *err);

#endif
