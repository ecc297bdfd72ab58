// SPDX-License-Identifier: Apache-2.0
// Checksums of a snapshot's files. See sums.h.
#include "sums.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libdeflate.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

enum {
	BLOCK_BYTES = 2 << 20,
	TEXT_BYTES_MAX = 64 << 20, /* of `checksums`: of 8 TiB of memory */
	VERSION = 1,
};

struct sums {
	int dir;
	const char *name;
	uint8_t *block;
	uint32_t zeroes; /* the sum of a whole block of them */
};

static int failed(const struct sums *s, const char *file, const char *why)
{
	cli_error("%s/%s: %s", s->name, file, why);
	return CLI_FAILED;
}

static int begin(struct sums *s, int dir, const char *name)
{
	*s = (struct sums){.dir = dir, .name = name, .block = calloc(1, BLOCK_BYTES)};
	if (!s->block)
		return failed(s, "checksums", "no memory");
	s->zeroes = libdeflate_crc32(0, s->block, BLOCK_BYTES);
	return CLI_OK;
}

/* n bytes at `at`, or as many as there are. */
static ssize_t read_block(int fd, uint8_t *block, off_t at)
{
	size_t n = 0;

	while (n < BLOCK_BYTES) {
		ssize_t got = pread(fd, block + n, BLOCK_BYTES - n, at + (off_t)n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

/* Where the whole block is a hole, nothing has to be read. */
static bool is_hole(int fd, off_t at)
{
	off_t data = lseek(fd, at, SEEK_DATA);

	return data < 0 ? errno == ENXIO : data >= at + BLOCK_BYTES;
}

/* A list of the sums of its blocks; NULL with the message printed. */
static json_t *sum_file(struct sums *s, const char *file)
{
	int fd = openat(s->dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	json_t *list = json_array();
	struct stat st;
	off_t at = 0;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		failed(s, file, fd < 0 ? strerror(errno) : "not a regular file");
		goto fail;
	}
	while (at < st.st_size) {
		uint32_t sum = s->zeroes;
		bool whole = at + BLOCK_BYTES <= st.st_size;
		ssize_t n = whole && is_hole(fd, at) ? BLOCK_BYTES : read_block(fd, s->block, at);

		if (n <= 0) {
			failed(s, file, n < 0 ? strerror(errno) : "was cut short meanwhile");
			goto fail;
		}
		if (!whole || !is_hole(fd, at))
			sum = libdeflate_crc32(0, s->block, (size_t)n);
		if (json_array_append_new(list, json_integer(sum)) != 0) {
			failed(s, file, "no memory");
			goto fail;
		}
		at += n;
	}
	close(fd);
	return list;
fail:
	if (fd >= 0)
		close(fd);
	json_decref(list);
	return NULL;
}

static const char *const files[] = {"config.json", "state", "memory"};

static int sum_all(struct sums *s, json_t *into)
{
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		json_t *list = sum_file(s, files[i]);

		if (!list || json_object_set_new(into, files[i], list) != 0)
			return CLI_FAILED;
	}
	return CLI_OK;
}

static int write_json(struct sums *s, const json_t *sums)
{
	int fd = openat(s->dir, "checksums", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int status = CLI_OK;

	if (fd < 0)
		return failed(s, "checksums", strerror(errno));
	if (json_dumpfd(sums, fd, JSON_COMPACT) != 0 || write(fd, "\n", 1) != 1 || fsync(fd) != 0)
		status = failed(s, "checksums", strerror(errno));
	close(fd);
	return status;
}

int sums_write(int dir, const char *name)
{
	json_t *sums = json_pack("{s:i, s:i}", "version", VERSION, "block_bytes", BLOCK_BYTES);
	struct sums s;
	int status = begin(&s, dir, name);

	if (status == CLI_OK)
		status = sum_all(&s, sums);
	free(s.block);
	if (status == CLI_OK)
		status = write_json(&s, sums);
	json_decref(sums);
	return status;
}

static json_t *read_sums(const struct sums *s)
{
	int fd = openat(s->dir, "checksums", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	json_t *sums = NULL;
	json_error_t at;
	struct stat st;

	if (fd < 0) {
		failed(s, "checksums", strerror(errno));
		return NULL;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > TEXT_BYTES_MAX)
		failed(s, "checksums", "not a file of checksums");
	else if (!(sums = json_loadfd(fd, JSON_REJECT_DUPLICATES, &at)))
		failed(s, "checksums", at.text);
	close(fd);
	if (sums && (json_integer_value(json_object_get(sums, "version")) != VERSION ||
		     json_integer_value(json_object_get(sums, "block_bytes")) != BLOCK_BYTES)) {
		failed(s, "checksums", "of a version that is not known here");
		json_decref(sums);
		sums = NULL;
	}
	return sums;
}

static int compare(const struct sums *s, const char *file, const json_t *want, const json_t *is)
{
	size_t n = json_array_size(want);

	if (n != json_array_size(is)) {
		cli_error("%s/%s: has another length than when it was written", s->name, file);
		return CLI_FAILED;
	}
	for (size_t i = 0; i < n; i++) {
		if (json_equal(json_array_get(want, i), json_array_get(is, i)))
			continue;
		cli_error("%s/%s: changed since it was written, at bytes %zu to %zu", s->name, file,
			  i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES - 1);
		return CLI_FAILED;
	}
	return CLI_OK;
}

int sums_verify(int dir, const char *name)
{
	json_t *is = json_object(), *want = NULL;
	struct sums s;
	int status = begin(&s, dir, name);

	if (status == CLI_OK && !(want = read_sums(&s)))
		status = CLI_FAILED;
	if (status == CLI_OK)
		status = sum_all(&s, is);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && status == CLI_OK; i++)
		status = compare(&s, files[i], json_object_get(want, files[i]),
				 json_object_get(is, files[i]));
	free(s.block);
	json_decref(want);
	json_decref(is);
	return status;
}
