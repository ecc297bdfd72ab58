// SPDX-License-Identifier: Apache-2.0
// Errors and the log of the command.
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static const char *const level_names[] = {"error", "warning", "info", "debug"};

void cli_error(const char *fmt, ...)
{
	va_list ap;

	fputs("hospes: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
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
	*output = (struct output){.to = stderr, .json = json};
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

static void log_json(FILE *to, const char *stamp, const char *level, const char *component,
		     const char *text)
{
	json_t *line = json_pack("{s:s, s:s, s:s, s:s}", "time", stamp, "level", level, "component",
				 component, "text", text);
	char *dump = line ? json_dumps(line, JSON_COMPACT) : NULL;

	if (dump)
		fprintf(to, "%s\n", dump);
	free(dump);
	json_decref(line);
}

void output_log(void *opaque, enum hospes_log_level level, const char *component, const char *text)
{
	const struct output *output = opaque;
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
