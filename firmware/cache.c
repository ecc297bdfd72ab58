// SPDX-License-Identifier: Apache-2.0
// The cache's files: their names, their contents, and when one is trusted.
#include "firmware/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rand.h"

#define PAGE              4096ull
#define MAGIC             0x316c6e6b73736f68ull /* "hossknl1" */
#define LAYOUT            2
#define SETTLED_NS        2000000000ull
#define STALE_TEMPORARY_S 3600
#define EXTENTS_MAX       (64 * KiB)
#define ENTRY_SUFFIX      ".kernel"
#define TEMPORARY_PREFIX  ".new-"

/* Host-endian and host-local, like everything it depends on. */
struct head {
	uint64_t magic;
	uint32_t layout;
	uint32_t head_bytes;
	uint64_t file_bytes;
	struct cache_key key;
	struct digest content;
	struct vmlinux elf;
	uint64_t reloc_offset[RELOC_KINDS];
	uint32_t n_relocs[RELOC_KINDS];
	uint32_t n_extents;
	struct digest data_digest;
	struct digest head_digest; /* of all before it, and of the extents */
};
_Static_assert(sizeof(struct head) <= PAGE, "the head is one page");

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#define BCACHEFS_MAGIC 0xca451a4e
#define ZFS_MAGIC      0x2fc12fc1

/* Where inode numbers are not handed out anew to other content with the same times. */
static bool identity_is_content(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) || fs.f_flags & ST_RDONLY)
		return false;
	switch ((uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case BCACHEFS_MAGIC:
	case ZFS_MAGIC:
		return true;
	default:
		return false;
	}
}

static uint64_t ns_of(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
}

int cache_key_of(struct cache_key *ret, int kernel_fd)
{
	uint8_t buf[PAGE] = {0};
	struct statfs fs;
	struct stat st;
	uint64_t len;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (fstat(kernel_fd, &st) || fstatfs(kernel_fd, &fs))
		return -errno;
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	ret->bytes = (uint64_t)st.st_size;
	ret->mtime_ns = ns_of(&st.st_mtim);
	ret->ctime_ns = ns_of(&st.st_ctim);
	memcpy(&ret->fsid, &fs.f_fsid, MIN(sizeof(ret->fsid), sizeof(fs.f_fsid)));
	digest_init(&ret->ends);
	len = MIN(ret->bytes, PAGE);
	r = fd_read_full(kernel_fd, buf, len, 0);
	if (r)
		return r;
	digest_update(&ret->ends, buf, len);
	r = fd_read_full(kernel_fd, buf, len, (off_t)(ret->bytes - len));
	if (r)
		return r;
	digest_update(&ret->ends, buf, len);
	return 0;
}

