// SPDX-License-Identifier: Apache-2.0
// Makes QEMU's edu device do DMA wherever a line on stdin says:   dma BDF|vfio:BDF|-
//
// In a guest, as an attacker who may do anything; on the host, for a device that nobody uses.
// Static, so that it runs in an initrd. With "-" there is no device: canaries only. With "vfio:" it
// has the device from VFIO, behind an IOMMU, and reaches what "map" mapped. Lines, and what each
// answers:
//
//   canary TEXT   "canary at ADDR": a page full of TEXT; ADDR is physical, as this kernel sees it
//   look          "page same" or "page changed to BYTES"
//   write ADDR    "wrote ADDR": 8 bytes from the device's buffer to there
//   read ADDR     "read ADDR": 8 bytes from there into the device's buffer
//   bytes         "buffer BYTES": the device's buffer, by way of this program's memory
//   map rw|ro A   "mapped A": the canary, at I/O address A; the device may write, or only read
//   unmap A       "unmapped A"
//   hammer        "hammering": writes to this program's memory for ever
//   end           ends
#include <fcntl.h>
#include <inttypes.h>
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

enum { PAGE = 4096, BAR_BYTES = 1 << 20, DMA = 8 };
enum { MINE_IOVA = 8 << 20 };

/* docs/specs/edu.rst of QEMU */
enum {
	EDU_SRC = 0x80,
	EDU_DST = 0x88,
	EDU_COUNT = 0x90,
	EDU_COMMAND = 0x98,
	EDU_BUFFER = 0x40000,
	EDU_START = 1,
	EDU_TO_MEMORY = 2,
};

static volatile uint8_t *bar;
static uint8_t *canary, *mine;
static char text[64];
static int container = -1; /* with VFIO */

static void die(const char *what)
{
	printf("dma: %s failed\n", what);
	exit(1);
}

static int open_of(const char *bdf, const char *name, int flags)
{
	char path[160];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	return open(path, flags | O_CLOEXEC);
}

static void map_page(uint8_t *page, uint64_t iova, bool writable)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | (writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)page,
		.iova = iova,
		.size = PAGE,
	};

	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		die("VFIO_IOMMU_MAP_DMA");
}

static void unmap_page(uint64_t iova)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = PAGE};

	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		die("VFIO_IOMMU_UNMAP_DMA");
}

static uint64_t region_at(int device, uint32_t index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		die("VFIO_DEVICE_GET_REGION_INFO");
	return info.offset;
}

static int vfio_device(const char *bdf)
{
	char path[160], link[160] = "";
	const char *group_name;
	int group, device;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	if (readlink(path, link, sizeof(link) - 1) < 0 || !strrchr(link, '/'))
		die("finding the group");
	group_name = strrchr(link, '/') + 1;
	snprintf(path, sizeof(path), "/dev/vfio/%s", group_name);
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	group = open(path, O_RDWR | O_CLOEXEC);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("the container");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		die("VFIO_GROUP_GET_DEVICE_FD");
	return device;
}

static void open_vfio(const char *bdf)
{
	int device = vfio_device(bdf);
	off_t config = (off_t)region_at(device, VFIO_PCI_CONFIG_REGION_INDEX);
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	if (pwrite(device, &command, 2, config + PCI_COMMAND) != 2)
		die("making the device bus master");
	bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device,
		   (off_t)region_at(device, VFIO_PCI_BAR0_REGION_INDEX));
	if (bar == MAP_FAILED)
		die("mapping the device's registers");
	map_page(mine, MINE_IOVA, true);
}

/* A device that sleeps answers nothing; one that is no bus master writes nothing. */
static void open_device(const char *bdf)
{
	/* A kernel without power management has no such file. */
	int power = open_of(bdf, "power/control", O_WRONLY),
	    config = open_of(bdf, "config", O_RDWR);
	int resource = open_of(bdf, "resource0", O_RDWR);
	uint16_t command;

	if (power >= 0 && write(power, "on", 2) != 2)
		die("waking the device");
	if (pread(config, &command, 2, PCI_COMMAND) != 2)
		die("opening the device");
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (pwrite(config, &command, 2, PCI_COMMAND) != 2)
		die("making the device bus master");
	bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, resource, 0);
	if (bar == MAP_FAILED)
		die("mapping the device's registers");
	if (power >= 0)
		close(power);
	close(config);
	close(resource);
}

