// SPDX-License-Identifier: Apache-2.0
// virtio-net over a real tap in a network namespace of the test's own, and what we rely on in the
// kernel's tap. Skipped where such a namespace or /dev/net/tun cannot be had.
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "host/links.h"
#include "net_rig.h"

#define USUAL                                                                                   \
	(N_MAC | N_MRG | N_STATUS | N_CTRL | N_CTRL_RX | N_CSUM | N_GUEST_CSUM | N_GUEST_TSO4 | \
	 N_HOST_TSO4 | N_CTRL_OFFLOADS)

/* The kernel's; its header has names that ours also has. */
enum { VIRTIO_NET_HDR_F_NEEDS_CSUM = 1, VIRTIO_NET_HDR_GSO_TCPV4 = 1 };
struct virtio_net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
};

struct lan {
	struct nic n;
	int packet; /* AF_PACKET on the host's side of the tap */
};

static int tap_fd(const char *name, bool multi)
{
	struct ifreq ifr = {0};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		cr_skip_test("no /dev/net/tun");
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi ? IFF_MULTI_QUEUE : 0));
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	cr_assert_eq(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

static void interface_set(const char *name, bool up)
{
	struct ifreq ifr = {0};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	cr_assert_eq(ioctl(s, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP | IFF_NOARP : ifr.ifr_flags & ~IFF_UP);
	cr_assert_eq(ioctl(s, SIOCSIFFLAGS, &ifr), 0);
	close(s);
}

static void interface_up(const char *name)
{
	int off = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY | O_CLOEXEC);

	/* Only the test's own packets. */
	if (off >= 0) {
		(void)!write(off, "1", 1);
		close(off);
	}
	interface_set(name, true);
}

static int packet_socket(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	int on = 1;

	cr_assert_geq(fd, 0);
	cr_assert_eq(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void lan_open(struct lan *l, unsigned int pairs, uint64_t features)
{
	int fds[4];

	if (unshare(CLONE_NEWNET))
		cr_skip_test("no network namespace of its own");
	for (unsigned int i = 0; i < pairs; i++)
		fds[i] = tap_fd("tap0", pairs > 1);
	l->n.links = host_links_open();
	cr_assert_geq(l->n.links, 0);
	nic_open_tap(&l->n, fds, pairs, features);
	interface_up("tap0");
	l->packet = packet_socket("tap0");
}

static void lan_close(struct lan *l)
{
	nic_close(&l->n);
	close(l->packet);
}

/* To the guest, by the host: header of AF_PACKET (10 bytes), then the frame. */
static void host_send(struct lan *l, const struct virtio_net_hdr *hdr, const uint8_t *frame,
		      size_t len)
{
	struct iovec iov[] = {{(void *)(uintptr_t)hdr, sizeof(*hdr)},
			      {(void *)(uintptr_t)frame, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	cr_assert_eq(sendmsg(l->packet, &msg, 0), (ssize_t)(sizeof(*hdr) + len), "%s",
		     strerror(errno));
}

/* From the guest: the frame's length, turning the loop until it is there. Its own packets that it
 * sent do not count. */
static size_t host_receive(struct lan *l, struct virtio_net_hdr *hdr, uint8_t *frame, size_t max)
{
	struct sockaddr_ll from;

	for (;;) {
		struct iovec iov[] = {{hdr, sizeof(*hdr)}, {frame, max}};
		struct msghdr msg = {.msg_iov = iov,
				     .msg_iovlen = 2,
				     .msg_name = &from,
				     .msg_namelen = sizeof(from)};
		ssize_t r = recvmsg(l->packet, &msg, 0);

		if (r > 0 && from.sll_pkttype != PACKET_OUTGOING)
			return (size_t)r - sizeof(*hdr);
		if (r < 0)
			cr_assert_eq(loop_iterate(l->n.rig.loop, false), 0);
	}
}

static void ethernet(uint8_t *frame, size_t len, unsigned int seed)
{
	memset(frame, 0xff, 6);
	memset(frame + 6, 2, 6);
	frame[12] = 0x88; /* a protocol for experiments: nobody answers */
	frame[13] = 0xb5;
	for (size_t i = 14; i < len; i++)
		frame[i] = (uint8_t)(seed + i * 3);
}

Test(net_tap, frames_pass_both_ways)
{
	struct lan l;
	struct virtio_net_hdr hdr = {0};
	static uint8_t frame[1514], got[2048];

	lan_open(&l, 1, USUAL);
	nic_give_many(&l.n, RX, 16, 1526);
	for (unsigned int i = 0; i < 10; i++) {
		size_t len = 60 + i * 100;

		ethernet(frame, len, i);
		host_send(&l, &hdr, frame, len);
		cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + len);
		cr_expect_eq(memcmp(got + HEADER, frame, len), 0);
		nic_send(&l.n, TX, frame, len, i & 1 ? 50 : 0);
		cr_assert_eq(host_receive(&l, &hdr, got, sizeof(got)), len);
		cr_expect_eq(memcmp(got, frame, len), 0);
		rig_wait(&l.n.rig.queues[TX]);
		memset(&hdr, 0, sizeof(hdr));
	}
	lan_close(&l);
}

Test(net_tap, frames_to_one_that_is_down_are_dropped_and_pass_when_it_is_up_again)
{
	struct lan l;
	struct virtio_net_hdr hdr = {0};
	static uint8_t frame[60], got[2048];
	uint8_t status[2];

	lan_open(&l, 1, USUAL);
	interface_set("tap0", false);
	for (unsigned int i = 0; i < 200; i++) { /* more than the queue has */
		ethernet(frame, sizeof(frame), i);
		nic_send(&l.n, TX, frame, sizeof(frame), 0);
		rig_wait(&l.n.rig.queues[TX]);
	}
	l.n.rig.vdev->ops->config_read(l.n.rig.vdev, 6, status, 2);
	cr_expect_eq(status[0] & 1, 1, "it is there");
	interface_set("tap0", true);
	ethernet(frame, sizeof(frame), 7);
	nic_send(&l.n, TX, frame, sizeof(frame), 0);
	cr_assert_eq(host_receive(&l, &hdr, got, sizeof(got)), sizeof(frame));
	cr_expect_eq(memcmp(got, frame, sizeof(frame)), 0);
	lan_close(&l);
}

static uint32_t sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A TCP segment of `payload` bytes in IPv4, its checksum left to the card. */
static size_t tcp_frame(uint8_t *f, size_t payload)
{
	size_t ip_len = 20 + 20 + payload;
	uint8_t *ip = f + 14, *tcp = ip + 20;

	ethernet(f, 14 + ip_len, 1);
	f[12] = 0x08;
	f[13] = 0x00;
	memset(ip, 0, 40);
	ip[0] = 0x45;
	ip[2] = (uint8_t)(ip_len >> 8);
	ip[3] = (uint8_t)ip_len;
	ip[8] = 64;
	ip[9] = 6;
	ip[12] = 10;
	ip[15] = 1;
	ip[16] = 10;
	ip[19] = 2;
	uint32_t sum = ~sum16(ip, 20, 0) & 0xffff;

	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	tcp[12] = 0x50;
	tcp[13] = 0x10;
	uint8_t pseudo[4] = {0, 6, (uint8_t)((20 + payload) >> 8), (uint8_t)(20 + payload)};

	sum = sum16(pseudo, 4, sum16(ip + 12, 8, 0));
	tcp[16] = (uint8_t)(sum >> 8);
	tcp[17] = (uint8_t)sum;
	return 14 + ip_len;
}

static const struct virtio_net_hdr gso_header = {
	.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
	.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
	.hdr_len = 54,
	.gso_size = 1448,
	.csum_start = 34,
	.csum_offset = 16,
};

Test(net_tap, a_segment_of_60_kilobytes_arrives_in_one_packet)
{
	struct lan l;
	static uint8_t frame[65600], got[70000];

	lan_open(&l, 1, USUAL);
	size_t len = tcp_frame(frame, 60000);

	for (int round = 0; round < 5; round++) {
		nic_give_many(&l.n, RX, 45, 1526);
		host_send(&l, &gso_header, frame, len);
		cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + len);
		cr_expect_eq(memcmp(got + HEADER, frame, len), 0);
		cr_expect_eq(got[1], VIRTIO_NET_HDR_GSO_TCPV4);
		cr_expect_eq(load_le16(got + 10), (HEADER + len + 1525) / 1526);
		/* A small one in between: what was taken ahead is still right. */
		struct virtio_net_hdr none = {0};

		host_send(&l, &none, frame, 60);
		cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + 60);
		l.n.rig.brk -= 40 * 1526;
		while (l.n.rig.queues[RX].free < 50) {
			host_send(&l, &none, frame, 60);
			nic_receive(&l.n, RX, got, sizeof(got));
		}
	}
	lan_close(&l);
}

Test(net_tap, a_driver_without_segmentation_gets_it_segmented)
{
	struct lan l;
	static uint8_t frame[65600], got[70000];

	lan_open(&l, 1, N_MAC | N_MRG);
	nic_give_many(&l.n, RX, 30, 1526);
	size_t len = tcp_frame(frame, 3 * 1448);

	host_send(&l, &gso_header, frame, len);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + 54 + 1448);
		cr_expect_eq(got[0], 0);
		cr_expect_eq(got[1], 0);
	}
	lan_close(&l);
}

