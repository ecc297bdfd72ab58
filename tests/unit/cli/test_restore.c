// SPDX-License-Identifier: Apache-2.0
// A snapshot's document, changed by the command line; and its checksums.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "restore.h"
#include "sums.h"

static char dir[64];
static int dir_fd;
static json_t *document;

static const char base[] =
	"{\"name\": \"web\", \"memory\": {\"size\": 1, \"max\": 2}, \"disks\": ["
	"{\"id\": \"disk0\", \"path\": \"a\", \"readonly\": false}, {\"id\": \"data\", \"path\": \"b\"}]}";

static void put(const char *name, const void *bytes, size_t len)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static void set_up(void)
{
	strcpy(dir, "/tmp/hospes-restore-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put("config.json", base, strlen(base));
}

static void tear_down(void)
{
	static const char *const files[] = {"config.json", "state", "memory", "checksums"};

	json_decref(document);
	for (size_t i = 0; i < 4; i++)
		unlinkat(dir_fd, files[i], 0);
	close(dir_fd);
	rmdir(dir);
}

TestSuite(restore, .init = set_up, .fini = tear_down);

/* over: what the command line says beside --restore. */
static int with(const char *over)
{
	json_decref(document);
	document = json_loads(over, 0, NULL);
	cr_assert_not_null(document);
	json_object_set_new(document, "restore", json_pack("{s:s}", "path", dir));
	return restore_document(&document, false);
}

static const char *disk(size_t i, const char *key)
{
	const json_t *disks = json_object_get(document, "disks");

	return json_string_value(json_object_get(json_array_get(disks, i), key));
}

Test(restore, nothing_is_changed_unless_it_is_said)
{
	cr_assert_eq(with("{}"), CLI_OK);
	cr_assert_str_eq(json_string_value(json_object_get(document, "name")), "web");
	cr_assert_str_eq(disk(0, "path"), "a");
	cr_assert_not_null(json_object_get(document, "restore"));
}

Test(restore, objects_are_merged_and_items_go_by_place_or_by_id)
{
	cr_assert_eq(with("{\"name\": \"other\", \"memory\": {\"max\": 3}, "
			  "\"disks\": [{\"path\": \"new\"}]}"),
		     CLI_OK);
	cr_assert_str_eq(json_string_value(json_object_get(document, "name")), "other");
	cr_assert_eq(
		json_integer_value(json_object_get(json_object_get(document, "memory"), "size")),
		1);
	cr_assert_eq(
		json_integer_value(json_object_get(json_object_get(document, "memory"), "max")), 3);
	cr_assert_str_eq(disk(0, "path"), "new");
	cr_assert_str_eq(disk(0, "id"), "disk0");
	cr_assert_str_eq(disk(1, "path"), "b");
	cr_assert_eq(with("{\"disks\": [{\"id\": \"data\", \"path\": \"new\"}]}"), CLI_OK);
	cr_assert_str_eq(disk(0, "path"), "a");
	cr_assert_str_eq(disk(1, "path"), "new");
}

Test(restore, a_device_more_is_refused)
{
	cr_assert_eq(with("{\"disks\": [{}, {}, {\"path\": \"c\"}]}"), CLI_USAGE);
	cr_assert_eq(with("{\"disks\": [{\"id\": \"none\", \"path\": \"c\"}]}"), CLI_USAGE);
}

Test(restore, without_a_snapshot_there_is_nothing_to_check)
{
	document = json_object();
	cr_assert_eq(restore_document(&document, false), CLI_OK);
	cr_assert_eq(restore_document(&document, true), CLI_USAGE);
}

Test(restore, what_is_no_snapshot_is_refused)
{
	put("config.json", "[]", 2);
	cr_assert_eq(with("{}"), CLI_FAILED);
	put("config.json", "{", 1);
	cr_assert_eq(with("{}"), CLI_FAILED);
	unlinkat(dir_fd, "config.json", 0);
	cr_assert_eq(with("{}"), CLI_FAILED);
	mkfifoat(dir_fd, "config.json", 0600);
	cr_assert_eq(with("{}"), CLI_FAILED, "and nobody waits for a writer");
}

/* 8 MiB: a hole of two, three with something, a hole that ends in the middle of a block. */
static void make_memory(void)
{
	char *bytes = malloc(3 << 20);
	int fd;

	memset(bytes, 'm', 3 << 20);
	put("memory", "", 0);
	fd = openat(dir_fd, "memory", O_WRONLY | O_CLOEXEC);
	cr_assert_eq(pwrite(fd, bytes, 3 << 20, 2 << 20), 3 << 20);
	cr_assert_eq(pwrite(fd, bytes, 4096, (6 << 20) + (3 << 19)), 4096);
	cr_assert_eq(ftruncate(fd, 8 << 20), 0);
	close(fd);
	free(bytes);
}

static const char *memory_path(void)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/memory", dir);
	return path;
}

static void change(const char *file, off_t at)
{
	int fd = openat(dir_fd, file, O_RDWR | O_CLOEXEC);
	char was;

	cr_assert_eq(pread(fd, &was, 1, at), 1);
	was ^= 1;
	cr_assert_eq(pwrite(fd, &was, 1, at), 1);
	close(fd);
}

Test(restore, a_byte_that_has_changed_is_found_wherever_it_is)
{
	static const struct {
		const char *file;
		off_t at;
	} places[] = {{"config.json", 3},
		      {"state", 0},
		      {"memory", 0},
		      {"memory", 2 << 20},
		      {"memory", (5 << 20) - 1},
		      {"memory", (6 << 20) + (3 << 19)},
		      {"memory", (8 << 20) - 1}};

	put("state", "the state", 9);
	make_memory();
	cr_assert_eq(sums_write(dir_fd, dir), CLI_OK);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_OK);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		change(places[i].file, places[i].at);
		cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED, "%s, %ld", places[i].file,
			     (long)places[i].at);
		change(places[i].file, places[i].at);
	}
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_OK);
}

Test(restore, files_that_are_longer_shorter_or_gone_are_found)
{
	put("state", "the state", 9);
	make_memory();
	cr_assert_eq(sums_write(dir_fd, dir), CLI_OK);
	put("state", "the stat", 8);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
	put("state", "the state", 9);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_OK);
	cr_assert_eq(truncate(memory_path(), 9 << 20), 0);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED, "longer");
	put("memory", "m", 1);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
	unlinkat(dir_fd, "memory", 0);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
	make_memory();
	put("checksums", "{\"version\": 2}", 14);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
	put("checksums", "{}", 2);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
	put("checksums", "", 0);
	cr_assert_eq(sums_verify(dir_fd, dir), CLI_FAILED);
}
