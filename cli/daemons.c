// SPDX-License-Identifier: Apache-2.0
// Daemons that the command starts. See daemons.h.
#include "daemons.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "clock.h"
#include "fence.h"
#include "keeper.h"
#include "output.h"
#include "program.h"
#include "qcow2.h"

enum {
	ANSWER_MS = 30000, /* for a daemon to be there */
	END_MS = 20000,    /* for it to end: the tables of an image are written */
	WORD_MS = 3000,    /* for its keeper to say why it is not */
	WAIT_MS = 25000,   /* more than a keeper gives it */
	TAG_BYTES = 36,
};

/* One that is to be started. */
struct start {
	struct program program;
	const char *argv[12];
};

static const char *label(const json_t *item)
{
	static const char *const keys[] = {"id", "tag", "path"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *text = text_of(item, keys[i], NULL);

		if (text)
			return text;
	}
	return "";
}

/* --- the connection --- */

static int failed(const struct start *s, const char *what, int why)
{
	cli_error("%s '%s': %s: %s: %s", s->program.what, s->program.of, s->program.name, what,
		  strerror(why));
	return CLI_FAILED;
}

/* In a folder of our own, which is removed before anybody could find it. */
static int connect_through(const char *folder, int listen_fd, int fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct sockaddr *at = (const struct sockaddr *)&address;
	int rc = 0;

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder) >=
	    (int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	if (bind(listen_fd, at, sizeof(address)) != 0 || listen(listen_fd, 1) != 0 ||
	    connect(fd, at, sizeof(address)) != 0)
		rc = -errno;
	unlink(address.sun_path);
	return rc;
}

static int make_connection(const struct start *s, int *listen_fd, int *fd)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char folder[PATH_MAX];
	int rc;

	snprintf(folder, sizeof(folder), "%.4000s/hospes-XXXXXX",
		 runtime && *runtime == '/' ? runtime : "/tmp");
	if (!mkdtemp(folder))
		return failed(s, folder, errno);
	*listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = *listen_fd < 0 || *fd < 0 ? -errno : connect_through(folder, *listen_fd, *fd);
	rmdir(folder);
	return rc ? failed(s, "its socket", -rc) : CLI_OK;
}

/* The first message of the protocol, which may be said again: VHOST_USER_GET_FEATURES. */
static bool ask(int fd)
{
	const uint32_t question[] = {1, 1 /* version */, 0};

	return send(fd, question, sizeof(question), MSG_NOSIGNAL) == sizeof(question);
}

