// SPDX-License-Identifier: Apache-2.0
// Records of the kernel log. Oracle: what comes out is whole (a device's address, one printable
// line); written down again in the driver's form it is read as the same fault; a record that is
// made from the input's bytes is read as what it was made from, and cut short as nothing.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/le.h"
#include "iommu/fault.h"

/* A copy that ends where the record ends, so that the sanitizer sees a read past it. */
static bool parse(const char *record, size_t len, struct iommu_fault *fault)
{
	char *exact = malloc(len ? len : 1);
	bool ret;

	check(exact);
	memcpy(exact, record, len);
	ret = fault_parse_kmsg(exact, (unsigned int)len, fault);
	free(exact);
	return ret;
}

static void check_whole(const struct iommu_fault *f)
{
	unsigned int segment, bus, slot, function;
	int n = 0;

	check(memchr(f->device, 0, sizeof(f->device)));
	check(sscanf(f->device, "%4x:%2x:%2x.%1x%n", &segment, &bus, &slot, &function, &n) == 4);
	check(n == 12 && !f->device[12] && slot < 32 && function < 8);
	check(memchr(f->reason, 0, sizeof(f->reason)));
	for (const char *c = f->reason; *c; c++)
		check(isprint((unsigned char)*c));
}

/* As the AMD driver writes it, which names the segment too. */
static size_t write_down(char *text, size_t bytes, const struct iommu_fault *f)
{
	return (size_t)snprintf(text, bytes,
				"1,7,%llu,-;x %s: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1 "
				"address=0x%llx flags=0x%x]",
				(unsigned long long)(f->when_ns / 1000), f->device,
				(unsigned long long)f->iova, f->write ? 0x70u : 0x50u);
}

static void check_same(const struct iommu_fault *a, const struct iommu_fault *b)
{
	check(!strcmp(a->device, b->device) && a->iova == b->iova && a->write == b->write);
	check(a->when_ns / 1000 == b->when_ns / 1000);
}

static void check_again(const struct iommu_fault *fault)
{
	struct iommu_fault again;
	char text[300];
	size_t n = write_down(text, sizeof(text), fault);

	check(parse(text, n, &again));
	check_whole(&again);
	check_same(fault, &again);
	check(!parse(text, n - 1, &again));
}

/* From 17 bytes: a fault as VT-d's driver writes it. */
static void check_made(const uint8_t *data)
{
	struct iommu_fault fault = {
		.iova = load_le64(data),
		.write = data[8] & 1,
		.when_ns = (uint64_t)load_le32(data + 9) * 1000,
	};
	struct iommu_fault got;
	char text[300];
	size_t n;

	snprintf(fault.device, sizeof(fault.device), "0000:%02x:%02x.%x", data[13],
		 data[14] & 0x1fu, data[15] & 7u);
	n = (size_t)snprintf(text, sizeof(text),
			     "3,1,%llu,-;DMAR: [DMA %s NO_PASID] Request device [%s] fault addr "
			     "0x%llx [fault reason 0x%02x]",
			     (unsigned long long)(fault.when_ns / 1000),
			     fault.write ? "Write" : "Read", fault.device + 5,
			     (unsigned long long)fault.iova, data[16]);
	check(parse(text, n, &got));
	check_same(&fault, &got);
	for (size_t cut = 0; cut < n; cut++)
		check(!parse(text, cut, &got));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct iommu_fault fault;

	memset(&fault, 0xff, sizeof(fault));
	if (parse((const char *)data, size, &fault)) {
		check_whole(&fault);
		check_again(&fault);
	}
	if (size >= 17)
		check_made(data);
	return 0;
}
