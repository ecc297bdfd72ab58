// SPDX-License-Identifier: Apache-2.0
// Users of a disk, as /proc and /sys show them.
#include "host/disk_users.h"

#include <dirent.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/num.h"

enum { MAX_DEVICES = 257 /* a disk and its partitions */ };

struct search {
	const char *root;
	const struct stat *st;
	dev_t device[MAX_DEVICES]; /* of a file: none */
	unsigned int n_devices;
	char *text;
	size_t bytes;
};

static bool has_device(const struct search *s, dev_t device)
{
	for (unsigned int i = 0; i < s->n_devices; i++) {
		if (s->device[i] == device)
			return true;
	}
	return false;
}

static bool is_it(const struct search *s, const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return false;
	if (S_ISBLK(st.st_mode))
		return has_device(s, st.st_rdev);
	return S_ISREG(s->st->st_mode) && st.st_dev == s->st->st_dev && st.st_ino == s->st->st_ino;
}

static bool open_in(const struct search *s, const char *path, FILE **ret)
{
	char whole[PATH_MAX];

	snprintf(whole, sizeof(whole), "%s%s", s->root, path);
	*ret = fopen(whole, "re");
	return *ret;
}

/* The first line of a small file, without its end. */
static bool read_line(const struct search *s, const char *path, char *line, size_t bytes)
{
	FILE *f;
	bool good = open_in(s, path, &f) && fgets(line, (int)bytes, f);

	if (f)
		fclose(f);
	if (good)
		line[strcspn(line, "\n")] = '\0';
	return good;
}

/* In place: spaces and their like are written \040 in tables of /proc. */
static char *unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned int c;

		if (sscanf(from, "\\%3o", &c) == 1) {
			*to = (char)c;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
	return text;
}

/* --- devices on top of it --- */

/* Of the block device with this directory in /sys. */
static bool find_holder(const struct search *s, const char *dir)
{
	char path[PATH_MAX], name[128];
	const struct dirent *entry;
	bool found = false;
	DIR *holders;

	snprintf(path, sizeof(path), "%s%s/holders", s->root, dir);
	holders = opendir(path);
	while (holders && !found && (entry = readdir(holders))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/holders/%s/dm/name", dir, entry->d_name);
		if (read_line(s, path, name, sizeof(name)))
			snprintf(s->text, s->bytes, "/dev/mapper/%s is on it", name);
		else
			snprintf(s->text, s->bytes, "/dev/%s is on it", entry->d_name);
		found = true;
	}
	if (holders)
		closedir(holders);
	return found;
}

static void add_device(struct search *s, const char *dir)
{
	unsigned int major, minor;
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof(path), "%s/dev", dir);
	if (s->n_devices < MAX_DEVICES && read_line(s, path, text, sizeof(text)) &&
	    sscanf(text, "%u:%u", &major, &minor) == 2)
		s->device[s->n_devices++] = makedev(major, minor);
}

static bool is_partition(const struct search *s, const char *dir)
{
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof(path), "%s/partition", dir);
	return read_line(s, path, text, sizeof(text));
}

/* A partition is used with its disk, and a disk with any of its partitions. */
static bool find_holders(struct search *s)
{
	char dir[64], path[PATH_MAX];
	const struct dirent *entry;
	bool found;
	DIR *parts;

	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(s->st->st_rdev),
		 minor(s->st->st_rdev));
	s->device[s->n_devices++] = s->st->st_rdev;
	found = find_holder(s, dir);
	if (!found && is_partition(s, dir)) {
		snprintf(path, sizeof(path), "%s/..", dir);
		return find_holder(s, path);
	}
	snprintf(path, sizeof(path), "%s%s", s->root, dir);
	parts = opendir(path);
	while (parts && !found && (entry = readdir(parts))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (entry->d_name[0] == '.' || !is_partition(s, path))
			continue;
		add_device(s, path);
		found = find_holder(s, path);
	}
	if (parts)
		closedir(parts);
	return found;
}

/* --- tables --- */

/* Is the line of a table about it? Then the text is filled in. */
typedef bool line_fn(const struct search *s, char *line);

static bool find_line(const struct search *s, const char *path, line_fn *match)
{
	char *line = NULL;
	size_t bytes = 0;
	bool found = false;
	FILE *f;

	if (!open_in(s, path, &f))
		return false;
	while (!found && getline(&line, &bytes, f) > 0)
		found = match(s, line);
	free(line);
	fclose(f);
	return found;
}

