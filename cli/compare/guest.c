// SPDX-License-Identifier: Apache-2.0
// hospes iommu compare: one guest, and what is asked of it.
#include "compare/guest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "compare/script.h"
#include "hospes/hospes.h"

enum {
	LINE_BYTES = 16384, /* iperf3's report is one line */
	TAIL_BYTES = 600,   /* of the console, for an error */
	SCRIPT_DISK_BYTES = 16384,
};
static_assert(sizeof(compare_script) + 512 < SCRIPT_DISK_BYTES, "the script fits its disk");

struct compare_guest {
	const struct compare_guest_config *config;
	struct hospes_vm *vm;
	const char *id; /* of the device in the document */
	json_t *document;
	bool behind;
	int script;
	int to_guest[2], from_guest[2]; /* pipes: read, write */
	char line[LINE_BYTES];          /* the one that is being read */
	size_t n_line;
	char tail[TAIL_BYTES]; /* of all it said */
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- the document --- */

static const char *text_at(const json_t *object, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : otherwise;
}

static void set_cmdline(json_t *document, const struct compare_row *row)
{
	json_t *kernel = json_object_get(document, "kernel");
	size_t disks = json_array_size(json_object_get(document, "disks"));
	bool root = disks > 1; /* ours is the last */
	const char *given = text_at(kernel, "cmdline", root ? "root=/dev/vda ro" : "");

	char script[] = "/dev/vda";

	script[sizeof(script) - 2] = (char)('a' + (int)disks - 1);
	/* A kernel mounts /dev itself only where there is a root disk. */
	json_object_set_new(
		kernel, "cmdline",
		json_sprintf(
			"%s console=ttyS0 loglevel=4 %s %s=/bin/sh -- -c \"[ -b %s ] || mount -t "
			"devtmpfs dev /dev; exec /bin/sh %s\"",
			given,
			!row->guest[0]                      ? ""
			: strcmp(row->guest, "strict") == 0 ? "iommu.strict=1"
							    : "iommu.strict=0",
			root ? "init" : "rdinit", script, script));
}

/* The list at key, made where there is none; borrowed. */
static json_t *list_at(json_t *document, const char *key)
{
	if (!json_is_array(json_object_get(document, key)))
		json_object_set_new(document, key, json_array());
	return json_object_get(document, key);
}

static void set_device(json_t *document, const struct compare_row *row)
{
	json_t *device = json_array_get(json_object_get(document, "passthrough"), 0);

	json_object_set_new(device, "strategy", json_string(row->strategy));
	if (!row->guest[0]) {
		json_object_set_new(document, "viommu", json_pack("{s:b}", "enabled", 0));
		return;
	}
	if (!json_is_object(json_object_get(document, "viommu")))
		json_object_set_new(document, "viommu", json_object());
	json_object_set_new(json_object_get(document, "viommu"), "enabled", json_true());
	if (row->transport[0])
		json_object_set_new(json_object_get(document, "viommu"), "transport",
				    json_string(row->transport));
	json_object_set_new(device, "viommu", json_true());
}

json_t *compare_guest_document(const struct compare_guest_config *config,
			       const struct compare_row *row, int in, int out, int script)
{
	json_t *document = json_deep_copy(config->document);
	json_t *console = json_pack("{s:s}", "type", "serial");
	json_t *disk = json_pack("{s:b}", "readonly", 1);

	if (in >= 0) {
		json_object_set_new(console, "in", json_integer(in));
		json_object_set_new(console, "out", json_integer(out));
	}
	json_object_set_new(disk, "fd", json_integer(script));
	json_array_append_new(list_at(document, "disks"), disk);
	json_object_set_new(document, "consoles", json_pack("[o]", console));
	if (!json_is_object(json_object_get(document, "kernel")))
		json_object_set_new(document, "kernel", json_object());
	set_cmdline(document, row);
	set_device(document, row);
	return document;
}

/* A disk of the guest's script, as a descriptor; -1. */
static int make_script(const struct compare_guest_config *config)
{
	char text[SCRIPT_DISK_BYTES];
	int n = snprintf(text, sizeof(text), "target='%s' address='%s' peer='%s'\n%s",
			 config->target ? config->target : "",
			 config->address ? config->address : "", config->peer ? config->peer : "",
			 compare_script);
	int fd = memfd_create("hospes-compare", MFD_CLOEXEC);

	if (fd < 0 || n < 0 || (size_t)n >= sizeof(text))
		return fd;
	/* The shell reads on past the script: a comment. */
	memset(text + n, '#', sizeof(text) - (size_t)n);
	if (write(fd, text, sizeof(text)) != (ssize_t)sizeof(text)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* --- what it says --- */

static void remember(struct compare_guest *guest, const char *text, size_t bytes)
{
	size_t had = strlen(guest->tail), room = sizeof(guest->tail) - 1, drop;

	if (bytes > room) {
		text += bytes - room;
		bytes = room;
	}
	drop = had + bytes > room ? had + bytes - room : 0;
	memmove(guest->tail, guest->tail + drop, had - drop);
	memcpy(guest->tail + had - drop, text, bytes);
	guest->tail[had - drop + bytes] = '\0';
}

/* One character: true when it ends a line, which is then in guest->line. */
static bool take(struct compare_guest *guest, char c)
{
	if (c != '\n') {
		if (c != '\r' && c && guest->n_line < sizeof(guest->line) - 1)
			guest->line[guest->n_line++] = c;
		return false;
	}
	guest->line[guest->n_line] = '\0';
	guest->n_line = 0;
	return true;
}

/* The next "@hospes WORD…", without the first: 0, -ETIMEDOUT, -EPIPE when the machine has ended.
 * Read byte by byte, so that what follows the line stays in the pipe. */
static int next_word(struct compare_guest *guest, double deadline_s, const char **ret)
{
	static const char mark[] = "@hospes ";
	struct pollfd fd = {.fd = guest->from_guest[0], .events = POLLIN};
	const char *found;
	char c;

	for (;;) {
		int ready = poll(&fd, 1, 200);

		if (ready <= 0 && hospes_vm_state(guest->vm) == HOSPES_STOPPED)
			return -EPIPE;
		if (ready <= 0 && now_s() > deadline_s)
			return -ETIMEDOUT;
		if (ready <= 0 || read(fd.fd, &c, 1) != 1)
			continue;
		remember(guest, &c, 1);
		if (!take(guest, c))
			continue;
		found = strstr(guest->line, mark);
		/* What is typed comes back as an echo, without the mark. */
		if (!found)
			continue;
		*ret = compare_clean(guest->line + (found - guest->line)) + sizeof(mark) - 1;
		return 0;
	}
}

static int give_up(struct compare_guest *guest, int rc, const char *waited_for, char *why,
		   size_t bytes)
{
	const char *what = rc == -EPIPE ? "the guest ended by itself" : "the guest said nothing";

	for (char *p = guest->tail; *p; p++)
		*p = *p == '\n' || *p == '\r' ? ' ' : *p;
	if (rc == -ETIMEDOUT && strcmp(waited_for, "ready") == 0)
		snprintf(why, bytes,
			 "%s within %u s of its start; it needs /bin/sh and fio (or iperf3) on its "
			 "root disk, or more time (--timeout); it said last: %.300s",
			 what, guest->config->timeout_s, compare_clean(guest->tail));
	else
		snprintf(why, bytes, "%s, waited for '%s'; it said last: %.300s", what, waited_for,
			 compare_clean(guest->tail));
	return rc;
}

/* Wait for the line that begins with a word: what follows it is in *rest. */
static int expect(struct compare_guest *guest, const char *word, double seconds, const char **rest,
		  char *why, size_t bytes)
{
	size_t n = strlen(word);
	const char *said;
	int rc = next_word(guest, now_s() + seconds, &said);

	if (rc)
		return give_up(guest, rc, word, why, bytes);
	if (strncmp(said, word, n) == 0 && (said[n] == ' ' || !said[n])) {
		*rest = said[n] ? said + n + 1 : said + n;
		return 0;
	}
	if (strncmp(said, "failed ", 7) == 0) {
		snprintf(why, bytes, "the guest: %.200s", said + 7);
		return -EIO;
	}
	snprintf(why, bytes, "the guest said '%.100s' where '%s' was expected", said, word);
	return -EAGAIN;
}

static int tell(const struct compare_guest *guest, const char *line)
{
	size_t n = strlen(line);

	return write(guest->to_guest[1], line, n) == (ssize_t)n ? 0 : -EIO;
}

/* --- counters --- */

static double seconds_of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Time that vCPUs were in the guest, of this process: /proc/self/stat, field 43
 * (proc_pid_stat(5)). */
static double guest_time_s(void)
{
	char text[1024], *at;
	FILE *f = fopen("/proc/self/stat", "re");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')'); /* the end of field 2 */
	for (unsigned int field = 2; at && field < 43; field++)
		at = strchr(at + 1, ' ');
	return at ? (double)strtoull(at, NULL, 10) / (double)sysconf(_SC_CLK_TCK) : (double)NAN;
}

static int look(struct compare_guest *guest, struct compare_snapshot *ret, char *why, size_t bytes)
{
	struct hospes_error error;
	struct rusage usage;
	json_t *status;
	char *text;
	int rc = hospes_vm_status(guest->vm, &text, &error);

	if (rc < 0) {
		snprintf(why, bytes, "%.200s", error.text);
		return rc;
	}
	status = json_loads(text, 0, NULL);
	hospes_free(text);
	rc = compare_parse_status(status, guest->id, guest->behind, ret);
	json_decref(status);
	if (rc)
		snprintf(why, bytes,
			 guest->behind
				 ? "the guest does not use its IOMMU for the device: its kernel "
				   "needs CONFIG_VIRTIO_IOMMU, and no iommu.passthrough=1"
				 : "the machine's status has no address space of %s",
			 guest->id);
	getrusage(RUSAGE_SELF, &usage);
	ret->guest_s = guest_time_s();
	ret->user_s = seconds_of(usage.ru_utime);
	ret->kernel_s = seconds_of(usage.ru_stime);
	return rc;
}

/* --- its life --- */

static void name_device(struct compare_guest *guest)
{
	json_t *device = json_array_get(json_object_get(guest->document, "passthrough"), 0);

	if (!json_object_get(device, "id"))
		json_object_set_new(device, "id", json_string("compared"));
	guest->id = text_at(device, "id", "");
}

static int boot(struct compare_guest *guest, char *why, size_t bytes)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.log = output_log,
		.log_opaque = guest->config->output,
		.log_level = HOSPES_LOG_ERROR,
	};
	char *text = json_dumps(guest->document, JSON_COMPACT);
	struct hospes_error error = {.text = "no memory"};
	int rc =
		text ? hospes_vm_create(&guest->vm, text, strlen(text), &options, &error) : -ENOMEM;

