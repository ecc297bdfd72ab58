/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: what a document says of one, opening it (open_disk.c), and virtio-blk over it
 * (kind_disk.c).
 *
 * Threads: opening has no state; the rest is the machine's thread's.
 */
#ifndef MACHINE_KIND_DISK_H
#define MACHINE_KIND_DISK_H

#include "machine/kind.h"
#include "machine/rate.h"
#include "machine/vhost_user.h"

enum config_cache {
	CONFIG_CACHE_WRITEBACK,    /* host page cache, the guest flushes */
	CONFIG_CACHE_DIRECT,       /* O_DIRECT, the guest flushes */
	CONFIG_CACHE_WRITETHROUGH, /* every write on the disk before it is answered */
};

enum config_format {
	CONFIG_FORMAT_AUTO,  /* raw; a file with the signature of another format is refused */
	CONFIG_FORMAT_RAW,   /* raw, whatever the file looks like */
	CONFIG_FORMAT_QCOW2, /* for whoever starts a daemon that serves it */
};

struct config_disk {
	struct config_device base;
	char *path;
	int fd;
	struct config_vhost_user daemon;
	bool readonly;
	int cache;     /* enum config_cache */
	int format;    /* enum config_format */
	char *backing; /* the folder that backing files of a qcow2 image may lie in; NULL */
	bool discard;
	uint32_t queues;
	uint32_t queue_size;
	uint32_t block_bytes; /* 0: 512, or what direct access needs */
	char *serial;
	struct config_rate rate;
};

extern const struct device_kind kind_disk;

struct open_disk {
	int fd;
	uint64_t size_bytes;
	uint32_t align_bytes;
	uint32_t block_bytes; /* the document's, or the least that direct access allows */
	bool block_device;
};
/* Opens (or duplicates), checks and, if `hold`, locks: a writable disk for this machine alone, a
 * read-only one against writers. The fd is the caller's. */
int open_disk(const struct config_disk *disk, bool hold, struct open_disk *ret, struct err *err);
/* Lock it later, or give the lock up, by any duplicate of that fd. */
int open_disk_hold(const struct config_disk *disk, int fd, bool hold, struct err *err);

/* The disk's backing has a new size in bytes; 0: ask the file. */
int disk_resize(struct vm_device *disk, uint64_t size_bytes, struct err *err);

#endif