/* All of the answer, so that none of it is left for the machine. */
static bool take_answer(int fd, size_t *n)
{
	uint8_t answer[20];
	ssize_t got = recv(fd, answer, sizeof(answer) - *n, MSG_DONTWAIT);

	if (got > 0)
		*n += (size_t)got;
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

/* It is there when it answers; if it ends before, its keeper says how. */
static int await_answer(const struct start *s, int fd, const struct kept *kept)
{
	struct pollfd fds[] = {{.fd = fd, .events = POLLIN},
			       {.fd = kept->lifeline, .events = POLLRDHUP}};
	long long end_ms = now_ms() + ANSWER_MS, left_ms;
	bool there = ask(fd);
	char word[256];
	size_t n = 0;

	while (there && n < 20) {
		left_ms = end_ms - now_ms();
		if (left_ms <= 0 || (poll(fds, 2, (int)left_ms) < 0 && errno != EINTR)) {
			cli_error("%s '%s': %s does not answer within %d s", s->program.what,
				  s->program.of, s->program.name, ANSWER_MS / 1000);
			return CLI_FAILED;
		}
		if (fds[0].revents)
			there = take_answer(fd, &n);
		else if (fds[1].revents)
			there = false;
	}
	if (there)
		return CLI_OK;
	keeper_last_word(kept->lifeline, WORD_MS, word, sizeof(word));
	cli_error("%s '%s': %s%s", s->program.what, s->program.of,
		  *word ? word : "its daemon is gone, and nobody says why",
		  strstr(word, "Is another process")
			  ? " Stop the other machine, or give readonly=on for both"
			  : "");
	return CLI_FAILED;
}

static int start_child(struct daemons *daemons, struct start *s, json_t *item)
{
	struct keeper_job job = {
		.argv = s->argv,
		.listen_fd = -1,
		.paths = s->program.fenced ? s->program.paths : NULL,
		.n_paths = s->program.n_paths,
		.end_ms = END_MS,
	};
	struct kept kept = {-1, -1};
	int fd = -1, rc, status;

	if (daemons->n == DAEMONS_MAX)
		return failed(s, "too many daemons", E2BIG);
	status = make_connection(s, &job.listen_fd, &fd);
	if (status == CLI_OK) {
		rc = keeper_start(&kept, &job);
		if (rc)
			status = failed(s, "cannot be started", -rc);
	}
	/* Not ours any more: else nobody would notice that the daemon is gone. */
	if (job.listen_fd >= 0)
		close(job.listen_fd);
	if (fd >= 0 && kept.lifeline < 0)
		close(fd);
	if (status != CLI_OK)
		return status;
	daemons->child[daemons->n++] = (struct daemons_child){fd, kept.lifeline, kept.ended};
	status = await_answer(s, fd, &kept);
	json_object_set_new(item, "vhost_user_fd", json_integer(fd));
	json_object_set_new(item, "keeper_fd", json_integer(kept.lifeline));
	return status;
}

/* --- folders --- */

/* As the library reads it: a word of the command's, or JSON's own. */
static int read_bool(const struct start *s, json_t *item, const char *key, bool otherwise,
		     bool *ret)
{
	const json_t *value = json_object_get(item, key);
	const char *text = json_string_value(value);

	*ret = value ? json_is_true(value) || (text && strcmp(text, "on") == 0) : otherwise;
	if (!value || json_is_boolean(value) ||
	    (text && (strcmp(text, "on") == 0 || strcmp(text, "off") == 0)))
		return CLI_OK;
	cli_error("%s '%s': %s is on or off", s->program.what, s->program.of, key);
	return CLI_USAGE;
}

static int share_folder(struct daemons *daemons, struct start *s, json_t *item)
{
	char folder[PATH_MAX], *shared = NULL;
	struct stat st;
	bool readonly;
	int status = read_bool(s, item, "readonly", false, &readonly);

	if (status != CLI_OK)
		return status;
	if (!realpath(text_of(item, "path", ""), folder) || stat(folder, &st) != 0) {
		cli_error("share '%s': '%s': %s; give the path of a folder that is there",
			  s->program.of, text_of(item, "path", ""), strerror(errno));
		return CLI_FAILED;
	}
	if (!S_ISDIR(st.st_mode)) {
		cli_error("share '%s': '%s' is no folder; give the one that it is in",
			  s->program.of, folder);
		return CLI_FAILED;
	}
	s->program.name = "virtiofsd";
	s->program.package =
		"virtiofsd (Debian 13; Debian 12 has no such package: give vhost_user, the "
		"socket of one that you start)";
	status = program_find(&s->program);
	if (status != CLI_OK)
		return status;
	program_may(&s->program, folder, readonly ? FENCE_READ : FENCE_CHANGE);
	if (asprintf(&shared, "--shared-dir=%s", folder) < 0)
		return failed(s, folder, ENOMEM);
	s->argv[0] = s->program.path;
	s->argv[1] = "--fd=3";
	static_assert(KEEPER_LISTEN_FD == 3, "as its daemons' options say");
	s->argv[2] = shared;
	/* Its own needs mounts, which the fence forbids, and rights that a user has not. */
	s->argv[3] = s->program.fenced || geteuid() != 0 ? "--sandbox=none" : "--sandbox=namespace";
	if (readonly)
		s->argv[4] = "--readonly";
	status = start_child(daemons, s, item);
	free(shared);
	json_object_del(item, "path");
	json_object_del(item, "readonly");
	return status;
}

/* --- images --- */

/* A guest can write the head of an image to its raw disk, which would then name files of others as
 * its backing file: whoever starts the machine says that it is an image, by its name at least. */
static bool is_named_qcow2(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && strcasecmp(dot, ".qcow2") == 0;
}

static bool is_qcow2(const json_t *item)
{
	const char *path = text_of(item, "path", NULL), *format = text_of(item, "format", "auto");
	char why[QCOW2_WHY];
	struct qcow2_head head;
	int fd;

	if (!path)
		return false;
	if (strcmp(format, "qcow2") == 0)
		return true;
	if (strcmp(format, "auto") != 0 || !is_named_qcow2(path))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return false; /* for the library to say */
	qcow2_read_head(fd, &head, why);
	close(fd);
	return head.is_qcow2;
}

/* Text that is a number, or a number. */
static json_int_t number_of(const json_t *item, const char *key, json_int_t otherwise)
{
	const json_t *value = json_object_get(item, key);

	return json_is_integer(value)  ? json_integer_value(value)
	       : json_is_string(value) ? strtoll(json_string_value(value), NULL, 10)
				       : otherwise;
}

/* What the document says of the disk that is the daemon's to do. */
struct image {
	bool readonly, discard, direct, writethrough;
	const char *path;
	bool block_device;
};

static int read_image(struct start *s, json_t *item, struct image *image)
{
	const char *cache = text_of(item, "cache", "writeback");
	struct stat st;
	int status = read_bool(s, item, "readonly", false, &image->readonly);

	if (status == CLI_OK)
		status = read_bool(s, item, "discard", true, &image->discard);
	if (status != CLI_OK)
		return status;
	image->direct = strcmp(cache, "direct") == 0;
	image->writethrough = strcmp(cache, "writethrough") == 0;
	if (image->direct || image->writethrough || strcmp(cache, "writeback") == 0) {
		image->block_device = stat(image->path, &st) == 0 && S_ISBLK(st.st_mode);
		return CLI_OK;
	}
	cli_error("disk '%s': cache '%s' is not one of writeback, direct, writethrough",
		  s->program.of, cache);
	return CLI_USAGE;
}

static char *image_arguments(const struct image *image)
{
	const char *discard = image->discard && !image->readonly ? "unmap" : "ignore";
	json_t *node = json_pack(
		"{s:s, s:s, s:b, s:s, s:{s:b}, s:{s:s, s:s, s:b, s:s, s:{s:b}}}", "driver", "qcow2",
		"node-name", "image", "read-only", image->readonly, "discard", discard, "cache",
		"direct", image->direct, "file", "driver",
		image->block_device ? "host_device" : "file", "filename", image->path, "read-only",
		image->readonly, "discard", discard, "cache", "direct", image->direct);
	char *text = node ? json_dumps(node, JSON_COMPACT) : NULL;

	json_decref(node);
	return text;
}

static char *export_arguments(const struct image *image, const json_t *item)
{
	json_int_t block_bytes = number_of(item, "block_size", 0);
	json_t *export =
		json_pack("{s:s, s:s, s:s, s:{s:s, s:s}, s:b, s:b, s:I}", "type", "vhost-user-blk",
			  "id", "disk", "node-name", "image", "addr", "type", "fd", "str", "3",
			  "writable", !image->readonly, "writethrough", image->writethrough,
			  "num-queues", number_of(item, "queues", 1));
	char *text;

	if (block_bytes)
		json_object_set_new(export, "logical-block-size", json_integer(block_bytes));
	text = export ? json_dumps(export, JSON_COMPACT) : NULL;
	json_decref(export);
	return text;
}

static void forget_image(json_t *item)
{
	static const char *const keys[] = {"path",    "format",     "cache",
					   "discard", "block_size", "backing"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		json_object_del(item, keys[i]);
}

static int serve_chain(struct daemons *daemons, struct start *s, json_t *item,
		       const struct qcow2_chain *chain)
{
	struct image image = {.path = chain->path[0]};
	char *disk, *served;
	int status = read_image(s, item, &image);

	s->program.name = "qemu-storage-daemon";
	s->program.package = "qemu-utils";
	if (status == CLI_OK)
		status = program_find(&s->program);
	if (status != CLI_OK)
		return status;
	for (unsigned int i = 0; i < chain->n; i++)
		program_may(&s->program, chain->path[i],
			    i || image.readonly ? FENCE_READ : FENCE_WRITE);
	s->argv[0] = s->program.path;
	s->argv[1] = "--blockdev";
	s->argv[2] = disk = image_arguments(&image);
	s->argv[3] = "--export";
	s->argv[4] = served = export_arguments(&image, item);
	status = disk && served ? start_child(daemons, s, item) : failed(s, "its options", EILSEQ);
	free(disk);
	free(served);
	forget_image(item);
	return status;
}

static int serve_image(struct daemons *daemons, struct start *s, json_t *item)
{
	struct qcow2_chain chain;
	char why[QCOW2_WHY];
	int status;

	if (qcow2_find_chain(&chain, text_of(item, "path", ""), text_of(item, "backing", NULL),
			     why)) {
		cli_error("disk '%s': %s", s->program.of, why);
		return CLI_FAILED;
	}
	status = serve_chain(daemons, s, item, &chain);
	qcow2_chain_done(&chain);
	return status;
}

/* --- all of them --- */

static void complete_share(json_t *item)
{
	const char *path = text_of(item, "path", NULL), *slash;
	char folder[PATH_MAX];

	if (!path || json_object_get(item, "tag") || !realpath(path, folder))
		return;
	slash = strrchr(folder, '/');
	json_object_set_new(item, "tag",
			    json_stringn(slash[1] ? slash + 1 : "root",
					 slash[1] ? strnlen(slash + 1, TAG_BYTES) : 4));
}

void daemons_complete(json_t *document)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(document, "shares"), i, item)
	{
		complete_share(item);
	}
}

