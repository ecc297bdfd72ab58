/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacked kernels, kept in a directory of the user's cache.
 *
 * An entry is served only when all of this holds:
 * - it is the user's own: the directory and the entry belong to the effective user, nobody else may
 *   write them, the entry is a regular file with one name, reached without a symbolic link;
 * - it belongs to exactly this kernel file: device, inode, size, modification and change time in
 *   nanoseconds, file system id, and the first and last 4 KiB of the content are the same. No
 *   entry is made for a file whose times are within two seconds of the clock's (its next change
 * could leave the same time), and where a file system's inodes and times do not identify content
 * (network, FUSE, overlay, read-only images, …) the checksum of the whole content must be the same
 * too;
 * - it is intact: a checksum over its head, checked before anything is believed, and one over its
 *   data, taken while the data is copied into guest memory.
 * An entry that fails the last check is removed and made anew. Entries appear by rename, whole or
 * not at all; any number of processes may use the directory. An entry that cannot be written is no
 * error.
 *
 * File: | head, 4 KiB | extents | data of each extent, page-aligned | relocation lists |
 */
#ifndef FIRMWARE_CACHE_H
#define FIRMWARE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "firmware/block.h"
#include "firmware/payload.h"

/* More entries than this: the least recently used go. */
#define CACHE_ENTRIES_MAX 8

struct cache {
	const struct log *log;
	int dir_fd;   /* -1: none is looked for, written or removed */
	int entry_fd; /* the one that was loaded or stored last, to read; -1 */
};

/* What identifies a kernel file. */
struct cache_key {
	uint64_t dev, ino, bytes, mtime_ns, ctime_ns, fsid;
	struct digest ends;
};

/* Opens dir, creating it (0700, parents likewise) when it is missing. If it cannot be used,
 * the reason is logged, and there is no cache. */
void cache_open(struct cache *cache, const char *dir, const struct log *log);
void cache_close(struct cache *cache);
/* From here on nothing is opened or changed by name: cache_load knows the last entry, and no other
 * one. */
void cache_seal(struct cache *cache);

/* 0 or a negative errno. */
int cache_key_of(struct cache_key *ret, int kernel_fd);
bool cache_key_equal(const struct cache_key *a, const struct cache_key *b);

/* An entry for the file: 0, or -ENOENT. The payload is then `cached`: its data is not yet
 * checked. */
int cache_load(struct cache *cache, const struct cache_key *key, int kernel_fd,
	       struct payload *ret);

/* Keep a payload that was just unpacked from the file with that key. Logs what goes wrong. */
void cache_store(struct cache *cache, const struct cache_key *key, int kernel_fd,
		 const struct payload *payload);

/* The entry is damaged: remove it. */
void cache_drop(struct cache *cache, const struct cache_key *key, const char *why);

#endif
