/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio-net device on the rig, and its driver's habits. */
#ifndef TESTS_VIRTIO_NET_RIG_H
#define TESTS_VIRTIO_NET_RIG_H

#include "rig.h"
#include "virtio/net.h"

#define BIT(n)          (1ull << (n))
#define N_CSUM          BIT(0)
#define N_GUEST_CSUM    BIT(1)
#define N_CTRL_OFFLOADS BIT(2)
#define N_MTU           BIT(3)
#define N_MAC           BIT(5)
#define N_GUEST_TSO4    BIT(7)
#define N_HOST_TSO4     BIT(11)
#define N_MRG           BIT(15)
#define N_STATUS        BIT(16)
#define N_CTRL          BIT(17)
#define N_CTRL_RX       BIT(18)
#define N_ANNOUNCE      BIT(21)
#define N_MQ            BIT(22)
#define N_CTRL_MAC      BIT(23)
#define N_VQ_COAL       BIT(52)
#define N_COAL          BIT(53)

enum { RX = 0, TX = 1, HEADER = 12, NET_QUEUE = 64 };

struct nic {
	struct rig rig;
	int peer;  /* the other end of a socket backend, else -1 */
	int links; /* before nic_open_tap: announces interfaces; 0: none */
};

/* Over a socket pair; peer is non-blocking. */
void nic_open_socket(struct nic *n, uint64_t features, enum loop_backend backend);
/* Over fds of a tap. pairs queues are set up, and the control queue when it is negotiated. */
void nic_open_tap(struct nic *n, const int *fds, unsigned int pairs, uint64_t features);
void nic_start(struct nic *n, unsigned int pairs, uint64_t features);
void nic_close(struct nic *n);

/* Give the device a receive buffer: its address; its head is the used id. */
uint64_t nic_give(struct nic *n, unsigned int queue, uint32_t bytes);
void nic_give_many(struct nic *n, unsigned int queue, unsigned int count, uint32_t bytes);
/* Send a frame behind an empty header, in segments of at most that many bytes (0: one). */
void nic_send(struct nic *n, unsigned int queue, const void *frame, size_t len, uint32_t segment);
/* Wait for a packet and put it together: its bytes, header included. */
size_t nic_receive(struct nic *n, unsigned int queue, uint8_t *packet, size_t max);
/* A control command: its acknowledgement, and the result in front of that. */
uint8_t nic_command_result(struct nic *n, unsigned int queue, const void *bytes, uint32_t len,
			   void *result, uint32_t result_len);
uint8_t nic_command(struct nic *n, unsigned int queue, const void *bytes, uint32_t len);

#endif
