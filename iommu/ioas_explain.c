// SPDX-License-Identifier: Apache-2.0
// Explanations of failures: the limit, the range and its owner, the holder, the remedy.
#include <errno.h>
#include <glob.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/holder.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"
#include "iommu/reserved.h"

/* May this process lock memory without a limit (CAP_IPC_LOCK)? */
static bool may_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data))
		return false;
	return data[CAP_IPC_LOCK / 32].effective & 1u << CAP_IPC_LOCK % 32;
}

static int explain_memory(const struct ioas *ioas, uint64_t bytes, struct err *err)
{
	struct ledger_totals totals;
	struct rlimit limit;
	uint64_t mib;

	if (may_lock() || getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return err_set(err, -ENOMEM,
			       "the kernel has no memory to pin 0x%llx bytes and for their tables",
			       (unsigned long long)bytes);
	ledger_totals(ioas->ledger, &totals);
	mib = (totals.pinned_bytes + bytes + MiB - 1) / MiB;
	return err_set(
		err, -ENOMEM,
		"the limit of locked memory (RLIMIT_MEMLOCK) is %llu KiB, counted per %s, "
		"and %llu MiB have to be pinned for devices; raise it with 'prlimit --pid $$ "
		"--memlock=%llu', LimitMEMLOCK=%lluM in the systemd unit, or memlock in "
		"/etc/security/limits.conf",
		(unsigned long long)limit.rlim_cur / 1024,
		ioas->iommu->accounting == IOMMU_ACCOUNT_USER ? "user" : "process",
		(unsigned long long)mib, (unsigned long long)(mib * MiB), (unsigned long long)mib);
}

/* The reserved range of an attached device that overlaps [first, last]. */
static bool find_reserved(const struct ioas *ioas, uint64_t first, uint64_t last,
			  struct iommu_reserved *ret, const char **device)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];

	list_for_each (item, &ioas->endpoints) {
		const char *name = container_of(item, struct iommu_endpoint, link)->name;
		int n = iommu_reserved_read(name, ranges, IOMMU_RESERVED_MAX);

		for (int i = 0; i < MIN(n, (int)IOMMU_RESERVED_MAX); i++) {
			if (!iommu_reserved_blocks(&ranges[i]) || ranges[i].first > last ||
			    ranges[i].last < first)
				continue;
			*ret = ranges[i];
			*device = name;
			return true;
		}
	}
	return false;
}

bool ioas_unusable_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *at)
{
	struct ioas_range ranges[64];
	unsigned int n = MIN(ioas_usable(ioas, ranges, 64), 64u);

	for (unsigned int i = 0; i < n; i++) {
		if (ranges[i].first > first)
			break;
		if (ranges[i].last >= last)
			return false;
		if (ranges[i].last >= first)
			first = ranges[i].last + 1;
	}
	*at = first;
	return true;
}

static int explain_place(const struct ioas *ioas, uint64_t iova, uint64_t bytes, struct err *err)
{
	struct iommu_reserved reserved;
	const char *device;
	uint64_t at;

	if (find_reserved(ioas, iova, iova + (bytes - 1), &reserved, &device))
		return err_set(
			err, -ENOSPC,
			"0x%llx to 0x%llx cannot be mapped: 0x%llx to 0x%llx of device %s is "
			"%s; leave that range out of the guest's memory map",
			(unsigned long long)iova, (unsigned long long)(iova + (bytes - 1)),
			(unsigned long long)reserved.first, (unsigned long long)reserved.last,
			device, iommu_reserved_whose(&reserved));
	if (ioas_unusable_in(ioas, iova, iova + (bytes - 1), &at))
		return err_set(err, -ENOSPC,
			       "0x%llx to 0x%llx cannot be mapped: the IOMMU of the devices in "
			       "address space '%s' does not translate from 0x%llx on (its address "
			       "width ends there, or the range is reserved); give the guest less "
			       "memory, or a memory map that leaves it out",
			       (unsigned long long)iova, (unsigned long long)(iova + (bytes - 1)),
			       ioas->name, (unsigned long long)at);
	return err_set(err, -ENOSPC,
		       "the kernel takes no more than %llu mappings per address space (0 are "
		       "left): raise vfio_iommu_type1's dma_entry_limit, or use iommu=iommufd",
		       (unsigned long long)ioas->mappings.count);
}

