// SPDX-License-Identifier: Apache-2.0
// Preflight: what the function itself is: its use by the host, interrupts, resets, BARs, migration,
// and what is known to be odd about it.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/num.h"
#include "host/explain_impl.h"

static bool is_nvme(const struct host_device *d)
{
	return d->class_code >> 8 == 0x0108;
}

static bool is_display(const struct host_device *d)
{
	return d->class_code >> 16 == 0x03;
}

/* ---- use by the host ---- */

/* Where a block device, or a partition of it, is mounted; "" for nowhere. */
static void mounted(const char *disk, char *where, unsigned int bytes)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char *line = NULL;
	size_t room = 0;

	where[0] = '\0';
	if (!f)
		return;
	while (!where[0] && getline(&line, &room, f) >= 0) {
		char source[128], target[128];

		if (sscanf(line, "/dev/%127s %127s", source, target) == 2 &&
		    strncmp(source, disk, strlen(disk)) == 0 &&
		    (!source[strlen(disk)] || source[strlen(disk)] == 'p'))
			snprintf(where, bytes, "%s", target);
	}
	free(line);
	fclose(f);
}

/* Namespaces of an NVMe controller (its block devices) that are mounted. */
static void nvme_mounts(struct explain_ctx *x)
{
	char path[128], where[128];
	struct dirent *entry;
	DIR *dir;

	for (unsigned int i = 0; i < 256; i++) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/nvme/nvme%u", x->d->bdf, i);
		dir = opendir(path);
		if (!dir)
			continue;
		while ((entry = readdir(dir))) {
			if (strncmp(entry->d_name, "nvme", 4) != 0)
				continue;
			mounted(entry->d_name, where, sizeof(where));
			if (!where[0])
				continue;
			explain_add(x, EXPLAIN_WARNING, "driver",
				    "the host has /dev/%.40s mounted at %.100s", entry->d_name,
				    where);
			explain_remedy(x, "umount %.100s", where);
		}
		closedir(dir);
	}
}

void explain_use_by_host(struct explain_ctx *x)
{
	const struct host_device *d = x->d;
	char path[96], state[16], flag[8];

	if (d->netdev[0]) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/operstate", d->netdev);
		explain_line(path, state, sizeof(state));
		if (strcmp(state, "up") == 0) {
			explain_add(x, EXPLAIN_WARNING, "driver",
				    "the host uses its interface %s, which is up", d->netdev);
			explain_remedy(x, "ip link set %s down", d->netdev);
		}
	}
	if (is_nvme(d))
		nvme_mounts(x);
	if (host_attribute(d->bdf, "boot_vga", flag, sizeof(flag)) > 0 && flag[0] == '1') {
		explain_add(x, EXPLAIN_WARNING, "driver",
			    "the display that the host started on: its console goes dark");
		explain_remedy(x, "use another card, or a serial console for the host");
	}
}

/* ---- interrupts ---- */

static void vectors(struct explain_ctx *x)
{
	enum { PLATFORM_ROUTES = 24 + 16 }; /* I/O APIC; the machine's own virtio devices, about */
	const unsigned int routes = ARCH_MAX_ROUTES, others = x->request->other_vectors;

	/* One function alone has 2048 at most. */
	if (x->d->msix + others + PLATFORM_ROUTES > routes) {
		explain_add(x, EXPLAIN_WARNING, "msi",
			    "%u MSI-X vectors, and %u of the guest's other devices: KVM routes %u "
			    "interrupts of a VM, so that the guest's drivers cannot use all",
			    x->d->msix, others, routes);
		explain_remedy(x, "let the guest's drivers use fewer queues, or give it fewer "
				  "devices");
	} else {
		explain_add(x, EXPLAIN_OK, "msi",
			    "%u MSI-X vectors; KVM routes %u interrupts of a VM", x->d->msix,
			    routes);
	}
}

void explain_interrupts(struct explain_ctx *x)
{
	const struct host_device *d = x->d;

	if (d->msix)
		vectors(x);
	else if (d->msi)
		explain_add(x, EXPLAIN_OK, "msi", "MSI, %u vector%s", d->msi,
			    d->msi == 1 ? "" : "s");
	else if (geteuid() != 0 && !d->pin)
		explain_add(x, EXPLAIN_OK, "msi",
			    "vectors are not known: only root may read its capabilities");
	else if (d->pin) {
		explain_add(x, EXPLAIN_WARNING, "msi",
			    geteuid() == 0 ? "INTx only: each interrupt is masked, passed on, and "
					     "unmasked by the host"
					   : "INTx; whether it has MSI only root may see");
		explain_remedy(x,
			       geteuid() == 0
				       ? "nothing: it works, at some microseconds an interrupt"
				       : "sudo hospes device explain %s",
			       d->bdf);
	} else {
		explain_add(x, EXPLAIN_OK, "msi", "it has no interrupts");
	}
}

