// SPDX-License-Identifier: Apache-2.0
// A driver in user space for NVMe controllers behind the virtual IOMMU, by VFIO's type1 containers:
//
//   nvme BDF [BDF]       in the guest, until its input ends; the controllers are bound to vfio-pci
//
// Its address spaces are its own to fill, so it can ask a controller for any DMA. Lines, and
// answers:
//
//   unmap N      "unmap: N reached, N stopped": a page that the controller writes while it is
//                mapped, and cannot write after its unmap; N times
//   readonly     "readonly: read 1 written 0": a page mapped for reading: the controller can read
//                it, and cannot write it
//   domains      "domains: own 1 other 0": the second controller writes where only the first has a
//                mapping; and each writes its own page at the same address
//   verify N     "verify: N good": N pages written to the disk and read back, each mapped for that
//   hold         "hold: begun": reads of the disk into a page that stays mapped, until
//   release      "hold: N good, 0 bad"
//   map N        "map: N": N pages stay mapped at scattered addresses; 0 unmaps them again
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

enum { PAGE = 4096, ENTRIES = 64, SQE_BYTES = 64, CQE_BYTES = 16, BLOCK = 512, MAPS_MAX = 256 };

/* NVM Express Base Specification 2.0, 3.1.3 */
enum {
	CC = 0x14,
	CSTS = 0x1c,
	AQA = 0x24,
	ASQ = 0x28,
	ACQ = 0x30,
	DOORBELLS = 0x1000,
	CC_ON = 1 | 6 << 16 | 4 << 20, /* enabled; entries of 64 and 16 bytes */
	IDENTIFY = 6,
	CREATE_SQ = 1,
	CREATE_CQ = 5,
	WRITE = 1,
	READ = 2,
};

#define QUEUES_IOVA 0x10000000ull /* four pages */
#define DATA_IOVA   0x40000000ull
#define MAP_IOVA    0x80000000ull

struct queue {
	uint8_t *sq, *cq;
	unsigned int id, tail, head;
	bool phase;
};

struct nvme {
	int container, device;
	volatile uint8_t *bar;
	unsigned int stride;
	struct queue admin, io;
};

static struct nvme ctrl[2];
static unsigned int n_ctrl;

static _Noreturn void die(const char *what)
{
	printf("nvme: %s failed: %m\n", what);
	exit(1);
}

/* --- VFIO --- */

static uint8_t *pages(unsigned int n)
{
	uint8_t *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("memory");
	return p;
}

static void map(struct nvme *c, uint64_t iova, void *at, size_t bytes, bool write)
{
	struct vfio_iommu_type1_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_DMA_MAP_FLAG_READ | (write ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
		.vaddr = (uintptr_t)at,
		.iova = iova,
		.size = bytes,
	};

	if (ioctl(c->container, VFIO_IOMMU_MAP_DMA, &m))
		die("MAP_DMA");
}

static void unmap(struct nvme *c, uint64_t iova, size_t bytes)
{
	struct vfio_iommu_type1_dma_unmap u = {.argsz = sizeof(u), .iova = iova, .size = bytes};

	if (ioctl(c->container, VFIO_IOMMU_UNMAP_DMA, &u) || u.size != bytes)
		die("UNMAP_DMA");
}

static int open_group(const char *bdf)
{
	char path[120], group[200];
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	n = readlink(path, group, sizeof(group) - 1);
	if (n < 0)
		die(path);
	group[n] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio%s", strrchr(group, '/'));
	return open(path, O_RDWR | O_CLOEXEC);
}

static void open_device(struct nvme *c, const char *bdf)
{
	struct vfio_region_info region = {.argsz = sizeof(region),
					  .index = VFIO_PCI_BAR0_REGION_INDEX};
	int group = open_group(bdf);
	uint16_t command;

	c->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (group < 0 || c->container < 0 ||
	    ioctl(group, VFIO_GROUP_SET_CONTAINER, &c->container) ||
	    ioctl(c->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("the container");
	c->device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (c->device < 0 || ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, &region))
		die("the device");
	c->bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, c->device,
		      (off_t)region.offset);
	if (c->bar == MAP_FAILED)
		die("its registers");
	region.index = VFIO_PCI_CONFIG_REGION_INDEX;
	if (ioctl(c->device, VFIO_DEVICE_GET_REGION_INFO, &region) ||
	    pread(c->device, &command, 2, (off_t)region.offset + PCI_COMMAND) != 2)
		die("its config space");
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (pwrite(c->device, &command, 2, (off_t)region.offset + PCI_COMMAND) != 2)
		die("bus mastering");
}

/* --- the controller --- */

static uint32_t get32(const struct nvme *c, unsigned int at)
{
	return *(volatile uint32_t *)(uintptr_t)(c->bar + at);
}

static void set32(const struct nvme *c, unsigned int at, uint32_t value)
{
	*(volatile uint32_t *)(uintptr_t)(c->bar + at) = value;
}

