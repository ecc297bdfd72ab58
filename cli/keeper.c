// SPDX-License-Identifier: Apache-2.0
// Keepers of daemons. See keeper.h.
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

enum {
	LINE_BYTES = 120,    /* of the daemon's, at most; the rest of a line is left out */
	SAID_BYTES = 190,    /* of a packet */
	HEAR_MS = 1000,      /* for the device to take the last word */
	DRAIN_BYTES = 65536, /* of what the daemon wrote before its end */
	ABOVE = 64,          /* descriptors are moved there, then to their places */
	LIFELINE_FD = 3,     /* the keeper's */
	ENDED_FD,
	STDERR_FD,
	CHILD_FD,
	FIRST_FREE_FD,
};

struct keeper {
	const char *name; /* of the daemon */
	pid_t child;
	int end_ms;
	size_t n_line; /* may be more than there is room for */
	char line[LINE_BYTES + 1];
	char last[LINE_BYTES + 1]; /* the last one that was whole */
};

/* --- the daemon --- */

/* Only what may be called between fork and execve where there was one thread. */
static _Noreturn void become(const struct keeper_job *job, int error_fd, pid_t keeper)
{
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	sigemptyset(&none);
	for (int signal_no = 1; signal_no < NSIG; signal_no++)
		signal(signal_no, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper)
		_exit(127);
	/* The highest first: none of these is in the way of the next. */
	error_fd = fcntl(error_fd, F_DUPFD, ABOVE);
	if (null < 0 || error_fd < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || dup2(error_fd, STDERR_FILENO) < 0)
		_exit(127);
	if (job->listen_fd == KEEPER_LISTEN_FD)
		fcntl(KEEPER_LISTEN_FD, F_SETFD, 0);
	else if (dup2(job->listen_fd, KEEPER_LISTEN_FD) < 0)
		_exit(127);
	close_range(KEEPER_LISTEN_FD + 1, ~0U, 0);
	if (chdir("/") != 0)
		_exit(127);
	fence_exec(job->argv, job->paths, job->n_paths);
}

/* --- what it says --- */