	free(text);
	if (!rc)
		rc = hospes_vm_start(guest->vm, &error);
	if (rc)
		snprintf(why, bytes, "%s", error.text);
	return rc;
}

/* "TARGET KERNEL TOOL…" */
static void introduce(struct compare *c, const char *said)
{
	if (!c->guest[0])
		snprintf(c->guest, sizeof(c->guest), "%.90s", said);
}

int compare_guest_start(struct compare_guest **ret, const struct compare_guest_config *config,
			const struct compare_row *row, struct compare *c, char *why, size_t bytes)
{
	struct compare_guest *guest = calloc(1, sizeof(*guest));
	const char *rest;
	int rc = -ENOMEM;

	if (!guest)
		goto fail;
	guest->config = config;
	guest->behind = row->guest[0];
	guest->to_guest[0] = guest->to_guest[1] = guest->from_guest[0] = guest->from_guest[1] = -1;
	guest->script = make_script(config);
	if (guest->script < 0 || pipe2(guest->to_guest, O_CLOEXEC) ||
	    pipe2(guest->from_guest, O_CLOEXEC))
		goto fail;
	guest->document = compare_guest_document(config, row, guest->to_guest[0],
						 guest->from_guest[1], guest->script);
	name_device(guest);
	rc = boot(guest, why, bytes);
	if (!rc)
		rc = expect(guest, "ready", config->timeout_s, &rest, why, bytes);
	if (!rc) {
		introduce(c, rest);
		*ret = guest;
		return 0;
	}
	compare_guest_end(guest);
	return rc;
fail:
	snprintf(why, bytes, "cannot prepare a guest: %s", strerror(errno));
	compare_guest_end(guest);
	return rc;
}

