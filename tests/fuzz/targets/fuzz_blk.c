// SPDX-License-Identifier: Apache-2.0
// virtio-blk against a driver that asks for anything, in buffers cut anywhere. The input is a list
// of requests, each made and taken to its end (or reset away). Oracle: a disk that is an array, on
// which each request is done plainly: status, data, every byte around the buffers and the disk must
// agree.
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"
#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "virtio/blk.h"

enum {
	SECTOR = 512,
	SECTORS = 96,
	DISK_BYTES = SECTORS * SECTOR,
	DATA_MAX = 32 * SECTOR,
	OUT_MAX = 16 + DATA_MAX,
	IN_MAX = DATA_MAX + 1,
	QUEUE_SIZE = 512, /* longer than the device keeps segments */
	SEGMENTS_MAX = QUEUE_SIZE,
	GUARD = 8,
	GUARD_BYTE = 0xa5,
	ARENA_BYTES = OUT_MAX + IN_MAX + SEGMENTS_MAX * GUARD,
	MAX_STEPS = 40,
	MAX_TURNS = 2000,
	RANGES_MAX = 32,
	RANGE_SECTORS_MAX = 1 << 21,

	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_WRITE_ZEROES = 13,
	S_OK = 0,
	S_IOERR = 1,
	S_UNSUPP = 2,
	S_NEEDS_RESET = 64,
};

#define FEATURES (1ull << 9 | 1ull << 13 | 1ull << 14 | 1ull << 29)
static const char serial[] = "S-0123456789";

/* Three disks: any buffer, buffers that bounce and large blocks, and one to read only. */
struct disk {
	struct guest *guest; /* each in its own */
	struct drv *d;
	int fd;
	uint32_t block_sectors;
	bool readonly;
	uint8_t image[DISK_BYTES]; /* what must be on it */
};

static struct disk disks[3];
static struct guest *g; /* of the disk that this input is about */
static uint64_t arena, base;

static void make_disk(struct disk *disk, uint32_t block, uint32_t align, bool readonly)
{
	struct guest_config config = {.backend = LOOP_EPOLL};
	struct loop *loop;
	struct virtio_blk_setup c = {
		.name = "disk0",
		.serial = serial,
		.size_bytes = DISK_BYTES,
		.block_bytes = block,
		.align_bytes = align,
		.readonly = readonly,
		.discard = true,
		.queues = 1,
		.queue_size = QUEUE_SIZE,
		.loops = &loop,
		.n_loops = 1,
	};
	struct virtio_device *vdev;

	disk->guest = guest_create(&config);
	loop = guest_loop(disk->guest, 0);
	disk->fd = memfd_create("disk", MFD_CLOEXEC);
	disk->block_sectors = block / SECTOR;
	disk->readonly = readonly;
	c.fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
	check(!virtio_blk_create(&vdev, &c, guest_log(disk->guest), NULL));
	disk->d = drv_create(disk->guest, vdev);
	/* The same address in each. */
	arena = guest_alloc(disk->guest, ARENA_BYTES, 4096);
	base = guest_alloc(disk->guest, 4096, 4096);
}

static void set_up(void)
{
	if (g)
		return;
	make_disk(&disks[0], 512, 1, false);
	make_disk(&disks[1], 4096, 512, false);
	make_disk(&disks[2], 512, 1, true);
}

struct run {
	const uint8_t *data;
	size_t left;
	struct disk *disk;
	uint8_t next[DISK_BYTES]; /* the disk behind the present request */
};

static uint8_t byte(struct run *r)
{
	if (!r->left)
		return 0;
	r->left--;
	return *r->data++;
}

/* One request as the driver means it, and what must come of it. */
struct request {
	uint32_t out_bytes, in_bytes;
	uint8_t out[OUT_MAX];
	uint8_t in[IN_MAX]; /* as it must look in the end */
	struct drv_sg sg[SEGMENTS_MAX];
	unsigned int n_out, n_in;
	bool too_many;
};

/* The disk as it must be done */

static bool on_disk(const struct disk *disk, uint64_t sector, uint64_t sectors)
{
	for (uint64_t i = 0; i < sectors; i++)
		if (sector > SECTORS - 1 || i > SECTORS - 1 - sector)
			return false;
	return sector <= SECTORS && !(sector % disk->block_sectors) &&
	       !(sectors % disk->block_sectors);
}

static uint8_t model_transfer(struct run *r, struct request *q, bool in, uint64_t sector)
{
	uint32_t bytes = in ? q->in_bytes - 1 : q->out_bytes - 16;

	if (bytes % SECTOR || !on_disk(r->disk, sector, bytes / SECTOR) ||
	    (!in && r->disk->readonly))
		return S_IOERR;
	if (in)
		memcpy(q->in, r->disk->image + sector * SECTOR, bytes);
	else
		memcpy(r->next + sector * SECTOR, q->out + 16, bytes);
	return S_OK;
}

