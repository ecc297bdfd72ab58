// SPDX-License-Identifier: Apache-2.0
// virtio-net over a socket pair: frames both ways, buffers of every kind, a peer that stalls,
// breaks off or talks nonsense, the control queue.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "net_rig.h"

#define USUAL (N_MAC | N_MRG | N_STATUS | N_CTRL | N_CTRL_RX | N_CTRL_MAC | N_ANNOUNCE)

static void make_frame(uint8_t *frame, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void put_length(uint8_t *p, uint32_t len)
{
	p[0] = (uint8_t)(len >> 24);
	p[1] = (uint8_t)(len >> 16);
	p[2] = (uint8_t)(len >> 8);
	p[3] = (uint8_t)len;
}

/* The peer sends a frame; it must fit the socket's buffer. */
static void peer_send(struct nic *n, const uint8_t *frame, uint32_t len)
{
	static uint8_t buf[80000];

	put_length(buf, len);
	memcpy(buf + 4, frame, len);
	cr_assert_eq(send(n->peer, buf, len + 4, 0), (ssize_t)len + 4);
}

/* The peer reads one whole frame, turning the device's loop meanwhile. */
static uint32_t peer_receive(struct nic *n, uint8_t *frame, size_t max)
{
	uint8_t head[4];
	size_t got = 0, want = 4;
	uint32_t len = 0;

	while (got < want) {
		uint8_t *to = got < 4 ? head + got : frame + (got - 4);
		ssize_t r = recv(n->peer, to, got < 4 ? 4 - got : want - got, 0);

		if (r > 0) {
			got += (size_t)r;
			if (got == 4) {
				len = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 |
				      (uint32_t)head[2] << 8 | head[3];
				cr_assert_leq(len, max);
				want = 4 + len;
			}
		} else {
			cr_assert(r < 0 && errno == EAGAIN);
			cr_assert_eq(loop_iterate(n->rig.loop, false), 0);
		}
	}
	return len;
}

Test(net, a_frame_from_the_peer_lands_in_a_guest_buffer)
{
	struct nic n;
	uint8_t frame[100], packet[2048];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 4, 1526);
	make_frame(frame, sizeof(frame), 1);
	peer_send(&n, frame, sizeof(frame));
	cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + sizeof(frame));
	cr_expect_eq(memcmp(packet + HEADER, frame, sizeof(frame)), 0);
	static const uint8_t header[HEADER] = {[10] = 1};

	cr_expect_eq(memcmp(packet, header, HEADER), 0);
	cr_expect_geq(n.rig.interrupts[RX], 1);
	nic_close(&n);
}

Test(net, a_large_frame_takes_several_buffers_with_mergeable_ones)
{
	struct nic n;
	static uint8_t frame[9000], packet[16384];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 20, 700);
	for (unsigned int i = 0; i < 2; i++) {
		make_frame(frame, sizeof(frame), i);
		/* One at a time: 20 buffers hold one and a half. */
		peer_send(&n, frame, sizeof(frame));
		cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + sizeof(frame));
		cr_expect_eq(load_le16(packet + 10), 13);
		cr_expect_eq(memcmp(packet + HEADER, frame, sizeof(frame)), 0);
		nic_give_many(&n, RX, 13, 700);
	}
	nic_close(&n);
}

Test(net, buffers_smaller_than_the_header_work)
{
	struct nic n;
	uint8_t frame[60], packet[256];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	make_frame(frame, sizeof(frame), 3);
	for (int i = 0; i < 30; i++)
		nic_give(&n, RX, 5);
	rig_kick(&n.rig.queues[RX]);
	peer_send(&n, frame, sizeof(frame));
	/* num_buffers is in the third of them: put it together by hand. */
	size_t len = 0;
	struct rig_used used;

	rig_wait(&n.rig.queues[RX]);
	len = 5;
	while (rig_take(&n.rig.queues[RX], &used))
		len += used.len;
	cr_expect_eq(len, HEADER + sizeof(frame));
	(void)packet;
	nic_close(&n);
}

