// SPDX-License-Identifier: Apache-2.0
// DMA faults in records of /dev/kmsg. A record (Linux, Documentation/ABI/testing/dev-kmsg):
//
//   PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT newline [ KEY=VALUE newline …]
//
// and the texts, as drivers/iommu/intel/dmar.c and drivers/iommu/amd/iommu.c write them:
//
//   DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr 0x7000 [fault reason 0x05] …
//   DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 7000 [fault reason 06] …
//   AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:01:00.0 domain=0x1 address=0x7000 flags=0x20]
//   vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1 address=0x7000 flags=…]
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "iommu/fault.h"

enum { AMD_FLAG_WRITE = 0x20 }; /* AMD I/O Virtualization, 2.5.3: RW */

/* The rest of a line. */
struct cursor {
	const char *at, *end;
};

static bool skip(struct cursor *c, const char *literal)
{
	size_t n = strlen(literal);

	if ((size_t)(c->end - c->at) < n || memcmp(c->at, literal, n) != 0)
		return false;
	c->at += n;
	return true;
}

/* Skip up to and including the next `literal`. */
static bool find(struct cursor *c, const char *literal)
{
	const char *found = memmem(c->at, (size_t)(c->end - c->at), literal, strlen(literal));

	if (!found)
		return false;
	c->at = found + strlen(literal);
	return true;
}

static unsigned int digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	return c >= 'A' && c <= 'F' ? (unsigned int)(c - 'A') + 10 : 99;
}

/* 1 to max_digits digits. */
static bool number(struct cursor *c, unsigned int base, unsigned int max_digits, uint64_t *ret)
{
	unsigned int n = 0;

	for (*ret = 0; n < max_digits && c->at < c->end && digit(*c->at) < base; n++, c->at++)
		*ret = *ret * base + digit(*c->at);
	return n > 0;
}

static bool hex(struct cursor *c, uint64_t *ret)
{
	(void)skip(c, "0x");
	return number(c, 16, 16, ret);
}

/* "0000:01:10.0", or "01:10.0" of the first segment. */
static bool device(struct cursor *c, struct iommu_fault *fault)
{
	uint64_t first, bus, slot, function, segment = 0;

	if (!number(c, 16, 4, &first) || !skip(c, ":") || !number(c, 16, 2, &slot))
		return false;
	bus = first;
	if (skip(c, ":")) {
		segment = first;
		bus = slot;
		if (!number(c, 16, 2, &slot))
			return false;
	}
	if (!skip(c, ".") || !number(c, 16, 1, &function) || bus > 0xff || slot > 0x1f ||
	    function > 7)
		return false;
	snprintf(fault->device, sizeof(fault->device), "%04x:%02x:%02x.%x",
		 (unsigned int)(segment & 0xffff), (unsigned int)bus, (unsigned int)slot,
		 (unsigned int)function);
	return true;
}

/* Copy printable characters only: we do not rely on the kernel's escapes. */
static void reason(struct iommu_fault *fault, const char *from, const char *end)
{
	size_t n = MIN((size_t)(end - from), sizeof(fault->reason) - 1);

	for (size_t i = 0; i < n; i++)
		fault->reason[i] = isprint((unsigned char)from[i]) ? from[i] : '?';
	fault->reason[n] = '\0';
}

static bool parse_vtd(struct cursor c, struct iommu_fault *fault)
{
	uint64_t code;

	if (skip(&c, "DMAR: [DMA Write"))
		fault->write = true;
	else if (!skip(&c, "DMAR: [DMA Read"))
		return false;
	if (!find(&c, "] Request device [") || !device(&c, fault) || !skip(&c, "] ") ||
	    !find(&c, "fault addr ") || !hex(&c, &fault->iova) || !skip(&c, " [fault reason ") ||
	    !hex(&c, &code) || !skip(&c, "]"))
		return false;
	(void)skip(&c, " ");
	reason(fault, c.at, c.end);
	return true;
}

static bool parse_amd(struct cursor c, struct iommu_fault *fault)
{
	struct cursor word = c;
	const char *text;
	uint64_t flags;

	/* The device is in front of the message, or one of its fields. */
	if (!skip(&c, "AMD-Vi: ")) {
		if (!find(&word, " ") || !device(&word, fault) || !skip(&word, ": AMD-Vi: "))
			return false;
		c = word;
	}
	if (!skip(&c, "Event logged [IO_PAGE_FAULT "))
		return false;
	text = c.at;
	if (skip(&c, "device=") && (!device(&c, fault) || !skip(&c, " ")))
		return false;
	if (!fault->device[0] || !find(&c, "address=") || !hex(&c, &fault->iova) ||
	    !skip(&c, " flags=") || !hex(&c, &flags) || !skip(&c, "]"))
		return false;
	fault->write = flags & AMD_FLAG_WRITE;
	reason(fault, text, c.at - 1);
	return true;
}

bool fault_parse_kmsg(const char *record, unsigned int len, struct iommu_fault *ret)
{
	struct cursor c = {record, record + len};
	struct iommu_fault fault = {.write = false};
	uint64_t priority, sequence, us;
	const char *end;

	/* Facility 0 is the kernel; others may write into its log too. */
	if (!number(&c, 10, 10, &priority) || priority > 7 || !skip(&c, ",") ||
	    !number(&c, 10, 20, &sequence) || !skip(&c, ",") || !number(&c, 10, 20, &us) ||
	    !find(&c, ";"))
		return false;
	end = memchr(c.at, '\n', (size_t)(c.end - c.at));
	if (end)
		c.end = end;
	if (!parse_vtd(c, &fault)) {
		fault = (struct iommu_fault){.write = false};
		if (!parse_amd(c, &fault))
			return false;
	}
	if (mul_overflows(us, 1000, &fault.when_ns))
		fault.when_ns = 0;
	*ret = fault;
	return true;
}