Test(net_tap, nonsense_in_the_header_is_the_kernels_to_refuse)
{
	struct lan l;
	struct virtio_net_hdr hdr;
	static uint8_t frame[60], got[2048];

	lan_open(&l, 1, USUAL);
	ethernet(frame, sizeof(frame), 1);
	for (unsigned int seed = 1; seed < 200; seed++) {
		uint64_t at = rig_alloc(&l.n.rig, HEADER + 60, 1);
		uint8_t *p = rig_at(&l.n.rig, at);
		unsigned int s = seed;

		for (int i = 0; i < HEADER; i++)
			p[i] = (uint8_t)rand_r(&s);
		memcpy(p + HEADER, frame, 60);
		struct rig_seg seg = {at, HEADER + 60, false};

		rig_add(&l.n.rig.queues[TX], &seg, 1, false);
		rig_kick(&l.n.rig.queues[TX]);
		rig_wait(&l.n.rig.queues[TX]);
	}
	cr_expect_not(rig_broken(&l.n.rig));
	/* And the good one behind them passes. */
	ethernet(frame, sizeof(frame), 99);
	nic_send(&l.n, TX, frame, sizeof(frame), 0);
	do
		cr_assert_gt(host_receive(&l, &hdr, got, sizeof(got)), 0);
	while (memcmp(got, frame, sizeof(frame)) != 0);
	lan_close(&l);
}