static uint8_t model_ranges(struct run *r, struct request *q, bool discard)
{
	uint32_t bytes = q->out_bytes - 16;

	if (r->disk->readonly)
		return S_UNSUPP; /* not offered */
	if (!bytes || bytes % 16 || bytes > 16 * RANGES_MAX)
		return S_IOERR;
	for (uint32_t at = 16; at < q->out_bytes; at += 16) {
		if (load_le32(q->out + at + 12) & (discard ? ~0u : ~1u))
			return S_UNSUPP;
		if (load_le32(q->out + at + 8) > RANGE_SECTORS_MAX ||
		    !on_disk(r->disk, load_le64(q->out + at), load_le32(q->out + at + 8)))
			return S_IOERR;
	}
	for (uint32_t at = 16; at < q->out_bytes; at += 16)
		memset(r->next + load_le64(q->out + at) * SECTOR, 0,
		       (size_t)load_le32(q->out + at + 8) * SECTOR);
	return S_OK;
}

static uint8_t model(struct run *r, struct request *q)
{
	uint32_t room = q->in_bytes - 1;

	if (q->too_many || q->out_bytes < 16)
		return S_IOERR;
	switch (load_le32(q->out)) {
	case T_IN:
		return model_transfer(r, q, true, load_le64(q->out + 8));
	case T_OUT:
		return model_transfer(r, q, false, load_le64(q->out + 8));
	case T_FLUSH:
		return S_OK;
	case T_GET_ID: {
		char id[20] = {0};

		memcpy(id, serial, sizeof(serial) - 1);
		memcpy(q->in, id, MIN(room, (uint32_t)sizeof(id)));
		return S_OK;
	}
	case T_DISCARD:
		return model_ranges(r, q, true);
	case T_WRITE_ZEROES:
		return model_ranges(r, q, false);
	default:
		return S_UNSUPP;
	}
}

/* Making requests */

static uint64_t pick_sector(struct run *r)
{
	static const uint64_t edges[] = {
		SECTORS - 1, SECTORS,    SECTORS + 1,    1ull << 55, (1ull << 55) - 1,
		1ull << 63,  UINT64_MAX, UINT64_MAX - 7, UINT32_MAX, 1ull << 32,
	};
	uint8_t b = byte(r);

	return b < 128 ? b : edges[b % ARRAY_SIZE(edges)];
}

static uint32_t pick_bytes(struct run *r)
{
	uint8_t b = byte(r);
	uint32_t bytes = (b & 31u) * SECTOR;

	switch (b >> 5) {
	case 5:
		return bytes + 1;
	case 6:
		return bytes ? bytes - 1 : 0;
	case 7:
		return bytes + 16;
	default:
		return bytes;
	}
}

static void make_ranges(struct run *r, struct request *q)
{
	unsigned int n = byte(r) % (RANGES_MAX + 2);

	for (unsigned int i = 0; i < n; i++) {
		uint8_t *range = q->out + 16 + (size_t)16 * i, count;

		store_le64(range, pick_sector(r));
		count = byte(r);
		store_le32(range + 8, count == 255 ? UINT32_MAX : count == 254 ? 1u << 23 : count);
		store_le32(range + 12, byte(r) & 0x81u);
	}
	q->out_bytes = 16 + 16 * n + (byte(r) == 255);
}

static void make_request(struct run *r, struct request *q)
{
	static const uint32_t types[] = {T_IN,      T_OUT,          T_FLUSH, T_GET_ID,
					 T_DISCARD, T_WRITE_ZEROES, T_IN,    T_OUT};
	uint8_t b = byte(r);
	uint32_t type = b & 0x80 ? b & 0x7f : types[b % ARRAY_SIZE(types)], bytes;

	store_le32(q->out, type);
	store_le64(q->out + 8, pick_sector(r));
	q->out_bytes = 16;
	q->in_bytes = 1;
	bytes = pick_bytes(r);
	if (type == T_OUT) {
		uint8_t seed = byte(r);

		for (uint32_t i = 0; i < bytes; i++)
			q->out[16 + i] = (uint8_t)(seed + i * 7 + (i >> 9));
		q->out_bytes += bytes;
	} else if (type == T_DISCARD || type == T_WRITE_ZEROES) {
		make_ranges(r, q);
	} else {
		q->in_bytes += bytes;
	}
	switch (byte(r)) {
	case 255: /* cut short */
		q->out_bytes = MIN(q->out_bytes, byte(r));
		break;
	case 254: /* no place for a status */
		q->in_bytes = 0;
		break;
	default:
		break;
	}
}

/* Cut one direction: `cut` bytes a segment, or (0) header, data and status apart, as drivers do. */
static unsigned int cut_up(struct drv_sg *sg, unsigned int room, uint64_t *at, uint32_t bytes,
			   uint32_t cut, uint32_t first)
{
	unsigned int n = 0;

	for (uint32_t done = 0, len; done < bytes; done += len) {
		len = cut ? cut : done ? bytes - done : first;
		len = MIN(len, bytes - done);
		if (n + 1 >= room)
			len = bytes - done;
		sg[n++] = (struct drv_sg){*at, len};
		*at += len + GUARD;
	}
	return n;
}

