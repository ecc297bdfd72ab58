// SPDX-License-Identifier: Apache-2.0
// BARs: what the kernel lets us map is in the guest as memory while the BAR is visible, so that the
// guest reaches the device without an exit. What cannot be mapped, and the pages of the MSI-X table
// and its pending bits, which are ours, is trapped.
//
//   BAR        |-- area 0 --|..page of MSI-X..|------ area 1 ------|
//   in KVM     [memory slot ]                 [     memory slot     ]
//   on the bus [ one trapped region over all, which the slots hide  ]
//
// The real decoding stays on for as long as the device is ours: with it off, the kernel would
// answer an access of a vCPU, on its way just then, with an error that ends the guest (vfio-pci
// zaps the mappings). What the guest's command register says is done by taking the slots out.
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "passthrough/vfio_pci_impl.h"

/* Mappings are aligned as the kernel may use pages: up to this. */
#define MAX_ALIGN GiB

static bool msix_table_at(const struct vfio_bar *bar, uint64_t offset)
{
	const struct vfio_pci *v = bar->vfio;

	return v->msix && bar->index == v->msix_bar &&
	       range_inside(offset, 1, v->msix_table,
			    (uint64_t)msix_vectors(v->msix) * MSIX_ENTRY_BYTES);
}

static uint64_t pba_bytes(const struct vfio_pci *v)
{
	return align_up(msix_vectors(v->msix), 64) / 8;
}

static bool msix_pba_at(const struct vfio_bar *bar, uint64_t offset)
{
	const struct vfio_pci *v = bar->vfio;

	return v->msix && bar->index == v->pba_bar &&
	       range_inside(offset, 1, v->msix_pba, pba_bytes(v));
}

/* The table takes accesses of 4 and 8 bytes; a narrower one reads its part. */
static uint64_t narrow(uint64_t value, uint64_t offset, unsigned int size)
{
	return size >= 4 ? value : value >> 8 * (offset & 3) & ((1ull << 8 * size) - 1);
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct vfio_bar *bar = opaque;
	struct vfio_pci *v = bar->vfio;
	unsigned int wide = MAX(size, 4u);
	uint64_t value = 0;

	if (msix_table_at(bar, offset))
		return narrow(
			msix_table_read(v->msix, align_down(offset, wide) - v->msix_table, wide),
			offset, size);
	if (msix_pba_at(bar, offset))
		return narrow(msix_pba_read(v->msix, align_down(offset, wide) - v->msix_pba, wide),
			      offset, size);
	if (atomic_load(&v->gone) || vfio_read(&v->file, &bar->file, offset, &value, size))
		return ~0ull;
	return value;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct vfio_bar *bar = opaque;
	struct vfio_pci *v = bar->vfio;

	if (msix_table_at(bar, offset)) {
		/* narrower ones are undefined (PCI Express Base 6.0, 7.7.2): nothing */
		if (size >= 4)
			msix_table_write(v->msix, offset - v->msix_table, value, size);
		return;
	}
	/* (A ROM cannot be written.) */
	if (!msix_pba_at(bar, offset) && !atomic_load(&v->gone) &&
	    bar->file.flags & VFIO_REGION_INFO_FLAG_WRITE)
		vfio_write(&v->file, &bar->file, offset, &value, size);
}

static const struct bus_ops memory_ops = {.read = bar_read, .write = bar_write};
static const struct bus_ops io_ops = {.read = bar_read, .write = bar_write, .min = 1, .max = 4};

static enum pci_bar_kind kind_of(uint32_t reg)
{
	if (reg & 1)
		return PCI_BAR_IO;
	if ((reg & 6) == 4)
		return reg & 8 ? PCI_BAR_MEM64_PREFETCH : PCI_BAR_MEM64;
	return PCI_BAR_MEM32;
}

static int bar_init(struct vfio_pci *v, unsigned int i, uint32_t reg, struct err *err)
{
	struct vfio_bar *bar = &v->bars[i];
	uint64_t bytes, least, most;
	int ret = vfio_get_region(&v->file, VFIO_PCI_BAR0_REGION_INDEX + i, &bar->file);

	bar->vfio = v;
	bar->index = i;
	if (ret)
		return err_set(err, ret, "BAR %u: VFIO_DEVICE_GET_REGION_INFO: %s", i,
			       err_name(ret));
	bytes = bar->file.bytes;
	if (!bytes)
		return 0;
	bar->kind = kind_of(reg);
	least = bar->kind == PCI_BAR_IO ? 4 : 16;
	most = bar->kind == PCI_BAR_MEM64 || bar->kind == PCI_BAR_MEM64_PREFETCH ? 1ull << 62
										 : 1ull << 31;
	if (!is_power_of_two(bytes) || bytes < least || bytes > most)
		return err_set(err, -EINVAL, "BAR %u has %llu bytes, which no BAR can have", i,
			       (unsigned long long)bytes);
	bar->region = (struct bus_region){.ops = bar->kind == PCI_BAR_IO ? &io_ops : &memory_ops,
					  .opaque = bar,
					  .name = v->dev.name,
					  .size_bytes = bytes,
					  .lock = &v->dev.lock};
	return 0;
}