/* 36 35 98:0 /root /mount/point options … - type source options: proc(5). File systems of several
 * devices have a number that is none of theirs, but name one of them as their source. */
static bool match_mount(const struct search *s, char *line)
{
	char *dash = strstr(line, " - "), *point, *save;
	char source[PATH_MAX] = "";
	unsigned int major, minor;

	if (!dash || sscanf(line, "%*u %*u %u:%u", &major, &minor) != 2)
		return false;
	*dash = '\0';
	sscanf(dash + 3, "%*s %4095s", source);
	unescape(source);
	if (!has_device(s, makedev(major, minor)) &&
	    (strncmp(source, "/dev/", 5) != 0 || !is_it(s, source)))
		return false;
	point = strtok_r(line, " ", &save);
	for (unsigned int i = 0; point && i < 4; i++)
		point = strtok_r(NULL, " ", &save);
	snprintf(s->text, s->bytes, "mounted at %s", point ? unescape(point) : "?");
	return true;
}

static bool match_swap(const struct search *s, char *line)
{
	char *end = strpbrk(line, " \t");

	if (!end || *line != '/')
		return false;
	*end = '\0';
	if (!is_it(s, unescape(line)))
		return false;
	snprintf(s->text, s->bytes, "it is swap");
	return true;
}

static bool find_loop(const struct search *s)
{
	char path[PATH_MAX], backing[PATH_MAX];
	const struct dirent *entry;
	bool found = false;
	DIR *block;

	snprintf(path, sizeof(path), "%s/sys/block", s->root);
	block = opendir(path);
	while (block && !found && (entry = readdir(block))) {
		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", entry->d_name);
		found = read_line(s, path, backing, sizeof(backing)) && is_it(s, backing);
		if (found)
			snprintf(s->text, s->bytes, "/dev/%s is on it", entry->d_name);
	}
	if (block)
		closedir(block);
	return found;
}

/* --- targets, which open it without claiming it --- */

/* One that `opens` has it open while it knows its name; others when they are enabled. */
static bool exports(const struct search *s, const char *file, bool opens)
{
	const char *in = file + strlen(s->root);
	char path[PATH_MAX], line[PATH_MAX];

	snprintf(path, sizeof(path), "%.*s/enable", (int)(strrchr(in, '/') - in), in);
	return (opens || (read_line(s, path, line, sizeof(line)) && *line == '1')) &&
	       read_line(s, in, line, sizeof(line)) && is_it(s, line);
}

static bool find_target(const struct search *s)
{
	static const struct {
		const char *pattern, *kind;
		bool opens;
		unsigned int up; /* its name is that many parts before the end of the path */
	} targets[] = {
		{"/sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path", "NVMe target",
		 false, 3},
		{"/sys/kernel/config/target/core/*/*/udev_path", "SCSI target", false, 1},
		{"/sys/kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/file",
		 "USB gadget", true, 4},
	};
	bool found = false;

	for (size_t t = 0; t < ARRAY_SIZE(targets) && !found; t++) {
		char pattern[PATH_MAX], *path = NULL;
		glob_t files;

		snprintf(pattern, sizeof(pattern), "%s%s", s->root, targets[t].pattern);
		if (glob(pattern, 0, NULL, &files))
			continue;
		for (size_t i = 0; i < files.gl_pathc && !found; i++) {
			path = files.gl_pathv[i];
			found = exports(s, path, targets[t].opens);
		}
		for (unsigned int i = 0; found && i < targets[t].up; i++)
			*strrchr(path, '/') = '\0';
		if (found)
			snprintf(s->text, s->bytes, "the %s %s exports it", targets[t].kind,
				 strrchr(path, '/') + 1);
		globfree(&files);
	}
	return found;
}

bool disk_users_find(const char *root, const struct stat *st, char *text, size_t bytes)
{
	struct search s = {.root = root, .st = st, .text = text, .bytes = bytes};

	if (S_ISBLK(st->st_mode) &&
	    (find_holders(&s) || find_line(&s, "/proc/self/mountinfo", match_mount)))
		return true;
	return find_line(&s, "/proc/swaps", match_swap) || find_loop(&s) || find_target(&s);
}
