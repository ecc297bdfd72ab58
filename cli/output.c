// SPDX-License-Identifier: Apache-2.0
// Errors and the log of the command.
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static const char *const level_names[] = {"error", "warning", "info", "debug"};

enum {
	PATIENCE_MS = 1000, /* a reader that is only slow takes something in this time */
	AT_ONCE = PIPE_BUF, /* this much fits where anything does */
};

/* Of cli_error() and cli_show(). */
static atomic_uint left_out;

/* A vCPU's thread that waits here and is wanted elsewhere (EINTR) goes there. */
static bool is_taken(FILE *to, int wait_ms)
{
	struct pollfd fd = {.fd = fileno(to), .events = POLLOUT};

	return poll(&fd, 1, wait_ms) == 1;
}

/* Room for a line: if not, it is counted. */
static bool can_write(FILE *to, atomic_uint *lost)
{
	if (is_taken(to, atomic_load(lost) ? 0 : PATIENCE_MS))
		return true;
	atomic_fetch_add(lost, 1);
	return false;
}

static void say_left_out(unsigned int lines)
{
	if (lines)
		fprintf(stderr, "hospes: %u messages are left out here: nobody took them\n", lines);
}

void cli_error(const char *fmt, ...)
{
	va_list ap;

	if (!can_write(stderr, &left_out))
		return;
	say_left_out(atomic_exchange(&left_out, 0));
	fputs("hospes: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void cli_show(const char *text)
{
	for (size_t left = strlen(text), n; left; left -= n, text += n) {
		n = left < AT_ONCE ? left : AT_ONCE;
		if (!can_write(stderr, &left_out))
			return;
		say_left_out(atomic_exchange(&left_out, 0));
		fwrite(text, 1, n, stderr);
	}
}

/* For this user alone, never by way of a link that somebody else made, and without waiting for a
 * reader of a pipe. */
static FILE *open_log(const char *path)
{
	int fd =
		open(path,
		     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
		     0600);
	int why = EMLINK;
	struct stat st;
	FILE *to;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink <= 1) {
		if (fcntl(fd, F_SETFL, O_APPEND) == 0 && (to = fdopen(fd, "a")))
			return to;
		why = errno;
	}
	close(fd);
	errno = why;
	return NULL;
}

int output_open(struct output *output, const char *path, bool json)
{
	output->to = stderr;
	output->json = json;
	atomic_init(&output->left_out, 0);
	if (!path)
		return CLI_OK;
	output->to = open_log(path);
	if (!output->to) {
		cli_error("--log '%s': %s", path,
			  errno == ELOOP ? "is a symbolic link; give the file that is meant"
			  : errno == EMLINK
				  ? "has other names too (hard links); give a file of its own"
			  : errno == ENXIO ? "is a pipe that nobody reads"
					   : strerror(errno));
		return CLI_FAILED;
	}
	setvbuf(output->to, NULL, _IOLBF, 0);
	return CLI_OK;
}

void output_close(struct output *output)
{
	if (output->to && output->to != stderr)
		fclose(output->to);
	output->to = NULL;
}

/* JSON has no bytes but UTF-8: a file's name may have others, and a long line is cut anywhere. */
static json_t *json_text(const char *text)
{
	json_t *json = json_string(text);
	char *copy = json ? NULL : strdup(text);

	for (char *c = copy; c && *c; c++) {
		if ((unsigned char)*c > 0x7f)
			*c = '?';
	}
	if (copy)
		json = json_string(copy);
	free(copy);
	return json;
}

static void log_json(FILE *to, const char *stamp, const char *level, const char *component,
		     const char *text)
{
	json_t *line = json_pack("{s:s, s:s, s:s, s:o}", "time", stamp, "level", level, "component",
				 component, "text", json_text(text));
	char *dump = line ? json_dumps(line, JSON_COMPACT) : NULL;

	if (dump)
		fprintf(to, "%s\n", dump);
	free(dump);
	json_decref(line);
}

static void write_line(const struct output *output, enum hospes_log_level level,
		       const char *component, const char *text)
{
	struct timespec now;
	char second[40];
	char stamp[64];
	struct tm tm;

	if (!output->json && output->to == stderr) {
		fprintf(stderr, "hospes: %s: %s\n", component, text);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(second, sizeof(second), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(stamp, sizeof(stamp), "%s.%06ldZ", second, now.tv_nsec / 1000);
	if (output->json)
		log_json(output->to, stamp, level_names[level], component, text);
	else
		fprintf(output->to, "%s %s %s: %s\n", stamp, level_names[level], component, text);
}

void output_log(void *opaque, enum hospes_log_level level, const char *component, const char *text)
{
	struct output *output = opaque;
	unsigned int lines;
	char gap[64];

	if (!can_write(output->to, &output->left_out))
		return;
	lines = atomic_exchange(&output->left_out, 0);
	if (lines) {
		snprintf(gap, sizeof(gap), "%u lines are left out here: nobody took them", lines);
		write_line(output, HOSPES_LOG_WARNING, "log", gap);
	}
	write_line(output, level, component, text);
}