/* The kernel shows one that it could read, with the size of its BAR; reading it goes through the
 * kernel. */
static int rom_init(struct vfio_pci *v, struct err *err)
{
	struct vfio_bar *rom = &v->bars[PCI_ROM];
	int ret = vfio_get_region(&v->file, VFIO_PCI_ROM_REGION_INDEX, &rom->file);
	uint64_t bytes = rom->file.bytes;

	rom->vfio = v;
	rom->index = PCI_ROM;
	if (ret || !bytes)
		return err_set(
			err, ret ? ret : -ENOENT,
			"it has no expansion ROM that the host's kernel can read (the log of "
			"the kernel may say why): leave out rom=on");
	if (!is_power_of_two(bytes) || bytes < 2 * KiB || bytes > 16 * MiB)
		return err_set(err, -EINVAL,
			       "its expansion ROM has %llu bytes, which none can have",
			       (unsigned long long)bytes);
	rom->kind = PCI_BAR_ROM;
	rom->region = (struct bus_region){.ops = &memory_ops,
					  .opaque = rom,
					  .name = v->dev.name,
					  .size_bytes = bytes,
					  .lock = &v->dev.lock};
	return 0;
}

int vfio_bars_init(struct vfio_pci *v, const uint8_t *config, struct err *err)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		enum pci_bar_kind kind;
		int ret = bar_init(v, i, load_le32(&config[PCI_BASE_ADDRESS_0 + 4 * i]), err);

		if (ret)
			return ret;
		kind = v->bars[i].kind;
		if (kind != PCI_BAR_MEM64 && kind != PCI_BAR_MEM64_PREFETCH)
			continue;
		if (i == PCI_BARS - 1)
			return err_set(err, -EINVAL,
				       "BAR %u claims to have 64 bits, and is the last", i);
		v->bars[++i].vfio = v; /* the upper half has no region of its own */
	}
	return v->config.rom ? rom_init(v, err) : 0;
}

unsigned int vfio_bar_split(const struct vfio_area *in, unsigned int n,
			    const struct vfio_area *holes, unsigned int n_holes, uint64_t page,
			    struct vfio_area *out, unsigned int max)
{
	uint64_t done = 0; /* nothing below is to be given out any more */
	unsigned int found = 0;

	for (unsigned int i = 0; i < n; i++) {
		/* the one that begins lowest among those not done; there are few */
		const struct vfio_area *next = NULL;
		uint64_t at, end;

		for (unsigned int j = 0; j < n; j++) {
			if (in[j].bytes && in[j].offset + in[j].bytes > done &&
			    (!next || in[j].offset < next->offset))
				next = &in[j];
		}
		if (!next)
			break;
		at = align_up(MAX(next->offset, done), page);
		end = align_down(next->offset + next->bytes, page);
		done = next->offset + next->bytes;
		while (at < end) {
			uint64_t stop = end, resume = end;

			for (unsigned int h = 0; h < n_holes; h++) {
				uint64_t first = align_down(holes[h].offset, page);
				uint64_t last = align_up(holes[h].offset + holes[h].bytes, page);

				if (!holes[h].bytes || last <= at || first >= stop)
					continue;
				stop = MAX(first, at);
				resume = last;
			}
			if (stop > at && found++ < max)
				out[found - 1] = (struct vfio_area){at, stop - at};
			at = resume;
		}
	}
	return found;
}

/* An address range, aligned so that large pages can be used, into which areas are mapped. */
static int reserve(struct vfio_bar *bar, uint64_t bytes)
{
	uint64_t align = MIN(bytes, MAX_ALIGN), left, right;
	uint8_t *p;

	if (bytes > SIZE_MAX / 4)
		return -ENOMEM;
	p = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	if (p == MAP_FAILED)
		return -errno;
	left = align_up((uintptr_t)p, align) - (uintptr_t)p;
	right = align - left;
	if (left)
		munmap(p, left);
	if (right)
		munmap(p + left + bytes, right);
	bar->hva = p + left;
	bar->hva_bytes = bytes;
	return 0;
}

