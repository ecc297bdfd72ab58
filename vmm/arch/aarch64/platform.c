// SPDX-License-Identifier: Apache-2.0
// The guest-physical layout.
//
//   0x01000000   ports: 64 KiB
//   0x02000000   GICv3: distributor 64 KiB; at 0x02020000 ITS, 128 KiB
//   0x03000000   redistributors, 128 KiB for each vCPU
//   0x08000000   1 MiB where hosts with an SMMU map their own MSI doorbell: nothing of ours
//   0x10000000   ECAM, 256 MiB
//   0x20000000   window of 32-bit BARs, 512 MiB
//   1 GiB        RAM
//   top / 4 * 3  window of 64-bit BARs: a quarter of the guest's address space, at its top
//
// Only what a passed-through device cannot reach (reserved ranges of its IOMMU) moves RAM: what
// does not fit below the first such range goes above it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "aarch64/arm64.h"

static const uint64_t RAM_START = GiB;
static const uint64_t LOW_MIN = 64 * MiB; /* kernel, initrd and device tree begin in it */
/* Linux with four levels of 4 KiB pages has struct pages for 256 TiB; with three of 64 KiB, 4 TiB.
 * */
static const unsigned int USEFUL_BITS = 46;

static const struct arch_avoid *find_avoid(const struct arch_layout *layout, uint64_t gpa,
					   uint64_t bytes)
{
	const struct arch_avoid *first = NULL;

	for (unsigned int i = 0; bytes && i < layout->n_avoid; i++) {
		const struct arch_avoid *a = &layout->avoid[i];

		if (a->first <= gpa + bytes - 1 && a->last >= gpa &&
		    (!first || a->first < first->first))
			first = a;
	}
	return first;
}

static int place_ram(struct arch_platform *p, const struct arch_layout *layout, uint64_t top,
		     struct err *err)
{
	const struct arch_avoid *a;

	p->low_gpa = RAM_START;
	p->low_bytes = layout->memory_bytes;
	p->high_gpa = RAM_START + p->low_bytes;
	a = find_avoid(layout, RAM_START, p->low_bytes);
	if (!a)
		return 0;
	if (a->first < RAM_START + LOW_MIN)
		return err_set(err, -EINVAL,
			       "memory: %s at 0x%llx to 0x%llx, where a guest must have RAM; "
			       "this device cannot be passed through",
			       a->what, (unsigned long long)a->first, (unsigned long long)a->last);
	p->low_bytes = align_down(a->first, 2 * MiB) - RAM_START;
	p->high_bytes = layout->memory_bytes - p->low_bytes;
	do {
		if (a->last >= top - GiB)
			return err_set(
				err, -EINVAL,
				"memory: %llu MiB do not fit beside %s at 0x%llx to 0x%llx; use "
				"less, or leave that device out",
				(unsigned long long)(layout->memory_bytes / MiB), a->what,
				(unsigned long long)a->first, (unsigned long long)a->last);
		p->high_gpa = align_up(a->last + 1, 2 * MiB);
	} while ((a = find_avoid(layout, p->high_gpa, p->high_bytes)));
	return 0;
}

/* Where no BAR is, wherever the guest puts it. */
static void keep_from_bars(struct arch_platform *p)
{
	p->pci.kept[0] = (struct pci_range){0, p->pci.mmio32_gpa};
	p->pci.kept[1] = (struct pci_range){p->low_gpa, p->low_bytes};
	p->pci.kept[2] = (struct pci_range){p->high_gpa, p->high_bytes};
	p->pci.top = (uint64_t)1 << p->phys_bits;
}

int arm64_layout(struct arch_platform *ret, unsigned int phys_bits,
		 const struct arch_layout *layout, struct err *err)
{
	uint64_t top = (uint64_t)1 << MIN(phys_bits, USEFUL_BITS), end, window;
	int rc;

	*ret = (struct arch_platform){
		.phys_bits = phys_bits,
		.pci =
			{
				.mmio32_gpa = 0x20000000,
				.mmio32_bytes = 512 * MiB,
				.ecam_gpa = 0x10000000,
				.io_base = 0x1000,
				.io_bytes = 0xf000,
			},
		.pio_gpa = ARM64_PIO_GPA,
		.intx_gsi = 16,
		.sci_gsi = 9,
		.gic = {ARM64_DIST_GPA, ARM64_REDIST_GPA, ARM64_ITS_GPA},
	};
	if (!layout->memory_bytes || !is_aligned(layout->memory_bytes, 4096))
		return err_set(err, -EINVAL, "memory: %llu bytes are no multiple of 4096",
			       (unsigned long long)layout->memory_bytes);
	if (phys_bits < 36 || phys_bits > 52)
		return err_set(err, -EINVAL,
			       "this host's KVM gives a guest %u address bits; 36 to 52 are needed",
			       phys_bits);
	if (layout->memory_bytes > top - RAM_START - ARCH_WINDOW_MIN)
		goto too_much;
	rc = place_ram(ret, layout, top, err);
	if (rc)
		return rc;
	end = ret->high_bytes ? ret->high_gpa + ret->high_bytes : RAM_START + ret->low_bytes;
	window = arch_window_bytes(layout, end, top);
	if (!window)
		goto too_much;
	ret->pci.mmio64_gpa = top - window;
	ret->pci.mmio64_bytes = window;
	keep_from_bars(ret);
	return 0;
too_much:
	return err_set(
		err, -EINVAL,
		"memory: %llu MiB do not fit the %u address bits that this host's KVM gives a guest; "
		"use at most %llu MiB",
		(unsigned long long)(layout->memory_bytes / MiB), phys_bits,
		(unsigned long long)((top - RAM_START - ARCH_WINDOW_MIN) / MiB));
}

unsigned int arm64_phys_bits(const struct kvm *kvm)
{
	int bits = arch_kvm_has(kvm, KVM_CAP_ARM_VM_IPA_SIZE);

	/* What KVM gives when it is not asked for another width. */
	return bits ? (unsigned int)bits : 40;
}

int arch_platform_init(struct arch_platform *ret, const struct kvm *kvm,
		       const struct arch_layout *layout, struct err *err)
{
	return arm64_layout(ret, arm64_phys_bits(kvm), layout, err);
}
