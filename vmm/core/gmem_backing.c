// SPDX-License-Identifier: Apache-2.0
// Host memory of guest regions: anonymous, memfd, hugetlb, or an embedder's fd.
//
// The host address is congruent to the guest address modulo 2 MiB (or the larger page of the
// backing), so that one huge page of the host can back one huge page of the guest's tables.
#include "core/gmem_backing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

/* Newer than the C library of Debian 12. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
	SMALL_PAGE = 4096,
	THP_BYTES = 2 << 20,
	MAX_NODES = 1024,
};

/* The first line of a small file of /proc or /sys. */
static bool read_line(const char *path, char *line, size_t bytes)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(line, (int)bytes, f) != NULL;
	fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok;
}

static uint64_t read_number(const char *path)
{
	char line[64];

	return read_line(path, line, sizeof(line)) ? strtoull(line, NULL, 10) : 0;
}

uint64_t gmem_host_meminfo(const char *key)
{
	size_t key_len = strlen(key);
	uint64_t kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, key_len) && line[key_len] == ':') {
			kib = strtoull(line + key_len + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	return kib * KiB;
}

static unsigned long long in_mib(uint64_t bytes)
{
	return (bytes + MiB - 1) / MiB;
}

/* ENOMEM, with what the host has. */
static int no_memory(struct err *err, const struct gmem_region_config *config, uint64_t all_bytes)
{
	return err_set(
		err, -ENOMEM,
		"memory '%s': cannot have %llu MiB (%llu MiB in all): this host has %llu MiB "
		"and %llu MiB of swap, %llu MiB available now; ask for less, or allow "
		"overcommitment (sysctl vm.overcommit_memory)",
		config->name, in_mib(config->size_bytes), in_mib(all_bytes),
		in_mib(gmem_host_meminfo("MemTotal")), in_mib(gmem_host_meminfo("SwapTotal")),
		in_mib(gmem_host_meminfo("MemAvailable")));
}

/* The kernel checks a private mapping against all there is, but a memfd only as it is touched: the
 * OOM killer would tell the user then. Overcommit mode 1 says that the user wants no such check. */
static bool more_than_host(uint64_t bytes)
{
	char mode[8] = "";
	uint64_t total = gmem_host_meminfo("MemTotal") + gmem_host_meminfo("SwapTotal");

	if (read_line("/proc/sys/vm/overcommit_memory", mode, sizeof(mode)) && mode[0] == '1')
		return false;
	return total && bytes > total;
}

/* Address space of len bytes, congruent to gpa modulo align. */
static void *reserve(uint64_t len, uint64_t gpa, uint64_t align)
{
	uint64_t total, start, hva;
	char *p;

	if (add_overflows(len, align, &total))
		return NULL;
	p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	start = (uint64_t)p;
	hva = align_down(start, align) + (gpa & (align - 1));
	if (hva < start)
		hva += align;
	if (hva > start)
		munmap(p, hva - start);
	if (start + total > hva + len)
		munmap((void *)(hva + len), start + total - hva - len);
	return (void *)hva;
}

static int seal(int fd)
{
	/* Nobody it is shared with may shrink it under us (SIGBUS), nor seal it further. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	return 0;
}

static int open_memfd(const struct gmem_region_config *config, unsigned int flags, struct err *err)
{
	int fd = memfd_create(config->name,
			      MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);
	int ret;

	if (fd < 0 && errno == EINVAL) /* Linux before 6.3 */
		fd = memfd_create(config->name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	if (fd < 0) {
		ret = -errno;
		return err_set(err, ret, "memory '%s': memfd: %s%s", config->name, err_name(ret),
			       flags & MFD_HUGETLB
				       ? "; does this host have huge pages of that size?"
				       : "");
	}
	if (ftruncate(fd, (off_t)config->size_bytes)) {
		ret = -errno;
		fd_close(&fd);
		return err_set(err, ret, "memory '%s': memfd of %llu MiB: %s", config->name,
			       in_mib(config->size_bytes), err_name(ret));
	}
	ret = seal(fd);
	if (ret) {
		fd_close(&fd);
		return err_set(err, ret, "memory '%s': cannot seal its memfd: %s", config->name,
			       err_name(ret));
	}
	return fd;
}

/* The embedder's fd: it must be as long as it says, and its pages as aligned as they must be. */
static int open_given(const struct gmem_region_config *config, uint64_t *page_bytes,
		      struct err *err)
{
	struct statfs fs;
	struct stat st;
	uint64_t end;
	int fd;

	if (fstat(config->fd, &st) || fstatfs(config->fd, &fs))
		return err_set(err, -errno, "memory '%s': fd %d: %s", config->name, config->fd,
			       err_name(errno));
	if (fs.f_type == HUGETLBFS_MAGIC)
		*page_bytes = (uint64_t)fs.f_bsize;
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "memory '%s': fd %d is not a file or memfd",
			       config->name, config->fd);
	if (add_overflows(config->fd_offset, config->size_bytes, &end) ||
	    end > (uint64_t)st.st_size)
		return err_set(
			err, -EINVAL,
			"memory '%s': fd %d has %lld bytes, offset %llu and size %llu do not "
			"fit",
			config->name, config->fd, (long long)st.st_size,
			(unsigned long long)config->fd_offset,
			(unsigned long long)config->size_bytes);
	if (!is_aligned(config->fd_offset, *page_bytes))
		return err_set(err, -EINVAL, "memory '%s': offset %llu is not a multiple of %llu",
			       config->name, (unsigned long long)config->fd_offset,
			       (unsigned long long)*page_bytes);
	fd = fd_dup(config->fd);
	if (fd < 0)
		return err_set(err, fd, "memory '%s': fd %d: %s", config->name, config->fd,
			       err_name(fd));
	return fd;
}

static int no_huge_pages(struct err *err, const struct gmem_region_config *config,
			 uint64_t page_bytes)
{
	unsigned long long need = config->size_bytes / page_bytes, free_pages, reserved, all;
	unsigned long long kib = page_bytes / KiB;
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
		 kib);
	free_pages = read_number(path);
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/resv_hugepages",
		 kib);
	reserved = read_number(path);
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages", kib);
	all = read_number(path);
	free_pages -= MIN(reserved, free_pages);
	all += need - MIN(free_pages, need);
	if (page_bytes == 2 * MiB)
		snprintf(path, sizeof(path), "sysctl vm.nr_hugepages=%llu", all);
	else
		snprintf(path, sizeof(path),
			 "echo %llu > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages", all,
			 kib);
	return err_set(err, -ENOMEM,
		       "memory '%s': needs %llu huge pages of %llu MiB, %llu are free, %llu are "
		       "missing; as root: %s",
		       config->name, need, in_mib(page_bytes), free_pages,
		       need - MIN(free_pages, need), path);
}

