// SPDX-License-Identifier: Apache-2.0
// SIGSYS: one line, and the end. See violation.h.
#include "violation.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"

enum { LINE_BYTES = 160 };

/* Nothing but what a signal handler may call. */
static void append(char line[LINE_BYTES], const char *text)
{
	size_t n = strlen(line), bytes = strlen(text);

	if (n + bytes < LINE_BYTES)
		memcpy(line + n, text, bytes + 1);
}

static void append_number(char line[LINE_BYTES], unsigned long value, unsigned int base)
{
	char text[24] = "";
	size_t at = sizeof(text) - 1;

	do {
		text[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	append(line, text + at);
}

static void on_violation(int signal, siginfo_t *info, void *context)
{
	char line[LINE_BYTES] = "hospes: ", name[16] = "";
	ssize_t written;

	(void)signal;
	prctl(PR_GET_NAME, name);
	append(line, name);
	append(line, ": system call ");
	append_number(line, (unsigned long)info->si_syscall, 10);
	if (info->si_syscall == SYS_ioctl) {
		append(line, ", request 0x");
		append_number(line, violation_request(context), 16);
	}
	append(line, " is not this thread's: the machine ends (--sandbox)\n");
	written = write(STDERR_FILENO, line, strlen(line));
	(void)written; /* there is nowhere else to say it */
	_exit(CLI_FAILED);
}

void violation_explain(void)
{
	const struct sigaction action = {
		.sa_sigaction = on_violation,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGSYS, &action, NULL);
}