int ioas_explain(const struct ioas *ioas, int code, uint64_t iova, uint64_t bytes, struct err *err)
{
	uint64_t last = iova + (bytes ? bytes - 1 : 0), there = 0;

	switch (code) {
	case -ENOMEM:
		return explain_memory(ioas, bytes, err);
	case -ENOSPC:
		return explain_place(ioas, iova, MAX(bytes, (uint64_t)1), err);
	case -EEXIST:
		(void)ioas_mapped_in(ioas, iova, last, &there);
		return err_set(err, code,
			       "0x%llx to 0x%llx of address space '%s' is not free: something is "
			       "mapped at 0x%llx",
			       (unsigned long long)iova, (unsigned long long)last, ioas->name,
			       (unsigned long long)there);
	case -EFAULT:
		return err_set(err, code,
			       "0x%llx to 0x%llx: the memory behind it cannot be pinned (a file "
			       "that was cut, or pages that are not ordinary memory)",
			       (unsigned long long)iova, (unsigned long long)last);
	case -EINVAL:
		return err_set(err, code,
			       "0x%llx bytes at 0x%llx: not a multiple of the page size 0x%llx",
			       (unsigned long long)bytes, (unsigned long long)iova,
			       (unsigned long long)(ioas->page_sizes & -ioas->page_sizes));
	case -ENODEV:
		return err_set(err, code, "address space '%s' has no device yet, and so no table",
			       ioas->name);
	default:
		return err_set(err, code, "0x%llx to 0x%llx: %s", (unsigned long long)iova,
			       (unsigned long long)last, err_name(code));
	}
}

int ioas_explain_conflict(const struct ioas *ioas, const struct iommu_endpoint *endpoint,
			  struct err *err)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	int n = iommu_reserved_read(endpoint->name, ranges, IOMMU_RESERVED_MAX);
	uint64_t there;

	for (int i = 0; i < MIN(n, (int)IOMMU_RESERVED_MAX); i++) {
		if (iommu_reserved_blocks(&ranges[i]) &&
		    ioas_mapped_in(ioas, ranges[i].first, ranges[i].last, &there))
			return err_set(err, -EINVAL,
				       "its range 0x%llx to 0x%llx is %s, and something is mapped "
				       "there (at 0x%llx); attach it before that is mapped, or to "
				       "an address space of its own",
				       (unsigned long long)ranges[i].first,
				       (unsigned long long)ranges[i].last,
				       iommu_reserved_whose(&ranges[i]), (unsigned long long)there);
	}
	return err_set(
		err, -EINVAL,
		"something is mapped where this device or its IOMMU cannot reach (a reserved "
		"range, or past its address width); give it an address space of its own");
}

/* --- the holder of a device --- */

/* The nodes that another process may hold: ours, and the one of the other interface (group or
 * device), since an open one keeps the other from being opened. */
struct nodes {
	struct stat st[3];
	unsigned int n;
};

static void add_node(struct nodes *nodes, const char *path)
{
	struct stat st;

	if (!stat(path, &st) && S_ISCHR(st.st_mode) && nodes->n < ARRAY_SIZE(nodes->st))
		nodes->st[nodes->n++] = st;
}

static void find_nodes(struct nodes *nodes, const char *device, int fd)
{
	char path[160], target[160];
	glob_t found = {0};
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	add_node(nodes, path);
	if (strchr(device, '/'))
		return;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", device);
	n = readlink(path, target, sizeof(target) - 1);
	if (n > 0) {
		target[n] = '\0';
		snprintf(path, sizeof(path), "/dev/vfio/%s", basename(target));
		add_node(nodes, path);
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev/vfio*", device);
	if (!glob(path, 0, NULL, &found)) {
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", basename(found.gl_pathv[0]));
		add_node(nodes, path);
	}
	globfree(&found);
}

const char *iommu_holder(const struct iommu_endpoint *endpoint, int fd, char *text,
			 unsigned int bytes)
{
	struct nodes nodes = {.n = 0};
	struct holder holder;

	text[0] = '\0';
	find_nodes(&nodes, endpoint->name, fd);
	if (holder_find(&holder, nodes.st, nodes.n, getpid()))
		snprintf(text, bytes, " by process %d (%s)", (int)holder.pid, holder.name);
	return text;
}