Test(net, without_mergeable_buffers_what_does_not_fit_one_is_dropped)
{
	struct nic n;
	static uint8_t frame[3000], packet[4096];

	nic_open_socket(&n, N_MAC, LOOP_AUTO);
	nic_give_many(&n, RX, 8, 1526);
	make_frame(frame, sizeof(frame), 1);
	peer_send(&n, frame, 3000);
	peer_send(&n, frame, 1514);
	cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + 1514);
	cr_expect_eq(load_le16(packet + 10), 1);
	nic_close(&n);
}

Test(net, frames_wait_for_buffers_and_none_is_lost)
{
	struct nic n;
	static uint8_t frame[4000], packet[8192];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	for (unsigned int i = 0; i < 10; i++) {
		make_frame(frame, sizeof(frame), i);
		peer_send(&n, frame, sizeof(frame));
	}
	rig_settle(&n.rig);
	nic_give_many(&n, RX, 1, 1526); /* not enough for the first */
	rig_settle(&n.rig);
	struct rig_used none;

	cr_expect_not(rig_take(&n.rig.queues[RX], &none));
	for (unsigned int i = 0; i < 10; i++) {
		nic_give_many(&n, RX, 3, 1526);
		make_frame(frame, sizeof(frame), i);
		cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + sizeof(frame));
		cr_expect_eq(memcmp(packet + HEADER, frame, sizeof(frame)), 0, "frame %u", i);
	}
	nic_close(&n);
}

static void timer_over(struct loop_op *op, int result)
{
	(void)op;
	cr_assert_eq(result, 0);
}

Test(net, too_few_buffers_are_waited_for_asleep)
{
	struct nic n;
	static uint8_t frame[4000];
	struct loop_op timer = {.done = timer_over};
	unsigned int iterations = 0;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	make_frame(frame, sizeof(frame), 1);
	peer_send(&n, frame, sizeof(frame));
	nic_give_many(&n, RX, 1, 1526);
	rig_settle(&n.rig);
	loop_timer(n.rig.loop, &timer, 20000000);
	for (; timer.in_flight; iterations++)
		cr_assert_eq(loop_iterate(n.rig.loop, true), 0);
	cr_expect_lt(iterations, 10);
	nic_close(&n);
}

Test(net, frames_that_arrive_byte_by_byte)
{
	struct nic n;
	uint8_t frame[64], wire[68], packet[2048];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 4, 1526);
	make_frame(frame, sizeof(frame), 9);
	put_length(wire, sizeof(frame));
	memcpy(wire + 4, frame, sizeof(frame));
	for (size_t i = 0; i < sizeof(wire); i++) {
		cr_assert_eq(send(n.peer, wire + i, 1, 0), 1);
		rig_settle(&n.rig);
	}
	cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + sizeof(frame));
	cr_expect_eq(memcmp(packet + HEADER, frame, sizeof(frame)), 0);
	nic_close(&n);
}

Test(net, a_guest_frame_reaches_the_peer_whatever_its_segments)
{
	struct nic n;
	static uint8_t frame[1514], got[2048];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	make_frame(frame, sizeof(frame), 5);
	static const uint32_t segments[] = {0, 1500, 12, 11, 13, 7, 100};

	for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
		nic_send(&n, TX, frame, sizeof(frame), segments[i]);
		cr_assert_eq(peer_receive(&n, got, sizeof(got)), sizeof(frame));
		cr_expect_eq(memcmp(got, frame, sizeof(frame)), 0, "segments of %u", segments[i]);
		rig_wait(&n.rig.queues[TX]);
	}
	nic_close(&n);
}

Test(net, what_is_no_frame_is_returned_and_not_sent)
{
	struct nic n;
	static uint8_t frame[70000], got[2048];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_send(&n, TX, frame, 13, 0);
	nic_send(&n, TX, frame, 65554, 0);
	nic_send(&n, TX, frame, 70000, 0);
	struct rig_seg bare = {rig_alloc(&n.rig, 4, 1), 4, false};

	rig_add(&n.rig.queues[TX], &bare, 1, false);
	nic_send(&n, TX, frame, 60, 0);
	for (int i = 0; i < 5; i++)
		rig_wait(&n.rig.queues[TX]);
	cr_expect_eq(peer_receive(&n, got, sizeof(got)), 60);
	cr_expect_eq(recv(n.peer, got, 1, 0), -1);
	cr_expect_not(rig_broken(&n.rig));
	nic_close(&n);
}

