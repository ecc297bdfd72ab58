// SPDX-License-Identifier: Apache-2.0
// Preflight: what kernel and IOMMU of this host offer, and what this user may open.
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "host/explain_impl.h"
#include "host/iommu.h"

/* Without opening it: a device or group that is opened is taken. */
static int may_open(const char *path)
{
	return faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* May this user open the device's character device, but not its group? Then /dev/iommu is what is
 * missing, though containers would be there to be chosen: whoever gave the one meant the other. */
static bool only_iommu_missing(const struct explain_ctx *x)
{
	char cdev[64], group[64];

	if (!x->ours || x->d->vfio_cdev < 0 || x->d->group < 0 || access("/dev/iommu", F_OK) < 0)
		return false;
	snprintf(cdev, sizeof(cdev), "/dev/vfio/devices/vfio%d", x->d->vfio_cdev);
	snprintf(group, sizeof(group), "/dev/vfio/%d", x->d->group);
	return may_open(cdev) == 0 && may_open(group) < 0;
}

/* As iommu_create() chooses, where its choice can work. */
void explain_choose_kind(struct explain_ctx *x)
{
	const struct explain_request *request = x->request;

	x->kind = request->kind;
	if (x->kind != IOMMU_AUTO)
		return;
	x->kind = IOMMU_IOMMUFD;
	if (request->iommufd >= 0)
		return;
	/* Bound, but no character device: the kernel lacks VFIO_DEVICE_CDEV. */
	if ((fd_try_open("/dev/iommu") < 0 || (x->ours && x->d->vfio_cdev < 0)) &&
	    fd_try_open("/dev/vfio/vfio") == 0 && !only_iommu_missing(x))
		x->kind = IOMMU_TYPE1;
}

void explain_kernel(struct explain_ctx *x)
{
	bool have_iommufd = x->request->iommufd >= 0 || access("/dev/iommu", F_OK) == 0;
	bool have_type1 = access("/dev/vfio/vfio", F_OK) == 0;

	if (!x->ours && access("/sys/bus/pci/drivers/vfio-pci", F_OK) < 0) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel",
			    "the running kernel has no driver vfio-pci");
		explain_remedy(x, "modprobe vfio-pci (option CONFIG_VFIO_PCI of the kernel)");
	}
	if (!have_iommufd && !have_type1) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel", "neither /dev/iommu nor /dev/vfio/vfio");
		explain_remedy(x, "modprobe -a iommufd vfio_iommu_type1 (CONFIG_IOMMUFD or "
				  "CONFIG_VFIO_IOMMU_TYPE1 of the kernel)");
	} else if (x->kind == IOMMU_IOMMUFD && !have_iommufd) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel", "no /dev/iommu for iommu=iommufd");
		explain_remedy(x, "modprobe iommufd (Linux 6.2, CONFIG_IOMMUFD), or iommu=type1");
	} else if (x->kind == IOMMU_TYPE1 && !have_type1) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel", "no /dev/vfio/vfio for iommu=type1");
		explain_remedy(x, "modprobe vfio_iommu_type1, or iommu=iommufd");
	} else if (x->kind == IOMMU_IOMMUFD && x->ours && x->d->vfio_cdev < 0 &&
		   x->request->cdev_fd < 0) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel",
			    "it has no node in /dev/vfio/devices, for which Linux 6.6 with "
			    "CONFIG_VFIO_DEVICE_CDEV is needed, and an IOMMU");
		explain_remedy(x, "iommu=type1");
	} else if (x->kind == IOMMU_TYPE1) {
		explain_add(x, EXPLAIN_OK, "kernel",
			    "VFIO containers (type1): pins are not shared between address spaces, "
			    "and a strategy cannot be replaced while the device runs");
	} else {
		explain_add(x, EXPLAIN_OK, "kernel", "iommufd");
	}
}

/* The option on the kernel's command line that switches the host's IOMMU off; NULL: none. */
static const char *switched_off(void)
{
	static const char *const options[] = {"intel_iommu=off", "amd_iommu=off", "iommu=off"};
	char line[4096], *rest = line, *word;

	explain_line("/proc/cmdline", line, sizeof(line));
	while ((word = strsep(&rest, " "))) {
		for (unsigned int i = 0; i < ARRAY_SIZE(options); i++) {
			if (!strcmp(word, options[i]))
				return options[i];
		}
	}
	return NULL;
}

static void no_iommu(struct explain_ctx *x)
{
	const char *off = switched_off();

	explain_add(x, EXPLAIN_BLOCKER, "iommu",
		    "in no IOMMU group: nothing would translate its DMA, so the guest could reach "
		    "all of the host's memory");
	if (off || access("/sys/firmware/acpi/tables/DMAR", F_OK) == 0)
		explain_remedy(x,
			       "the kernel does not use the IOMMU: %s '%s' %s its command line "
			       "(GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub) and reboot",
			       off ? "remove" : "add", off ? off : "intel_iommu=on",
			       off ? "from" : "to");
	else
		explain_remedy(x, "switch the IOMMU on in the firmware's setup (VT-d, AMD-Vi, "
				  "SVM/IOMMU), add 'intel_iommu=on' to the kernel's command line, "
				  "reboot");
}

