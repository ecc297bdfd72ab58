/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a machine: typed structs, read from the one document there is (JSON;
 * docs/configuration.md), whatever its source.
 *
 * config_read parses, fills in defaults and validates everything that can be known without opening
 * anything: after it, ids are unique, every PCI device has an address, sizes and counts are within
 * bounds. config_write gives the effective document, which reads back to the same machine.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_CONFIG_H
#define MACHINE_CONFIG_H

#include "base/err.h"
#include "core/gmem.h"
#include "machine/schema.h"

struct config_cpus {
	uint32_t count;
	uint32_t sockets, cores, threads; /* 0: follow from the others */
	struct schema_cpus pin;           /* none, or one host CPU per vCPU */
};

struct config_memory {
	uint64_t size_bytes;
	int backing; /* enum gmem_backing, up to GMEM_HUGETLB_1G */
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

struct config_disk {
	char *id;
	char *path;
	int fd;
	bool readonly;
	int cache; /* enum config_cache */
	bool discard;
	uint32_t queues;
	uint32_t queue_size;
	bool viommu;          /* behind the guest's IOMMU */
	uint32_t block_bytes; /* 0: 512, or what direct access needs */
	char *serial;
	struct schema_pci addr;
};

enum config_cache {
	CONFIG_CACHE_WRITEBACK,    /* host page cache, the guest flushes */
	CONFIG_CACHE_DIRECT,       /* O_DIRECT, the guest flushes */
	CONFIG_CACHE_WRITETHROUGH, /* every write on the disk before it is answered */
};

struct config_net {
	char *id;
	char *tap;
	bool create;
	int fd;       /* a tap, opened with IFF_VNET_HDR */
	char *socket; /* passt's */
	struct schema_mac mac;
	uint32_t queues;
	uint32_t queue_size;
	uint32_t mtu; /* 0: not told to the guest */
	bool vhost;
	bool offload;
	bool link;
	bool viommu;
	struct schema_pci addr;
};

enum config_console_type {
	CONFIG_CONSOLE_SERIAL,
	CONFIG_CONSOLE_VIRTIO,
};

struct config_console {
	char *id;
	int type;
	int in;     /* fd, -1: no input */
	int out;    /* fd, -1: discarded unless path */
	char *path; /* output goes to this file, which is created or truncated */
	struct schema_pci addr;
};

enum config_on_error {
	CONFIG_ON_ERROR_LOG,
	CONFIG_ON_ERROR_RESET,
	CONFIG_ON_ERROR_PAUSE,
	CONFIG_ON_ERROR_STOP,
};

/* A PCI device of the host. */
struct config_passthrough {
	char *id;
	char *device; /* "0000:01:10.0", a path in sysfs, "/dev/vfio/devices/vfio0"; NULL: fd says */
	int fd;       /* an open /dev/vfio/devices/vfioN (type1: /dev/vfio/N); -1: opened here */
	int iommufd;  /* moved to config_iommu.fd by validation */
	char *strategy; /* when memory is mapped for it */
	char *ioas;     /* devices with the same name share an address space; NULL: its own */
	int on_error;   /* enum config_on_error */
	bool rom;       /* show its expansion ROM */
	bool viommu;    /* so if the strategy maps what a guest asks for */
	struct schema_pci addr; /* on bus 0; else behind a root port of its own, which is at: */
	struct schema_pci port;
};

enum config_iommu_backend { /* as enum iommu_kind */
			    CONFIG_IOMMU_AUTO,
			    CONFIG_IOMMU_IOMMUFD,
			    CONFIG_IOMMU_TYPE1,
};

struct config_iommu {
	int backend;
	int fd; /* an open /dev/iommu; -1 */
};

enum config_viommu_transport { /* as enum virtio_iommu_transport */
			       CONFIG_VIOMMU_EXIT,
			       CONFIG_VIOMMU_LOOP,
			       CONFIG_VIOMMU_POLL,
};
/* Longer than a device takes for a request: the poller is to be awake when its buffer is unmapped. */
enum { CONFIG_VIOMMU_POLL_US = 2000, CONFIG_VIOMMU_POLL_US_MAX = 1000000 };

/* An IOMMU of the guest's own. */
struct config_viommu {
	bool enabled;
	bool bypass;      /* until a driver says otherwise, devices behind it reach all of memory */
	int transport;    /* enum config_viommu_transport: by whom its requests are served */
	uint32_t poll_us; /* poll: how long without a request until it waits for a notification */
	struct schema_pci addr;
};

struct config_rng {
	bool enabled;
	struct schema_pci addr;
};

struct config_pci {
	uint32_t root_ports; /* spare ones, for what is plugged in later */
};

struct config_smbios {
	char *serial;
	char *manufacturer;
	char *product;
	char *version;
};

enum config_on_reset {
	CONFIG_ON_RESET_RESTART,
	CONFIG_ON_RESET_STOP,
};

#define CONFIG_LIST(type)       \
	struct {                \
		type *items;    \
		unsigned int n; \
	}

struct config {
	char *name;
	struct schema_uuid uuid;
	struct config_cpus cpus;
	struct config_memory memory;
	struct config_kernel kernel;
	char *firmware; /* refused until it is built */
	CONFIG_LIST(struct config_disk) disks;
	CONFIG_LIST(struct config_net) nets;
	CONFIG_LIST(struct config_console) consoles;
	CONFIG_LIST(struct config_passthrough) passthrough;
	struct config_iommu iommu;
	struct config_viommu viommu;
	struct config_rng rng;
	struct config_pci pci;
	struct config_smbios smbios;
	uint32_t io_threads;
	int on_reset;
};

/* ret is to be released with config_done, also after an error. */
int config_read(struct config *ret, const char *json, size_t len, struct err *err);
void config_done(struct config *config);
/* Text of the effective document: indented, ends with a newline; free() it. NULL: no memory. */
char *config_write(const struct config *config);

/* The PCI slots below this one are the platform's (host bridge). Root ports follow from the top. */
enum { CONFIG_FIRST_SLOT = 1, CONFIG_ROOT_PORT_SLOT = 0x18, CONFIG_MAX_ROOT_PORTS = 8 };

enum { CONFIG_MAX_PASSTHROUGH = 32 };

#endif
