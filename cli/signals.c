// SPDX-License-Identifier: Apache-2.0
// The signals of a command that stays with a machine.
#include "signals.h"

#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* By which machined asks a machine to power off: systemd(1), "SIGNALS". */
static int power_signal(void)
{
	return SIGRTMIN + 4;
}

/* Whoever starts a command with one of them ignored (nohup, or a shell's script with & behind it)
 * wants it to stay so; a blocked one would be read all the same. */
static void add_unless_ignored(sigset_t *set, int signal)
{
	struct sigaction action;

	if (sigaction(signal, NULL, &action) != 0 || action.sa_handler != SIG_IGN)
		sigaddset(set, signal);
}

static void add_ending(sigset_t *set)
{
	sigaddset(set, SIGTERM);
	sigaddset(set, power_signal());
	add_unless_ignored(set, SIGINT);
	add_unless_ignored(set, SIGHUP);
}

static void add_others(sigset_t *set)
{
	sigaddset(set, SIGWINCH);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGCONT);
}

void signals_keep_ending(void)
{
	sigset_t set;

	sigemptyset(&set);
	add_ending(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void signals_keep_others(void)
{
	sigset_t set;

	sigemptyset(&set);
	add_others(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* A job in the background works on. Its output may go to the terminal; it looks itself
	 * whether it may read. */
	signal(SIGTTOU, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
}

int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	add_others(&set);
	add_ending(&set);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

enum signals_what signals_read(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGWINCH)
		return SIGNALS_NONE;
	if (info.ssi_signo == SIGCONT)
		return SIGNALS_FOREGROUND;
	if (info.ssi_signo == SIGUSR1)
		return SIGNALS_STATUS;
	return info.ssi_signo == (uint32_t)power_signal() ? SIGNALS_POWER : SIGNALS_END;
}
