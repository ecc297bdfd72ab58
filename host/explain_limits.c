// SPDX-License-Identifier: Apache-2.0
// Preflight: the guest's memory against what the IOMMU translates and what this process may pin;
// the files that it may have open.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "iommu/reserved.h"
#include "host/explain_impl.h"

static unsigned int reserved(const struct explain_ctx *x, struct iommu_reserved *ranges)
{
	int n = iommu_reserved_read(x->d->bdf, ranges, IOMMU_RESERVED_MAX);
	unsigned int kept = 0;

	for (int i = 0; i < MIN(n, (int)IOMMU_RESERVED_MAX); i++) {
		if (iommu_reserved_blocks(&ranges[i]))
			ranges[kept++] = ranges[i];
	}
	return kept;
}

/* As the machine lays its memory out around them. Without a size, the layout for 1 GiB tells the
 * windows, which depend on the host's width alone. */
void explain_layout(struct explain_ctx *x)
{
	struct arch_layout layout = {.memory_bytes = x->request->memory_bytes};
	cleanup_fd int fd = x->request->kvm_fd > 0 ? fd_dup(x->request->kvm_fd)
						   : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct kvm kvm = {.calls = &kvm_kernel_calls};
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	struct arch_avoid avoid[IOMMU_RESERVED_MAX];
	char what[HOST_BDF_BYTES + 24];
	struct err err = ERR_INIT;

	if (fd < 0)
		return; /* explain_permissions says why */
	if (!layout.memory_bytes)
		layout.memory_bytes = GiB;
	for (unsigned int i = 0; i < 6; i++) {
		if (x->d->bars[i].mem64)
			layout.mmio64_bytes += x->d->bars[i].size_bytes;
	}
	snprintf(what, sizeof(what), "%s: reserved", x->d->bdf);
	layout.n_avoid = reserved(x, ranges);
	for (unsigned int i = 0; i < layout.n_avoid; i++)
		avoid[i] = (struct arch_avoid){ranges[i].first, ranges[i].last, what};
	layout.avoid = avoid;
	kvm.fd = fd;
	x->layout_known = arch_platform_init(&x->layout, &kvm, &layout, &err) == 0;
	if (!x->layout_known) {
		explain_add(x, EXPLAIN_BLOCKER, "memory", "%s", err.text);
		explain_remedy(x, "--memory with a size that fits");
	}
}

static bool has_memory(const struct explain_ctx *x)
{
	return x->layout_known && x->request->memory_bytes;
}

void explain_aperture(struct explain_ctx *x)
{
	unsigned int bits = host_aperture_bits(x->d->bdf);
	char size[EXPLAIN_SIZE_TEXT];
	uint64_t end, most;

	if (!bits || x->d->group < 0)
		return;
	explain_size(bits < 64 ? 1ull << bits : UINT64_MAX, size);
	if (!has_memory(x)) {
		explain_add(x, EXPLAIN_OK, "aperture",
			    "I/O addresses end at %s; the guest's memory must end below", size);
		return;
	}
	end = x->layout.high_bytes ? x->layout.high_gpa + x->layout.high_bytes
				   : x->layout.low_gpa + x->layout.low_bytes;
	if (bits >= 64 || end <= 1ull << bits) {
		explain_add(x, EXPLAIN_OK, "aperture",
			    "the guest's memory ends at 0x%llx, I/O addresses at %s; BARs of other "
			    "devices are not mapped, so only memory counts",
			    (unsigned long long)end, size);
		return;
	}
	explain_add(x, EXPLAIN_BLOCKER, "aperture",
		    "the guest's memory ends at 0x%llx, but the IOMMU translates %u bits: nothing "
		    "from %s up",
		    (unsigned long long)end, bits, size);
	most = 1ull << bits > x->layout.high_gpa
		       ? (1ull << bits) - x->layout.high_gpa + x->layout.low_bytes
		       : MIN(x->layout.low_bytes, (1ull << bits) - x->layout.low_gpa);
	explain_remedy(x, "--memory %lluM or less", (unsigned long long)(most / MiB));
}