static uint64_t physical(const void *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) != 8 ||
	    !(entry >> 63))
		die("pagemap");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}

/* Pages that stay where they are: locked, and a guest's kernel has no reason to move them. */
static uint8_t *page(void)
{
	uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED || mlock(p, PAGE))
		die("a page");
	return p;
}

/* What the device calls this program's memory. */
static uint64_t mine_at(void)
{
	return container < 0 ? physical(mine) : MINE_IOVA;
}

static bool run(uint64_t src, uint64_t dst, uint32_t command)
{
	time_t end = time(NULL) + 20;

	if (!bar)
		return false;
	*(volatile uint64_t *)(uintptr_t)(bar + EDU_SRC) = src;
	*(volatile uint64_t *)(uintptr_t)(bar + EDU_DST) = dst;
	*(volatile uint64_t *)(uintptr_t)(bar + EDU_COUNT) = DMA;
	*(volatile uint64_t *)(uintptr_t)(bar + EDU_COMMAND) = EDU_START | command;
	while (*(volatile uint64_t *)(uintptr_t)(bar + EDU_COMMAND) & EDU_START) {
		if (time(NULL) > end)
			return false;
	}
	return true;
}

static void show(const char *what, const uint8_t *at)
{
	printf("%s", what);
	for (unsigned int i = 0; i < DMA; i++)
		printf("%02x", at[i]);
	printf("\n");
}

static void set_canary(const char *with)
{
	snprintf(text, sizeof(text), "%-63s", with);
	for (unsigned int i = 0; i < PAGE; i += sizeof(text))
		memcpy(canary + i, text, sizeof(text));
	printf("canary at 0x%" PRIx64 "\n", physical(canary));
}

static void look(void)
{
	for (unsigned int i = 0; i < PAGE; i += sizeof(text)) {
		if (memcmp(canary + i, text, sizeof(text)) != 0) {
			show("page changed to ", canary + i);
			return;
		}
	}
	printf("page same\n");
}

/* The address is the last word. */
static void command(const char *line)
{
	uint64_t at = strrchr(line, ' ') ? strtoull(strrchr(line, ' ') + 1, NULL, 0) : 0;

	if (!strncmp(line, "canary ", 7)) {
		set_canary(line + 7);
	} else if (!strcmp(line, "look")) {
		look();
	} else if (!strncmp(line, "write ", 6)) {
		printf(run(EDU_BUFFER, at, EDU_TO_MEMORY) ? "wrote 0x%" PRIx64 "\n" : "no write\n",
		       at);
	} else if (!strncmp(line, "read ", 5)) {
		printf(run(at, EDU_BUFFER, 0) ? "read 0x%" PRIx64 "\n" : "no read\n", at);
	} else if (!strcmp(line, "bytes")) {
		run(EDU_BUFFER, mine_at(), EDU_TO_MEMORY);
		show("buffer ", mine);
	} else if (!strncmp(line, "map r", 5)) {
		map_page(canary, at, line[5] == 'w');
		printf("mapped 0x%" PRIx64 "\n", at);
	} else if (!strncmp(line, "unmap ", 6)) {
		unmap_page(at);
		printf("unmapped 0x%" PRIx64 "\n", at);
	} else if (!strcmp(line, "hammer")) {
		printf("hammering\n");
		while (run(EDU_BUFFER, mine_at(), EDU_TO_MEMORY))
			;
		printf("hammer stopped\n");
	}
}

int main(int argc, char **argv)
{
	char line[160];

	if (argc != 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	canary = page();
	mine = page();
	if (!strncmp(argv[1], "vfio:", 5))
		open_vfio(argv[1] + 5);
	else if (strcmp(argv[1], "-") != 0)
		open_device(argv[1]);
	printf("dma: ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (!strcmp(line, "end"))
			return 0;
		command(line);
	}
	return 0;
}