void explain_iommu(struct explain_ctx *x)
{
	const struct host_device *d = x->d;
	char path[64], name[32];
	unsigned int bits = host_aperture_bits(d->bdf);

	if (d->group < 0) {
		no_iommu(x);
		return;
	}
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/name", d->group);
	explain_line(path, name, sizeof(name));
	if (strcmp(name, "vfio-noiommu") == 0) {
		explain_add(x, EXPLAIN_BLOCKER, "iommu",
			    "VFIO's no-IOMMU mode: nothing would translate its DMA, so the guest "
			    "could reach all of the host's memory; hospes refuses it");
		explain_remedy(x, "echo N > /sys/module/vfio/parameters/"
				  "enable_unsafe_noiommu_mode; then switch the IOMMU on in the "
				  "firmware's setup");
		return;
	}
	if (bits)
		explain_add(x, EXPLAIN_OK, "iommu", "behind an IOMMU that translates %u bits",
			    bits);
	else
		explain_add(x, EXPLAIN_OK, "iommu", "behind an IOMMU");
}

void explain_remapping(struct explain_ctx *x)
{
	const char *module = x->kind == IOMMU_TYPE1 ? "vfio_iommu_type1" : "iommufd";
	char path[96], allowed[8];

	if (x->d->group < 0)
		return;
	if (host_interrupts_remapped()) {
		explain_add(x, EXPLAIN_OK, "interrupts",
			    "remapped: the device can raise its own and no others");
		return;
	}
	snprintf(path, sizeof(path), "/sys/module/%s/parameters/allow_unsafe_interrupts", module);
	explain_line(path, allowed, sizeof(allowed));
	if (allowed[0] == 'Y' || allowed[0] == '1') {
		explain_add(x, EXPLAIN_WARNING, "interrupts",
			    "not remapped, and allow_unsafe_interrupts is set: the guest can raise "
			    "any interrupt of the host by a write of its device");
		explain_remedy(x,
			       "switch interrupt remapping (x2APIC, VT-d) on in the firmware's "
			       "setup; then echo N > %s",
			       path);
		return;
	}
	explain_add(x, EXPLAIN_BLOCKER, "interrupts",
		    "not remapped: the guest could raise any interrupt of the host, so the kernel "
		    "refuses the device");
	explain_remedy(x,
		       "switch interrupt remapping on in the firmware's setup; or, if you trust "
		       "the guest: echo Y > %s",
		       path);
}

static void needs(struct explain_ctx *x, const char *path)
{
	struct passwd *pw, storage;
	char buffer[1024];
	int rc = may_open(path);

	if (rc == 0)
		return;
	if (rc == -ENOENT) {
		explain_add(x, EXPLAIN_BLOCKER, "permissions", "%s is not here", path);
		explain_remedy(x, "in a container: hand the node in; else: udevadm trigger");
		return;
	}
	if (getpwuid_r(geteuid(), &storage, buffer, sizeof(buffer), &pw) != 0)
		pw = NULL;
	explain_add(x, EXPLAIN_BLOCKER, "permissions", "%s may not open %s: %s",
		    pw ? pw->pw_name : "this user", path, err_name(rc));
	explain_remedy(x, "sudo setfacl -m u:%s:rw %s", pw ? pw->pw_name : "USER", path);
}

void explain_permissions(struct explain_ctx *x)
{
	unsigned int before = x->out->n;
	char path[64];

	if (x->request->kvm_fd <= 0 && access("/dev/kvm", F_OK) < 0) {
		explain_add(x, EXPLAIN_BLOCKER, "kernel", "no /dev/kvm");
		explain_remedy(x, "modprobe kvm_intel or kvm_amd; virtualization on in the "
				  "firmware's setup");
	} else if (x->request->kvm_fd <= 0) {
		needs(x, "/dev/kvm");
	}
	if (x->kind == IOMMU_IOMMUFD) {
		if (x->request->iommufd < 0 && access("/dev/iommu", F_OK) == 0)
			needs(x, "/dev/iommu");
		if (x->request->cdev_fd < 0 && x->d->vfio_cdev >= 0) {
			snprintf(path, sizeof(path), "/dev/vfio/devices/vfio%d", x->d->vfio_cdev);
			needs(x, path);
		}
	} else {
		if (access("/dev/vfio/vfio", F_OK) == 0)
			needs(x, "/dev/vfio/vfio");
		if (x->request->cdev_fd < 0 && x->ours && x->d->group >= 0) {
			snprintf(path, sizeof(path), "/dev/vfio/%d", x->d->group);
			needs(x, path);
		}
	}
	if (x->out->n == before && x->ours)
		explain_add(x, EXPLAIN_OK, "permissions", "this user may open all that is needed");
}
