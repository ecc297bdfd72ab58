// SPDX-License-Identifier: Apache-2.0
// What a daemon may open by path. See fence.h.
#include "fence.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define EXECUTE (READ | LANDLOCK_ACCESS_FS_EXECUTE)
#define WRITE                                                                 \
	(READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE | \
	 LANDLOCK_ACCESS_FS_IOCTL_DEV)
/* Devices that the guest makes in its folder are opened by nobody. */
#define CHANGE                                                                \
	(READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE | \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |     \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |         \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |         \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |       \
	 LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)
/* Of a file; the others are a directory's. */
#define OF_FILE                                                         \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
	 LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV)

static const uint64_t rights[] = {
	[FENCE_READ] = READ,
	[FENCE_EXECUTE] = EXECUTE,
	[FENCE_WRITE] = WRITE,
	[FENCE_CHANGE] = CHANGE,
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

static int version(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
			    LANDLOCK_CREATE_RULESET_VERSION);
}

bool fence_is_there(void)
{
	return version() > 0;
}

static int allow(int ruleset, uint64_t handled, const struct fence_path *path)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = rights[path->right] & handled,
		.parent_fd = open(path->path, O_PATH | O_CLOEXEC),
	};
	struct stat st;
	int rc = 0;

	if (rule.parent_fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	if (fstat(rule.parent_fd, &st) != 0 || !S_ISDIR(st.st_mode))
		rule.allowed_access &= OF_FILE;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		rc = -errno;
	close(rule.parent_fd);
	return rc;
}

int fence_enter(const struct fence_path *paths, unsigned int n, bool may_signal)
{
	struct landlock_ruleset_attr attr = {0};
	int known = version(), ruleset, rc = 0;

	for (int i = 0; i < known && i < (int)(sizeof(denials) / sizeof(denials[0])); i++) {
		attr.handled_access_fs |= denials[i].handled_access_fs;
		attr.handled_access_net |= denials[i].handled_access_net;
		attr.scoped |= denials[i].scoped;
	}
	if (may_signal)
		attr.scoped &= ~(uint64_t)LANDLOCK_SCOPE_SIGNAL;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return -errno;
	for (unsigned int i = 0; i < n && !rc; i++)
		rc = allow(ruleset, attr.handled_access_fs, &paths[i]);
	if (!rc && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
		    syscall(SYS_landlock_restrict_self, ruleset, 0)))
		rc = -errno;
	close(ruleset);
	return rc;
}

_Noreturn void fence_exec(const char *const *argv, const struct fence_path *paths, unsigned int n)
{
	int rc = paths ? fence_enter(paths, n, false) : 0;

	if (rc) {
		dprintf(STDERR_FILENO, "cannot be confined: %s\n", strerror(-rc));
		_exit(127);
	}
	execv(argv[0], (char *const *)argv);
	dprintf(STDERR_FILENO, "cannot be started: %s\n", strerror(errno));
	_exit(127);
}
