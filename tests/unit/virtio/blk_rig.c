// SPDX-License-Identifier: Apache-2.0
#include "blk_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"

struct virtio_blk_setup usual(struct disk *d)
{
	return (struct virtio_blk_setup){
		.name = "disk0",
		.serial = "SERIAL-0123456789-TOO-LONG",
		.size_bytes = DISK_BYTES,
		.block_bytes = 512,
		.align_bytes = 1,
		.discard = true,
		.queues = 1,
		.loops = &d->rig.loop,
		.n_loops = 1,
	};
}

void disk_open_with(struct disk *d, enum loop_backend backend,
		    void (*edit)(struct virtio_blk_setup *), uint64_t features)
{
	struct err err = ERR_INIT;
	struct virtio_device *vdev;

	rig_open(&d->rig, backend);
	d->fd = memfd_create("disk", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(d->fd, DISK_BYTES), 0);
	struct virtio_blk_setup c = usual(d);

	c.fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 3);
	if (edit)
		edit(&c);
	cr_assert_eq(virtio_blk_create(&vdev, &c, &d->rig.log, &err), 0, "%s", err.text);
	rig_attach(&d->rig, vdev);
	cr_assert(rig_negotiate(&d->rig, features));
	rig_queue(&d->rig, 0, (uint16_t)(c.queue_size ? c.queue_size : 64));
	rig_go(&d->rig);
}

void disk_open(struct disk *d)
{
	disk_open_with(d, LOOP_AUTO, NULL, F_USUAL);
}

void disk_close(struct disk *d)
{
	rig_close(&d->rig);
	close(d->fd);
}

struct request make(struct disk *d, uint32_t type, uint64_t sector, uint32_t len)
{
	struct request r = {
		.header = rig_alloc(&d->rig, 16, 16),
		.data = rig_alloc(&d->rig, len + 1, 1),
		.status = rig_alloc(&d->rig, 1, 1),
		.len = len,
	};
	uint8_t *h = rig_at(&d->rig, r.header);

	store_le32(h, type);
	store_le32(h + 4, 0);
	store_le64(h + 8, sector);
	*(uint8_t *)rig_at(&d->rig, r.status) = PENDING;
	return r;
}

int post(struct disk *d, struct request *r, bool data_in)
{
	struct rig_seg segs[3] = {{r->header, 16, false}};
	unsigned int n = 1;

	if (r->len)
		segs[n++] = (struct rig_seg){r->data, r->len, data_in};
	segs[n++] = (struct rig_seg){r->status, 1, true};
	r->head = rig_add(&d->rig.queues[0], segs, n, false);
	return r->head;
}

uint8_t status_of(struct disk *d, const struct request *r)
{
	return *(uint8_t *)rig_at(&d->rig, r->status);
}

uint8_t run(struct disk *d, struct request *r, bool data_in)
{
	struct rig_queue *q = &d->rig.queues[0];

	cr_assert_geq(post(d, r, data_in), 0);
	rig_kick(q);
	struct rig_used used = rig_wait(q);

	cr_assert_eq((int)used.id, r->head);
	return status_of(d, r);
}

uint8_t simple(struct disk *d, uint32_t type, uint64_t sector, uint32_t len)
{
	struct request r = make(d, type, sector, len);

	return run(d, &r, type == IN || type == GET_ID);
}

uint8_t ranges(struct disk *d, uint32_t type, const uint64_t (*range)[3], unsigned int n)
{
	struct request r = make(d, type, 0, 16 * n);
	uint8_t *p = rig_at(&d->rig, r.data);

	for (unsigned int i = 0; i < n; i++) {
		store_le64(p + 16 * i, range[i][0]);
		store_le32(p + 16 * i + 8, (uint32_t)range[i][1]);
		store_le32(p + 16 * i + 12, (uint32_t)range[i][2]);
	}
	return run(d, &r, false);
}

void fill(int fd, uint8_t byte)
{
	static uint8_t buf[DISK_BYTES];

	memset(buf, byte, sizeof(buf));
	cr_assert_eq(pwrite(fd, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
}

bool all(int fd, uint64_t offset, size_t len, uint8_t byte)
{
	uint8_t *buf = malloc(len);
	bool same = pread(fd, buf, len, (off_t)offset) == (ssize_t)len;

	for (size_t i = 0; same && i < len; i++)
		same = buf[i] == byte;
	free(buf);
	return same;
}

void make_4k(struct virtio_blk_setup *c)
{
	c->block_bytes = 4096;
	c->align_bytes = 4096;
}