void explain_reserved(struct explain_ctx *x)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	unsigned int n = reserved(x, ranges);

	for (unsigned int i = 0; i < n; i++) {
		const struct iommu_reserved *r = &ranges[i];

		if (strcmp(r->type, "direct") != 0) {
			explain_add(x, EXPLAIN_OK, "reserved",
				    "0x%llx-0x%llx is %s: the guest's memory is laid out around it",
				    (unsigned long long)r->first, (unsigned long long)r->last,
				    strcmp(r->type, "msi") == 0 ? "the MSI window" : "reserved");
			continue;
		}
		explain_add(x, EXPLAIN_BLOCKER, "reserved",
			    "the firmware keeps 0x%llx-0x%llx mapped for this device (RMRR): the "
			    "kernel gives it to nobody",
			    (unsigned long long)r->first, (unsigned long long)r->last);
		explain_remedy(x, "switch the device's firmware use off in the setup (iLO, USB "
				  "legacy, option ROM), or use another device");
	}
}

/* A field of /proc/meminfo in bytes, 0 when it is not there. */
static uint64_t meminfo(const char *name)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	if (!f)
		return 0;
	while (!kib && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), ": %llu", &kib) != 1)
			kib = 0;
	}
	fclose(f);
	return kib * KiB;
}

void explain_memory(struct explain_ctx *x)
{
	uint64_t want = x->request->memory_bytes, total = meminfo("MemTotal");
	uint64_t available = meminfo("MemAvailable");
	char a[EXPLAIN_SIZE_TEXT], b[EXPLAIN_SIZE_TEXT];

	if (!want || !total)
		return;
	if (want > total) {
		explain_add(x, EXPLAIN_BLOCKER, "memory",
			    "all %s of the guest's memory is pinned while the device is attached, "
			    "and the host has %s",
			    explain_size(want, a), explain_size(total, b));
		explain_remedy(x, "--memory %lluM or less", (unsigned long long)(total / MiB));
	} else if (want > available) {
		explain_add(x, EXPLAIN_WARNING, "memory",
			    "all %s of the guest's memory is pinned while the device is attached; "
			    "the host has %s available now",
			    explain_size(want, a), explain_size(available, b));
		explain_remedy(x, "--memory %lluM or less, or free some first",
			       (unsigned long long)(available / MiB));
	} else {
		explain_add(x, EXPLAIN_OK, "memory",
			    "all %s of the guest's memory is pinned while the device is attached; "
			    "the host has %s available",
			    explain_size(want, a), explain_size(available, b));
	}
}

void explain_mappings(struct explain_ctx *x)
{
	static const char parameter[] = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
	/* Each run of guest memory is mapped in chunks no smaller than this. */
	const uint64_t chunk = 64 * MiB;
	unsigned long long limit, need = x->request->memory_bytes / chunk + 2;
	char text[32];

	if (x->kind != IOMMU_TYPE1) {
		explain_add(x, EXPLAIN_OK, "mappings", "iommufd has no limit of their number");
		return;
	}
	explain_line(parameter, text, sizeof(text));
	limit = text[0] ? strtoull(text, NULL, 10) : 65535;
	if (need <= limit) {
		explain_add(x, EXPLAIN_OK, "mappings", "%llu at most of the %llu that type1 allows",
			    need, limit);
		return;
	}
	explain_add(x, EXPLAIN_BLOCKER, "mappings",
		    "type1 allows %llu mappings (dma_entry_limit); up to %llu are needed", limit,
		    need);
	explain_remedy(x, "echo 65535 > %s, or iommu=iommufd", parameter);
}

/* May this process pin without limit? The kernel asks for CAP_IPC_LOCK in the first user namespace,
 * which a namespace of our own cannot give. */