/* ---- resets ---- */

/* Other functions that a reset of its bus resets too: how many, and one that VFIO does not have. */
static unsigned int bus_mates(const struct host_device *d, char other[HOST_BDF_BYTES])
{
	size_t bus = strlen(d->bdf) - strlen("10.0");
	struct host_device *all;
	unsigned int n, mates = 0;

	other[0] = '\0';
	if (host_list(&all, &n, NULL) < 0)
		return 0;
	for (unsigned int i = 0; i < n; i++) {
		if (strncmp(all[i].bdf, d->bdf, bus) != 0 || strcmp(all[i].bdf, d->bdf) == 0)
			continue;
		mates++;
		if (!explain_vfio_driver(all[i].driver))
			memcpy(other, all[i].bdf, HOST_BDF_BYTES);
	}
	free(all);
	return mates;
}

static void without_own_reset(struct explain_ctx *x)
{
	char other[HOST_BDF_BYTES];
	unsigned int mates = bus_mates(x->d, other);
	bool root_bus = strlen(x->d->bdf) >= 7 && strncmp(x->d->bdf + 4, ":00:", 4) == 0;

	if (mates && !other[0] && !root_bus) {
		explain_add(x, EXPLAIN_OK, "reset",
			    "together with the %u other function%s of its bus, which VFIO has too",
			    mates, mates == 1 ? "" : "s");
		return;
	}
	explain_add(x, EXPLAIN_WARNING, "reset",
		    "it cannot be reset%s%s: what one guest leaves in it the next one finds",
		    mates && !root_bus ? " without " : "", mates && !root_bus ? other : "");
	if (mates && !root_bus)
		explain_remedy(x, "hospes vf bind %s, and give both to the same guest", other);
	else
		explain_remedy(x, "give it to one guest only, and power the host off in between");
}

static void scrub(struct explain_ctx *x)
{
	if (is_nvme(x->d)) {
		explain_add(x, EXPLAIN_WARNING, "scrub",
			    "a reset leaves the contents of its namespaces: the next guest reads "
			    "what this one wrote");
		explain_remedy(x, "before it goes to another owner, with the host's driver: "
				  "nvme format /dev/nvmeXnY --ses=1");
	} else if (is_display(x->d)) {
		explain_add(x, EXPLAIN_WARNING, "scrub",
			    "a reset may leave the contents of its memory for the next guest");
		explain_remedy(x, "power the host off before it goes to another owner");
	}
}

void explain_resets(struct explain_ctx *x)
{
	static const struct {
		unsigned int bits;
		const char *name;
	} names[] = {
		{HOST_RESET_FLR | HOST_RESET_AF_FLR, "function-level reset"},
		{HOST_RESET_DEVICE, "a method of its own, or of the firmware"},
		{HOST_RESET_PM, "power state D3"},
		{HOST_RESET_BUS, "reset of its bus, where it is alone"},
	};
	unsigned int resets = x->d->resets, best = 0;
	char other[HOST_BDF_BYTES];

	/* The kernel looked when the first function of a card was all that there was on the bus. */
	if (resets & HOST_RESET_BUS && bus_mates(x->d, other))
		resets &= ~(unsigned int)HOST_RESET_BUS;
	while (best < ARRAY_SIZE(names) && !(resets & names[best].bits))
		best++;
	if (best < ARRAY_SIZE(names))
		explain_add(x, EXPLAIN_OK, "reset", "by %s", names[best].name);
	else
		without_own_reset(x);
	scrub(x);
}

/* ---- BARs ---- */

