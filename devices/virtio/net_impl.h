/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside virtio-net.
 *
 *   net.c         the device: create, features, config space, which queue does what, start and stop
 *   net_rx.c      from the backend into guest buffers
 *   net_tx.c      from guest buffers to the backend
 *   net_ctrl.c    the control queue
 *   net_announce.c  a guest that has come from another host says where it is
 *   net_links.c   a tap that is deleted while nobody reads it
 *   net_tap.c     backend: a tap; packets carry the virtio header, the kernel does the offloads
 *   net_socket.c  backend: frames over a stream socket
 *   vhost.h       the kernel serves the rings instead of net_rx.c and net_tx.c
 *
 * A packet here is a frame with the 12-byte header of virtio 1.x in front (virtio 1.3, 5.1.6).
 *
 * Threads: everything of a pair in its loop's thread; the control queue in its own, which may be
 * another. What they share is atomic; and the control queue, or the machine, wakes a pair by its
 * eventfd, which lives as long as the device.
 */
#ifndef VIRTIO_NET_IMPL_H
#define VIRTIO_NET_IMPL_H

#include <stdatomic.h>

#include <linux/virtio_net.h>

#include "base/le.h"
#include "base/num.h"
#include "virtio/net.h"
#include "virtio/vhost.h"

enum {
	NET_QUEUE_SIZE_MAX = 1024,
	NET_PAIRS_MAX = 32,
	NET_HEADER_BYTES = sizeof(struct virtio_net_hdr_mrg_rxbuf),
	/* Ethernet header, one VLAN tag, and what an IP packet can be at most. */
	NET_FRAME_MAX = 14 + 4 + 65535,
	NET_FRAME_MIN = 14,
	NET_PACKET_MAX = NET_HEADER_BYTES + NET_FRAME_MAX,
	/* Receive buffers held at a time, and their segments; one readv takes at most 1024. */
	NET_RX_HELD_MAX = 256,
	NET_RX_SEGMENTS = 2048,
	NET_RX_SEGMENTS_ENOUGH = 700,
};

/* Linux 6.2; the numbers are the interface, whatever header is installed. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO   56
#endif

#define NET_BIT(f) (1ull << VIRTIO_NET_F_##f)
/* What CTRL_GUEST_OFFLOADS may switch (5.1.6.5.6.1). */
#define NET_GUEST_OFFLOADS                                                                      \
	(NET_BIT(GUEST_CSUM) | NET_BIT(GUEST_TSO4) | NET_BIT(GUEST_TSO6) | NET_BIT(GUEST_ECN) | \
	 NET_BIT(GUEST_UFO) | NET_BIT(GUEST_USO4) | NET_BIT(GUEST_USO6))

/* How the driver coalesces interrupts (5.1.6.5.9): requests in the upper half, microseconds in the
 * lower, as in struct virtio_queue. More than a second is refused. */
#define NET_COALESCING(requests, us) ((uint64_t)(requests) << 32 | (us))
enum { NET_COALESCING_US_MAX = 1000000 };

struct net;
struct net_pair;

/* A receive or transmit queue. */
struct net_queue {
	struct net_pair *pair;
	struct virtio_queue *base;
	struct loop_op poll;  /* the backend is ready again */
	struct loop_op watch; /* receive: the pair's wake_fd; vhost: the error eventfd */
};

struct net_rx {
	struct net_queue q;
	/* Chains taken ahead, oldest first, in a ring of slots; their segments are one array, so
	 * that a packet of any size is received by one readv. */
	struct virtq_chain *slots;
	unsigned int n_slots;
	unsigned int first;
	unsigned int held;
	bool skipped; /* a later one than those was given back already */
	struct iovec *segments;
	unsigned int begin;
	unsigned int end;
	uint64_t held_bytes;
	/* How much to have ready: follows the size of the packets that come. */
	size_t want_bytes;
	size_t last_bytes; /* the size of the last one */
	/* A packet that waits for guest buffers, in our memory; 0: none. */
	size_t pending;
	const uint8_t *rest;
	uint8_t *overflow; /* takes what is larger than the buffers that were ready */
};