Test(net_tap, pairs_are_attached_as_the_driver_says)
{
	struct lan l;
	struct virtio_net_hdr hdr = {0};
	static uint8_t frame[60], got[2048];

	lan_open(&l, 2, USUAL | N_MQ);
	cr_expect_eq(nic_command(&l.n, 4, (const uint8_t[]){4, 0, 0, 0}, 4), 1);
	cr_expect_eq(nic_command(&l.n, 4, (const uint8_t[]){4, 0, 3, 0}, 4), 1);
	cr_expect_eq(nic_command(&l.n, 4, (const uint8_t[]){4, 0, 2, 0}, 4), 0);
	nic_give_many(&l.n, 0, 30, 1526);
	nic_give_many(&l.n, 2, 30, 1526);
	rig_settle(&l.n.rig);
	/* Sending from the second pair works. */
	ethernet(frame, sizeof(frame), 1);
	nic_send(&l.n, 3, frame, sizeof(frame), 0);
	cr_assert_eq(host_receive(&l, &hdr, got, sizeof(got)), 60);
	rig_wait(&l.n.rig.queues[3]);
	/* Back to one: all arrives at the first, and after that again. */
	cr_expect_eq(nic_command(&l.n, 4, (const uint8_t[]){4, 0, 1, 0}, 4), 0);
	memset(&hdr, 0, sizeof(hdr));
	for (unsigned int i = 0; i < 20; i++) {
		ethernet(frame, sizeof(frame), i);
		frame[11] = (uint8_t)i;
		host_send(&l, &hdr, frame, sizeof(frame));
		cr_assert_eq(nic_receive(&l.n, 0, got, sizeof(got)), HEADER + 60);
	}
	cr_expect_eq(nic_command(&l.n, 4, (const uint8_t[]){4, 0, 2, 0}, 4), 0);
	rig_reset(&l.n.rig);
	nic_start(&l.n, 2, USUAL | N_MQ);
	nic_give_many(&l.n, 0, 4, 1526);
	host_send(&l, &hdr, frame, sizeof(frame));
	cr_assert_eq(nic_receive(&l.n, 0, got, sizeof(got)), HEADER + 60);
	lan_close(&l);
}

