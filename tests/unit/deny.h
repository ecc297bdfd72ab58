/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Make a system call fail, for tests of constructors: a seccomp filter that returns an errno. For
 * the rest of the process, so in a test of its own (each runs in its own process) or in a forked
 * child.
 */
#ifndef TESTS_UNIT_DENY_H
#define TESTS_UNIT_DENY_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* System call nr fails with error from now on; if request is not 0, only when that is its second
 * argument (an ioctl). 0, or -1 where seccomp cannot be used. */
static inline int deny(long nr, uint32_t request, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, request, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JA, request ? 1 : 0, 0, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
		return -1;
	return 0;
}

/* Open descriptors of this process: equal before and after a constructor that failed. */
static inline int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += !syscall(SYS_fcntl, fd, 1 /* F_GETFD */) ||
		     syscall(SYS_fcntl, fd, 1) == 1 /* FD_CLOEXEC */;
	return n;
}

/* n more descriptors can be had, the next fails with EMFILE; -1: as many as before. So each of the
 * descriptors that a constructor asks for can be made the one it does not get. */
static inline void allow_fds(int n)
{
	struct rlimit limit;
	int fd = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (n < 0) {
		limit.rlim_cur = limit.rlim_max;
	} else {
		for (;; fd++)
			if (syscall(SYS_fcntl, fd, 1 /* F_GETFD */) < 0 && n-- == 0)
				break;
		limit.rlim_cur = (rlim_t)fd;
	}
	setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