static int bind_node(const struct gmem_region *region, const struct gmem_region_config *config,
		     struct err *err)
{
	unsigned long mask[MAX_NODES / (8 * sizeof(long))] = {0};
	unsigned int node = (unsigned int)config->numa_node, bits = 8 * sizeof(long);
	char online[64] = "0";
	int ret;

	if (config->numa_node < 0)
		return 0;
	ret = -EINVAL;
	if (node < MAX_NODES) {
		mask[node / bits] = 1ul << node % bits;
		/* maxnode counts one more than the bits that are read */
		if (!syscall(SYS_mbind, region->hva, region->size_bytes, MPOL_BIND, mask,
			     MAX_NODES + 1ul, 0u))
			return 0;
		ret = -errno;
	}
	if (ret == -ENOSYS && node == 0) /* a kernel without NUMA has node 0 only */
		return 0;
	if (ret != -EINVAL)
		return err_set(err, ret, "memory '%s': cannot bind to NUMA node %d: %s",
			       config->name, config->numa_node, err_name(ret));
	read_line("/sys/devices/system/node/online", online, sizeof(online));
	return err_set(err, -EINVAL, "memory '%s': no NUMA node %d with memory; this host has %s",
		       config->name, config->numa_node, online);
}

/* The file behind the region, -1 for none, in *ret; page_bytes as it turns out. (A descriptor and
 * an error are told apart by the result: -EPERM is -1.) */