/* Put it into guest memory. */
static void lay_out(struct run *r, struct request *q)
{
	uint8_t b = byte(r);
	uint32_t cut = b > 200 ? (b - 200u) * 64 : b;
	uint64_t at = arena + (b & 1);
	const uint8_t *from = q->out;

	memset(q->in, GUARD_BYTE, sizeof(q->in));
	memset(guest_ptr(g, arena, ARENA_BYTES), GUARD_BYTE, ARENA_BYTES);
	q->n_out = cut_up(q->sg, SEGMENTS_MAX / 2, &at, q->out_bytes, cut, 16);
	q->n_in = cut_up(q->sg + q->n_out, SEGMENTS_MAX - q->n_out, &at, q->in_bytes, cut,
			 q->in_bytes > 1 ? q->in_bytes - 1 : 1);
	q->too_many = q->n_out + q->n_in > VIRTQ_MAX_SEGMENTS;
	for (unsigned int i = 0; i < q->n_out; i++) {
		memcpy(guest_ptr(g, q->sg[i].gpa, q->sg[i].len), from, q->sg[i].len);
		from += q->sg[i].len;
	}
}

/* Buffers hold what they must, and nothing around them was touched. */
static void compare_memory(const struct request *q)
{
	static uint8_t want[ARENA_BYTES];
	const uint8_t *out = q->out, *in = q->in;

	memset(want, GUARD_BYTE, sizeof(want));
	for (unsigned int i = 0; i < q->n_out + q->n_in; i++) {
		const uint8_t **from = i < q->n_out ? &out : &in;

		memcpy(want + (q->sg[i].gpa - arena), *from, q->sg[i].len);
		*from += q->sg[i].len;
	}
	check(!memcmp(want, guest_ptr(g, arena, ARENA_BYTES), ARENA_BYTES));
}

static void compare_disk(struct run *r)
{
	static uint8_t is[DISK_BYTES];

	check(pread(r->disk->fd, is, DISK_BYTES, 0) == DISK_BYTES);
	check(!memcmp(is, r->disk->image, DISK_BYTES));
}

static void start(struct run *r)
{
	struct drv *d = r->disk->d;

	guest_free_from(g, base);
	drv_start(d, FEATURES & drv_offered(d), QUEUE_SIZE);
}

/* Given up in the middle: each byte is as before or as it would have been. */
static void give_up(struct run *r)
{
	static uint8_t is[DISK_BYTES];

	start(r);
	check(pread(r->disk->fd, is, DISK_BYTES, 0) == DISK_BYTES);
	for (unsigned int i = 0; i < DISK_BYTES; i++)
		check(is[i] == r->disk->image[i] || is[i] == r->next[i]);
	memcpy(r->disk->image, is, DISK_BYTES);
}

static void finish(struct run *r, struct request *q, uint16_t head)
{
	struct drv *d = r->disk->d;
	uint16_t id;
	uint32_t len;

	for (unsigned int i = 0; !drv_used(d, 0, &id, &len); i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
		if (!q->in_bytes && drv_status(d) & S_NEEDS_RESET) {
			start(r);
			return;
		}
	}
	check(q->in_bytes && id == head && len >= 1 && len <= q->in_bytes);
	check(q->too_many || len == q->in_bytes);
	check(drv_status(d) == 15);
	compare_memory(q);
	memcpy(r->disk->image, r->next, DISK_BYTES);
}

static void step(struct run *r)
{
	static struct request q;
	struct drv *d = r->disk->d;
	uint16_t head;
	uint8_t b;

	make_request(r, &q);
	lay_out(r, &q);
	if (!q.n_out && !q.n_in)
		return;
	memcpy(r->next, r->disk->image, DISK_BYTES);
	if (q.in_bytes)
		q.in[q.in_bytes - 1] = model(r, &q);
	head = drv_add(d, 0, q.sg, q.n_out, q.sg + q.n_out, q.n_in);
	drv_kick(d, 0);
	b = byte(r);
	if (b < 240) {
		finish(r, &q, head);
		return;
	}
	for (unsigned int i = 0; i < b % 4u; i++)
		guest_turn(g);
	give_up(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct run r;

	set_up();
	r.data = data;
	r.left = size;
	r.disk = &disks[byte(&r) % ARRAY_SIZE(disks)];
	g = r.disk->guest;
	start(&r);
	for (unsigned int i = 0; i < DISK_BYTES; i++)
		r.disk->image[i] = (uint8_t)(i * 11 + (i >> 9));
	check(pwrite(r.disk->fd, r.disk->image, DISK_BYTES, 0) == DISK_BYTES);
	for (unsigned int i = 0; i < MAX_STEPS && r.left; i++)
		step(&r);
	compare_disk(&r);
	return 0;
}
