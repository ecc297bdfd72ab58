/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI functions of this host, as sysfs shows them: for listing, for preflight, for the life
 * cycle of VFs, and to find what to open. Reads only, but for host_set_attribute; nothing is
 * cached.
 *
 * Errors: a negative errno; err, which may be NULL, names the device and the remedy.
 * Threads: no state; any thread.
 */
#ifndef HOST_DEVICE_H
#define HOST_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define HOST_BDF_BYTES 16

enum { HOST_BARS = 7 }; /* the last is the ROM */

struct host_bar {
	uint64_t size_bytes; /* 0: none */
	bool io, mem64, prefetchable;
};

enum host_reset {
	HOST_RESET_FLR = 1 << 0,
	HOST_RESET_AF_FLR = 1 << 1,
	HOST_RESET_PM = 1 << 2,
	HOST_RESET_BUS = 1 << 3,
	HOST_RESET_DEVICE = 1 << 4, /* device_specific, acpi */
};

struct host_device {
	char bdf[HOST_BDF_BYTES]; /* "0000:01:10.0" */
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code;      /* 24 bits */
	char driver[32];          /* bound now; "" for none */
	char driver_override[32]; /* "" */
	int group;                /* IOMMU group; -1: none, so nothing translates for it */
	char group_type[16];      /* "DMA", "DMA-FQ", "identity", ... */
	int numa_node;            /* -1 */
	struct host_bar bars[HOST_BARS];
	unsigned int resets; /* enum host_reset; 0: it cannot be reset */
	/* SR-IOV */
	unsigned int vfs, max_vfs; /* of a PF */
	bool is_vf;
	char pf[HOST_BDF_BYTES]; /* of a VF */
	unsigned int vf_index;
	char netdev[32];   /* first network interface, "" */
	int vfio_cdev;     /* N of /dev/vfio/devices/vfioN; -1 */
	unsigned int msix; /* vectors, from config space; 0 when there is no capability */
	unsigned int msi;
	bool pin;     /* it has INTx */
	bool express; /* a PCI Express function */
};

/* "0000:01:10.0", "01:10.0", a sysfs path or a path of a cdev: the canonical address, checked to
 * exist. -EINVAL shows the forms; -ENODEV names similar ones that exist. */
int host_find(const char *text, char bdf[HOST_BDF_BYTES], struct err *err);
int host_read(struct host_device *ret, const char *bdf, struct err *err);
/* Every function in the order of addresses: *ret is malloc'ed. */
int host_list(struct host_device **ret, unsigned int *n, struct err *err);
/* The members of an IOMMU group, malloc'ed, in order of addresses. */
int host_group(int group, struct host_device **ret, unsigned int *n, struct err *err);

/* Bits of address that the IOMMU behind the device translates; 0: not known. */
unsigned int host_aperture_bits(const char *bdf);

enum { HOST_USER_BYTES = 160, HOST_NODE_BYTES = 64 };
/* A process that has this path open: "hospes (pid 4711)"; "" if none is seen (also without
 * permission to look). If the process announced which machine has the device bdf (may be NULL): "VM
 * 'web' (hospes, pid 4711)". */
void host_user_of(const char *path, const char *bdf, char *text, unsigned int bytes);
/* A process that has the device open through VFIO, by its character device or its group, and the
 * node that is open. If none is seen, who is "" and node the group's ("" without a group). */
void host_vfio_user(const struct host_device *dev, char node[HOST_NODE_BYTES],
		    char who[HOST_USER_BYTES]);

/* Read a small sysfs attribute of the device, without its newline: length or a negative errno. */
ssize_t host_attribute(const char *bdf, const char *name, char *text, unsigned int bytes);
/* Write an attribute. The message names the file, the value and the kernel's answer. */
int host_set_attribute(const char *bdf, const char *name, const char *value, struct err *err);

#endif