int daemons_start_for(struct daemons *daemons, const char *list, json_t *item, bool strict,
		      bool fenced)
{
	struct start start = {.program = {.strict = strict, .fenced = fenced}};

	if (strcmp(list, "shares") == 0 && json_object_get(item, "path")) {
		complete_share(item);
		start.program.what = "share";
		start.program.of = label(item);
		return share_folder(daemons, &start, item);
	}
	if (strcmp(list, "disks") != 0 || !is_qcow2(item))
		return CLI_OK;
	start.program.what = "disk";
	start.program.of = label(item);
	return serve_image(daemons, &start, item);
}

int daemons_start(struct daemons *daemons, json_t *document)
{
	static const char *const lists[] = {"disks", "shares"};
	const char *sandbox = text_of(document, "sandbox", "auto");
	json_t *item;
	size_t at;

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		json_array_foreach(json_object_get(document, lists[i]), at, item)
		{
			int status = daemons_start_for(daemons, lists[i], item,
						       strcmp(sandbox, "strict") == 0,
						       strcmp(sandbox, "off") != 0);

			if (status == CLI_OK)
				continue;
			daemons_release(daemons);
			daemons_wait(daemons);
			return status;
		}
	}
	return CLI_OK;
}

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void daemons_release(struct daemons *daemons)
{
	for (unsigned int i = 0; i < daemons->n; i++) {
		drop(&daemons->child[i].connection);
		drop(&daemons->child[i].lifeline);
	}
}

void daemons_wait(struct daemons *daemons)
{
	long long end_ms = now_ms() + WAIT_MS;

	for (unsigned int i = 0; i < daemons->n; i++) {
		struct pollfd ended = {.fd = daemons->child[i].ended, .events = POLLIN};
		long long left_ms = end_ms - now_ms();

		while (poll(&ended, 1, left_ms > 0 ? (int)left_ms : 0) < 0 && errno == EINTR)
			left_ms = end_ms - now_ms();
		drop(&daemons->child[i].ended);
	}
	daemons->n = 0;
}
