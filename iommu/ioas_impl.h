/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of I/O address spaces share: the objects, and the narrow table behind which the
 * backends are. Bookkeeping (what is mapped, ledger, overlap, alignment, who is attached) is done
 * once, in ioas.c; a backend makes the system calls.
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

/* A VFIO group (type1), shared by its endpoints. */
struct vfio_group {
	struct list link; /* iommu->groups */
	int fd;
	uint64_t rdev; /* which /dev/vfio/N */
	unsigned int endpoints;
	unsigned int attached; /* endpoints whose device is open */
	struct ioas *ioas;     /* the one whose container it is in */
};

struct iommu {
	const struct ioas_ops *ops;
	const struct log *log;
	char reason[200];
	bool no_huge_pages;
	enum iommu_accounting accounting;
	int fd;                      /* iommufd; -1 */
	_Atomic bool no_map_file;    /* iommufd: this kernel has no MAP_FILE */
	struct list groups;          /* type1 */
	struct list spaces;          /* struct ioas.link */
	unsigned int endpoint_count; /* of all spaces and of none */
};

struct iommu_endpoint {
	struct list link; /* ioas->endpoints */
	struct iommu *iommu;
	char *name;
	struct ioas *ioas;
	int device_fd;
	uint32_t dev_id;          /* iommufd's */
	struct vfio_group *group; /* type1 */
};

enum { IOAS_MAX_TABLES = 8 };

struct ioas {
	struct list link;
	struct iommu *iommu;
	char *name;
	struct ledger *ledger;
	struct list endpoints;
	pthread_mutex_t devices; /* attach, detach, dirty tracking: endpoints, tables, container */
	pthread_mutex_t lock;    /* mappings, own_bytes, pinning and the ledger; innermost */
	struct mappings mappings;
	uint64_t own_bytes; /* not shared with another space: pinned while there is a table */
	bool pinning;       /* a device is attached, so that what is mapped is pinned */
	uint64_t page_sizes;
	/* iommufd */
	uint32_t id;
	uint32_t tables[IOAS_MAX_TABLES]; /* made for dirty tracking */
	unsigned int table_count;
	/* type1 */
	int container; /* -1 until it has one */
	bool has_iommu;
};

struct ioas_ops {
	enum iommu_kind kind;
	/* Open what the configuration says. */
	int (*open)(struct iommu *iommu, const struct iommu_config *config, struct err *err);
	void (*close)(struct iommu *iommu);
	int (*endpoint_open)(struct iommu_endpoint *endpoint, int fd, struct err *err);
	/* Detached already. */
	void (*endpoint_close)(struct iommu_endpoint *endpoint);
	int (*space_open)(struct ioas *ioas, struct err *err);
	void (*space_close)(struct ioas *ioas);
	/* May be attached to another space of the same iommu: moves it, or -EOPNOTSUPP. */
	int (*attach)(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err);
	void (*detach)(struct iommu_endpoint *endpoint);
	/* Checked: aligned, does not wrap, nothing is mapped there. */
	int (*map)(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		   const struct ioas_memory *memory, unsigned int access);
	/* Checked: covers whole mappings, and nothing else is in the range. */
	int (*unmap)(struct ioas *ioas, uint64_t iova, uint64_t bytes);
	/* NULL: cannot. */
	int (*copy)(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
		    uint64_t from_iova, unsigned int access);
	int (*pin)(struct ioas *ioas, const struct iommu_endpoint *endpoint); /* NULL: cannot */
	void (*nothing)(const struct ioas *ioas); /* NULL: makes no system calls */
	/* NULL: all of 2^64. */
	unsigned int (*usable)(const struct ioas *ioas, struct ioas_range *ranges,
			       unsigned int max);
	/* NULL: nothing to tell the kernel. All usable now. */
	int (*allow)(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n);
	uint64_t (*mappings_left)(const struct ioas *ioas); /* NULL: no limit */
	int (*dirty_set)(struct ioas *ioas, bool on);       /* NULL: cannot */
	int (*dirty_read)(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
			  uint64_t *bitmap);
};

extern const struct ioas_ops ioas_iommufd_ops, ioas_type1_ops;

/* iommu_create with this backend: the seam for tests. */
int iommu_create_with(struct iommu **ret, const struct ioas_ops *ops,
		      const struct iommu_config *config, struct err *err);

/* All that it has mapped; no device is attached. */
void ioas_unmap_all(struct ioas *ioas);

/* The lowest mapping of ioas in [first, last], for messages; false: none. */
bool ioas_mapped_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *iova);
/* The first place in [first, last] that is not usable; false: all of it is. */
bool ioas_unusable_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *at);
/* A failed attach because of a reserved range of the device that something is mapped in: name it. */
int ioas_explain_conflict(const struct ioas *ioas, const struct iommu_endpoint *endpoint,
			  struct err *err);
/* Another process that has this device or its group open: " by process 812 (qemu-system-x86)", as far
 * as /proc tells, or "". */
const char *iommu_holder(const struct iommu_endpoint *endpoint, int fd, char *text,
			 unsigned int bytes);

#endif