static void stalled_peer(enum loop_backend backend)
{
	struct nic n;
	static uint8_t frame[40000], got[65536];
	unsigned int sent = 0, received = 0;

	nic_open_socket(&n, USUAL, backend);
	uint64_t floor = n.rig.brk;

	/* Fill the socket and the queue; nobody reads. */
	for (; sent < 40; sent++) {
		make_frame(frame, sizeof(frame), sent);
		nic_send(&n, TX, frame, sizeof(frame), 0);
	}
	rig_settle(&n.rig);
	struct rig_used used;
	unsigned int done = 0;

	while (rig_take(&n.rig.queues[TX], &used))
		done++;
	cr_expect_lt(done, sent, "a socket without bottom");
	for (; received < sent; received++) {
		make_frame(frame, sizeof(frame), received);
		cr_assert_eq(peer_receive(&n, got, sizeof(got)), sizeof(frame));
		cr_assert_eq(memcmp(got, frame, sizeof(frame)), 0, "frame %u", received);
	}
	for (; done < sent; done++)
		rig_wait(&n.rig.queues[TX]);
	n.rig.brk = floor;
	nic_close(&n);
}

Test(net, a_peer_that_stalls_loses_nothing)
{
	stalled_peer(LOOP_AUTO);
}

Test(net, a_peer_that_stalls_loses_nothing_over_epoll)
{
	stalled_peer(LOOP_EPOLL);
}

Test(net, the_stream_keeps_its_place_over_a_reset_under_load)
{
	struct nic n;
	static uint8_t frame[30000], got[65536];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	uint64_t floor = n.rig.brk;

	for (int round = 0; round < 30; round++) {
		n.rig.brk = floor;
		nic_give_many(&n, RX, 20, 1526);
		for (int i = 0; i < 20; i++) {
			make_frame(frame, sizeof(frame), 77);
			nic_send(&n, TX, frame, sizeof(frame), 9000);
		}
		make_frame(frame, sizeof(frame), 78);
		if (round % 3)
			(void)send(n.peer, (uint8_t[]){0, 0, 0, 60}, 4, 0),
				(void)send(n.peer, frame, 60, 0);
		for (int turn = 0; turn < round % 5; turn++)
			loop_iterate(n.rig.loop, false);
		rig_reset(&n.rig);
		uint8_t *ram = rig_at(&n.rig, floor);

		memset(ram, 0xcc, 1 << 20);
		rig_settle(&n.rig);
		for (size_t i = 0; i < 1 << 20; i++)
			cr_assert_eq(ram[i], 0xcc);
		/* Everything the peer reads is whole frames of ours. */
		n.rig.brk = floor;
		nic_start(&n, 1, USUAL);
		nic_send(&n, TX, (const uint8_t[60]){1, 2, 3}, 60, 0);
		for (;;) {
			uint32_t len = peer_receive(&n, got, sizeof(got));

			if (len == 60)
				break;
			make_frame(frame, sizeof(frame), 77);
			cr_assert_eq(len, sizeof(frame));
			cr_assert_eq(memcmp(got, frame, len), 0);
		}
	}
	nic_close(&n);
}

static bool link_up(struct nic *n)
{
	uint8_t status[2];

	n->rig.vdev->ops->config_read(n->rig.vdev, 6, status, 2);
	return status[0] & 1;
}

Test(net, a_peer_that_goes_takes_the_link_down)
{
	struct nic n;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 4, 1526);
	rig_settle(&n.rig);
	cr_expect(link_up(&n));
	close(n.peer);
	n.peer = -1;
	rig_settle(&n.rig);
	cr_expect_not(link_up(&n));
	cr_expect_eq(n.rig.config_interrupts, 1);
	/* Sending goes on into the void. */
	nic_send(&n, TX, (const uint8_t[60]){0}, 60, 0);
	rig_wait(&n.rig.queues[TX]);
	nic_close(&n);
}