static int parse(const struct compare_case *at, const char *line, double seconds,
		 struct compare_answer *ret)
{
	switch (at->kind) {
	case COMPARE_BLOCK:
		return compare_parse_fio(line, at->bytes, ret);
	case COMPARE_STREAM:
		return compare_parse_iperf(line, at->bytes, ret);
	case COMPARE_RESPONSE:
		return compare_parse_ping(line, seconds, ret);
	}
	return -EINVAL;
}

int compare_guest_run(struct compare_guest *guest, const struct compare_case *at,
		      unsigned int seconds, double figures[COMPARE_FIGURES], char *why,
		      size_t bytes)
{
	double patience = guest->config->timeout_s + 4.0 * seconds;
	struct compare_snapshot from, to;
	struct compare_answer answer;
	const char *rest;
	char command[96];
	int rc;

	snprintf(command, sizeof(command), "%s %llu %u %u\n", compare_kind_name(at->kind),
		 (unsigned long long)at->bytes, at->depth, seconds);
	rc = tell(guest, command);
	if (!rc)
		rc = expect(guest, "begin", patience, &rest, why, bytes);
	if (!rc)
		rc = look(guest, &from, why, bytes);
	if (!rc)
		rc = tell(guest, "go\n");
	if (!rc)
		rc = expect(guest, "end", patience, &rest, why, bytes);
	if (!rc)
		rc = look(guest, &to, why, bytes);
	if (!rc)
		rc = tell(guest, "go\n");
	if (!rc)
		rc = expect(guest, "result", patience, &rest, why, bytes);
	if (rc)
		return rc;
	rc = parse(at, rest, to.time_s - from.time_s, &answer);
	if (rc) {
		snprintf(why, bytes, "the guest's answer is not what was expected: '%.120s'", rest);
		return -EAGAIN;
	}
	compare_figures_of(&from, &to, &answer, at->bytes, guest->behind, figures);
	return 0;
}

void compare_guest_end(struct compare_guest *guest)
{
	struct hospes_error error;
	int *fds;

	if (!guest)
		return;
	if (guest->vm && hospes_vm_state(guest->vm) != HOSPES_STOPPED)
		hospes_vm_stop(guest->vm, &error);
	hospes_vm_destroy(guest->vm);
	fds = (int[]){guest->script, guest->to_guest[0], guest->to_guest[1], guest->from_guest[0],
		      guest->from_guest[1]};
	for (unsigned int i = 0; i < 5; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	json_decref(guest->document);
	free(guest);
}
