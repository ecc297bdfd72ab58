// SPDX-License-Identifier: Apache-2.0
// What the programs here share: TAP, devices, edu.
#include "real.h"

#include "core/loop.h"

#include <fcntl.h>
#include <glob.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int cases, failed;
struct err err;

bool check(bool good, const char *fmt, ...)
{
	va_list ap;

	failed += !good;
	printf("%sok %d - ", good ? "" : "not ", ++cases);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	err = (struct err)ERR_INIT;
	return good;
}

int failures(void)
{
	return failed;
}

void need(bool good, const char *fmt, ...)
{
	va_list ap;

	if (good)
		return;
	printf("not ok %d - ", ++cases);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static void log_line(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	printf("# %s: %s: %s\n", log_level_name(level), component, text);
}

const struct log test_log = {.fn = log_line, .level = LOG_INFO};

int open_device(enum iommu_kind kind, const char *bdf)
{
	char pattern[160], path[160] = "";
	glob_t found = {0};
	ssize_t n;

	if (kind == IOMMU_TYPE1) {
		char link[160], target[160];

		snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", bdf);
		n = readlink(link, target, sizeof(target) - 1);
		if (n > 0) {
			target[n] = '\0';
			snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(target, '/') + 1);
		}
		return open(path, O_RDWR | O_CLOEXEC);
	}
	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/vfio-dev/vfio*", bdf);
	if (!glob(pattern, 0, NULL, &found))
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s",
			 strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	return open(path, O_RDWR | O_CLOEXEC);
}

struct iommu_endpoint *make_endpoint(struct iommu *iommu, const char *bdf)
{
	struct iommu_endpoint_config config = {
		.name = bdf,
		.fd = open_device(iommu_kind_of(iommu), bdf),
	};
	struct iommu_endpoint *endpoint = NULL;

	need(config.fd >= 0, "%s can be opened", bdf);
	need(!iommu_endpoint_create(&endpoint, iommu, &config, &err), "endpoint: %s", err.text);
	return endpoint;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t vmstat(const char *name)
{
	unsigned long long value = 0;
	char line[160], key[100];
	/* Each CPU keeps a part of every counter to itself until this is read. */
	FILE *f = fopen("/proc/sys/vm/stat_refresh", "re");

	if (f) {
		(void)fgetc(f);
		fclose(f);
	}
	f = fopen("/proc/vmstat", "re");

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long v;

		if (sscanf(line, "%99s %llu", key, &v) == 2 && !strcmp(key, name))
			value = v;
	}
	if (f)
		fclose(f);
	return value;
}

/* --- edu: docs/specs/edu.rst of QEMU --- */

enum {
	EDU_BAR_BYTES = 1 << 20,
	EDU_SRC = 0x80,
	EDU_DST = 0x88,
	EDU_COUNT = 0x90,
	EDU_COMMAND = 0x98,
	EDU_BUFFER = 0x40000,
	EDU_START = 1,
	EDU_TO_MEMORY = 2,
};

void edu_open(struct edu *edu, int device_fd)
{
	struct vfio_region_info config = {.argsz = sizeof(config),
					  .index = VFIO_PCI_CONFIG_REGION_INDEX};
	struct vfio_region_info bar = {.argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX};
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	need(!ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, &config), "edu has a config space");
	need(!ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, &bar), "edu has a BAR");
	need(pwrite(device_fd, &command, 2, (off_t)config.offset + PCI_COMMAND) == 2,
	     "edu becomes bus master");
	edu->bar = mmap(NULL, EDU_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device_fd,
			(off_t)bar.offset);
	need(edu->bar != MAP_FAILED, "edu's registers can be mapped");
}

void edu_close(struct edu *edu)
{
	munmap((void *)(uintptr_t)edu->bar, EDU_BAR_BYTES);
	edu->bar = NULL;
}

static void set(struct edu *edu, unsigned int reg, uint64_t value)
{
	*(volatile uint64_t *)(uintptr_t)(edu->bar + reg) = value;
}

static void start(struct edu *edu, uint64_t src, uint64_t dst, uint32_t bytes, uint32_t command)
{
	set(edu, EDU_SRC, src);
	set(edu, EDU_DST, dst);
	set(edu, EDU_COUNT, bytes);
	set(edu, EDU_COMMAND, EDU_START | command);
}

bool edu_runs(const struct edu *edu)
{
	return *(volatile uint64_t *)(uintptr_t)(edu->bar + EDU_COMMAND) & EDU_START;
}

void edu_wait(struct edu *edu)
{
	time_t end = time(NULL) + 20;

	while (edu_runs(edu))
		need(time(NULL) < end, "edu's engine stops");
}

void edu_start_write(struct edu *edu, uint64_t iova, uint32_t bytes)
{
	start(edu, EDU_BUFFER, iova, bytes, EDU_TO_MEMORY);
}

static void run(struct edu *edu, uint64_t src, uint64_t dst, uint32_t bytes, uint32_t command)
{
	start(edu, src, dst, bytes, command);
	edu_wait(edu);
}

void edu_write(struct edu *edu, uint64_t iova, uint32_t bytes)
{
	run(edu, EDU_BUFFER, iova, bytes, EDU_TO_MEMORY);
}

void edu_read(struct edu *edu, uint64_t iova, uint32_t bytes)
{
	run(edu, iova, EDU_BUFFER, bytes, 0);
}

/* --- faults --- */

static struct {
	struct loop *loop;
	struct fault_watch *watch;
	struct loop_op patience;
	struct iommu_fault recent[64];
	unsigned int n;
	bool over;
} faults;

static void on_fault(void *opaque, const struct iommu_fault *fault)
{
	(void)opaque;
	printf("# fault: %s %s 0x%llx: %s\n", fault->device, fault->write ? "write" : "read",
	       (unsigned long long)fault->iova, fault->reason);
	if (faults.n < 64)
		faults.recent[faults.n++] = *fault;
}

static void on_patience(struct loop_op *op, int result)
{
	(void)op;
	(void)result;
	faults.over = true;
}

void faults_open(void)
{
	struct loop_config config = {.log = &test_log, .name = "faults"};

	need(!loop_create(&faults.loop, &config, &err), "loop: %s", err.text);
	need(!fault_watch_create(&faults.watch, faults.loop, &test_log, on_fault, NULL, &err),
	     "watch: %s", err.text);
	faults.patience.done = on_patience;
}

void faults_close(void)
{
	check(!strcmp(fault_source(faults.watch), "kernel log"), "faults come from the %s",
	      fault_source(faults.watch));
	fault_watch_destroy(faults.watch);
	check(!loop_in_flight(faults.loop), "nothing is left in flight");
	loop_destroy(faults.loop);
}

static bool take_fault(const char *bdf, uint64_t iova, bool write, struct iommu_fault *ret)
{
	for (unsigned int i = 0; i < faults.n; i++) {
		const struct iommu_fault *f = &faults.recent[i];

		if (strcmp(f->device, bdf) != 0 || f->write != write ||
		    f->iova / 4096 != iova / 4096)
			continue;
		*ret = *f;
		faults.n = 0;
		return true;
	}
	return false;
}

bool fault_seen(const char *bdf, uint64_t iova, bool write, struct iommu_fault *ret)
{
	bool seen;

	faults.over = false;
	loop_timer(faults.loop, &faults.patience, 6000000000);
	while (!(seen = take_fault(bdf, iova, write, ret)) && !faults.over)
		loop_iterate(faults.loop, true);
	loop_cancel(faults.loop, &faults.patience);
	while (!faults.over)
		loop_iterate(faults.loop, true);
	faults.n = 0;
	return seen;
}
