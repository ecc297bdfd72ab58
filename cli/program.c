// SPDX-License-Identifier: Apache-2.0
// A program of this host. See program.h.
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

enum {
	PATIENCE_S = 30,
	INPUT_FD = STDIN_FILENO,
	GIVEN_FD = 3,
	ABOVE = 64,
	SAID_BYTES = 200,
};

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool find_path(struct program *p)
{
	const char *all = getenv("PATH");

	for (const char *at = all ? all : ""; *at;) {
		size_t n = strcspn(at, ":");

		/* A relative one is another with each folder that one stands in. */
		if (*at == '/' &&
		    snprintf(p->path, sizeof(p->path), "%.*s/%s", (int)n, at, p->name) <
			    (int)sizeof(p->path) &&
		    is_program(p->path))
			return true;
		at += n + (at[n] == ':');
	}
	snprintf(p->path, sizeof(p->path), "/usr/libexec/%s", p->name);
	return is_program(p->path);
}

void program_may(struct program *p, const char *path, enum fence_right right)
{
	if (p->n_paths < PROGRAM_PATHS)
		p->paths[p->n_paths++] = (struct fence_path){path, right};
}

static void may_use_system(struct program *p)
{
	static const struct fence_path system[] = {
		{"/usr", FENCE_EXECUTE},
		{"/lib", FENCE_EXECUTE},
		{"/lib64", FENCE_EXECUTE},
		{"/etc/ld.so.cache", FENCE_READ},
		{"/etc/localtime", FENCE_READ},
		{"/dev/null", FENCE_WRITE},
		{"/dev/urandom", FENCE_READ},
		/* Its own, since it is looked up by the process that will be it. */
		{"/proc/self", FENCE_READ},
		{"/proc/sys/fs", FENCE_READ},
	};

	program_may(p, p->path, FENCE_EXECUTE);
	for (size_t i = 0; i < sizeof(system) / sizeof(system[0]); i++)
		program_may(p, system[i].path, system[i].right);
}

static int check_fence(struct program *p)
{
	if (fence_is_there() || !p->fenced)
		return CLI_OK;
	if (!p->strict) {
		p->fenced = false;
		return CLI_OK;
	}
	cli_error("%s '%s': this kernel has no Landlock (5.13, 'landlock' in /sys/kernel/security/"
		  "lsm), so %s cannot be confined; say --sandbox auto, and it is not",
		  p->what, p->of, p->name);
	return CLI_FAILED;
}

int program_find(struct program *p)
{
	int status = check_fence(p);

	if (status != CLI_OK)
		return status;
	if (!find_path(p)) {
		cli_error("%s '%s': %s is not there; type: apt install %s", p->what, p->of, p->name,
			  p->package);
		return CLI_FAILED;
	}
	may_use_system(p);
	return CLI_OK;
}

/* --- to its end --- */

/* Only what may be called between fork and execve where there was one thread. */
static _Noreturn void become(const struct program *p, const char *const *argv, int fd, int input,
			     int said)
{
	fd = fcntl(fd, F_DUPFD, ABOVE);
	input = fcntl(input, F_DUPFD, ABOVE);
	said = fcntl(said, F_DUPFD, ABOVE);
	if (fd < 0 || input < 0 || said < 0 || dup2(input, INPUT_FD) < 0 ||
	    dup2(said, STDOUT_FILENO) < 0 || dup2(said, STDERR_FILENO) < 0 ||
	    dup2(fd, GIVEN_FD) < 0)
		_exit(127);
	close_range(GIVEN_FD + 1, ~0U, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(PATIENCE_S);
	fence_exec(argv, p->fenced ? p->paths : NULL, p->n_paths);
}

/* A file of nobody else's. */
static int make_file(const char *text, size_t n)
{
	int fd = memfd_create("hospes", MFD_CLOEXEC);

	if (fd >= 0 && (write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int explain(const struct program *p, int status, int said)
{
	char text[SAID_BYTES];
	ssize_t n = pread(said, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	for (char *c = text; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = ' ';
	}
	if (WIFSIGNALED(status))
		cli_error("%s '%s': %s was ended by signal %d%s", p->what, p->of, p->name,
			  WTERMSIG(status),
			  WTERMSIG(status) == SIGALRM ? ", since it took more than 30 s" : "");
	else
		cli_error("%s '%s': %s ended with status %d: %s", p->what, p->of, p->name,
			  WEXITSTATUS(status), text);
	return CLI_FAILED;
}

int program_run(const struct program *p, const char *const *argv, int fd, const char *input,
		size_t n)
{
	int in = make_file(input, n), said = make_file("", 0), status = 0, rc = 0;
	pid_t child = -1;

	if (in >= 0 && said >= 0)
		child = fork();
	if (child == 0)
		become(p, argv, fd, in, said);
	if (child < 0) {
		cli_error("%s '%s': cannot start %s: %s", p->what, p->of, p->name, strerror(errno));
		rc = CLI_FAILED;
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (child > 0 && status)
		rc = explain(p, status, said);
	if (in >= 0)
		close(in);
	if (said >= 0)
		close(said);
	return rc;
}