/* A device that takes nothing loses a line; the last one has time. */
static void say(const char *text, int wait_ms)
{
	struct pollfd to = {.fd = LIFELINE_FD, .events = POLLOUT};

	if (wait_ms)
		poll(&to, 1, wait_ms);
	(void)!send(LIFELINE_FD, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void end_line(struct keeper *k)
{
	char text[SAID_BYTES];

	if (!k->n_line)
		return;
	k->line[k->n_line < LINE_BYTES ? k->n_line : LINE_BYTES] = '\0';
	k->n_line = 0;
	memcpy(k->last, k->line, sizeof(k->last));
	snprintf(text, sizeof(text), "%s: %s", k->name, k->line);
	say(text, 0);
}

/* What there is, up to a buffer: false at its end. */
static bool hear(struct keeper *k, size_t *bytes)
{
	char buf[4096];
	ssize_t n = read(STDERR_FD, buf, sizeof(buf));

	*bytes = n > 0 ? (size_t)n : 0;
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n') {
			end_line(k);
			continue;
		}
		if (k->n_line < LINE_BYTES)
			k->line[k->n_line] = buf[i] >= ' ' && buf[i] <= '~' ? buf[i] : '?';
		k->n_line++;
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void say_end(struct keeper *k)
{
	char how[64], text[SAID_BYTES + LINE_BYTES];
	int status = 0;
	size_t bytes, all = 0;

	while (waitpid(k->child, &status, 0) < 0 && errno == EINTR)
		;
	do {
		hear(k, &bytes);
		all += bytes;
	} while (bytes && all < DRAIN_BYTES);
	end_line(k);
	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d (%.30s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, sizeof(how), "ended with status %d", WEXITSTATUS(status));
	snprintf(text, sizeof(text), "%.40s %s%s%s", k->name, how,
		 k->last[0] ? "; it said last: " : "", k->last);
	text[SAID_BYTES] = '\0';
	say(text, HEAR_MS);
}

/* --- the keeper --- */

/* Each at its place, and nothing else. */
static bool place(int lifeline, int ended, int error_fd, int child_fd)
{
	int from[] = {lifeline, ended, error_fd, child_fd};
	int null = open("/dev/null", O_RDWR);

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (dup2(null, fd) < 0)
			return false;
	}
	for (int i = 0; i < 4; i++) {
		from[i] = fcntl(from[i], F_DUPFD, ABOVE);
		if (from[i] < 0)
			return false;
	}
	for (int i = 0; i < 4; i++) {
		if (dup2(from[i], LIFELINE_FD + i) < 0)
			return false;
	}
	close_range(FIRST_FREE_FD, ~0U, 0);
	return fcntl(STDERR_FD, F_SETFL, O_NONBLOCK) == 0 && chdir("/") == 0;
}

/* Until the daemon has ended. */
static void attend(struct keeper *k)
{
	struct pollfd fds[] = {{.fd = LIFELINE_FD, .events = POLLIN},
			       {.fd = STDERR_FD, .events = POLLIN},
			       {.fd = CHILD_FD, .events = POLLIN}};
	long long kill_ms = 0;
	size_t bytes;

	for (;;) {
		long long left_ms = kill_ms - now_ms();

		if (kill_ms && left_ms <= 0) {
			kill(k->child, SIGKILL);
			kill_ms = 0;
		}
		if (poll(fds, 3, kill_ms ? (int)left_ms : -1) < 0 && errno != EINTR)
			return;
		if (fds[2].revents)
			return;
		if (fds[1].revents && !hear(k, &bytes))
			fds[1].fd = -1;
		/* Nobody speaks to a keeper: whatever comes is the end. */
		if (fds[0].revents) {
			kill(k->child, SIGTERM);
			kill_ms = now_ms() + k->end_ms;
			fds[0].fd = -1;
		}
	}
}

static _Noreturn void keep(const struct keeper_job *job, int lifeline, int ended)
{
	struct keeper k = {.name = job->argv[0], .end_ms = job->end_ms};
	const char *slash = strrchr(k.name, '/');
	pid_t self = getpid();
	int error[2], child_fd;

	if (slash)
		k.name = slash + 1;
	prctl(PR_SET_NAME, "hospes-keeper");
	for (int signal_no = 1; signal_no < NSIG; signal_no++)
		signal(signal_no, SIG_DFL);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (pipe2(error, O_CLOEXEC) != 0)
		_exit(1);
	k.child = fork();
	if (k.child == 0)
		become(job, error[1], self);
	child_fd = k.child < 0 ? -1 : (int)syscall(SYS_pidfd_open, k.child, 0);
	if (child_fd < 0 || !place(lifeline, ended, error[0], child_fd)) {
		if (k.child > 0)
			kill(k.child, SIGKILL);
		_exit(1);
	}
	/* Where it cannot be fenced in, it opens nothing all the same. */
	fence_enter(NULL, 0, true);
	attend(&k);
	say_end(&k);
	_exit(0);
}

int keeper_start(struct kept *ret, const struct keeper_job *job)
{
	int life[2], ended[2], rc = 0;
	pid_t between;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life) != 0)
		return -errno;
	if (pipe2(ended, O_CLOEXEC) != 0) {
		rc = -errno;
		close(life[0]);
		close(life[1]);
		return rc;
	}
	between = fork();
	if (between == 0) {
		setsid();
		/* So that it is not this process's to wait for. */
		if (fork() == 0)
			keep(job, life[1], ended[1]);
		_exit(0);
	}
	if (between < 0)
		rc = -errno;
	while (between > 0 && waitpid(between, NULL, 0) < 0 && errno == EINTR)
		;
	close(life[1]);
	close(ended[1]);
	ret->lifeline = life[0];
	ret->ended = ended[0];
	if (rc) {
		close(life[0]);
		close(ended[0]);
	}
	return rc;
}

void keeper_last_word(int lifeline, int ms, char *text, size_t bytes)
{
	long long end_ms = now_ms() + ms;
	struct pollfd from = {.fd = lifeline, .events = POLLIN};
	ssize_t n;

	text[0] = '\0';
	for (;;) {
		long long left_ms = end_ms - now_ms();
		char said[SAID_BYTES + 1];

		if (left_ms < 0 || poll(&from, 1, (int)left_ms) <= 0)
			return;
		n = recv(lifeline, said, sizeof(said) - 1, MSG_DONTWAIT);
		if (n <= 0)
			return;
		said[n] = '\0';
		snprintf(text, bytes, "%s", said);
	}
}