struct net_tx {
	struct net_queue q;
	struct virtq_chain chain;
	struct iovec segments[VIRTQ_MAX_SEGMENTS];
};

struct net_pair {
	struct net *net;
	unsigned int index;
	int fd;
	int wake_fd;
	int vhost_fd;
	struct vhost *vhost;
	_Atomic bool enabled; /* by VQ_PAIRS_SET */
	void *backend;        /* the backend's own */
	struct net_rx rx;
	struct net_tx tx;
};

struct net_backend_ops {
	/* Check what was given, and find out what it can: device feature bits. */
	int (*open)(struct net *net, uint64_t *features, struct err *err);
	void (*close)(struct net *net);
	/* Receive offloads of the driver's choice, a subset of what open() said; 0 or negative. */
	int (*set_offloads)(struct net *net, uint64_t features);
	int (*set_enabled)(struct net_pair *pair, bool on);
	void (*set_carrier)(struct net *net, bool up);
	/* Interfaces of the host changed: 0; 1 when this one's changes are not announced on
	 * links_fd; or why it is of no more use. NULL: it has none. */
	int (*check)(struct net *net);
	/* One packet by net_rx_deliver: 1 when there was one, 0 when it waits for guest buffers,
	 * -EAGAIN when there is none; any other error: the backend is of no more use. */
	int (*receive)(struct net_pair *pair);
	/* 0 when it is gone; 1 when it was taken, and drain() must follow when the fd is writable;
	 * -EAGAIN; or why it was dropped. */
	int (*transmit)(struct net_pair *pair, const struct iovec *iov, unsigned int n,
			uint64_t bytes);
	/* Pass on what was taken: 0, or -EAGAIN. NULL: nothing is ever kept. */
	int (*drain)(struct net_pair *pair);
};

struct net {
	struct virtio_device vdev;
	const struct net_backend_ops *backend;
	unsigned int n_pairs;
	_Atomic uint64_t mac; /* six bytes, as they lie in memory */
	uint64_t mac_initial;
	_Atomic uint16_t status;        /* NET_S_* */
	_Atomic uint64_t offloads;      /* receive offloads in use */
	_Atomic uint64_t coalescing[2]; /* each way: of queues that the driver resets */
	uint16_t mtu;
	int links_fd;         /* -1: none */
	struct loop_op links; /* its poll, while pair 0 receives */
	struct loop_op away;  /* likewise: time until a tap in another namespace is looked at */
	struct net_pair pairs[];
};

extern const struct net_backend_ops net_tap_ops;
extern const struct net_backend_ops net_socket_ops;

/* net.c */
/* Serve the queue again when the backend is ready. */
void net_queue_poll(struct net_queue *q, unsigned int events);
void net_peer_gone(struct net *net, const char *why);
/* Use the first n pairs. */
int net_enable_pairs(struct net *net, unsigned int n);
/* NET_COALESCING of one queue, from now on. */
void net_set_coalescing(struct net *net, unsigned int index, uint64_t coalescing);

/* net_rx.c */
int net_rx_start(struct net_rx *rx);
bool net_rx_serve(struct net_rx *rx);
void net_rx_release(struct net_rx *rx);
/* For backends: have at least one chain and up to want_bytes: false when the guest has none. */
bool net_rx_gather(struct net_rx *rx, size_t want_bytes);
/* A packet: `direct` bytes of it are in the ready chains' segments already, the rest is at `rest`
 * (the overflow buffer, unless direct is 0) and stays there until this, or a later try, was true.
 * True: it is delivered (or dropped, because it can never fit). */
bool net_rx_deliver(struct net_rx *rx, size_t bytes, size_t direct, const void *rest);

/* net_tx.c */
bool net_tx_serve(struct net_tx *tx);

/* net_links.c */
void net_links_init(struct net *net);
/* While pair 0 receives, in its loop's thread. */
void net_links_start(struct net *net);
void net_links_cancel(struct net *net);

/* net_ctrl.c */
extern const struct virtio_queue_ops net_ctrl_ops;

#endif
