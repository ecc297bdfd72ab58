// SPDX-License-Identifier: Apache-2.0
// The command register of the device itself, and whether it answers at all.
#include <string.h>

#include "base/le.h"
#include "passthrough/vfio_pci_impl.h"

void vfio_mark_unplugged(struct vfio_pci *v)
{
	struct pci_device *pci = &v->pci;

	if (atomic_exchange(&v->gone, true))
		return;
	log_warn(v->dev.log, v->dev.name, "the device no longer answers: it reads all ones");
	/* No pin and no message any more; then the registers, of which none is writable. */
	vfio_irqs_off(v);
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i++)
		__atomic_store_n(&pci->config[i], 0xff, __ATOMIC_RELAXED);
	memset(pci->wmask, 0, sizeof(pci->wmask));
	memset(pci->w1c, 0, sizeof(pci->w1c));
	memset(v->live, 0, sizeof(v->live));
	memset(v->forward, 0, sizeof(v->forward));
	pci->express = 0;
}

bool vfio_answers(struct vfio_pci *v)
{
	uint32_t id = UINT32_MAX;

	if (atomic_load(&v->gone))
		return false;
	/* Vendor and device are VFIO's copy; revision and class are the device's own. */
	if (!vfio_read(&v->file, &v->config_region, PCI_REVISION_ID, &id, 4) && id != UINT32_MAX)
		return true;
	vfio_mark_unplugged(v);
	return false;
}

int vfio_command_set(struct vfio_pci *v, bool master)
{
	uint8_t bytes[2];
	uint16_t command;
	int ret = vfio_read(&v->file, &v->config_region, PCI_COMMAND, bytes, 2);

	if (ret)
		return ret;
	command = load_le16(bytes) | PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
	command = (uint16_t)((command & ~PCI_COMMAND_MASTER) | (master ? PCI_COMMAND_MASTER : 0));
	store_le16(bytes, command);
	return vfio_write(&v->file, &v->config_region, PCI_COMMAND, bytes, 2);
}