static unsigned int areas_of(const struct vfio_bar *bar, uint64_t page, struct vfio_area *out)
{
	const struct vfio_pci *v = bar->vfio;
	struct vfio_area holes[2];
	unsigned int n_holes = 0;

	if (v->msix && bar->index == v->msix_bar)
		holes[n_holes++] = (struct vfio_area){
			v->msix_table, (uint64_t)msix_vectors(v->msix) * MSIX_ENTRY_BYTES};
	if (v->msix && bar->index == v->pba_bar)
		holes[n_holes++] = (struct vfio_area){v->msix_pba, pba_bytes(v)};
	/* The kernel offers a BAR of less than a page only when nothing else is in that page. */
	if (bar->file.bytes < page && bar->file.n_areas && !n_holes) {
		out[0] = (struct vfio_area){0, page};
		return 1;
	}
	return MIN(vfio_bar_split(bar->file.areas, bar->file.n_areas, holes, n_holes, page, out,
				  VFIO_MAX_AREAS),
		   (unsigned int)VFIO_MAX_AREAS);
}

static int bar_map(struct vfio_bar *bar, struct err *err)
{
	struct vfio_pci *v = bar->vfio;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint32_t rights =
		bar->file.flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
	int ret = 0;

	/* What is not both readable and writable is rare, and trapped. */
	if (bar->kind == PCI_BAR_IO ||
	    rights != (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE))
		return 0;
	bar->n_areas = areas_of(bar, page, bar->areas);
	if (bar->n_areas)
		ret = reserve(bar, MAX(bar->file.bytes, page));
	for (unsigned int i = 0; i < bar->n_areas && !ret; i++)
		ret = v->file.ops->map(v->file.opaque, (uint8_t *)bar->hva + bar->areas[i].offset,
				       bar->areas[i].bytes, bar->file.offset + bar->areas[i].offset,
				       PROT_READ | PROT_WRITE);
	if (ret)
		return err_set(err, ret, "BAR %u: cannot map %llu KiB: %s", bar->index,
			       (unsigned long long)(bar->file.bytes / KiB), err_name(ret));
	return 0;
}

int vfio_bars_map(struct vfio_pci *v, struct err *err)
{
	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		struct vfio_bar *bar = &v->bars[i];
		int ret;

		if (bar->kind == PCI_BAR_NONE)
			continue;
		ret = bar_map(bar, err);
		if (ret)
			return ret;
		pci_set_bar(&v->pci, i, bar->kind, bar->file.bytes,
			    bar->n_areas ? NULL : &bar->region);
	}
	return 0;
}

void vfio_bars_done(struct vfio_pci *v)
{
	for (unsigned int i = 0; i < PCI_PLACES; i++) {
		struct vfio_bar *bar = &v->bars[i];

		assert(!bar->on_bus);
		if (bar->hva)
			munmap(bar->hva, bar->hva_bytes);
		bar->hva = NULL;
	}
}

/* The framework's hook, for BARs of which something is mapped. */
void vfio_bar_mapped(struct pci_device *pci, unsigned int index, uint64_t gpa, bool on)
{
	struct vfio_pci *v = vfio_of_pci(pci);
	struct vfio_bar *bar = &v->bars[index];
	struct err err = ERR_INIT;

	if (on)
		bar->on_bus = !bus_add_shadowed(v->mmio, &bar->region, gpa);
	for (unsigned int i = 0; i < bar->n_areas; i++) {
		uint64_t at = gpa + bar->areas[i].offset;

		if (!on && bar->in_guest[i]) {
			v->host.unmap(v->host.opaque, at);
			bar->in_guest[i] = false;
		} else if (on && is_aligned(at, (uint64_t)sysconf(_SC_PAGESIZE))) {
			bar->in_guest[i] = !v->host.map(v->host.opaque, at,
							(uint8_t *)bar->hva + bar->areas[i].offset,
							bar->areas[i].bytes, &err);
			/* It works trapped too, slowly. */
			if (!bar->in_guest[i])
				log_guest(v->dev.log, &v->dev.limit, v->dev.name,
					  "BAR %u at 0x%llx is trapped: %s", index,
					  (unsigned long long)gpa, err.text);
		}
	}
	if (!on && bar->on_bus) {
		bus_del(v->mmio, &bar->region);
		bar->on_bus = false;
	}
}
