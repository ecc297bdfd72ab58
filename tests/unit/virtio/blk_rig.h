/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio-blk device on the rig, its disk a file in memory, and its driver's habits. */
#ifndef TESTS_VIRTIO_BLK_RIG_H
#define TESTS_VIRTIO_BLK_RIG_H

#include "rig.h"
#include "virtio/blk.h"

enum {
	DISK_BYTES = 4 << 20,
	IN = 0,
	OUT = 1,
	FLUSH = 4,
	GET_ID = 8,
	DISCARD = 11,
	WRITE_ZEROES = 13,
	OK = 0,
	IOERR = 1,
	UNSUPP = 2,
	PENDING = 0xee,
};

#define F_RO           (1ull << 5)
#define F_FLUSH        (1ull << 9)
#define F_CONFIG_WCE   (1ull << 11)
#define F_MQ           (1ull << 12)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)
#define F_USUAL        (F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES)

struct disk {
	struct rig rig;
	int fd; /* the test's own */
};

/* What tests begin with, but for the fd. */
struct virtio_blk_setup usual(struct disk *d);
/* Blocks of 4 KiB: an edit. */
void make_4k(struct virtio_blk_setup *c);
/* edit: a change of the usual configuration, or NULL. The queue has 64 entries, or as many as it
 * says. */
void disk_open_with(struct disk *d, enum loop_backend backend,
		    void (*edit)(struct virtio_blk_setup *), uint64_t features);
void disk_open(struct disk *d);
void disk_close(struct disk *d);

/* One request with header, data and status where the test wants them. */
struct request {
	uint64_t header, data, status;
	uint32_t len;
	int head;
};

struct request make(struct disk *d, uint32_t type, uint64_t sector, uint32_t len);
/* Make it available: its head. */
int post(struct disk *d, struct request *r, bool data_in);
uint8_t status_of(struct disk *d, const struct request *r);
/* Do one request to its end: its status. */
uint8_t run(struct disk *d, struct request *r, bool data_in);
uint8_t simple(struct disk *d, uint32_t type, uint64_t sector, uint32_t len);
/* Discard or write zeroes: sector, sectors and flags of each range. */
uint8_t ranges(struct disk *d, uint32_t type, const uint64_t (*range)[3], unsigned int n);
/* The whole disk, and part of it, by its file. */
void fill(int fd, uint8_t byte);
bool all(int fd, uint64_t offset, size_t len, uint8_t byte);

#endif
