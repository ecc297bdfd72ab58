// SPDX-License-Identifier: Apache-2.0
// The seed for cloud-init. See cloud_init.h; the format: cloud-init's documentation, "NoCloud".
#include "cloud_init.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "output.h"
#include "program.h"

enum {
	SEED_BYTES = 2880 * 1024, /* a floppy disk's: mformat knows all the rest of it */
	USER_DATA_BYTES = 1 << 20,
	KEYS_BYTES = 1 << 16,
	KEYS = 64,
};

__attribute__((format(printf, 1, 2))) static int refuse(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_error("--cloud-init: %s", text);
	return CLI_FAILED;
}

char *expand_home(const char *path)
{
	const char *home = getenv("HOME");
	char *full;

	if (strncmp(path, "~/", 2) != 0 || !home || !*home)
		return strdup(path);
	return asprintf(&full, "%s%s", home, path + 1) < 0 ? NULL : full;
}

/* --- what is given --- */

static int read_open(int fd, const char *key, const char *path, size_t max, char **ret)
{
	struct stat st;
	size_t n = 0;
	ssize_t got = 1;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return refuse("%s='%.200s' is no file", key, path);
	*ret = calloc(1, max + 2);
	while (*ret && n <= max && got > 0) {
		got = read(fd, *ret + n, max + 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	if (*ret && got >= 0 && n <= max && strlen(*ret) == n)
		return CLI_OK;
	free(*ret);
	*ret = NULL;
	return refuse("%s='%.200s': %s", key, path,
		      got < 0   ? strerror(errno)
		      : n > max ? "is too large"
				: "is no text");
}

static int read_file(const char *key, const char *path, size_t max, char **ret)
{
	char *full = expand_home(path);
	int fd = full ? open(full, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1, status;

	if (fd < 0)
		status = refuse("%s='%.200s': %s%s", key, path, strerror(full ? errno : ENOMEM),
				strcmp(key, "key") == 0
					? "; give your public key, which 'ssh-keygen' makes"
					: "");
	else
		status = read_open(fd, key, path, max, ret);
	if (fd >= 0)
		close(fd);
	free(full);
	return status;
}

static bool is_key(const char *text)
{
	static const char *const kinds[] = {"ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strncmp(text, kinds[i], strlen(kinds[i])) == 0 && strchr(text, ' '))
			return true;
	}
	return false;
}

/* Each line of the file, or the one key that is given as it is. */
static int split_keys(char *text, const char *from, json_t *keys)
{
	char *rest = text, *line;

	/* It would be in the guest, for everybody there. */
	if (strstr(text, "PRIVATE KEY-----"))
		return refuse("key='%.200s' is a private key, which is for you alone; give the "
			      "public one: '%.200s.pub'",
			      from, from);
	while ((line = strsep(&rest, "\r\n"))) {
		if (!*line || *line == '#')
			continue;
		if (!is_key(line))
			return refuse("key='%.200s' has a line that is no public key of ssh's: "
				      "'%.40s'",
				      from, line);
		if (json_array_size(keys) == KEYS || json_array_append_new(keys, json_string(line)))
			return refuse("key='%.200s': more than %d keys, or not UTF-8", from, KEYS);
	}
	return json_array_size(keys) ? CLI_OK : refuse("key='%.200s' has no key", from);
}

static int read_keys(const char *given, json_t *keys)
{
	char *text = NULL;
	int status = CLI_OK;

	if (is_key(given))
		text = strdup(given);
	else
		status = read_file("key", given, KEYS_BYTES, &text);
	if (text)
		status = split_keys(text, given, keys);
	free(text);
	return status;
}

/* As useradd(8) takes it. */
static bool is_user(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

	return n && n <= 32 && !name[n] && !strchr("-0123456789", name[0]);
}

static bool is_hostname(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");

	return n && n <= 253 && !name[n] && !strchr("-.", name[0]);
}

/* --- what is written --- */

/* YAML takes JSON. */
static char *write_config(const char *user, const char *password, json_t *keys)
{
	json_t *one = json_pack("{s:s, s:s, s:s, s:b, s:O}", "name", user, "shell", "/bin/bash",
				"sudo", "ALL=(ALL) NOPASSWD:ALL", "lock_passwd", !password,
				"ssh_authorized_keys", keys);
	json_t *all = json_pack("{s:[o]}", "users", one);
	char *json, *text = NULL;

	if (all && password) {
		json_object_set_new(all, "ssh_pwauth", json_true());
		json_object_set_new(all, "chpasswd",
				    json_pack("{s:b, s:[{s:s, s:s, s:s}]}", "expire", 0, "users",
					      "name", user, "password", password, "type", "text"));
	}
	json = all ? json_dumps(all, JSON_INDENT(1) | JSON_ENSURE_ASCII) : NULL;
	if (!json || asprintf(&text, "#cloud-config\n%s\n", json) < 0)
		text = NULL;
	free(json);
	json_decref(all);
	return text;
}

/* cloud-init does its work once for each name of an instance: another seed is another instance. */
static char *write_meta(const char *user_data, const char *hostname)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
	const char *parts[] = {user_data, hostname ? hostname : ""};
	json_t *meta;
	char *text;

	for (size_t i = 0; i < 2; i++) {
		for (const char *c = parts[i]; *c; c++)
			hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
		hash = hash * 0x100000001b3;
	}
	meta = json_object();
	json_object_set_new(meta, "instance-id", json_sprintf("hospes-%016" PRIx64, hash));
	if (hostname)
		json_object_set_new(meta, "local-hostname", json_string(hostname));
	text = json_dumps(meta, JSON_INDENT(1));
	json_decref(meta);
	return text;
}

static int write_user(const json_t *c, char **ret)
{
	const char *user = text_of(c, "user", NULL), *key = text_of(c, "key", NULL);
	const char *password = text_of(c, "password", NULL);
	json_t *keys = json_array();
	int status = CLI_OK;

	if (!user)
		status = refuse("give user=NAME (or userdata=FILE, which says everything)");
	else if (!is_user(user))
		status = refuse("user='%.100s' is no name for a user: small letters, digits, '-' "
				"and '_', at most 32",
				user);
	else if (!key && !password)
		status = refuse("give key=FILE, your public key of ssh's (~/.ssh/id_ed25519.pub), "
				"or password=TEXT: else nobody can log in");
	else if (password && (!*password || strpbrk(password, "\r\n")))
		status = refuse("password= is empty, or has more than one line");
	if (status == CLI_OK && key)
		status = read_keys(key, keys);
	if (status == CLI_OK && !(*ret = write_config(user, password, keys)))
		status = refuse("no memory");
	json_decref(keys);
	return status;
}

static int write_data(const json_t *c, char **ret)
{
	static const char *const keys[] = {"user", "key", "password"};
	const char *file = text_of(c, "userdata", NULL);

	if (!file)
		return write_user(c, ret);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (json_object_get(c, keys[i]))
			return refuse("userdata='%.200s' says everything; leave out %s", file,
				      keys[i]);
	}
	return read_file("userdata", file, USER_DATA_BYTES, ret);
}

static int check_keys(const json_t *c)
{
	static const char *const known = " user key password hostname userdata ";
	const char *key, *hostname = text_of(c, "hostname", NULL);
	json_t *value;
	char word[64];

	if (!json_is_object(c))
		return refuse("must be an object { ... }");
	json_object_foreach((json_t *)c, key, value)
	{
		snprintf(word, sizeof(word), " %.60s ", key);
		if (!strstr(known, word) || !json_is_string(value))
			return refuse("'%.60s' is not one of user, key, password, hostname, "
				      "userdata, with a text",
				      key);
	}
	if (hostname && !is_hostname(hostname))
		return refuse("hostname='%.100s' is no name of a host: letters, digits, '-' and "
			      "'.'",
			      hostname);
	return CLI_OK;
}

int cloud_init_write(const json_t *c, char **user_data, char **meta_data)
{
	int status = check_keys(c);

	*user_data = *meta_data = NULL;
	if (status == CLI_OK)
		status = write_data(c, user_data);
	if (status != CLI_OK || !*user_data)
		return CLI_FAILED;
	*meta_data = write_meta(*user_data, text_of(c, "hostname", NULL));
	if (*meta_data)
		return CLI_OK;
	free(*user_data);
	*user_data = NULL;
	return refuse("no memory");
}

/* --- the disk --- */

#define IMAGE "/proc/self/fd/3"

static int copy_in(const struct program *mcopy, int fd, const char *name, const char *text)
{
	const char *const argv[] = {mcopy->path, "-i", IMAGE, "-", name, NULL};

	return program_run(mcopy, argv, fd, text, strlen(text));
}

static int make_image(const char *sandbox, int fd, const char *user_data, const char *meta_data)
{
	struct program mformat = {.what = "--cloud-init",
				  .of = "seed",
				  .name = "mformat",
				  .package = "mtools",
				  .fenced = strcmp(sandbox, "off") != 0,
				  .strict = strcmp(sandbox, "strict") == 0};
	struct program mcopy = mformat;
	const char *const argv[] = {mformat.path, "-i",     IMAGE, "-f", "2880",
				    "-v",         "CIDATA", "::",  NULL};
	int status;

	mcopy.name = "mcopy";
	status = program_find(&mformat);
	if (status == CLI_OK)
		status = program_find(&mcopy);
	if (status == CLI_OK)
		status = program_run(&mformat, argv, fd, "", 0);
	if (status == CLI_OK)
		status = copy_in(&mcopy, fd, "::user-data", user_data);
	if (status == CLI_OK)
		status = copy_in(&mcopy, fd, "::meta-data", meta_data);
	return status;
}

static void add_disk(json_t *document, int fd)
{
	json_t *disks = json_object_get(document, "disks");

	if (!json_is_array(disks)) {
		json_object_set_new(document, "disks", json_array());
		disks = json_object_get(document, "disks");
	}
	json_array_append_new(disks, json_pack("{s:s, s:i, s:b, s:s}", "id", "cloud-init", "fd", fd,
					       "readonly", 1, "format", "raw"));
}

int cloud_init_seed(json_t *document, int *fd)
{
	const json_t *c = json_object_get(document, "cloud_init");
	char *user_data, *meta_data;
	int status;

	*fd = -1;
	/* An empty one is what the effective document has. */
	if (!c || (json_is_object(c) && json_object_size(c) == 0)) {
		json_object_del(document, "cloud_init");
		return CLI_OK;
	}
	status = cloud_init_write(c, &user_data, &meta_data);
	if (status != CLI_OK || !user_data || !meta_data)
		return CLI_FAILED;
	*fd = memfd_create("cloud-init", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, SEED_BYTES) != 0)
		status = refuse("the seed: %s", strerror(errno));
	else
		status =
			make_image(text_of(document, "sandbox", "auto"), *fd, user_data, meta_data);
	free(user_data);
	free(meta_data);
	if (status == CLI_OK) {
		add_disk(document, *fd);
		json_object_del(document, "cloud_init");
	} else if (*fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return status;
}
