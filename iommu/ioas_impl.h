/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside I/O address spaces: the objects, and the table of a backend. ioas.c and ioas_map.c keep
 * the books (mappings, ledger, overlap, alignment, attached devices); a backend makes the system
 * calls.
 */
#ifndef IOMMU_IOAS_IMPL_H
#define IOMMU_IOAS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "iommu/ioas.h"
#include "iommu/ledger.h"
#include "iommu/mappings.h"

enum { IOAS_PAGE_BYTES = 4096 };

/* A VFIO group (type1), shared by its endpoints. One thread at a time (ioas.h). */
struct vfio_group {
	struct list link; /* iommu->groups */
	int fd;
	uint64_t rdev; /* which /dev/vfio/N */
	unsigned int endpoints;
	unsigned int attached; /* endpoints whose device is open */
	struct ioas *ioas;     /* whose container it is in; NULL */
};

struct iommu {
	/* Constant. */
	const struct ioas_ops *ops;
	const struct log *log;
	char reason[200];
	bool no_huge_pages;
	enum iommu_accounting accounting;
	int fd; /* iommufd; -1 */
	/* --- */
	_Atomic bool no_map_file; /* iommufd: this kernel has no MAP_FILE */
	/* Guards spaces, which the machine's thread and holders of the virtual IOMMU's lock create
	 * and destroy. Taken before the locks of a space. */
	pthread_rwlock_t lock;
	struct list spaces; /* struct ioas.link */
	/* The machine's thread, which opens devices. */
	struct list groups;          /* type1 */
	unsigned int endpoint_count; /* attached or not */
};

struct iommu_endpoint {
	struct iommu *iommu; /* this and the name are constant */
	char *name;
	/* One thread at a time (ioas.h). */
	struct list link; /* ioas->endpoints; under the space's `devices` too */
	struct ioas *ioas;
	int device_fd;
	uint32_t dev_id;          /* iommufd's */
	struct vfio_group *group; /* type1 */
};

enum { IOAS_MAX_TABLES = 8 };

struct ioas {
	struct list link; /* under iommu->lock */
	/* Constant. */
	struct iommu *iommu;
	char *name;
	struct ledger *ledger; /* what is in it: under `lock` */
	/* --- */
	struct list endpoints;
	pthread_mutex_t
		devices;      /* guards endpoints, tables, container; held over attach and detach */
	pthread_mutex_t lock; /* guards mappings, own_bytes, pinning, ledger; innermost */
	struct mappings mappings;
	uint64_t own_bytes; /* mapped bytes whose pins are not another space's */
	bool pinning;       /* there is a table, so that own_bytes are pinned */
	/* Written by the attach of the first device, before anything is mapped. */
	uint64_t page_sizes;
	/* iommufd; tables under `devices` */
	uint32_t id;                      /* constant */
	uint32_t tables[IOAS_MAX_TABLES]; /* HWPTs for dirty tracking */
	unsigned int table_count;
	/* type1; under `devices` */
	int container; /* -1 until it has one */
	bool has_iommu;
};

struct ioas_ops {
	enum iommu_kind kind;
	int (*open)(struct iommu *iommu, const struct iommu_config *config, struct err *err);
	void (*close)(struct iommu *iommu);
	int (*endpoint_open)(struct iommu_endpoint *endpoint, int fd, struct err *err);
	/* The endpoint is detached. */
	void (*endpoint_close)(struct iommu_endpoint *endpoint);
	int (*space_open)(struct ioas *ioas, struct err *err);
	void (*space_close)(struct ioas *ioas);
	/* An endpoint of another space of this iommu is moved, or -EOPNOTSUPP. */
	int (*attach)(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err);
	void (*detach)(struct iommu_endpoint *endpoint);
	/* The range is aligned, does not wrap, and nothing is mapped in it. */
	int (*map)(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		   const struct ioas_memory *memory, unsigned int access);
	/* The range covers whole mappings, without gaps. */
	int (*unmap)(struct ioas *ioas, uint64_t iova, uint64_t bytes);
	/* NULL: the backend cannot. */
	int (*copy)(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
		    uint64_t from_iova, unsigned int access);
	int (*pin)(struct ioas *ioas, const struct iommu_endpoint *endpoint); /* NULL: cannot */
	void (*nothing)(const struct ioas *ioas); /* NULL: makes no system calls */
	/* NULL: all of 2^64. */
	unsigned int (*usable)(const struct ioas *ioas, struct ioas_range *ranges,
			       unsigned int max);
	/* All ranges are usable now. NULL: the kernel keeps no such list. */
	int (*allow)(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n);
	uint64_t (*mappings_left)(const struct ioas *ioas); /* NULL: no limit */
	int (*dirty_set)(struct ioas *ioas, bool on);       /* NULL: cannot */
	int (*dirty_read)(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
			  uint64_t *bitmap);
};

extern const struct ioas_ops ioas_iommufd_ops, ioas_type1_ops;

/* iommu_create with this backend, for tests. */
int iommu_create_with(struct iommu **ret, const struct ioas_ops *ops,
		      const struct iommu_config *config, struct err *err);

/* Unmap everything; no device is attached. */
void ioas_unmap_all(struct ioas *ioas);

/* The iova of the lowest mapping in [first, last]; false: there is none. */
bool ioas_mapped_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *iova);
/* The first address in [first, last] that is not usable; false: all are. */
bool ioas_unusable_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *at);
/* An attach failed: name the reserved range of the device in which something is mapped. */
int ioas_explain_conflict(const struct ioas *ioas, const struct iommu_endpoint *endpoint,
			  struct err *err);
/* Another process that has this device or its group open: " by process 812 (qemu-system-x86)", or
 * "" if /proc does not show it. */
const char *iommu_holder(const struct iommu_endpoint *endpoint, int fd, char *text,
			 unsigned int bytes);

#endif
