// SPDX-License-Identifier: Apache-2.0
// Landlock rulesets by role. See landlock.h.
#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

/* Of Linux 6.15, and of stable releases: newer than the kernel headers of the build. */
#define CREATE_RULESET_ERRATA    (1u << 1)
#define ERRATUM_SIGNAL_OF_THREAD (1 << 1)

#define READ_FILE LANDLOCK_ACCESS_FS_READ_FILE
#define READ_TREE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define OPEN_DEVICE                                                     \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
	 LANDLOCK_ACCESS_FS_IOCTL_DEV)
#define ROLE(role) (1u << THREAD_##role)

/* What cannot be opened before, since a passed-through device may be added while the machine runs.
 * None of it gives a right over anything that exists: the devices are empty until a VFIO device
 * comes into them, and that has to be handed in. */
static const struct {
	const char *path;
	uint64_t access;
	unsigned int roles;
} exceptions[] = {
	/* The facts of the device: its IOMMU group and reserved ranges. */
	{"/sys", READ_TREE, ROLE(MACHINE) | ROLE(FOREIGN)},
	{"/proc/meminfo", READ_FILE, ROLE(MACHINE)},
	{"/proc/interrupts", READ_FILE, ROLE(MACHINE) | ROLE(FOREIGN)},
	/* Its I/O address space: a new one each. */
	{"/dev/iommu", OPEN_DEVICE, ROLE(MACHINE)},
	{"/dev/vfio/vfio", OPEN_DEVICE, ROLE(MACHINE)},
	/* Where the kernel reports its DMA faults. */
	{"/dev/kmsg", READ_FILE, ROLE(MACHINE)},
	/* What a strategy may map, which the guest's first domain makes. */
	{"/proc/sys/vm/max_map_count", READ_FILE, ROLE(MACHINE) | ROLE(VCPU) | ROLE(VIOMMU)},
};

/* What each version of the interface can deny. */
static const struct landlock_ruleset_attr denials[] = {
	{.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1}, /* 1: all before, too */
	{.handled_access_fs = LANDLOCK_ACCESS_FS_REFER},
	{.handled_access_fs = LANDLOCK_ACCESS_FS_TRUNCATE},
	{.handled_access_net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP},
	{.handled_access_fs = LANDLOCK_ACCESS_FS_IOCTL_DEV},
	{.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL},
};

static int create_ruleset(const struct landlock_ruleset_attr *attr, size_t bytes,
			  unsigned int flags)
{
	int rc = (int)syscall(SYS_landlock_create_ruleset, attr, bytes, flags);

	return rc < 0 ? -errno : rc;
}

int landlock_version(void)
{
	return create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static int open_ruleset(struct landlock_ruleset_attr *attr)
{
	int version = landlock_version();

	*attr = (struct landlock_ruleset_attr){0};
	if (version < 0)
		return version;
	for (int i = 0; i < MIN(version, (int)ARRAY_SIZE(denials)); i++) {
		attr->handled_access_fs |= denials[i].handled_access_fs;
		attr->handled_access_net |= denials[i].handled_access_net;
		attr->scoped |= denials[i].scoped;
	}
	/* The first kernels that could deny signals denied them between the threads of a process:
	 * a vCPU could not be kicked. */
	if (!(create_ruleset(NULL, 0, CREATE_RULESET_ERRATA) & ERRATUM_SIGNAL_OF_THREAD))
		attr->scoped &= ~(uint64_t)LANDLOCK_SCOPE_SIGNAL;
	return create_ruleset(attr, sizeof(*attr), 0);
}

/* A path that does not exist needs no exception. */
static int allow(int ruleset, const struct landlock_ruleset_attr *attr, const char *path,
		 uint64_t access)
{
	cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
	const struct landlock_path_beneath_attr rule = {
		.allowed_access = access & attr->handled_access_fs,
		.parent_fd = fd,
	};

	if (fd < 0)
		return 0;
	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0)
		       ? -errno
		       : 0;
}

int landlock_enter(enum thread_role role, const char *removes)
{
	struct landlock_ruleset_attr attr;
	cleanup_fd int ruleset = open_ruleset(&attr);
	int rc = ruleset < 0 ? ruleset : 0;

	for (size_t i = 0; i < ARRAY_SIZE(exceptions) && !rc; i++) {
		if (exceptions[i].roles & 1u << role)
			rc = allow(ruleset, &attr, exceptions[i].path, exceptions[i].access);
	}
	if (!rc && removes)
		rc = allow(ruleset, &attr, removes, LANDLOCK_ACCESS_FS_REMOVE_FILE);
	if (!rc && syscall(SYS_landlock_restrict_self, ruleset, 0))
		rc = -errno;
	return rc;
}
