// SPDX-License-Identifier: Apache-2.0
// A driver tells a device behind a virtual IOMMU to use memory that it may not reach: not at all,
// in part, or not in this direction. The guest gets a fault, the one request fails, the device goes
// on.
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "driver.h"
#include "virtio/blk.h"
#include "virtio/net.h"

enum {
	SECTOR = 512,
	DISK_BYTES = 1 << 20,
	BLK_IN = 0,
	BLK_OUT = 1,
	BLK_OK = 0,
	BLK_IOERR = 1,
	NET_HEADER = 12,
	F_MRG_RXBUF = 15,
};

/* Two pages of the guest's memory that the device may not reach, and may not write. */
static uint64_t nothing_gpa, readonly_gpa;
static unsigned int faults;
static struct guest *g;
static struct drv *d;
static struct err err;

static bool meets(uint64_t page, uint64_t iova, uint64_t len)
{
	return page && iova < page + 4096 && page < iova + len;
}

static int translate(void *opaque, uint64_t iova, uint64_t len, enum dma_dir dir, uint64_t *gpa,
		     uint64_t *contiguous)
{
	(void)opaque;
	*gpa = iova;
	/* A page at a time, as guests map. */
	*contiguous = MIN(len, 4096 - iova % 4096);
	if (meets(nothing_gpa, iova, 1) || (dir & DMA_FROM_DEVICE && meets(readonly_gpa, iova, 1)))
		return -EFAULT;
	return 0;
}

static void fault(void *opaque, uint32_t requester, uint64_t iova, uint64_t len, enum dma_dir dir)
{
	(void)opaque;
	(void)requester;
	(void)iova;
	(void)len;
	(void)dir;
	faults++;
}

static void setup(void)
{
	static const struct dma_space_ops ops = {.translate = translate, .fault = fault};
	struct guest_config config = {.dma_ops = &ops, .platform_dma = true};

	nothing_gpa = readonly_gpa = 0;
	faults = 0;
	g = guest_create(&config);
}

static void forbid(void)
{
	/* Good, forbidden, good: buffers that lie across. */
	uint64_t pages = guest_alloc(g, 8 * 4096, 4096);

	nothing_gpa = pages + 4096;
	readonly_gpa = pages + 4 * 4096;
}

static void teardown(void)
{
	drv_destroy(d);
	guest_destroy(g);
}

TestSuite(denied, .init = setup, .fini = teardown);

/* --- a disk --- */

static int file;

static void start_disk(void)
{
	struct loop *loop = guest_loop(g, 0);
	struct virtio_blk_setup c = {
		.name = "disk",
		.size_bytes = DISK_BYTES,
		.block_bytes = SECTOR,
		.align_bytes = 1,
		.queues = 1,
		.loops = &loop,
		.n_loops = 1,
	};
	struct virtio_device *vdev;

	file = memfd_create("disk", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(file, DISK_BYTES), 0);
	c.fd = dup(file);
	cr_assert_eq(virtio_blk_create(&vdev, &c, guest_log(g), &err), 0, "%s", err.text);
	d = drv_create(g, vdev);
	drv_start(d, 1ull << 33, 0);
	forbid();
}

/* Status of one request of `len` bytes at the sector; -1: it came back without one. */
static int request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len, uint64_t status_gpa)
{
	struct drv_sg out[2] = {{guest_alloc(g, 16, 16), 16}, {gpa, len}};
	struct drv_sg in[2] = {{gpa, len}, {status_gpa, 1}};
	uint8_t *header = guest_ptr(g, out[0].gpa, 16), *status = guest_ptr(g, status_gpa, 1);

	memcpy(header, &type, 4);
	memcpy(header + 8, &sector, 8);
	*status = 0xee;
	if (type == BLK_OUT)
		drv_add(d, 0, out, 2, in + 1, 1);
	else
		drv_add(d, 0, out, 1, in, 2);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, NULL, NULL));
	return *status == 0xee ? -1 : *status;
}