Test(net, a_peer_that_goes_while_nobody_reads_it_takes_the_link_down_at_the_next_packet)
{
	struct nic n;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	rig_settle(&n.rig);
	close(n.peer);
	n.peer = -1;
	nic_send(&n, TX, (const uint8_t[60]){0}, 60, 0);
	rig_wait(&n.rig.queues[TX]);
	cr_expect_not(link_up(&n));
	nic_close(&n);
}

Test(net, a_peer_that_lost_its_place_takes_the_link_down)
{
	static const uint8_t lengths[][4] = {{0xff, 0xff, 0xff, 0xff}, {0, 1, 0, 0x12}};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct nic n;

		nic_open_socket(&n, USUAL, LOOP_AUTO);
		nic_give_many(&n, RX, 4, 1526);
		cr_assert_eq(send(n.peer, lengths[i], 4, 0), 4);
		rig_settle(&n.rig);
		cr_expect_not(link_up(&n), "%zu", i);
		nic_close(&n);
	}
}

Test(net, tiny_frames_from_the_peer_are_skipped)
{
	struct nic n;
	uint8_t frame[60] = {7}, packet[2048];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 4, 1526);
	peer_send(&n, frame, 0);
	peer_send(&n, frame, 13);
	peer_send(&n, frame, 60);
	cr_expect_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + 60);
	nic_close(&n);
}

Test(net, link_down_stops_traffic_and_up_announces)
{
	struct nic n;
	uint8_t frame[60] = {7}, packet[2048], status;
	struct rig_used used;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 4, 1526);
	rig_settle(&n.rig);
	virtio_net_set_link(n.rig.vdev, false);
	cr_expect_eq(n.rig.config_interrupts, 1);
	nic_send(&n, TX, frame, 60, 0);
	rig_wait(&n.rig.queues[TX]);
	cr_expect_eq(recv(n.peer, packet, 1, 0), -1);
	peer_send(&n, frame, 60);
	rig_settle(&n.rig);
	cr_expect_not(rig_take(&n.rig.queues[RX], &used));
	virtio_net_set_link(n.rig.vdev, true);
	cr_expect_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + 60);
	n.rig.vdev->ops->config_read(n.rig.vdev, 6, &status, 1);
	cr_expect_eq(status, 3);
	cr_expect_eq(nic_command(&n, 2, "\3\0", 2), 0);
	n.rig.vdev->ops->config_read(n.rig.vdev, 6, &status, 1);
	cr_expect_eq(status, 1);
	nic_close(&n);
}

struct command_case {
	const char *what;
	uint8_t bytes[24];
	uint32_t len;
	uint8_t ack;
};

Test(net, control_commands_are_checked)
{
	static const struct command_case cases[] = {
		{"promiscuous", {0, 0, 1}, 3, 0},
		{"all multicast", {0, 1, 0}, 3, 0},
		{"rx mode of 2", {0, 0, 2}, 3, 1},
		{"rx mode without data", {0, 0}, 2, 1},
		{"rx mode that was not offered", {0, 2, 1}, 3, 1},
		{"nothing", {0}, 0, 1},
		{"half a header", {0}, 1, 1},
		{"unknown class", {9, 0, 1}, 3, 1},
		{"VLAN", {2, 0, 1, 0}, 4, 1},
		{"pairs, without MQ", {4, 0, 1, 0}, 4, 1},
		{"offloads that were not negotiated", {5, 0}, 10, 1},
		{"MAC", {1, 1, 2, 0, 0, 0, 0, 9}, 8, 0},
		{"MAC, multicast", {1, 1, 1, 0, 0, 0, 0, 9}, 8, 1},
		{"MAC, short", {1, 1, 2, 0, 0, 0, 0}, 7, 1},
		{"MAC, long", {1, 1, 2, 0, 0, 0, 0, 9, 9}, 9, 1},
		{"MAC table, empty", {1, 0}, 10, 0},
		{"MAC table, one and none", {1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6}, 16, 0},
		{"MAC table, more than there are", {1, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6}, 16, 1},
		{"MAC table, absurd", {1, 0, 0xff, 0xff, 0xff, 0xff}, 10, 1},
		{"MAC table, second half missing", {1, 0, 0, 0, 0, 0}, 6, 1},
		{"MAC table, bytes left", {1, 0}, 11, 1},
	};
	struct nic n;
	uint8_t mac[6];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		cr_expect_eq(nic_command(&n, 2, cases[i].bytes, cases[i].len), cases[i].ack, "%s",
			     cases[i].what);
	n.rig.vdev->ops->config_read(n.rig.vdev, 0, mac, 6);
	cr_expect_eq(mac[5], 9);
	rig_reset(&n.rig);
	n.rig.vdev->ops->config_read(n.rig.vdev, 0, mac, 6);
	cr_expect_eq(mac[5], 0x55);
	nic_close(&n);
}

