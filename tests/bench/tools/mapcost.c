// SPDX-License-Identifier: Apache-2.0
// The cost of mapping memory for a device:   mapcost iommufd|type1 BDF MIB COUNT
//
// BDF is a PCI device that is bound to vfio-pci. First, MIB MiB of present memory are mapped at
// once and unmapped: base pages, and huge ones if enough are reserved. Then COUNT mappings of one
// page are made, one after the other, and COUNT of 256 KiB; each is unmapped by itself.
// Output, in ns:
//
//   COST region base|huge MAP UNMAP      for all of the MIB MiB
//   COST page BYTES MAP UNMAP            for one of the COUNT
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"
#include "real.h"

enum { PAGE = 4096, HUGE = 2 << 20, SMALL = 256 << 10 };

/* Above the MSI window: one range, whatever the size. */
static const uint64_t iova_base = 1ull << 32;

static struct iommu *iommu;
static struct ioas *ioas;

static void map_one(char *memory, uint64_t iova, uint64_t bytes)
{
	struct ioas_memory m = {.hva = memory, .fd = -1, .gpa = UINT64_MAX};
	int code = ioas_map(ioas, iova, bytes, &m, IOAS_READ | IOAS_WRITE);

	if (code)
		ioas_explain(ioas, code, iova, bytes, &err);
	need(!code, "map of %llu bytes: %s", (unsigned long long)bytes, err.text);
}

static void unmap_one(uint64_t iova, uint64_t bytes)
{
	uint64_t unmapped = 0;

	need(!ioas_unmap(ioas, iova, bytes, &unmapped) && unmapped == bytes, "unmap of %llu bytes",
	     (unsigned long long)bytes);
}

/* Populated: neither the page faults nor the clearing is what is measured. NULL: not so many huge
 * pages are reserved. */
static char *make_memory(uint64_t bytes, bool huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0);
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (memory == MAP_FAILED && huge)
		return NULL;
	need(memory != MAP_FAILED, "memory of %llu bytes", (unsigned long long)bytes);
	if (!huge)
		(void)madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (uint64_t i = 0; i < bytes; i += huge ? HUGE : PAGE)
		memory[i] = 1;
	return memory;
}

static void region(uint64_t bytes, bool huge)
{
	char *memory = make_memory(bytes, huge);
	uint64_t start_ns, mapped_ns, end_ns;

	if (!memory)
		return;
	start_ns = now_ns();
	map_one(memory, iova_base, bytes);
	mapped_ns = now_ns();
	unmap_one(iova_base, bytes);
	end_ns = now_ns();
	printf("COST region %s %llu %llu\n", huge ? "huge" : "base",
	       (unsigned long long)(mapped_ns - start_ns),
	       (unsigned long long)(end_ns - mapped_ns));
	munmap(memory, bytes);
}

/* Twice as far apart as they are long, so that none is next to another. */
static void pages(uint64_t bytes, unsigned int count)
{
	char *memory = make_memory(bytes * count, false);
	uint64_t start_ns, mapped_ns, end_ns;

	start_ns = now_ns();
	for (unsigned int i = 0; i < count; i++)
		map_one(memory + i * bytes, iova_base + 2 * i * bytes, bytes);
	mapped_ns = now_ns();
	for (unsigned int i = 0; i < count; i++)
		unmap_one(iova_base + 2 * i * bytes, bytes);
	end_ns = now_ns();
	printf("COST page %llu %llu %llu\n", (unsigned long long)bytes,
	       (unsigned long long)(mapped_ns - start_ns) / count,
	       (unsigned long long)(end_ns - mapped_ns) / count);
	munmap(memory, bytes * count);
}

int main(int argc, char **argv)
{
	struct iommu_config config = {.log = &test_log, .iommufd = -1};
	struct iommu_endpoint *device;
	unsigned int count;
	uint64_t bytes;

	if (argc != 5)
		return 2;
	config.kind = !strcmp(argv[1], "type1") ? IOMMU_TYPE1 : IOMMU_IOMMUFD;
	config.device = argv[2];
	bytes = strtoull(argv[3], NULL, 10) * MiB;
	count = (unsigned int)strtoul(argv[4], NULL, 10);
	need(bytes && count, "MIB and COUNT are numbers");
	need(!iommu_create(&iommu, &config, &err), "iommu: %s", err.text);
	need(!ioas_create(&ioas, iommu, "cost", &err), "space: %s", err.text);
	device = make_endpoint(iommu, argv[2]);
	need(!ioas_attach(ioas, device, &err), "attach: %s", err.text);
	pages(PAGE, 16); /* what is done once is done */
	region(bytes, false);
	region(bytes, true);
	pages(PAGE, count);
	pages(SMALL, count / 8 ? count / 8 : 1);
	iommu_endpoint_destroy(device);
	ioas_destroy(ioas);
	iommu_destroy(iommu);
	return 0;
}