bool cache_key_equal(const struct cache_key *a, const struct cache_key *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static int content_digest(int fd, uint64_t bytes, struct digest *ret)
{
	const size_t chunk = 64 * KiB;
	cleanup_free uint8_t *buf = malloc(chunk);

	if (!buf)
		return -ENOMEM;
	digest_init(ret);
	for (uint64_t at = 0; at < bytes; at += chunk) {
		size_t len = MIN(bytes - at, chunk);
		int r = fd_read_full(fd, buf, len, (off_t)at);

		if (r)
			return r;
		digest_update(ret, buf, len);
	}
	return 0;
}

static void entry_name(const struct cache_key *key, char name[64])
{
	struct digest d;
	uint64_t h = 0;

	digest_init(&d);
	digest_update(&d, key, sizeof(*key));
	for (unsigned int i = 0; i < ARRAY_SIZE(d.lane); i++)
		h = (h ^ d.lane[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 32;
	snprintf(name, 64, "%016lx" ENTRY_SUFFIX, h);
}

/* mkdir -p, each 0700. */
static int make_directories(const char *dir)
{
	cleanup_free char *path = strdup(dir);

	if (!path)
		return -ENOMEM;
	for (char *c = path + 1; *c; c++) {
		if (*c != '/')
			continue;
		*c = 0;
		if (mkdir(path, 0700) && errno != EEXIST)
			return -errno;
		*c = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

void cache_open(struct cache *cache, const char *dir, const struct log *log)
{
	struct stat st;
	int fd, r = 0;

	*cache = (struct cache){.log = log, .dir_fd = -1, .entry_fd = -1};
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		r = make_directories(dir);
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (fd < 0 || fstat(fd, &st)) {
		log_warn(log, "kernel", "no kernel cache: '%s': %s", dir, err_name(r ? r : errno));
	} else if (st.st_uid != geteuid()) {
		log_warn(log, "kernel", "no kernel cache: '%s' belongs to user %u, not to user %u",
			 dir, st.st_uid, geteuid());
	} else if (st.st_mode & 022) {
		log_warn(log, "kernel",
			 "no kernel cache: others may write to '%s' (mode %03o); run "
			 "'chmod go-w'",
			 dir, st.st_mode & 0777);
	} else {
		cache->dir_fd = fd;
		return;
	}
	if (fd >= 0)
		close(fd);
}

void cache_close(struct cache *cache)
{
	fd_close(&cache->dir_fd);
	fd_close(&cache->entry_fd);
}

void cache_seal(struct cache *cache)
{
	fd_close(&cache->dir_fd);
}

void cache_drop(struct cache *cache, const struct cache_key *key, const char *why)
{
	char name[64];

	fd_close(&cache->entry_fd);
	entry_name(key, name);
	if (cache->dir_fd < 0) {
		log_warn(cache->log, "kernel", "cache entry %s is used no more: %s", name, why);
		return;
	}
	log_warn(cache->log, "kernel", "cache entry %s is removed: %s", name, why);
	unlinkat(cache->dir_fd, name, 0);
}

static void head_digest(const struct head *head, const struct extent *extent, struct digest *ret)
{
	digest_init(ret);
	digest_update(ret, head, offsetof(struct head, head_digest));
	digest_update(ret, extent, head->n_extents * sizeof(*extent));
}

/* Everything that memory safety depends on, although the checksum was right: the file could have
 * been made by anything that runs as this user. */
static bool head_is_sane(const struct head *head, const struct extent *extent, uint64_t file_bytes)
{
	const struct vmlinux *v = &head->elf;
	uint64_t at = 0;

	if (head->file_bytes != file_bytes || !v->span_bytes ||
	    v->span_bytes > IMAGE_UNPACKED_MAX || v->entry_offset >= v->span_bytes ||
	    v->base_gpa < MiB || v->base_gpa > 64 * TiB)
		return false;
	for (uint32_t i = 0; i < head->n_extents; i++) {
		const struct extent *e = &extent[i];

		if (!range_inside(e->image_offset, e->bytes, at, v->span_bytes - at) ||
		    !range_inside(e->data_offset, e->bytes, 0, file_bytes))
			return false;
		at = e->image_offset + e->bytes;
	}
	for (unsigned int i = 0; i < RELOC_KINDS; i++)
		if (head->n_relocs[i] &&
		    !range_inside(head->reloc_offset[i], 4ull * head->n_relocs[i], 0, file_bytes))
			return false;
	return true;
}

/* NULL when the mapped file is a whole entry for key, else what is wrong with it. */
static const char *check_entry(const struct head *head, const struct extent *extent,
			       uint64_t file_bytes, const struct cache_key *key)
{
	struct digest digest;

	if (head->magic != MAGIC || head->layout != LAYOUT || head->head_bytes != sizeof(*head))
		return "not written by this version";
	if (head->n_extents > EXTENTS_MAX ||
	    !range_inside(PAGE, head->n_extents * sizeof(*extent), 0, file_bytes))
		return "damaged head";
	head_digest(head, extent, &digest);
	if (!digest_equal(&digest, &head->head_digest))
		return "damaged head";
	if (!cache_key_equal(&head->key, key))
		return "made for another file";
	if (!head_is_sane(head, extent, file_bytes))
		return "absurd head";
	return NULL;
}

/* The one that is open already may have lost its name. */
static int open_last(const struct cache *cache, struct stat *st)
{
	int fd = cache->entry_fd < 0 ? -ENOENT : fd_dup(cache->entry_fd);

	if (fd >= 0 && !fstat(fd, st) && st->st_size >= (off_t)PAGE)
		return fd;
	fd_close(&fd);
	return -ENOENT;
}

static int open_entry(const struct cache *cache, const char *name, struct stat *st)
{
	int fd = openat(cache->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const char *why = NULL;

	if (fd < 0) {
		if (errno != ENOENT)
			log_warn(cache->log, "kernel", "cache entry %s: %s", name, err_name(errno));
		return -ENOENT;
	}
	if (fstat(fd, st))
		why = err_name(errno);
	else if (!S_ISREG(st->st_mode) || st->st_nlink > 1)
		why = "not a plain file";
	else if (st->st_uid != geteuid())
		why = "belongs to another user";
	else if (st->st_mode & 077)
		why = "open to others";
	else if (st->st_size < (off_t)PAGE || st->st_size > (off_t)(2 * IMAGE_UNPACKED_MAX))
		why = "cut short";
	if (!why)
		return fd;
	log_warn(cache->log, "kernel", "cache entry %s is not used: %s", name, why);
	close(fd);
	unlinkat(cache->dir_fd, name, 0);
	return -ENOENT;
}

/* A reader that finds the file gone bad gets an error here, not a SIGBUS later. */
static void *map_entry(int fd, size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return NULL;
#ifdef MADV_POPULATE_READ
	if (madvise(map, bytes, MADV_POPULATE_READ) && errno != EINVAL) {
		munmap(map, bytes);
		return NULL;
	}
#endif
	return map;
}

static void adopt(struct payload *ret, const struct head *head, size_t bytes)
{
	memset(ret, 0, sizeof(*ret));
	ret->elf = head->elf;
	ret->map = (void *)head;
	ret->map_bytes = bytes;
	ret->data = ret->map;
	ret->data_bytes = bytes;
	ret->cached = true;
	ret->digest = head->data_digest;
	ret->extent = (const void *)(ret->data + PAGE);
	ret->n_extents = head->n_extents;
	for (unsigned int i = 0; i < RELOC_KINDS; i++) {
		ret->relocs.list[i].n = head->n_relocs[i];
		ret->relocs.list[i].word = (uint8_t *)ret->map + head->reloc_offset[i];
	}
}

int cache_load(struct cache *cache, const struct cache_key *key, int kernel_fd, struct payload *ret)
{
	cleanup_fd int fd = -1;
	const char *why;
	struct digest content;
	struct stat st;
	struct head *head;
	char name[64];

	entry_name(key, name);
	fd = cache->dir_fd < 0 ? open_last(cache, &st) : open_entry(cache, name, &st);
	if (fd < 0)
		return -ENOENT;
	head = map_entry(fd, (size_t)st.st_size);
	if (!head) {
		cache_drop(cache, key, "it cannot be read");
		return -ENOENT;
	}
	why = check_entry(head, (const void *)((const uint8_t *)head + PAGE), (uint64_t)st.st_size,
			  key);
	if (!why && !identity_is_content(kernel_fd) &&
	    (content_digest(kernel_fd, key->bytes, &content) ||
	     !digest_equal(&content, &head->content)))
		why = "the kernel file has other content";
	if (why) {
		munmap(head, (size_t)st.st_size);
		cache_drop(cache, key, why);
		return -ENOENT;
	}
	adopt(ret, head, (size_t)st.st_size);
	/* Its last use, for pruning: no finer than an hour. */
	if (st.st_mtim.tv_sec + 3600 < time(NULL))
		futimens(fd, NULL);
	fd_close(&cache->entry_fd);
	cache->entry_fd = fd;
	fd = -1;
	return 0;
}

/* Remove temporaries left by a crash, and the entries used longest ago. */
static void prune(const struct cache *cache)
{
	for (;;) {
		char oldest[64] = "";
		time_t oldest_s = 0;
		unsigned int n = 0;
		struct dirent *d;
		DIR *dir;
		int fd = openat(cache->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return;
		dir = fdopendir(fd);
		if (!dir) {
			close(fd);
			return;
		}
		while ((d = readdir(dir))) {
			size_t len = strlen(d->d_name), suffix = strlen(ENTRY_SUFFIX);
			struct stat st;

			if (len >= sizeof(oldest) ||
			    fstatat(cache->dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
				continue;
			if (!strncmp(d->d_name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX))) {
				if (st.st_mtime + STALE_TEMPORARY_S < time(NULL))
					unlinkat(cache->dir_fd, d->d_name, 0);
				continue;
			}
			if (len < suffix || strcmp(d->d_name + len - suffix, ENTRY_SUFFIX))
				continue;
			n++;
			if (!*oldest || st.st_mtime < oldest_s) {
				oldest_s = st.st_mtime;
				memcpy(oldest, d->d_name, len + 1);
			}
		}
		closedir(dir);
		if (n <= CACHE_ENTRIES_MAX || unlinkat(cache->dir_fd, oldest, 0))
			return;
	}
}

/* Sequential writing with padding; the position is the file's. */
struct writer {
	int fd;
	uint64_t at;
};

static int put(struct writer *w, const void *data, uint64_t len, uint64_t align)
{
	static const uint8_t zero[PAGE];
	uint64_t pad = align_up(w->at, align) - w->at;
	int r = pad ? fd_write_full(w->fd, zero, pad, (off_t)w->at) : 0;

	w->at += pad;
	if (!r && len)
		r = fd_write_full(w->fd, data, len, (off_t)w->at);
	w->at += len;
	return r;
}

static int write_entry(int fd, struct head *head, const struct payload *p)
{
	cleanup_free struct extent *extent =
		calloc(p->n_extents ? p->n_extents : 1, sizeof(*extent));
	struct writer w = {fd, PAGE};
	uint8_t page[PAGE] = {0};
	int r = 0;

	if (!extent)
		return -ENOMEM;
	w.at += p->n_extents * sizeof(*extent);
	for (uint32_t i = 0; i < p->n_extents && !r; i++) {
		extent[i] = p->extent[i];
		extent[i].data_offset = align_up(w.at, PAGE);
		r = put(&w, p->data + p->extent[i].data_offset, extent[i].bytes, PAGE);
	}
	for (unsigned int i = 0; i < RELOC_KINDS && !r; i++) {
		head->n_relocs[i] = p->relocs.list[i].n;
		head->reloc_offset[i] = align_up(w.at, PAGE);
		r = put(&w, p->relocs.list[i].word, 4ull * head->n_relocs[i], PAGE);
	}
	if (!r)
		r = put(&w, NULL, 0, PAGE);
	if (r)
		return r;
	head->file_bytes = w.at;
	head->n_extents = p->n_extents;
	payload_digest(p, &head->data_digest);
	head_digest(head, extent, &head->head_digest);
	memcpy(page, head, sizeof(*head));
	r = fd_write_full(fd, page, PAGE, 0);
	return r ? r : fd_write_full(fd, extent, p->n_extents * sizeof(*extent), (off_t)PAGE);
}

/* A change that follows within the clock's granularity could leave the same time. A time far ahead
 * of the clock (which was set back, or never set) is as good as one long past. */
static bool is_near(uint64_t time_ns, uint64_t now_ns)
{
	return time_ns < now_ns + SETTLED_NS && now_ns < time_ns + SETTLED_NS;
}

static bool is_settled(const struct cache_key *key)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return !is_near(key->ctime_ns, ns_of(&now)) && !is_near(key->mtime_ns, ns_of(&now));
}

void cache_store(struct cache *cache, const struct cache_key *key, int kernel_fd,
		 const struct payload *payload)
{
	struct head head = {
		.magic = MAGIC,
		.layout = LAYOUT,
		.head_bytes = sizeof(head),
		.key = *key,
		.elf = payload->elf,
	};
	char temporary[64], name[64];
	struct stat st;
	uint64_t random;
	int fd, r;

	if (cache->dir_fd < 0 || payload->n_extents > EXTENTS_MAX)
		return;
	if (!is_settled(key)) {
		log_debug(cache->log, "kernel", "not cached: the file changed just now");
		return;
	}
	r = content_digest(kernel_fd, key->bytes, &head.content);
	if (!r)
		r = rand_bytes(&random, sizeof(random));
	if (r) {
		log_warn(cache->log, "kernel", "not cached: %s", err_name(r));
		return;
	}
	snprintf(temporary, sizeof(temporary), TEMPORARY_PREFIX "%016lx", random);
	entry_name(key, name);
	fd = openat(cache->dir_fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (fd < 0) {
		log_warn(cache->log, "kernel", "not cached: %s", err_name(errno));
		return;
	}
	r = write_entry(fd, &head, payload);
	if (!r && fchmod(fd, 0400))
		r = -errno;
	if (!r && renameat(cache->dir_fd, temporary, cache->dir_fd, name))
		r = -errno;
	close(fd);
	if (r) {
		unlinkat(cache->dir_fd, temporary, 0);
		log_warn(cache->log, "kernel", "not cached: %s", err_name(r));
	} else {
		/* Once more, so that whoever has it later cannot write to it. */
		fd_close(&cache->entry_fd);
		cache->entry_fd = open_entry(cache, name, &st);
	}
	prune(cache);
}