static bool may_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
	unsigned int from = 1, to = 1, count = 0;
	char line[128];

	if (syscall(SYS_capget, &header, caps) || !(caps[0].effective >> CAP_IPC_LOCK & 1))
		return false;
	/* A confined thread cannot read it; what the kernel says when it maps decides. */
	explain_line("/proc/self/uid_map", line, sizeof(line));
	return !line[0] || (sscanf(line, "%u %u %u", &from, &to, &count) == 3 && !from && !to &&
			    count == UINT32_MAX);
}

/* A limit of this process as those who may raise it name it. */
struct limit {
	const char *name, *systemd;
	char ulimit;        /* the shell's option */
	unsigned int unit;  /* of ulimit, limits.conf and systemd */
	const char *suffix; /* systemd's for that unit */
};

static void way_to_raise(struct explain_ctx *x, const struct rlimit *now, const struct limit *limit,
			 unsigned long long units)
{
	unsigned long long value = units * limit->unit;

	if (now->rlim_max >= value)
		explain_remedy(x, "ulimit -%c %llu", limit->ulimit, units);
	else
		explain_remedy(
			x,
			"sudo prlimit --pid $$ --%s=%llu:%llu; for good: 'USER - %s %llu' "
			"in /etc/security/limits.conf, or Limit%s=%llu%s in the systemd unit",
			limit->name, value, value, limit->name, units, limit->systemd, units,
			limit->suffix);
}

void explain_memlock(struct explain_ctx *x)
{
	static const struct limit memlock = {"memlock", "MEMLOCK", 'l', KiB, "K"};
	uint64_t want = x->request->memory_bytes;
	const char *scope = x->kind == IOMMU_TYPE1 ? "per process" : "per user, over all its VMs";
	char a[EXPLAIN_SIZE_TEXT], b[EXPLAIN_SIZE_TEXT];
	unsigned long long kib = (want + KiB - 1) / KiB;
	struct rlimit limit;

	if (may_lock()) {
		explain_add(x, EXPLAIN_OK, "memlock", "CAP_IPC_LOCK: pinned memory is not limited");
		return;
	}
	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) {
		explain_add(x, EXPLAIN_OK, "memlock", "RLIMIT_MEMLOCK is unlimited");
		return;
	}
	explain_size(limit.rlim_cur, b);
	if (!want) {
		explain_add(x, EXPLAIN_OK, "memlock",
			    "RLIMIT_MEMLOCK is %s (%s): the guest's memory must be less", b, scope);
		return;
	}
	if (want <= limit.rlim_cur) {
		explain_add(x, EXPLAIN_OK, "memlock", "%s to be pinned, RLIMIT_MEMLOCK is %s (%s)",
			    explain_size(want, a), b, scope);
		return;
	}
	explain_add(x, EXPLAIN_BLOCKER, "memlock", "%s to be pinned, RLIMIT_MEMLOCK is %s (%s)",
		    explain_size(want, a), b, scope);
	way_to_raise(x, &limit, &memlock, kib);
}

/* An eventfd for each vector, from the start; a guest that unmasks one later can count on it. */
void explain_files(struct explain_ctx *x)
{
	enum {
		/* The rest of the smallest machine there is. */
		AT_LEAST_IOMMUFD = 31,
		AT_LEAST_TYPE1 = 33,
		PLENTY = 128,
	};
	static const struct limit files = {"nofile", "NOFILE", 'n', 1, ""};
	unsigned int vectors = x->d->msix + x->d->msi + x->request->other_vectors;
	unsigned int least = vectors + (x->kind == IOMMU_TYPE1 ? AT_LEAST_TYPE1 : AT_LEAST_IOMMUFD);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= vectors + PLENTY)
		return;
	explain_add(x, limit.rlim_cur < least ? EXPLAIN_BLOCKER : EXPLAIN_WARNING, "files",
		    "each of the %u vectors takes a file descriptor, the rest of the machine some "
		    "dozens; RLIMIT_NOFILE is %llu",
		    vectors, (unsigned long long)limit.rlim_cur);
	way_to_raise(x, &limit, &files, vectors + PLENTY);
}