Test(denied, a_disk_answers_requests_in_memory_that_it_may_not_reach_and_goes_on)
{
	uint64_t status, good;
	uint8_t *p;

	start_disk();
	status = guest_alloc(g, 1, 1);
	good = nothing_gpa - 4096;
	cr_assert_eq(pwrite(file, "from the disk", 13, 0), 13);

	cr_assert_eq(request(BLK_IN, 0, nothing_gpa, SECTOR, status), BLK_IOERR, "not at all");
	cr_assert_eq(faults, 1);
	cr_assert_eq(request(BLK_IN, 0, good + 4096 - SECTOR, 2 * SECTOR, status), BLK_IOERR,
		     "in part");
	p = guest_ptr(g, good, 4096);
	cr_assert_eq(p[4096 - SECTOR], 0, "and nothing of it was done");
	cr_assert_eq(faults, 2);
	cr_assert_eq(request(BLK_IN, 0, readonly_gpa, SECTOR, status), BLK_IOERR, "not to write");
	p = guest_ptr(g, readonly_gpa, SECTOR);
	cr_assert_eq(p[0], 0);
	memcpy(p, "to the disk", 11);
	cr_assert_eq(request(BLK_OUT, 8, readonly_gpa, SECTOR, status), BLK_OK, "but to read");
	cr_assert_eq(request(BLK_OUT, 8, nothing_gpa, SECTOR, status), BLK_IOERR);

	faults = 0;
	cr_assert_eq(request(BLK_IN, 0, good, SECTOR, readonly_gpa + 8), -1, "its status likewise");
	cr_assert_geq(faults, 1);
	cr_assert_eq(request(BLK_IN, 0, nothing_gpa, SECTOR, nothing_gpa + SECTOR), -1);

	cr_assert_eq(request(BLK_IN, 0, good, SECTOR, status), BLK_OK, "and it goes on");
	cr_assert_str_eq((char *)guest_ptr(g, good, 16), "from the disk");
	cr_assert(!(drv_status(d) & 64), "no reset needed");
	close(file);
}

Test(denied, an_indirect_table_that_it_may_not_read_is_one_request_less)
{
	uint64_t status;

	start_disk();
	status = guest_alloc(g, 1, 1);
	drv_start(d, 1ull << 33 | 1ull << 28, 0);
	d->indirect = true;
	d->queues[0].table = nothing_gpa;
	cr_assert_eq(request(BLK_IN, 0, nothing_gpa - 4096, SECTOR, status), -1);
	d->queues[0].table = nothing_gpa + 4096;
	cr_assert_eq(request(BLK_IN, 0, nothing_gpa - 4096, SECTOR, status), BLK_OK);
	close(file);
}

/* --- a network --- */

static void send_frame(int peer, uint32_t bytes)
{
	uint8_t frame[2048] = {0};
	uint32_t length = htonl(bytes);

	memcpy(frame, &length, 4);
	memset(frame + 4, 0x5a, bytes);
	cr_assert_eq(send(peer, frame, 4 + bytes, 0), 4 + bytes);
}

Test(denied, a_network_goes_on_with_the_buffers_that_it_may_write)
{
	struct virtio_net_setup c = {
		.name = "nic", .backend = VIRTIO_NET_SOCKET, .pairs = 1, .n_loops = 1};
	struct loop *loop = guest_loop(g, 0);
	struct drv_sg bad, good[2];
	struct virtio_device *vdev;
	uint16_t head, bad_head;
	uint32_t used, sum = 0;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	c.fds = &pair[0];
	c.loops = &loop;
	cr_assert_eq(virtio_net_create(&vdev, &c, guest_log(g), &err), 0, "%s", err.text);
	d = drv_create(g, vdev);
	drv_start(d, 1ull << 33 | 1ull << F_MRG_RXBUF, 0);
	forbid();
	bad = (struct drv_sg){nothing_gpa, 1024};
	for (unsigned int i = 0; i < 2; i++)
		good[i] = (struct drv_sg){guest_alloc(g, 1024, 4096), 1024};
	drv_add(d, 0, NULL, 0, &good[0], 1);
	bad_head = drv_add(d, 0, NULL, 0, &bad, 1);
	drv_add(d, 0, NULL, 0, &good[1], 1);
	drv_kick(d, 0);
	send_frame(pair[1], 1500);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert(drv_wait(d, 0, &head, &used));
		cr_assert(head != bad_head || !used);
		sum += used;
	}
	cr_assert_eq(sum, NET_HEADER + 1500);
	cr_assert_eq(((uint8_t *)guest_ptr(g, good[0].gpa, 1024))[NET_HEADER], 0x5a);
	cr_assert_geq(faults, 1);

	/* What it is to send from there is lost, and the next goes out. */
	drv_add(d, 1, &bad, 1, NULL, 0);
	good[0].len = NET_HEADER + 100;
	drv_add(d, 1, good, 1, NULL, 0);
	drv_kick(d, 1);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert(drv_wait(d, 1, NULL, NULL));
	cr_assert_eq(recv(pair[1], &used, 4, 0), 4);
	cr_assert_eq(ntohl(used), 100);
	cr_assert(!(drv_status(d) & 64), "no reset needed");
	close(pair[1]);
}
