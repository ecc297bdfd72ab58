// SPDX-License-Identifier: Apache-2.0
// The guest-physical layout.
//
//   0            RAM, at most 3 GiB
//   0xc0000000   window of 32-bit BARs, 512 MiB
//   0xe0000000   ECAM, 256 MiB
//   0xfec00000   I/O APIC; 0xfee00000 local APIC; 0xfeffc000 four pages of KVM's own
//   4 GiB        the rest of RAM (at 1 TiB on AMD when it would reach the HyperTransport range)
//   above that   memory that comes and goes, at a multiple of 1 GiB, if the machine can have any
//   top / 4 * 3  window of 64-bit BARs: a quarter of the guest's address space, at its top
//
// The hole does not depend on the machine, so that the same machine looks the same on every host;
// only what a passed-through device cannot reach (reserved ranges of its IOMMU) moves RAM.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "x86_64/cpuid.h"
#include "x86_64/x86.h"

static const uint64_t LOW_MAX = 3 * GiB;
static const uint64_t LOW_MIN = 64 * MiB;       /* kernel, initrd and tables begin in it */
static const uint64_t APICS_START = 0xfec00000; /* and messages, pages of KVM, the BIOS's place */
static const uint64_t HIGH_START = 4 * GiB;
/* Reserved for HyperTransport below 1 TiB, and so no DMA address, on AMD (AMD IOMMU spec 2.1.2). */
static const uint64_t HT_START = 0xfd00000000, HT_END = 1 * TiB;
/* Linux with four-level tables has struct pages for 64 TiB (MAX_PHYSMEM_BITS), which peer-to-peer
 * DMA needs of BARs. */
static const unsigned int USEFUL_BITS = 46;
static const uint64_t LOW_WINDOW_MAX = 64 * GiB, LOW_WINDOW_MIN = 4 * GiB;

/* The most memory that place_high accepts: the hole takes a GiB, the smallest window another. */
static uint64_t most(unsigned int bits, bool amd)
{
	uint64_t top = (uint64_t)1 << bits;

	if (amd && bits == 40)
		return HT_START - GiB;
	if (amd && bits > 40)
		return top - HT_END + LOW_MAX - ARCH_WINDOW_MIN;
	return top - ARCH_WINDOW_MIN - GiB;
}

/* RAM from 0, up to the hole or to the first range to avoid: what is left goes up. */
static int place_low(struct arch_platform *p, const struct arch_layout *layout, struct err *err)
{
	p->low_bytes = MIN(layout->memory_bytes, LOW_MAX);
	for (unsigned int i = 0; i < layout->n_avoid; i++) {
		const struct arch_avoid *a = &layout->avoid[i];

		if (a->first >= p->low_bytes)
			continue;
		if (a->first < LOW_MIN)
			return err_set(
				err, -EINVAL,
				"memory: %s at 0x%llx to 0x%llx, where a guest must have RAM; "
				"this device cannot be passed through",
				a->what, (unsigned long long)a->first, (unsigned long long)a->last);
		p->low_bytes = align_down(a->first, 2 * MiB);
		/* Whole huge pages below and above, where that costs nothing else. */
		if (p->low_bytes > GiB)
			p->low_bytes = align_down(p->low_bytes, GiB);
	}
	p->high_bytes = layout->memory_bytes - p->low_bytes;
	return 0;
}

static const struct arch_avoid *find_avoid(const struct arch_layout *layout, uint64_t gpa,
					   uint64_t bytes)
{
	for (unsigned int i = 0; bytes && i < layout->n_avoid; i++) {
		const struct arch_avoid *a = &layout->avoid[i];

		if (a->first <= gpa + bytes - 1 && a->last >= gpa)
			return a;
	}
	return NULL;
}

/* The lowest place above 4 GiB that is free of what is to be avoided. */
static int avoid_high(struct arch_platform *p, const struct arch_layout *layout, uint64_t top,
		      struct err *err)
{
	const struct arch_avoid *a;

	while ((a = find_avoid(layout, p->high_gpa, p->high_bytes))) {
		if (a->last >= top - GiB)
			return err_set(err, -EINVAL,
				       "memory: %llu MiB reach 0x%llx, and %s at 0x%llx to 0x%llx; "
				       "use at most %llu MiB, or leave that device out",
				       (unsigned long long)(layout->memory_bytes / MiB),
				       (unsigned long long)(p->high_gpa + p->high_bytes), a->what,
				       (unsigned long long)a->first, (unsigned long long)a->last,
				       (unsigned long long)((a->first > p->high_gpa
								     ? a->first - p->high_gpa
								     : 0) +
							    p->low_bytes) /
					       MiB);
		p->high_gpa = align_up(a->last + 1, GiB);
	}
	return 0;
}

/* Where no BAR is, wherever the guest puts it. */
static void keep_from_bars(struct arch_platform *p)
{
	const struct pci_range kept[] = {
		{0, p->low_bytes},
		{p->high_gpa, p->high_bytes},
		{p->plug_gpa, p->plug_bytes},
		{p->pci.ecam_gpa, 256 * MiB},
		{APICS_START, HIGH_START - APICS_START},
	};

	static_assert(ARRAY_SIZE(kept) <= ARRAY_SIZE(p->pci.kept), "as many as fit");
	memcpy(p->pci.kept, kept, sizeof(kept));
	p->pci.top = (uint64_t)1 << p->phys_bits;
}

