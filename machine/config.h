/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a machine: typed structs, read from the one document there is (JSON;
 * docs/configuration.md), whatever its source. What a device has is its kind's (kind.h).
 *
 * config_read parses, fills in defaults and validates everything that can be known without opening
 * anything: after it, ids are unique, every PCI device has an address, sizes and counts are within
 * bounds. config_write gives the effective document, which reads back to the same machine.
 *
 * Threads: no state; any thread. The config of a machine that runs is the machine's thread's.
 */
#ifndef MACHINE_CONFIG_H
#define MACHINE_CONFIG_H

#include "base/err.h"
#include "core/gmem.h"
#include "machine/schema.h"
#include "machine/arrival.h"
#include "machine/snapshot.h"

struct config_cpus {
	uint32_t count;                   /* at the start */
	uint32_t max;                     /* that there can be while it runs; 0: count */
	uint32_t sockets, cores, threads; /* of all max; 0: follow from the others */
	struct schema_cpus pin;           /* none, or one host CPU for each of max */
};

struct config_memory {
	uint64_t size_bytes; /* at the start */
	uint64_t max_bytes;  /* that there can be while it runs; 0: size_bytes */
	int backing;         /* enum gmem_backing, up to GMEM_HUGETLB_1G */
	bool prefault;
	uint32_t prefault_threads; /* 0: as many as the host has CPUs */
	int numa_node;             /* -1: none */
};

struct config_kernel {
	char *path;
	char *initrd;
	char *cmdline;
	int kaslr; /* enum kaslr_mode */
	bool cache;
	char *cache_dir; /* NULL: $XDG_CACHE_HOME/hospes/kernels */
};

struct config_iommu {
	int backend; /* enum iommu_kind: IOMMU_AUTO, IOMMU_IOMMUFD or IOMMU_TYPE1 */
	int fd;      /* an open /dev/iommu; -1 */
};

/* Longer than a device takes for a request: the poller is to be awake when its buffer is
 * unmapped. */
enum { CONFIG_VIOMMU_POLL_US = 2000, CONFIG_VIOMMU_POLL_US_MAX = 1000000 };

/* A virtual IOMMU. */
struct config_viommu {
	bool enabled;
	bool bypass;      /* until a driver says otherwise, devices behind it reach all of memory */
	int transport;    /* enum virtio_iommu_transport: by whom its requests are served */
	uint32_t poll_us; /* poll: how long without a request until it waits for a notification */
	struct schema_pci addr;
};

enum config_ports {
	CONFIG_PORTS_AUTO, /* off where the kernel is known to do without them */
	CONFIG_PORTS_ON,
	CONFIG_PORTS_OFF,
};

struct config_pci {
	uint32_t root_ports; /* spare ones, for what is plugged in later */
	int config_ports;    /* enum config_ports: 0xcf8 and 0xcfc */
};

struct config_smbios {
	char *serial;
	char *manufacturer;
	char *product;
	char *version;
};

/* What cloud-init in the guest shall do, for whoever makes a disk of it. */
struct config_cloud_init {
	char *user, *key, *password, *hostname, *userdata;
};

/* A debugger's socket: one of path and fd, or neither. */
struct config_gdb {
	char *path;
	int fd;    /* one that listens; -1 */
	bool wait; /* the guest starts when the debugger lets it */
};

#define CONFIG_IO_THREADS_AUTO UINT32_MAX

enum config_on_reset {
	CONFIG_ON_RESET_RESTART,
	CONFIG_ON_RESET_STOP,
};

/* What a device of any kind (kind.h) is configured by. Each kind's struct begins with one. */
struct config_device {
	struct schema_item item; /* in the list of struct config; its schema is the kind's */
	char *id;                /* unique; set by validation when the document has none */
	bool enabled;            /* counts for kinds of which a machine has one at most */
	bool viommu;             /* behind the virtual IOMMU */
	bool shares_memory;      /* set by validation: it needs guest memory in a file */
	bool small_pages;        /* set by validation: it needs it in pages of 4 KiB */
	struct schema_pci addr;
};

struct config {
	char *name;
	struct schema_uuid uuid;
	struct config_cpus cpus;
	struct config_memory memory;
	struct config_kernel kernel;
	char *firmware; /* refused until it is built */
	/* struct config_device: by kind, in the order of the table of kinds, then as in the
	 * document. Of a machine that runs: the devices that are in it now. */
	struct list devices;
	struct config_iommu iommu;
	struct config_viommu viommu;
	struct config_pci pci;
	struct config_smbios smbios;
	struct list credentials; /* struct config_credential (credentials.h) */
	uint32_t io_threads;     /* CONFIG_IO_THREADS_AUTO until it is validated */
	struct config_gdb gdb;
	struct config_cloud_init cloud_init;
	struct config_restore restore;
	struct config_incoming incoming;
	int on_reset;
	int sandbox; /* enum sandbox_mode */
};

/* In what units memory comes and goes: as small as Linux can, which is 128 MiB, or 2 GiB in a large
 * machine, but not more of them than vhost has room for (64 regions, by default) with the rest. */
enum { CONFIG_MEMORY_UNITS = 32 };
uint64_t config_memory_unit(const struct config_memory *memory);

/* ret is to be released with config_done, also after an error. */
int config_read(struct config *ret, const char *json, size_t len, struct err *err);
void config_done(struct config *config);
/* schema_check_fds of the whole document. */
int config_check_fds(const struct config *config, struct err *err);
/* Text of the effective document: indented, ends with a newline; free() it. NULL: no memory.
 * Without fds, for another process. */
char *config_write(const struct config *config, bool fds);

/* One device, for config_device_add. path is its name in messages. The caller's:
 * config_device_free. */
struct device_kind;
int config_device_read(const struct device_kind *kind, const json_t *json, const char *path,
		       struct config_device **ret, struct err *err);
/* Of any list, also of none. NULL is allowed. */
void config_device_free(struct config_device *device);
/* Does it have a place among PCI devices? */
bool config_device_is_pci(struct config_device *device);
/* Check the device against those that are in config, which is valid, complete it (id, address) and
 * append it to them. On failure config is as before, and the device still the caller's. hot_plug: a
 * PCI device gets no address, since it goes behind a spare root port; it may not ask for one. */
int config_device_add(struct config *config, struct config_device *device, bool hot_plug,
		      struct err *err);
/* Out of the config, and freed. */
void config_device_remove(struct config_device *device);

/* The device after this one (NULL: the first), of those that are enabled. Of one kind: NULL for
 * any. */
struct config_device *config_next(const struct config *config, const struct config_device *after,
				  const struct device_kind *kind);
/* For kinds that take no address. */
struct schema_pci *config_no_place(struct config_device *device);
/* Does this device need guest memory in a file, or any? Then `auto` backing is a memfd. */
bool config_device_shares_memory(const struct config_device *device);
bool config_shares_memory(const struct config *config);
/* Does any device need it without transparent huge pages? */
bool config_has_small_pages(const struct config *config);
/* The names of memory.backing, by enum gmem_backing; NULL ends them. */
extern const char *const config_backing_names[];

enum { CONFIG_ID_BYTES = 32 }; /* of an id, with its end: device.h's name */

/* The PCI slots below the first are the platform's (host bridge). The spare root ports are
 * functions of one slot. */
enum { CONFIG_FIRST_SLOT = 1, CONFIG_ROOT_PORT_SLOT = 0x18, CONFIG_MAX_ROOT_PORTS = 8 };

#endif
