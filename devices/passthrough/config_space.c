// SPDX-License-Identifier: Apache-2.0
// Config space: a copy that the guest reads and writes; per bit it is ours, or lives in the device.
//
//   live      refreshed from the device before the guest reads it (status bits, read-only
//             capabilities)
//   forward   also written to the device (bus mastering, a few of PCI Express); bits of live that
//             are write-one-to-clear are cleared in the device
//
// Bytes that belong to no capability of the table (caps.c) read 0. BARs, MSI and MSI-X of the real
// device are VFIO's and never written by us.
#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "passthrough/vfio_pci_impl.h"

/* Registers are read and written in words: no device has narrower ones among these. */
static void forward_word(struct vfio_pci *v, unsigned int at)
{
	uint16_t mask = load_le16(&v->forward[at]), value;
	uint8_t bytes[2];

	if (!mask || vfio_read(&v->file, &v->config_region, at, bytes, 2))
		return;
	value = (uint16_t)((load_le16(bytes) & ~mask) | (load_le16(&v->pci.config[at]) & mask));
	if (value == load_le16(bytes))
		return;
	store_le16(bytes, value);
	vfio_write(&v->file, &v->config_region, at, bytes, 2);
}

static bool turns_master_on(const struct vfio_pci *v, unsigned int offset, unsigned int size,
			    uint32_t value)
{
	return offset <= PCI_COMMAND && PCI_COMMAND < offset + size &&
	       value >> 8 * (PCI_COMMAND - offset) & PCI_COMMAND_MASTER &&
	       !(v->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER);
}

/* What the guest clears by writing 1. The other bits of these registers are read-only. */
void vfio_config_write(struct pci_device *pci, unsigned int offset, unsigned int size,
		       uint32_t value)
{
	struct vfio_pci *v = vfio_of_pci(pci);

	if (v->config.starts && turns_master_on(v, offset, size, value))
		v->config.starts(v->config.opaque);
	for (unsigned int at = offset & ~1u; at < offset + size; at += 2) {
		uint8_t bytes[2] = {0, 0};

		for (unsigned int i = 0; i < 2; i++) {
			unsigned int byte = at + i;

			if (byte >= offset && byte < offset + size)
				bytes[i] = (uint8_t)(value >> 8 * (byte - offset)) &
					   pci->w1c[byte] & v->live[byte];
		}
		if (load_le16(bytes))
			vfio_write(&v->file, &v->config_region, at, bytes, 2);
	}
	/* 7.9.16: a write of 1 starts it, the bit reads 0 */
	if (v->af && v->resets && offset <= v->af + PCI_AF_CTRL &&
	    v->af + PCI_AF_CTRL < offset + size && value >> 8 * (v->af + PCI_AF_CTRL - offset) & 1)
		v->af_asked = true;
}

static bool touches(unsigned int offset, unsigned int size, unsigned int reg, unsigned int bytes)
{
	return reg && offset < reg + bytes && offset + size > reg;
}

/* The state is ours and the device stays in D0. Leaving D3hot, a device that does not keep its
 * state is as after a reset (5.3.1.4). */
static void pm_written(struct vfio_pci *v)
{
	uint8_t *control = &v->pci.config[v->pm + PCI_PM_CTRL],
		state = *control & PCI_PM_CTRL_STATE_MASK;
	uint8_t before = v->pm_state;

	if (state == 1 || state == 2) { /* not offered, so ignored */
		*control = (uint8_t)((*control & ~PCI_PM_CTRL_STATE_MASK) | before);
		return;
	}
	v->pm_state = state;
	if (before == 3 && state == 0 && !(*control & PCI_PM_CTRL_NO_SOFT_RESET)) {
		struct err err = ERR_INIT;

		pci_device_reset(&v->pci);
		if (v->resets && vfio_reset(v, &err))
			log_guest(v->dev.log, &v->dev.limit, v->dev.name, "%s", err.text);
	}
}

/* Reads only: what is written there stays for the next guest. */
static void vpd_written(struct vfio_pci *v)
{
	unsigned int at = v->vpd + PCI_VPD_ADDR;
	uint16_t address = load_le16(&v->pci.config[at]);
	uint8_t bytes[2];

	if (address & PCI_VPD_ADDR_F) {
		store_le16(&v->pci.config[at], address & (uint16_t)~PCI_VPD_ADDR_F); /* "done" */
		return;
	}
	store_le16(bytes, address);
	vfio_write(&v->file, &v->config_region, at, bytes, 2);
}

void vfio_config_written(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct vfio_pci *v = vfio_of_pci(pci);

	atomic_fetch_add_explicit(&v->config_traps, 1, memory_order_relaxed);
	if (atomic_load(&v->gone))
		return;
	for (unsigned int at = offset & ~1u; at < offset + size; at += 2)
		forward_word(v, at);
	if (touches(offset, size, v->vpd + PCI_VPD_ADDR, 2) && v->vpd)
		vpd_written(v);
	if (touches(offset, size, v->pm + PCI_PM_CTRL, 1) && v->pm)
		pm_written(v);
	if (v->af_asked) {
		struct err err = ERR_INIT;

		v->af_asked = false;
		pci_device_reset(pci);
		if (vfio_reset(v, &err))
			log_guest(v->dev.log, &v->dev.limit, v->dev.name, "%s", err.text);
	}
	vfio_intx_update(v);
}

static bool all_ones(const uint8_t *bytes, unsigned int n)
{
	while (n && bytes[n - 1] == 0xff)
		n--;
	return !n;
}

void vfio_config_read(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct vfio_pci *v = vfio_of_pci(pci);
	uint8_t bytes[4], any = 0;

	atomic_fetch_add_explicit(&v->config_traps, 1, memory_order_relaxed);
	for (unsigned int i = 0; i < size; i++)
		any |= v->live[offset + i];
	if (!any)
		return;
	if (vfio_read(&v->file, &v->config_region, offset, bytes, size)) {
		vfio_mark_unplugged(v);
		return;
	}
	/* A register of ones may be one; where nobody answers, all are. */
	if (all_ones(bytes, size) && !vfio_answers(v))
		return;
	for (unsigned int i = 0; i < size; i++) {
		uint8_t mask = v->live[offset + i];
		uint8_t now = (uint8_t)((pci->config[offset + i] & ~mask) | (bytes[i] & mask));

		__atomic_store_n(&pci->config[offset + i], now, __ATOMIC_RELAXED);
	}
}