static int open_backing(int *ret, enum gmem_backing backing,
			const struct gmem_region_config *config, uint64_t *page_bytes,
			struct err *err)
{
	int fd;

	switch (backing) {
	case GMEM_MEMFD:
		fd = open_memfd(config, 0, err);
		break;
	case GMEM_HUGETLB_2M:
		fd = open_memfd(config, MFD_HUGETLB | MFD_HUGE_2MB, err);
		break;
	case GMEM_HUGETLB_1G:
		fd = open_memfd(config, MFD_HUGETLB | MFD_HUGE_1GB, err);
		break;
	case GMEM_FD:
		fd = open_given(config, page_bytes, err);
		break;
	default:
		*ret = -1;
		return 0;
	}
	*ret = fd < 0 ? -1 : fd;
	return fd < 0 ? fd : 0;
}

static int check_alignment(const struct gmem_region_config *config, uint64_t page_bytes,
			   struct err *err)
{
	uint64_t last;

	if (!config->size_bytes || !is_aligned(config->size_bytes, page_bytes))
		return err_set(err, -EINVAL, "memory '%s': size %llu is not a multiple of %llu KiB",
			       config->name, (unsigned long long)config->size_bytes,
			       (unsigned long long)(page_bytes / KiB));
	if (!is_aligned(config->gpa, page_bytes))
		return err_set(err, -EINVAL,
			       "memory '%s': address 0x%llx is not a multiple of %llu KiB",
			       config->name, (unsigned long long)config->gpa,
			       (unsigned long long)(page_bytes / KiB));
	if (add_overflows(config->gpa, config->size_bytes - 1, &last) || last > INT64_MAX)
		return err_set(err, -EINVAL, "memory '%s': 0x%llx bytes at 0x%llx: too large",
			       config->name, (unsigned long long)config->size_bytes,
			       (unsigned long long)config->gpa);
	return 0;
}

static int map_pages(struct gmem_region *region, const struct gmem_region_config *config,
		     enum gmem_backing backing, uint64_t all_bytes, struct err *err)
{
	int flags = MAP_FIXED | (region->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	uint64_t len = region->size_bytes;
	uint64_t align =
		len < THP_BYTES ? region->page_bytes : MAX(region->page_bytes, (uint64_t)THP_BYTES);
	void *at = reserve(len, region->gpa, align);
	int ret;

	if (!at)
		return no_memory(err, config, all_bytes);
	if (mmap(at, len, PROT_READ | PROT_WRITE, flags, region->fd, (off_t)region->fd_offset) ==
	    MAP_FAILED) {
		ret = -errno;
		munmap(at, len);
		if (ret == -ENOMEM && region->page_bytes > SMALL_PAGE)
			return no_huge_pages(err, config, region->page_bytes);
		if (ret == -ENOMEM)
			return no_memory(err, config, all_bytes);
		return err_set(err, ret, "memory '%s': cannot map %llu MiB: %s", config->name,
			       in_mib(len), err_name(ret));
	}
	region->hva = at;
	/* Advice: not in core dumps, not copied by an embedder's fork, huge pages where the host
	 * gives them (a hugetlb mapping has its own and refuses). */
	madvise(at, len, MADV_DONTDUMP);
	madvise(at, len, MADV_DONTFORK);
	if (config->small_pages)
		madvise(at, len, MADV_NOHUGEPAGE);
	else if (backing == GMEM_ANONYMOUS || backing == GMEM_MEMFD)
		madvise(at, len, MADV_HUGEPAGE);
	return bind_node(region, config, err);
}

int gmem_backing_map(struct gmem_region *ret, const struct gmem_region_config *config,
		     uint64_t other_bytes, struct err *err)
{
	enum gmem_backing backing = gmem_backing_for(config->backing, config->share);
	uint64_t page_bytes = backing == GMEM_HUGETLB_2M   ? 2 * MiB
			      : backing == GMEM_HUGETLB_1G ? GiB
							   : SMALL_PAGE;
	uint64_t all_bytes;
	int result = check_alignment(config, page_bytes, err);

	if (result)
		return result;
	*ret = (struct gmem_region){.gpa = config->gpa,
				    .size_bytes = config->size_bytes,
				    .fd = -1,
				    .flags = config->flags,
				    .numa_node = config->numa_node,
				    .small_pages = config->small_pages};
	if (add_overflows(config->size_bytes, other_bytes, &all_bytes) ||
	    (backing != GMEM_FD && page_bytes == SMALL_PAGE && more_than_host(all_bytes)))
		return no_memory(err, config, all_bytes);
	result = open_backing(&ret->fd, backing, config, &page_bytes, err);
	if (result)
		return result;
	ret->page_bytes = page_bytes;
	ret->fd_offset = backing == GMEM_FD ? config->fd_offset : 0;
	result = check_alignment(config, page_bytes, err);
	if (!result)
		result = map_pages(ret, config, backing, all_bytes, err);
	if (result)
		gmem_backing_unmap(ret);
	return result;
}

static int read_extent(const struct gmem_region *region, int fd, uint64_t offset, uint64_t from,
		       uint64_t to, struct err *err)
{
	uint8_t *hva = (uint8_t *)region->hva + (from - offset);
	int rc = fd_read_full(fd, hva, to - from, (off_t)from);

	return rc ? err_set(err, rc, "memory: the file cannot be read: %s", err_name(rc)) : 0;
}

/* Memory that others share: what is a hole in the file stays untouched. */
static int read_file(const struct gmem_region *region, int fd, uint64_t offset, struct err *err)
{
	uint64_t at = offset, end = offset + region->size_bytes;
	int rc = 0;

	while (at < end && !rc) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			return read_extent(region, fd, offset, at, end, err);
		if (data < 0 || (uint64_t)data >= end)
			return 0;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data)
			return err_set(err, -EIO, "memory: the file was cut short meanwhile");
		at = MIN((uint64_t)hole, end);
		rc = read_extent(region, fd, offset, (uint64_t)data, at, err);
	}
	return rc;
}

