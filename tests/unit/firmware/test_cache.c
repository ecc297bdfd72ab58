// SPDX-License-Identifier: Apache-2.0
// The cache never serves a stale, damaged or foreign kernel: each property by itself.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "firmware/cache.h"
#include "synth.h"

static char dir[64];
static char last_log[512];

static void to_text(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	(void)level;
	(void)component;
	snprintf(last_log, sizeof(last_log), "%s", text);
}

static const struct log the_log = {.fn = to_text, .level = LOG_DEBUG};

/* One kernel file (in memory, so on a file system whose identities are not trusted), its key with
 * the times of a file that stood still for long, and its payload. */
struct fixture {
	struct cache cache;
	struct cache_key key;
	struct payload payload;
	struct blob image;
	int fd;
};

static struct fixture fix;

static void open_payload(void)
{
	struct image image;
	struct err err = ERR_INIT;

	cr_assert_eq(image_recognise(&image, fix.fd, "k", &err), 0, "%s", err.text);
	cr_assert_eq(payload_unpack(&fix.payload, &image, fix.fd, &err), 0, "%s", err.text);
}

static void set_up(void)
{
	snprintf(dir, sizeof(dir), "/tmp/hospes-cache-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	last_log[0] = 0;
	fix.image = synth_bzimage(&(struct synth){.codec = CODEC_LZ4, .lists = 3}, NULL);
	fix.fd = synth_file(&fix.image);
	cache_open(&fix.cache, dir, &the_log);
	cr_assert_geq(fix.cache.dir_fd, 0, "%s", last_log);
	cr_assert_eq(cache_key_of(&fix.key, fix.fd), 0);
	fix.key.ctime_ns -= 10000000000u;
	fix.key.mtime_ns -= 10000000000u;
	open_payload();
}

static void tear_down(void)
{
	char command[128];

	payload_release(&fix.payload);
	blob_free(&fix.image);
	cache_close(&fix.cache);
	close(fix.fd);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(cache, .init = set_up, .fini = tear_down);

static unsigned int entries(char name[256])
{
	unsigned int n = 0;
	struct dirent *d;
	DIR *listing = opendir(dir);

	while ((d = readdir(listing)))
		if (d->d_name[0] != '.' || strlen(d->d_name) > 2) {
			n++;
			if (name)
				snprintf(name, 256, "%s/%s", dir, d->d_name);
		}
	closedir(listing);
	return n;
}

static void store(char path[256])
{
	cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
	cr_assert_eq(entries(path), 1, "%s", last_log);
}

static bool served(const struct cache_key *key)
{
	struct payload p = {0};
	bool hit = !cache_load(&fix.cache, key, fix.fd, &p);

	payload_release(&p);
	return hit;
}

/* Is it served, and intact? */
static bool served_intact(void)
{
	cleanup_blob struct blob want = synth_expected(&(struct synth){.lists = 3}, 0x200000);
	cleanup_blob struct blob got = {calloc(1, SYNTH_SPAN), SYNTH_SPAN};
	struct payload p = {0};
	int r;

	if (cache_load(&fix.cache, &fix.key, fix.fd, &p))
		return false;
	cr_assert(p.cached);
	r = payload_place(&p, got.data, true);
	if (!r) {
		relocs_apply(&p.relocs, got.data, 0x200000);
		cr_assert_eq(memcmp(got.data, want.data, want.len), 0,
			     "a damaged kernel was served");
	} else {
		cr_assert_eq(r, -EBADMSG);
	}
	payload_release(&p);
	return !r;
}

Test(cache, serves_what_was_stored)
{
	char path[256];

	cr_assert_not(served(&fix.key));
	store(path);
	cr_assert(served_intact());
}

Test(cache, an_entry_is_private_and_read_only)
{
	char path[256];
	struct stat st;

	store(path);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0400);
}

Test(cache, holds_no_zero_pages)
{
	char path[256];
	struct stat st;

	store(path);
	cr_assert_eq(stat(path, &st), 0);
	/* Text, data without its hole, per-cpu data, relocations, head. */
	cr_assert_lt((uint64_t)st.st_size,
		     SYNTH_TEXT + SYNTH_DATA - 64 * 1024 + SYNTH_PERCPU + 32768);
}

#define STALE(field)                                   \
	Test(cache, another_##field##_is_another_file) \
	{                                              \
		struct cache_key other = fix.key;      \
		char path[256];                        \
                                                       \
		store(path);                           \
		other.field++;                         \
		cr_assert_not(served(&other));         \
		cr_assert(served(&fix.key));           \
	}
STALE(dev)
STALE(ino)
STALE(bytes)
STALE(mtime_ns)
STALE(ctime_ns)
STALE(fsid)

Test(cache, a_file_rewritten_with_its_size_and_mtime_has_another_key)
{
	struct timespec keep[2], deadline, now;
	struct cache_key before, after;
	struct stat st;

	cr_assert_eq(cache_key_of(&before, fix.fd), 0);
	cr_assert_eq(fstat(fix.fd, &st), 0);
	keep[0] = st.st_atim;
	keep[1] = st.st_mtim;
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	/* The change time moves with the kernel's tick: at the latest with the next. */
	do {
		cr_assert_eq(pwrite(fix.fd, "x", 1, 100000), 1);
		cr_assert_eq(futimens(fix.fd, keep), 0);
		cr_assert_eq(cache_key_of(&after, fix.fd), 0);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (after.ctime_ns == before.ctime_ns && now.tv_sec < deadline.tv_sec + 10);
	cr_assert_eq(after.mtime_ns, before.mtime_ns);
	cr_assert_eq(after.bytes, before.bytes);
	cr_assert_not(cache_key_equal(&before, &after));
}

Test(cache, other_content_at_either_end_has_another_key)
{
	struct cache_key key;

	cr_assert_eq(pwrite(fix.fd, "x", 1, 0), 1);
	cr_assert_eq(cache_key_of(&key, fix.fd), 0);
	cr_assert_not(digest_equal(&key.ends, &fix.key.ends));
	cr_assert_eq(pwrite(fix.fd, fix.image.data, 1, 0), 1);
	cr_assert_eq(cache_key_of(&key, fix.fd), 0);
	cr_assert(digest_equal(&key.ends, &fix.key.ends));
	cr_assert_eq(pwrite(fix.fd, "x", 1, (off_t)fix.image.len - 1), 1);
	cr_assert_eq(cache_key_of(&key, fix.fd), 0);
	cr_assert_not(digest_equal(&key.ends, &fix.key.ends));
}

/* The key is forged to stay the same: on such a file system only the content tells. */
Test(cache, where_times_do_not_tell_the_whole_content_is_compared)
{
	char path[256];

	store(path);
	fix.image.data[fix.image.len / 2] ^= 1;
	cr_assert_eq(
		pwrite(fix.fd, fix.image.data + fix.image.len / 2, 1, (off_t)fix.image.len / 2), 1);
	cr_assert_not(served(&fix.key));
	cr_assert(strstr(last_log, "other content"), "%s", last_log);
	cr_assert_eq(entries(NULL), 0);
}

Test(cache, a_file_that_changed_just_now_is_not_kept)
{
	struct cache_key key;

	cr_assert_eq(cache_key_of(&key, fix.fd), 0);
	cache_store(&fix.cache, &key, fix.fd, &fix.payload);
	cr_assert_eq(entries(NULL), 0);
	cr_assert(strstr(last_log, "changed just now"), "%s", last_log);
	key.ctime_ns += 1000000000000u; /* from the future: the clock was set back */
	cache_store(&fix.cache, &key, fix.fd, &fix.payload);
	cr_assert_eq(entries(NULL), 0);
}

Test(cache, a_file_from_the_future_is_kept)
{
	struct cache_key key;

	cr_assert_eq(cache_key_of(&key, fix.fd), 0);
	key.ctime_ns += 1000000000000u;
	key.mtime_ns += 1000000000000u;
	cache_store(&fix.cache, &key, fix.fd, &fix.payload);
	cr_assert_eq(entries(NULL), 1, "%s", last_log);
}

Test(cache, a_flipped_bit_anywhere_is_not_served, .timeout = 60)
{
	char path[256];
	struct stat st;
	uint8_t *whole;
	unsigned int caught = 0, tried = 0;
	int fd;

	store(path);
	cr_assert_eq(stat(path, &st), 0);
	whole = malloc((size_t)st.st_size);
	fd = open(path, O_RDONLY);
	cr_assert_eq(read(fd, whole, (size_t)st.st_size), st.st_size);
	close(fd);
	/* Each word of the head and of the extents, and a byte of almost every page of the rest. */
	for (off_t at = 0; at < st.st_size; at += at < 1600   ? 8
						  : at < 4096 ? 64
						  : at < 4300 ? 8
							      : 4093) {
		unlink(path); /* gone when the last damage was found at once */
		fd = open(path, O_WRONLY | O_CREAT, 0600);
		cr_assert_geq(fd, 0);
		whole[at] ^= 0x40;
		cr_assert_eq(write(fd, whole, (size_t)st.st_size), st.st_size);
		whole[at] ^= 0x40;
		close(fd);
		tried++;
		caught += !served_intact(); /* asserts that what is served is right */
	}
	free(whole);
	/* Only filling between the parts may change unseen. */
	cr_assert_gt(caught, tried * 3 / 4, "%u of %u", caught, tried);
}

Test(cache, a_cut_entry_is_not_served)
{
	char path[256];
	struct stat st;

	store(path);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(chmod(path, 0600), 0);
	for (off_t len = st.st_size - 4096; len >= 0; len -= 4096) {
		cr_assert_eq(truncate(path, len), 0);
		cr_assert_not(served_intact(), "%ld bytes of %ld", len, st.st_size);
		if (access(path, F_OK)) { /* removed, as it should be: put it back */
			cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
			cr_assert_eq(chmod(path, 0600), 0);
		}
	}
}

Test(cache, an_entry_renamed_to_another_key_is_not_served)
{
	struct cache_key other = fix.key;
	char path[256], name[256];

	store(path);
	snprintf(name, sizeof(name), "%s.keep", path);
	cr_assert_eq(link(path, name), 0);
	cr_assert_eq(unlink(path), 0);
	other.ino++;
	cache_store(&fix.cache, &other, fix.fd, &fix.payload);
	cr_assert_eq(unlink(name), 0);
	cr_assert_eq(entries(name), 1);
	cr_assert_eq(rename(name, path), 0);
	cr_assert_not(served(&fix.key));
	cr_assert(strstr(last_log, "another file"), "%s", last_log);
}

Test(cache, a_symbolic_link_is_not_followed)
{
	char path[256], target[256];

	store(path);
	snprintf(target, sizeof(target), "%s.target", path);
	cr_assert_eq(rename(path, target), 0);
	cr_assert_eq(symlink(target, path), 0);
	cr_assert_not(served(&fix.key));
}

Test(cache, a_second_name_is_not_trusted)
{
	char path[256], second[256];

	store(path);
	snprintf(second, sizeof(second), "%s.second", path);
	cr_assert_eq(link(path, second), 0);
	cr_assert_not(served(&fix.key));
	cr_assert(strstr(last_log, "not a plain file"), "%s", last_log);
}

Test(cache, an_entry_open_to_others_is_not_trusted)
{
	char path[256];

	store(path);
	cr_assert_eq(chmod(path, 0640), 0);
	cr_assert_not(served(&fix.key));
	cr_assert(strstr(last_log, "open to others"), "%s", last_log);
}

Test(cache, an_entry_of_another_user_is_not_trusted)
{
	char path[256];

	if (geteuid())
		cr_skip("needs root, to give the file away");
	store(path);
	cr_assert_eq(chown(path, 12345, 12345), 0);
	cr_assert_not(served(&fix.key));
	cr_assert(strstr(last_log, "another user"), "%s", last_log);
}

Test(cache, a_directory_of_another_user_is_not_used)
{
	struct cache cache;

	if (geteuid())
		cr_skip("needs root, to give the directory away");
	cr_assert_eq(chown(dir, 12345, 12345), 0);
	cache_open(&cache, dir, &the_log);
	cr_assert_eq(cache.dir_fd, -1);
	cr_assert(strstr(last_log, "belongs to user 12345"), "%s", last_log);
}

Test(cache, a_directory_that_others_may_write_is_not_used)
{
	struct cache cache;

	cr_assert_eq(chmod(dir, 0775), 0);
	cache_open(&cache, dir, &the_log);
	cr_assert_eq(cache.dir_fd, -1);
	cr_assert(strstr(last_log, "others may write"), "%s", last_log);
}

Test(cache, a_directory_behind_a_link_is_not_used)
{
	struct cache cache;
	char link_path[128];

	snprintf(link_path, sizeof(link_path), "%s/link", dir);
	cr_assert_eq(symlink(dir, link_path), 0);
	cache_open(&cache, link_path, &the_log);
	cr_assert_eq(cache.dir_fd, -1);
}

Test(cache, missing_directories_are_made_private)
{
	char path[128];
	struct cache cache;
	struct stat st;

	snprintf(path, sizeof(path), "%s/a/b/c", dir);
	cache_open(&cache, path, &the_log);
	cr_assert_geq(cache.dir_fd, 0, "%s", last_log);
	cache_close(&cache);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "%s/a", dir);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
}

Test(cache, the_least_recently_used_go)
{
	struct cache_key key = fix.key;
	char path[256];
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	store(path);
	cr_assert_eq(utimensat(AT_FDCWD, path, old, 0), 0);
	for (unsigned int i = 0; i < CACHE_ENTRIES_MAX; i++) {
		key.ino++;
		cache_store(&fix.cache, &key, fix.fd, &fix.payload);
	}
	cr_assert_eq(entries(NULL), CACHE_ENTRIES_MAX);
	cr_assert(access(path, F_OK), "the oldest is still there");
}

Test(cache, use_keeps_an_entry_young)
{
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char path[256];
	struct stat st;

	store(path);
	cr_assert_eq(utimensat(AT_FDCWD, path, old, 0), 0);
	cr_assert(served(&fix.key));
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_gt(st.st_mtim.tv_sec, 1000);
}

Test(cache, what_a_crash_left_is_removed)
{
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/.new-0123", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
	cr_assert_eq(access(path, F_OK), 0, "a young one may belong to a running process");
	cr_assert_eq(utimensat(AT_FDCWD, path, old, 0), 0);
	cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
	cr_assert_neq(access(path, F_OK), 0);
}

/* A full disk and a file size limit look alike to the writer: a write fails half-way. */
Test(cache, a_full_disk_leaves_nothing_behind)
{
	struct rlimit limit = {16384, 16384};

	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
	cr_assert(strstr(last_log, "not cached: "), "%s", last_log);
	cr_assert_eq(entries(NULL), 0);
}

Test(cache, without_a_directory_nothing_happens)
{
	struct cache none = {.log = &the_log, .dir_fd = -1};
	struct payload p = {0};

	cache_store(&none, &fix.key, fix.fd, &fix.payload);
	cr_assert_eq(cache_load(&none, &fix.key, fix.fd, &p), -ENOENT);
	cache_drop(&none, &fix.key, "test");
}

/* As a confined machine does at a reset of its guest. */
Test(cache, a_sealed_one_serves_the_last_entry_and_no_other)
{
	struct cache_key other;
	char path[256];

	store(path);
	cache_seal(&fix.cache);
	cr_assert_eq(unlink(path), 0, "somebody prunes it meanwhile");
	cr_expect(served(&fix.key));
	other = fix.key;
	other.bytes++;
	cr_expect_not(served(&other));
	cr_expect_not(served(&fix.key), "what was wrong once is not believed again");
	cache_store(&fix.cache, &fix.key, fix.fd, &fix.payload);
	cr_expect_eq(entries(NULL), 0, "nothing is written by name");
}