static void set64(const struct nvme *c, unsigned int at, uint64_t value)
{
	set32(c, at, (uint32_t)value);
	set32(c, at + 4, (uint32_t)(value >> 32));
}

static void wait_ready(const struct nvme *c, bool ready)
{
	time_t end = time(NULL) + 60;

	while ((get32(c, CSTS) & 1) != ready) {
		if (time(NULL) > end)
			die("the controller");
	}
}

struct sqe {
	uint32_t cdw0, nsid, cdw2, cdw3;
	uint64_t metadata, prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct sqe) == SQE_BYTES, "as on the wire");

/* The status (0: good) of a command, which is waited for. */
static unsigned int run(struct nvme *c, struct queue *q, const struct sqe *e)
{
	uint8_t *cqe = q->cq + q->head * CQE_BYTES;
	time_t end = time(NULL) + 60;
	uint16_t status;

	memcpy(q->sq + q->tail * SQE_BYTES, e, sizeof(*e));
	q->tail = (q->tail + 1) % ENTRIES;
	atomic_thread_fence(memory_order_seq_cst);
	set32(c, DOORBELLS + 2 * q->id * c->stride, q->tail);
	while (((status = *(volatile uint16_t *)(uintptr_t)(cqe + 14)) & 1) != q->phase) {
		if (time(NULL) > end)
			die("a command");
	}
	atomic_thread_fence(memory_order_seq_cst);
	q->head = (q->head + 1) % ENTRIES;
	q->phase ^= !q->head;
	set32(c, DOORBELLS + (2 * q->id + 1) * c->stride, q->head);
	return status >> 1;
}

/* Writes a page at the address. */
static unsigned int identify(struct nvme *c, uint64_t iova)
{
	const struct sqe e = {.cdw0 = IDENTIFY, .prp1 = iova, .cdw10 = 1};

	return run(c, &c->admin, &e);
}

static unsigned int transfer(struct nvme *c, unsigned int opcode, uint64_t iova, uint64_t page)
{
	const struct sqe e = {
		.cdw0 = opcode,
		.nsid = 1,
		.prp1 = iova,
		.cdw10 = (uint32_t)(page * (PAGE / BLOCK)),
		.cdw12 = PAGE / BLOCK - 1,
	};

	return run(c, &c->io, &e);
}

static void start(struct nvme *c)
{
	uint8_t *memory = pages(4);
	struct sqe e = {.cdw0 = CREATE_CQ, .cdw11 = 1};

	c->stride = 4u << (get32(c, 4) & 15);
	c->admin = (struct queue){.sq = memory, .cq = memory + PAGE, .phase = true};
	c->io = (struct queue){
		.sq = memory + 2 * PAGE, .cq = memory + 3 * PAGE, .id = 1, .phase = true};
	map(c, QUEUES_IOVA, memory, 4 * PAGE, true);
	set32(c, CC, 0);
	wait_ready(c, false);
	set32(c, AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
	set64(c, ASQ, QUEUES_IOVA);
	set64(c, ACQ, QUEUES_IOVA + PAGE);
	set32(c, CC, CC_ON);
	wait_ready(c, true);
	e.prp1 = QUEUES_IOVA + 3 * PAGE;
	e.cdw10 = (ENTRIES - 1) << 16 | 1;
	if (run(c, &c->admin, &e))
		die("a completion queue");
	e.cdw0 = CREATE_SQ;
	e.prp1 = QUEUES_IOVA + 2 * PAGE;
	e.cdw11 = 1 << 16 | 1;
	if (run(c, &c->admin, &e))
		die("a submission queue");
}

/* --- commands --- */

static void fill(uint8_t *page, uint64_t seed)
{
	for (unsigned int i = 0; i < PAGE; i += 8) {
		uint64_t word = (seed + i) * 0x9e3779b97f4a7c15ull;

		memcpy(page + i, &word, 8);
	}
}

static bool is_filled(const uint8_t *page, uint64_t seed)
{
	static uint8_t want[PAGE];

	fill(want, seed);
	return !memcmp(page, want, PAGE);
}

static void do_unmap(unsigned int n)
{
	unsigned int reached = 0, stopped = 0;
	uint8_t *page = pages(1);

	for (unsigned int i = 0; i < n; i++) {
		uint64_t iova = DATA_IOVA + (uint64_t)(i % 16) * PAGE;

		fill(page, i);
		map(&ctrl[0], iova, page, PAGE, true);
		reached += !identify(&ctrl[0], iova) && !is_filled(page, i);
		fill(page, i);
		unmap(&ctrl[0], iova, PAGE);
		/* QEMU's controller calls a command good whose data went nowhere. */
		(void)identify(&ctrl[0], iova);
		stopped += is_filled(page, i);
	}
	printf("unmap: %u reached, %u stopped\n", reached, stopped);
}

static void do_readonly(void)
{
	uint8_t *page = pages(1);
	bool read, written;

	fill(page, 1);
	map(&ctrl[0], DATA_IOVA, page, PAGE, false);
	read = !transfer(&ctrl[0], WRITE, DATA_IOVA, 1);
	(void)identify(&ctrl[0], DATA_IOVA);
	written = !is_filled(page, 1);
	unmap(&ctrl[0], DATA_IOVA, PAGE);
	printf("readonly: read %d written %d\n", read, written);
}

static void do_domains(void)
{
	uint8_t *first = pages(1), *second = pages(1);
	bool own, other;

	fill(first, 1);
	fill(second, 2);
	map(&ctrl[0], DATA_IOVA, first, PAGE, true);
	(void)identify(&ctrl[1], DATA_IOVA);
	other = !is_filled(first, 1);
	map(&ctrl[1], DATA_IOVA, second, PAGE, true);
	own = !identify(&ctrl[1], DATA_IOVA) && !is_filled(second, 2);
	other |= !is_filled(first, 1);
	fill(second, 2);
	own &= !identify(&ctrl[0], DATA_IOVA) && !is_filled(first, 1);
	other |= !is_filled(second, 2);
	unmap(&ctrl[0], DATA_IOVA, PAGE);
	unmap(&ctrl[1], DATA_IOVA, PAGE);
	printf("domains: own %d other %d\n", own, other);
}

static void do_verify(unsigned int n)
{
	uint8_t *page = pages(1);
	unsigned int good = 0;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int failed;

		fill(page, i);
		map(&ctrl[0], DATA_IOVA, page, PAGE, false);
		failed = transfer(&ctrl[0], WRITE, DATA_IOVA, i);
		unmap(&ctrl[0], DATA_IOVA, PAGE);
		memset(page, 0, PAGE);
		map(&ctrl[0], DATA_IOVA, page, PAGE, true);
		failed |= transfer(&ctrl[0], READ, DATA_IOVA, i);
		unmap(&ctrl[0], DATA_IOVA, PAGE);
		good += !failed && is_filled(page, i);
	}
	printf("verify: %u good\n", good);
}