int gmem_backing_fill(const struct gmem_region *region, int fd, uint64_t offset, struct err *err)
{
	struct stat st;
	uint64_t end;

	if (fstat(fd, &st))
		return err_set(err, -errno, "memory: %s", err_name(errno));
	if (add_overflows(offset, region->size_bytes, &end) || end > (uint64_t)st.st_size)
		return err_set(err, -EIO, "memory: the file has %lld bytes, and %llu are wanted",
			       (long long)st.st_size, (unsigned long long)end);
	if (region->fd >= 0)
		return read_file(region, fd, offset, err);
	if (mmap(region->hva, region->size_bytes, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)offset) == MAP_FAILED)
		return err_set(err, -errno, "memory: the file cannot be mapped: %s",
			       err_name(errno));
	madvise(region->hva, region->size_bytes, MADV_DONTDUMP);
	madvise(region->hva, region->size_bytes, MADV_DONTFORK);
	return 0;
}

void gmem_backing_unmap(struct gmem_region *region)
{
	if (region->hva)
		munmap(region->hva, region->size_bytes);
	region->hva = NULL;
	fd_close(&region->fd);
}

/* Write to a page what is there already. Not an atomic OR of 0, which compilers may turn into a
 * mere read (clang 19 does), and a read maps the zero page. */
static void touch(volatile uint8_t *hva)
{
	uint8_t was = *hva;

	__atomic_compare_exchange_n(hva, &was, was, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

int gmem_backing_populate(const struct gmem_region *region, void *hva, size_t len)
{
	while (madvise(hva, len, MADV_POPULATE_WRITE)) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		if (errno != EINVAL) /* EFAULT: the file system behind a memfd is full */
			return errno == EFAULT ? -ENOMEM : -errno;
		/* Linux before 5.14 */
		for (size_t at = 0; at < len; at += region->page_bytes)
			touch((uint8_t *)hva + at);
		break;
	}
	return 0;
}

int gmem_backing_discard(const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	int r;

	if (region->fd < 0)
		r = madvise((char *)region->hva + offset, len, MADV_DONTNEED);
	else
		r = fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(region->fd_offset + offset), (off_t)len);
	return r ? -errno : 0;
}