void explain_bars(struct explain_ctx *x)
{
	uint64_t high = 0, low = 0, largest = 0;
	char a[EXPLAIN_SIZE_TEXT], b[EXPLAIN_SIZE_TEXT];

	for (unsigned int i = 0; i < 6; i++) {
		const struct host_bar *bar = &x->d->bars[i];

		if (bar->io)
			continue;
		if (bar->mem64)
			high += bar->size_bytes;
		else
			low += bar->size_bytes;
		largest = MAX(largest, bar->size_bytes);
	}
	if (!x->layout_known)
		return;
	if (high > x->layout.pci.mmio64_bytes || low > x->layout.pci.mmio32_bytes) {
		bool wide = high > x->layout.pci.mmio64_bytes;

		explain_add(
			x, EXPLAIN_BLOCKER, "bars",
			"%s of %u-bit BARs, and the guest's window for them has %s",
			explain_size(wide ? high : low, a), wide ? 64 : 32,
			explain_size(wide ? x->layout.pci.mmio64_bytes : x->layout.pci.mmio32_bytes,
				     b));
		explain_remedy(x, wide ? "less --memory, which leaves a larger window, or a host "
					 "whose CPU has more address bits"
				       : "fewer devices with 32-bit BARs");
		return;
	}
	explain_add(x, EXPLAIN_OK, "bars", "the largest is %s; the guest's window has %s",
		    explain_size(largest, a), explain_size(x->layout.pci.mmio64_bytes, b));
}

/* ---- the rest ---- */

void explain_migration(struct explain_ctx *x)
{
	if (x->ours && strcmp(x->d->driver, "vfio-pci") != 0)
		explain_add(x, EXPLAIN_OK, "migration",
			    "%s may be able to move its state; known when it is opened",
			    x->d->driver);
	else
		explain_add(x, EXPLAIN_OK, "migration",
			    "not with vfio-pci: snapshots and live migration need it unplugged");
}

void explain_peers(struct explain_ctx *x)
{
	explain_add(x, EXPLAIN_OK, "p2p",
		    "off: passed-through devices reach the guest's memory, not each other");
}

/* The PF's interface carries the VF's traffic. */
static void pf_link(struct explain_ctx *x, const struct host_device *pf)
{
	char path[96], state[16];

	snprintf(path, sizeof(path), "/sys/class/net/%s/operstate", pf->netdev);
	explain_line(path, state, sizeof(state));
	if (strcmp(state, "up") == 0) {
		explain_add(x, EXPLAIN_OK, "link", "its PF %s (%s) is up", pf->bdf, pf->netdev);
		return;
	}
	explain_add(x, EXPLAIN_WARNING, "link",
		    "its PF's interface %s is %s: the guest sees no link", pf->netdev,
		    state[0] ? state : "down");
	explain_remedy(x, "ip link set %s up", pf->netdev);
}

void explain_vf_mac(struct explain_ctx *x, const struct vf_settings *settings)
{
	static const uint8_t none[6] = {0};
	const uint8_t *m = settings->mac;

	if (!(settings->set & VF_SET_MAC))
		return;
	if (memcmp(m, none, sizeof(none)) == 0) {
		explain_add(x, EXPLAIN_WARNING, "mac",
			    "its PF has no MAC for it: the guest's driver makes up a new one each "
			    "time that it starts");
		explain_remedy(x, "hospes vf set %s --mac MAC", x->d->bdf);
	} else {
		explain_add(x, EXPLAIN_OK, "mac",
			    "%02x:%02x:%02x:%02x:%02x:%02x, which its PF keeps until the VF is "
			    "destroyed",
			    m[0], m[1], m[2], m[3], m[4], m[5]);
	}
}

static void vf_of_network(struct explain_ctx *x)
{
	struct vf_settings settings;
	struct host_device pf;

	if (!x->d->is_vf || host_read(&pf, x->d->pf, NULL) < 0 || !pf.netdev[0])
		return;
	pf_link(x, &pf);
	if (vf_get(pf.netdev, x->d->vf_index, &settings, NULL) == 0)
		explain_vf_mac(x, &settings);
}

void explain_quirks(struct explain_ctx *x)
{
	const struct host_device *d = x->d;

	vf_of_network(x);
	if (d->max_vfs && !d->is_vf)
		explain_add(x, EXPLAIN_OK, "quirk",
			    "a PF: SR-IOV is hidden from the guest; its %u VFs can be given singly",
			    d->max_vfs);
	if (d->numa_node >= 0 && access("/sys/devices/system/node/node1", F_OK) == 0)
		explain_add(x, EXPLAIN_OK, "numa",
			    "on node %d: '--memory SIZE,numa_node=%d' keeps its DMA there",
			    d->numa_node, d->numa_node);
}
