/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the parts of preflight: the device, the request, and how a finding is added. */
#ifndef HOST_EXPLAIN_IMPL_H
#define HOST_EXPLAIN_IMPL_H

#include "core/arch.h"
#include "host/explain.h"
#include "host/vf.h"

struct explain_ctx {
	struct explain *out;
	const struct host_device *d;
	const struct explain_request *request;
	enum iommu_kind kind; /* what will be used: never IOMMU_AUTO */
	bool ours;            /* bound to a driver of VFIO */
	bool layout_known;    /* /dev/kvm could be queried */
	struct arch_platform layout;
	bool no_memory; /* a finding was lost */
};

/* explain_report.c. Add a finding; then, unless it is EXPLAIN_OK, its remedy. */
void explain_add(struct explain_ctx *x, enum explain_level level, const char *topic,
		 const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void explain_remedy(struct explain_ctx *x, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* "16 GiB", "1.5 GiB", "512 KiB", in the caller's buffer, which is returned. */
#define EXPLAIN_SIZE_TEXT 24
const char *explain_size(uint64_t bytes, char text[EXPLAIN_SIZE_TEXT]);
/* The first line of a file, "" when it cannot be read. */
void explain_line(const char *path, char *text, unsigned int bytes);
/* vfio-pci or a variant of it? */
bool explain_vfio_driver(const char *driver);

/* explain_host.c */
void explain_choose_kind(struct explain_ctx *x);
void explain_kernel(struct explain_ctx *x);
void explain_iommu(struct explain_ctx *x);
void explain_remapping(struct explain_ctx *x);
void explain_permissions(struct explain_ctx *x);

/* explain_limits.c */
void explain_layout(struct explain_ctx *x);
void explain_aperture(struct explain_ctx *x);
void explain_reserved(struct explain_ctx *x);
void explain_memory(struct explain_ctx *x);
void explain_mappings(struct explain_ctx *x);
void explain_memlock(struct explain_ctx *x);
void explain_files(struct explain_ctx *x);

/* explain_pages.c */
#define EXPLAIN_PATH_BYTES 128
#define EXPLAIN_WORD_BYTES 16
void explain_pages(struct explain_ctx *x);
/* Does a setting in dir (/sys/kernel/mm/transparent_hugepage) forbid pages of 2 MiB for anonymous
 * memory, or for shared memory? Then path and word are that setting. */
bool explain_pages_forbidden(const char *dir, bool shared, char path[EXPLAIN_PATH_BYTES],
			     char word[EXPLAIN_WORD_BYTES]);

/* explain_function.c */
void explain_use_by_host(struct explain_ctx *x);
void explain_interrupts(struct explain_ctx *x);
void explain_resets(struct explain_ctx *x);
void explain_bars(struct explain_ctx *x);
void explain_migration(struct explain_ctx *x);
void explain_peers(struct explain_ctx *x);
void explain_quirks(struct explain_ctx *x);
/* The part of it that says whether a VF keeps its MAC, from what its PF's driver reports. */
void explain_vf_mac(struct explain_ctx *x, const struct vf_settings *settings);

#endif
