// SPDX-License-Identifier: Apache-2.0
#include "fake_vfio.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/le.h"
#include "base/num.h"

#define REGION_SHIFT 40

void fake_vfio_init(struct fake_vfio *f)
{
	memset(f, 0, sizeof(*f));
	memset(f->fds, 0xff, sizeof(f->fds));
	f->unmask_fd = -1;
	f->config_bytes = PCI_CONFIG_BYTES;
	f->has_reset = true;
	store_le16(&f->config[0], 0x1af4);
	store_le16(&f->config[2], 0x1234);
	store_le32(&f->config[8], 0x02000001);
}

static int region_info(struct fake_vfio *f, struct vfio_region_info *info)
{
	uint32_t room = info->argsz, need = sizeof(*info);
	struct vfio_region_info_cap_sparse_mmap *cap;

	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info->offset = (uint64_t)info->index << REGION_SHIFT;
	info->size = 0;
	if (info->index == VFIO_PCI_CONFIG_REGION_INDEX)
		info->size = f->config_bytes;
	if (info->index == VFIO_PCI_ROM_REGION_INDEX) {
		info->size = f->rom_bytes;
		info->flags = f->rom_bytes ? VFIO_REGION_INFO_FLAG_READ : 0;
	}
	if (info->index >= PCI_BARS)
		return 0;
	info->size = f->bar_bytes[info->index];
	if (f->bar_maps[info->index])
		info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	if (info->index || !f->n_sparse)
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
	need += (uint32_t)(sizeof(*cap) + f->n_sparse * sizeof(cap->areas[0]));
	info->argsz = need;
	if (room < need)
		return 0;
	info->cap_offset = sizeof(*info);
	cap = (void *)(info + 1);
	cap->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	cap->header.version = 1;
	cap->header.next = 0;
	cap->nr_areas = f->n_sparse;
	for (unsigned int i = 0; i < f->n_sparse; i++) {
		cap->areas[i].offset = f->sparse[i].offset;
		cap->areas[i].size = f->sparse[i].bytes;
	}
	return 0;
}

static int irq_info(struct fake_vfio *f, struct vfio_irq_info *info)
{
	if (info->index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info->count = f->irqs[info->index];
	info->flags = VFIO_IRQ_INFO_EVENTFD;
	if (info->index == VFIO_PCI_MSI_IRQ_INDEX ||
	    (info->index == VFIO_PCI_MSIX_IRQ_INDEX && f->noresize))
		info->flags |= VFIO_IRQ_INFO_NORESIZE;
	return 0;
}

/* As vfio-pci: INTx, MSI and MSI-X exclude each other; a block without dynamic vectors does not
 * grow. */
static int set_irqs(struct fake_vfio *f, const struct vfio_irq_set *set)
{
	unsigned int i = set->index, end = set->start + set->count;
	const int32_t *fds = (const void *)set->data;

	f->set_irqs++;
	if (i >= VFIO_PCI_NUM_IRQS || end > f->irqs[i] || end > FAKE_VECTORS)
		return -EINVAL;
	if (set->flags & VFIO_IRQ_SET_ACTION_UNMASK) {
		if (!f->enabled[i])
			return -EINVAL;
		f->unmask_fd = fds[0];
		return 0;
	}
	if (set->flags & VFIO_IRQ_SET_DATA_NONE && !set->count) {
		f->enabled[i] = 0;
		memset(f->fds[i], 0xff, sizeof(f->fds[i]));
		return 0;
	}
	for (unsigned int other = 0; other <= VFIO_PCI_MSIX_IRQ_INDEX; other++) {
		if (i <= VFIO_PCI_MSIX_IRQ_INDEX && other != i && f->enabled[other])
			return -EINVAL;
	}
	if (f->enabled[i] && end > f->enabled[i] && (i != VFIO_PCI_MSIX_IRQ_INDEX || f->noresize))
		return -EINVAL;
	f->enabled[i] = MAX(f->enabled[i], end);
	memcpy(&f->fds[i][set->start], fds, set->count * sizeof(int32_t));
	return 0;
}

static void note_reset(struct fake_vfio *f)
{
	f->command_at_reset = load_le16(&f->config[4]);
	f->irqs_at_reset = f->enabled[0] || f->enabled[1] || f->enabled[2];
}

static int fake_ioctl(void *opaque, unsigned long request, void *arg)
{
	struct fake_vfio *f = opaque;
	struct vfio_device_info *info = arg;
	struct vfio_pci_hot_reset_info *hot = arg;

	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		info->flags = VFIO_DEVICE_FLAGS_PCI | (f->has_reset ? VFIO_DEVICE_FLAGS_RESET : 0);
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(f, arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return irq_info(f, arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(f, arg);
	case VFIO_DEVICE_RESET:
		f->resets++;
		note_reset(f);
		return 0;
	case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
		if (!f->has_hot_reset)
			return -ENODEV;
		hot->flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID |
			     (f->owned ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED : 0);
		hot->count = 2;
		hot->devices[0] = (struct vfio_pci_dependent_device){.devid = 1, .bus = 1};
		hot->devices[1] = (struct vfio_pci_dependent_device){
			.devid = f->owned ? 2 : (uint32_t)VFIO_PCI_DEVID_NOT_OWNED,
			.bus = 1,
			.devfn = 1};
		return 0;
	case VFIO_DEVICE_PCI_HOT_RESET:
		if (((struct vfio_pci_hot_reset *)arg)->count)
			return -EINVAL;
		f->hot_resets++;
		note_reset(f);
		return 0;
	default:
		return -ENOTTY;
	}
}

static uint8_t *place(struct fake_vfio *f, uint64_t offset, size_t len)
{
	uint64_t index = offset >> REGION_SHIFT, at = offset & ((1ull << REGION_SHIFT) - 1);

	if (f->dead)
		return NULL;
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return range_inside(at, len, 0, f->config_bytes) ? &f->config[at] : NULL;
	return index < PCI_PLACES && range_inside(at, len, 0, FAKE_BAR_BYTES) ? &f->bar[index][at]
									      : NULL;
}

static ssize_t fake_pread(void *opaque, void *buf, size_t len, uint64_t offset)
{
	const uint8_t *p = place(opaque, offset, len);

	if (!p)
		return -EIO;
	memcpy(buf, p, len);
	return (ssize_t)len;
}

static ssize_t fake_pwrite(void *opaque, const void *buf, size_t len, uint64_t offset)
{
	struct fake_vfio *f = opaque;
	uint8_t *p = place(f, offset, len);

	if (!p)
		return -EIO;
	memcpy(p, buf, len);
	if (offset >> REGION_SHIFT == VFIO_PCI_CONFIG_REGION_INDEX)
		memset(&f->written[p - f->config], 1, len);
	return (ssize_t)len;
}

static int fake_map(void *opaque, void *hva, uint64_t bytes, uint64_t offset, int prot)
{
	struct fake_vfio *f = opaque;
	void *p = mmap(hva, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		       -1, 0);

	(void)offset;
	f->maps++;
	return p == MAP_FAILED ? -errno : 0;
}

const struct vfio_file_ops fake_vfio_ops = {
	.ioctl = fake_ioctl, .pread = fake_pread, .pwrite = fake_pwrite, .map = fake_map};
