// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME snapshot DIR: the directory is made here, with the rights of whoever asks, under
// another name until all of it is on the disk; the machine writes state and memory into it.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "ctl.h"
#include "output.h"
#include "sums.h"

static const char *const files[] = {"config.json", "state", "memory", "checksums"};

static int failed(const char *path, const char *why)
{
	cli_error("%s: %s", path, why);
	return CLI_FAILED;
}

static void remove_partial(const char *partial, int dir)
{
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(dir, files[i], 0);
	rmdir(partial);
}

static int write_document(int dir, const char *path, const char *body)
{
	json_t *answer = body ? json_loads(body, 0, NULL) : NULL;
	int fd = openat(dir, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
	int status = CLI_OK;

	if (!f || !json_is_object(answer) || json_dumpf(answer, f, JSON_INDENT(2)) != 0 ||
	    fputc('\n', f) == EOF || fflush(f) != 0 || fsync(fileno(f)) != 0)
		status = failed(path, f && !answer ? "the machine's document did not come"
						   : strerror(errno));
	if (f)
		fclose(f);
	json_decref(answer);
	return status;
}

/* The two files of the machine's; its memory is locked as long as it is written. */
static int write_files(const char *what, int dir, const char *path)
{
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, status = CLI_FAILED;
	int fds[] = {openat(dir, "state", flags, 0600), openat(dir, "memory", flags, 0600)};
	const struct question question = {.verb = "POST",
					  .target = "/v1/snapshot",
					  .body = "{\"state\": 0, \"memory\": 1}",
					  .fds = fds,
					  .n_fds = 2};
	char *body = NULL;

	if (fds[0] < 0 || fds[1] < 0 || flock(fds[1], LOCK_EX | LOCK_NB) < 0)
		failed(path, strerror(errno));
	else
		status = ctl_await(what, &question,
				   &(struct awaited){.event = "snapshot", .subject = path}, &body);
	if (status == CLI_OK)
		status = write_document(dir, path, body);
	if (status == CLI_OK && (fsync(fds[0]) < 0 || fsync(fds[1]) < 0))
		status = failed(path, strerror(errno));
	free(body);
	for (size_t i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return status;
}

/* So that the new name is on the disk. */
static int sync_parent(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int status = fd >= 0 && fsync(fd) == 0 ? CLI_OK : failed(path, strerror(errno));

	if (fd >= 0)
		close(fd);
	free(copy);
	return status;
}

static int make(const char *what, const char *path, const char *partial)
{
	int dir, status;

	if (access(path, F_OK) == 0)
		return failed(path, "is there already; give a directory that is to be made");
	if (mkdir(partial, 0700) < 0) {
		cli_error("%s: cannot be made: %s%s", partial, strerror(errno),
			  errno == EEXIST ? "; remove what an interrupted snapshot left" : "");
		return CLI_FAILED;
	}
	dir = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		rmdir(partial);
		return failed(partial, strerror(errno));
	}
	status = write_files(what, dir, path);
	if (status == CLI_OK)
		status = sums_write(dir, partial);
	if (status == CLI_OK && fsync(dir) < 0)
		status = failed(path, strerror(errno));
	if (status == CLI_OK && rename(partial, path) < 0)
		status = failed(path, strerror(errno));
	if (status == CLI_OK)
		status = sync_parent(path);
	else
		remove_partial(partial, dir);
	close(dir);
	return status;
}

static int say(const char *what, const char *target)
{
	const struct question question = {.verb = "POST", .target = target};
	struct reply reply;
	int status = ctl_ask(what, &question, NULL, &reply);

	free(reply.body);
	return status;
}

int ctl_snapshot(const char *what, const char *path, enum ctl_then then)
{
	char *partial, *clean = strdup(path);
	int status;

	/* A slash behind it would put the partial one into it. */
	for (size_t n = clean ? strlen(clean) : 0; n > 1 && clean[n - 1] == '/'; n--)
		clean[n - 1] = '\0';
	if (!clean || asprintf(&partial, "%s.partial", clean) < 0) {
		free(clean);
		return failed(path, "no memory");
	}
	status = then == CTL_RESUME ? CLI_OK : say(what, "/v1/pause");
	if (status == CLI_OK)
		status = make(what, clean, partial);
	if (then == CTL_STOP && status == CLI_OK)
		status = say(what, "/v1/stop");
	else if (then != CTL_RESUME && status != CLI_OK)
		say(what, "/v1/resume");
	free(partial);
	free(clean);
	return status;
}