/* Above all RAM, beside what is to be avoided. Its end is in *end. */
static int place_plug(struct arch_platform *p, const struct arch_layout *layout, bool amd,
		      uint64_t *end, struct err *err)
{
	uint64_t align = MAX(layout->plug_align, GiB);
	const struct arch_avoid *a;

	if (!layout->plug_bytes)
		return 0;
	p->plug_bytes = layout->plug_bytes;
	p->plug_gpa = align_up(MAX(*end, HIGH_START), align);
	if (amd && ranges_overlap(p->plug_gpa, p->plug_bytes, HT_START, HT_END - HT_START))
		p->plug_gpa = align_up(HT_END, align);
	while ((a = find_avoid(layout, p->plug_gpa, p->plug_bytes)) && a->last < INT64_MAX)
		p->plug_gpa = align_up(a->last + 1, align);
	if (a)
		return err_set(err, -EINVAL,
			       "memory.max: %llu MiB beyond memory.size reach 0x%llx, and %s at "
			       "0x%llx to 0x%llx; use less, or leave that device out",
			       (unsigned long long)(p->plug_bytes / MiB),
			       (unsigned long long)(p->plug_gpa + p->plug_bytes), a->what,
			       (unsigned long long)a->first, (unsigned long long)a->last);
	*end = p->plug_gpa + p->plug_bytes;
	return 0;
}

/* Where there is firmware: right above RAM, and what may be plugged above that. */
static void place_window_low(struct arch_platform *p, const struct arch_layout *layout, bool amd,
			     uint64_t top, uint64_t *end)
{
	uint64_t start = align_up(MAX(*end, HIGH_START), GiB);
	uint64_t window = MIN(top / 4, LOW_WINDOW_MAX);

	if (layout->mmio64_bytes && layout->mmio64_bytes <= top / 4)
		window = MAX(window, power_of_two_up(2 * layout->mmio64_bytes));
	while (window >= LOW_WINDOW_MIN &&
	       (start + window > top ||
		(amd && ranges_overlap(start, window, HT_START, HT_END - HT_START))))
		window /= 2;
	p->pci.mmio64_gpa = start;
	p->pci.mmio64_bytes = window >= LOW_WINDOW_MIN ? window : 0;
	*end = start + p->pci.mmio64_bytes;
}

static int place_high(struct arch_platform *p, const struct arch_layout *layout, bool amd,
		      struct err *err)
{
	unsigned int bits = MIN(p->phys_bits, USEFUL_BITS);
	uint64_t top = (uint64_t)1 << bits, end, window;
	uint64_t gap = layout->plug_bytes ? MAX(layout->plug_align, GiB) : 0;
	int rc;

	p->high_gpa = HIGH_START;
	if (p->high_bytes > top || layout->plug_bytes > top)
		goto too_much;
	if (amd && p->high_gpa + p->high_bytes > HT_START)
		p->high_gpa = HT_END;
	rc = avoid_high(p, layout, top, err);
	if (rc)
		return rc;
	end = p->high_gpa + p->high_bytes;
	if (layout->firmware)
		place_window_low(p, layout, amd, top, &end);
	rc = place_plug(p, layout, amd, &end, err);
	if (rc)
		return rc;
	if (layout->firmware) {
		if (!p->pci.mmio64_bytes || end > top)
			goto too_much;
		return 0;
	}
	window = arch_window_bytes(layout, end, top);
	if (!window)
		goto too_much;
	p->pci.mmio64_gpa = top - window;
	p->pci.mmio64_bytes = window;
	return 0;
too_much:
	return err_set(
		err, -EINVAL,
		"memory: %llu MiB%s do not fit the %u address bits that this host's KVM gives a guest; use at "
		"most %llu MiB",
		(unsigned long long)((layout->memory_bytes + layout->plug_bytes) / MiB),
		layout->plug_bytes ? " (memory.max)" : "", p->phys_bits,
		(unsigned long long)((most(bits, amd) - gap) / MiB));
}

int x86_layout(struct arch_platform *ret, unsigned int phys_bits, bool amd,
	       const struct arch_layout *layout, struct err *err)
{
	int rc;

	*ret = (struct arch_platform){
		.phys_bits = phys_bits,
		.pci =
			{
				.mmio32_gpa = 0xc0000000,
				.mmio32_bytes = 512 * MiB,
				.ecam_gpa = 0xe0000000,
				.io_base = 0x1000,
				.io_bytes = 0xf000,
			},
		.intx_gsi = 16,
		.sci_gsi = 9,
	};
	if (!layout->memory_bytes || !is_aligned(layout->memory_bytes, 4096))
		return err_set(err, -EINVAL, "memory: %llu bytes are no multiple of 4096",
			       (unsigned long long)layout->memory_bytes);
	if (phys_bits < 36)
		return err_set(err, -EINVAL,
			       "this host's KVM gives a guest %u address bits; 36 are needed",
			       phys_bits);
	rc = place_low(ret, layout, err);
	if (!rc)
		rc = place_high(ret, layout, amd, err);
	if (!rc)
		keep_from_bars(ret);
	return rc;
}

int arch_platform_init(struct arch_platform *ret, const struct kvm *kvm,
		       const struct arch_layout *layout, struct err *err)
{
	cleanup_free struct kvm_cpuid2 *cpuid = NULL;
	int rc = x86_supported_cpuid(kvm, &cpuid, err);

	if (rc)
		return rc;
	return x86_layout(ret, cpuid_phys_bits(cpuid), cpuid_is_amd(cpuid), layout, err);
}