static void do_map(unsigned int n)
{
	static uint8_t *memory;
	static unsigned int mapped;

	if (!memory)
		memory = pages(MAPS_MAX);
	while (mapped)
		unmap(&ctrl[0], MAP_IOVA + --mapped * 3ull * PAGE, PAGE);
	for (; mapped < n && mapped < MAPS_MAX; mapped++)
		map(&ctrl[0], MAP_IOVA + mapped * 3ull * PAGE, memory + mapped * PAGE, PAGE, true);
	printf("map: %u\n", mapped);
}

static atomic_bool holding;
static pthread_t holder;

static void *hold(void *opaque)
{
	uint8_t *page = pages(1);
	unsigned long good = 0, bad = 0;

	fill(page, 7);
	map(&ctrl[0], DATA_IOVA, page, PAGE, true);
	bad += transfer(&ctrl[0], WRITE, DATA_IOVA, 7) != 0;
	printf("hold: begun\n");
	while (atomic_load(&holding)) {
		memset(page, 0, PAGE);
		if (!transfer(&ctrl[0], READ, DATA_IOVA, 7) && is_filled(page, 7))
			good++;
		else
			bad++;
	}
	unmap(&ctrl[0], DATA_IOVA, PAGE);
	printf("hold: %lu good, %lu bad\n", good, bad);
	return opaque;
}

static void do_hold(bool on)
{
	if (atomic_exchange(&holding, on) == on)
		return;
	if (on && pthread_create(&holder, NULL, hold, NULL))
		die("a thread");
	if (!on)
		pthread_join(holder, NULL);
}

static void command(const char *line)
{
	unsigned int n = strchr(line, ' ') ? (unsigned int)atoi(strchr(line, ' ')) : 0;

	if (!strncmp(line, "unmap", 5))
		do_unmap(n);
	else if (!strcmp(line, "readonly"))
		do_readonly();
	else if (!strcmp(line, "domains"))
		do_domains();
	else if (!strncmp(line, "verify", 6))
		do_verify(n);
	else if (!strncmp(line, "map", 3))
		do_map(n);
	else if (!strcmp(line, "hold"))
		do_hold(true);
	else if (!strcmp(line, "release"))
		do_hold(false);
}

int main(int argc, char **argv)
{
	char line[120];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (; n_ctrl < 2 && (int)n_ctrl + 1 < argc; n_ctrl++) {
		open_device(&ctrl[n_ctrl], argv[n_ctrl + 1]);
		start(&ctrl[n_ctrl]);
	}
	printf("nvme: %u ready\n", n_ctrl);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (!strcmp(line, "end"))
			break;
		command(line);
	}
	/* They are reset when their files are closed. */
	printf("nvme: ends\n");
	return 0;
}