Test(net, a_command_without_room_for_its_answer_needs_a_reset)
{
	struct nic n;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	struct rig_seg seg = {rig_alloc(&n.rig, 4, 1), 4, false};

	rig_add(&n.rig.queues[2], &seg, 1, false);
	rig_kick(&n.rig.queues[2]);
	rig_settle(&n.rig);
	cr_expect(rig_broken(&n.rig));
	nic_close(&n);
}

Test(net, a_receive_buffer_that_is_to_be_read_needs_a_reset)
{
	struct nic n;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	struct rig_seg seg = {rig_alloc(&n.rig, 2000, 1), 2000, false};

	rig_add(&n.rig.queues[RX], &seg, 1, false);
	rig_kick(&n.rig.queues[RX]);
	rig_settle(&n.rig);
	cr_expect(rig_broken(&n.rig));
	nic_close(&n);
}

Test(net, features_without_what_they_need_are_refused)
{
	struct nic n;

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	cr_expect_not(n.rig.vdev->features_offered & (N_CSUM | N_GUEST_CSUM | N_MQ));
	rig_reset(&n.rig);
	cr_expect_not(rig_negotiate(&n.rig, N_MAC | N_CTRL_RX));
	rig_reset(&n.rig);
	cr_expect(rig_negotiate(&n.rig, N_MAC | N_CTRL | N_CTRL_RX));
	nic_close(&n);
}

Test(net, quiesce_keeps_buffers_and_frames_for_the_resume)
{
	struct nic n;
	static uint8_t frame[4000], packet[8192];

	nic_open_socket(&n, USUAL, LOOP_AUTO);
	nic_give_many(&n, RX, 10, 1526);
	rig_settle(&n.rig);
	transport_quiesce(&n.rig.t, 0);
	rig_settle(&n.rig);
	transport_quiesce(&n.rig.t, 1);
	make_frame(frame, sizeof(frame), 4);
	peer_send(&n, frame, sizeof(frame));
	rig_settle(&n.rig);
	struct rig_used used;

	cr_expect_not(rig_take(&n.rig.queues[RX], &used));
	transport_resume(&n.rig.t);
	cr_assert_eq(nic_receive(&n, RX, packet, sizeof(packet)), HEADER + sizeof(frame));
	cr_expect_eq(memcmp(packet + HEADER, frame, sizeof(frame)), 0);
	nic_close(&n);
}

Test(net, bad_configurations_are_refused_with_the_card_named)
{
	struct rig rig;
	int fd[2] = {0, -1};

	rig_open(&rig, LOOP_AUTO);
	struct virtio_net_setup good = {
		.name = "net0",
		.backend = VIRTIO_NET_SOCKET,
		.fds = fd,
		.pairs = 1,
		.mac = {2, 0, 0, 0, 0, 1},
		.loops = &rig.loop,
		.n_loops = 1,
	};
	struct virtio_net_setup bad[8];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].pairs = 0;
	bad[1].pairs = 33;
	bad[2].queue_size = 100;
	bad[3].mtu = 60;
	bad[4].mac[0] = 1;
	bad[5].vhost_fds = fd;
	/* bad[6]: standard input is no socket. */
	bad[7].backend = VIRTIO_NET_TAP;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct virtio_device *vdev = NULL;
		struct err err = ERR_INIT;

		cr_expect_lt(virtio_net_create(&vdev, &bad[i], &rig.log, &err), 0, "%zu", i);
		cr_expect(strstr(err.text, "net0"), "%zu: %s", i, err.text);
	}
	rig_close(&rig);
}