Test(net_tap, offloads_can_be_switched_off)
{
	struct lan l;
	static uint8_t frame[65600], got[70000];
	uint8_t command[10] = {5, 0};

	lan_open(&l, 1, USUAL);
	nic_give_many(&l.n, RX, 30, 1526);
	cr_expect_eq(nic_command(&l.n, 2, command, 10), 0);
	size_t len = tcp_frame(frame, 2 * 1448);

	host_send(&l, &gso_header, frame, len);
	cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + 54 + 1448);
	cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + 54 + 1448);
	store_le64(command + 2, N_GUEST_CSUM | N_GUEST_TSO4);
	cr_expect_eq(nic_command(&l.n, 2, command, 10), 0);
	host_send(&l, &gso_header, frame, len);
	cr_assert_eq(nic_receive(&l.n, RX, got, sizeof(got)), HEADER + len);
	store_le64(command + 2, N_CSUM);
	cr_expect_eq(nic_command(&l.n, 2, command, 10), 1);
	lan_close(&l);
}

Test(net_tap, a_tap_that_is_removed_takes_the_link_down_and_no_cpu)
{
	struct lan l;
	uint8_t status[2];

	lan_open(&l, 1, USUAL);
	nic_give_many(&l.n, RX, 4, 1526);
	rig_settle(&l.n.rig);
	cr_assert_eq(system("ip link del tap0 2>/dev/null"), 0, "needs ip");
	rig_settle(&l.n.rig);
	l.n.rig.vdev->ops->config_read(l.n.rig.vdev, 6, status, 2);
	cr_expect_eq(status[0] & 1, 0);
	nic_send(&l.n, TX, (const uint8_t[60]){0}, 60, 0);
	rig_wait(&l.n.rig.queues[TX]);
	lan_close(&l);
}

/* As under vhost, where no queue of ours reads it. */
Test(net_tap, a_tap_that_is_removed_while_nobody_reads_it_takes_the_link_down)
{
	struct lan l;
	uint8_t status[2];

	lan_open(&l, 1, USUAL);
	rig_settle(&l.n.rig);
	/* Another interface that goes is none of its business. */
	close(tap_fd("tap1", false));
	rig_settle(&l.n.rig);
	l.n.rig.vdev->ops->config_read(l.n.rig.vdev, 6, status, 2);
	cr_expect_eq(status[0] & 1, 1);
	cr_assert_eq(system("ip link del tap0 2>/dev/null"), 0, "needs ip");
	rig_settle(&l.n.rig);
	l.n.rig.vdev->ops->config_read(l.n.rig.vdev, 6, status, 2);
	cr_expect_eq(status[0] & 1, 0);
	lan_close(&l);
}

Test(net_tap, a_tap_that_is_removed_from_another_namespace_takes_the_link_down, .timeout = 20)
{
	struct lan l = {0};
	uint8_t status[2];
	int its, fd, namesake;

	if (unshare(CLONE_NEWNET))
		cr_skip_test("no network namespace of its own");
	its = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	fd = tap_fd("tap0", false);
	cr_assert_eq(unshare(CLONE_NEWNET), 0);
	namesake = tap_fd("tap0", false);
	l.n.links = host_links_open();
	nic_open_tap(&l.n, &fd, 1, USUAL);
	cr_assert_eq(setns(its, CLONE_NEWNET), 0);
	cr_assert_eq(system("ip link del tap0 2>/dev/null"), 0, "needs ip");
	do {
		cr_assert_eq(loop_iterate(l.n.rig.loop, true), 0);
		l.n.rig.vdev->ops->config_read(l.n.rig.vdev, 6, status, 2);
	} while (status[0] & 1);
	nic_close(&l.n);
	close(namesake);
	close(its);
}

Test(net_tap, reset_under_load)
{
	struct lan l;
	struct virtio_net_hdr hdr = {0};
	static uint8_t frame[1514], got[2048];

	lan_open(&l, 1, USUAL);
	uint64_t floor = l.n.rig.brk;

	for (unsigned int round = 0; round < 30; round++) {
		l.n.rig.brk = floor;
		nic_give_many(&l.n, RX, 40, 1526);
		for (unsigned int i = 0; i < 40; i++) {
			ethernet(frame, sizeof(frame), i);
			host_send(&l, &hdr, frame, sizeof(frame));
			nic_send(&l.n, TX, frame, sizeof(frame), 0);
		}
		for (unsigned int turn = 0; turn < round % 4; turn++)
			loop_iterate(l.n.rig.loop, false);
		rig_reset(&l.n.rig);
		memset(rig_at(&l.n.rig, floor), 0xcc, 256 << 10);
		rig_settle(&l.n.rig);
		for (uint64_t at = floor; at < floor + (256 << 10); at++)
			cr_assert_eq(l.n.rig.ram[at], 0xcc);
		l.n.rig.brk = floor;
		nic_start(&l.n, 1, USUAL);
		while (recv(l.packet, got, sizeof(got), 0) > 0)
			;
	}
	lan_close(&l);
}
