// SPDX-License-Identifier: Apache-2.0
// What is said of a system call that the sandbox stops.
#include <criterion/criterion.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "violation.h"

/* In a process that may not do `number`: what it says to standard error. */
static const char *said(long number, unsigned long argument, int *status)
{
	static char text[256];
	struct sock_filter stop[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {sizeof(stop) / sizeof(stop[0]), stop};
	int ends[2];
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		prctl(PR_SET_NAME, "hospes-io3");
		violation_explain();
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
		syscall(number, -1, argument);
		_exit(0);
	}
	close(ends[1]);
	n = read(ends[0], text, sizeof(text) - 1);
	close(ends[0]);
	text[n > 0 ? n : 0] = '\0';
	cr_assert_eq(waitpid(pid, status, 0), pid);
	return text;
}

Test(violation, names_thread_and_call_and_ends_the_command)
{
	int status;

	cr_expect_str_eq(said(SYS_swapoff, 0, &status),
			 "hospes: hospes-io3: system call 168 is not this thread's: the machine "
			 "ends (--sandbox)\n");
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == CLI_FAILED);
}

Test(violation, names_the_request_of_an_ioctl)
{
	int status;

	cr_expect_str_eq(said(SYS_ioctl, TIOCSTI, &status),
			 "hospes: hospes-io3: system call 16, request 0x5412 is not this thread's: "
			 "the machine ends (--sandbox)\n");
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == CLI_FAILED);
}
