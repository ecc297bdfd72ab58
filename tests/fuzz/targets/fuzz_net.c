// SPDX-License-Identifier: Apache-2.0
// virtio-net on a socket, against a driver that sends, gives buffers and commands in any shape.
// Oracle: the stream that the peer reads is the frames that may be sent, in order; each frame that
// the peer sends lands in the next buffers that hold it, header, count and lengths right and
// nothing around them touched; each command is answered, and changes the configuration, as written
// down here.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver.h"
#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "virtio/net.h"

enum {
	RX = 0,
	TX = 1,
	CTRL = 2,
	QUEUE_SIZE = 512,
	CTRL_SIZE = 64,
	HEADER = 12,
	FRAME_MIN = 14,
	FRAME_MAX = 14 + 4 + 65535,
	LONGEST = HEADER + FRAME_MAX + 600, /* that is tried */
	SEGMENTS_MAX = 400,
	BUFFERS_MAX = 60,
	BUFFER_SEGMENTS = 3,
	FRAMES_MAX = 8, /* that wait */
	STREAM_MAX = 1 << 20,
	GUARD = 8,
	GUARD_BYTE = 0xa5,
	MAX_STEPS = 60,
	MAX_TURNS = 2000,
	COALESCING_US_MAX = 1000000,

	S_NEEDS_RESET = 64,
	LINK_UP = 1,
	ANNOUNCE = 2,
};

#define F_MRG      (1ull << 15)
#define F_CTRL     (1ull << 17)
#define F_CTRL_RX  (1ull << 18)
#define F_ANNOUNCE (1ull << 21)
#define F_CTRL_MAC (1ull << 23)
#define F_EVENT    (1ull << 29)
#define F_VQ_COAL  (1ull << 52)
#define F_COAL     (1ull << 53)

static const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};

struct buffer {
	struct drv_sg sg[BUFFER_SEGMENTS];
	unsigned int n;
	uint32_t bytes;
	uint16_t head;
};

struct frame {
	uint32_t len;
	uint8_t seed;
};

static struct guest *g;
static uint64_t base;
static uint8_t scratch[LONGEST + 8];

struct run {
	const uint8_t *data;
	size_t left;
	struct virtio_device *vdev;
	struct drv *d;
	int peer;
	uint64_t features;
	bool over; /* the device has given up, as it should */
	bool up;
	bool announce;
	uint8_t mac[6];
	uint8_t coalescing[2][8];           /* of each queue: packets, microseconds */
	struct buffer buffers[BUFFERS_MAX]; /* given and not used, oldest first */
	unsigned int n_buffers;
	struct frame frames[FRAMES_MAX]; /* sent by the peer and not delivered */
	unsigned int n_frames;
	uint8_t *sent; /* what the peer must read yet */
	size_t n_sent;
};

static uint8_t byte(struct run *r)
{
	if (!r->left)
		return 0;
	r->left--;
	return *r->data++;
}

static uint8_t frame_byte(const struct frame *f, uint32_t i)
{
	return (uint8_t)(f->seed + i * 5 + (i >> 8));
}

/* Lengths: small, of a frame, and about the limits. */
static uint32_t pick_len(struct run *r)
{
	static const uint32_t edges[] = {FRAME_MIN - 1, FRAME_MIN, 1514,     4096,
					 9000,          65549,     FRAME_MAX};
	uint8_t b = byte(r);

	return b < 200 ? b * 2u : edges[b % ARRAY_SIZE(edges)];
}

static bool broken(struct run *r)
{
	return drv_status(r->d) & S_NEEDS_RESET;
}

static void expect_broken(struct run *r)
{
	for (unsigned int i = 0; !broken(r); i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
	}
	r->over = true;
}

static void check_config(struct run *r)
{
	uint16_t status = (uint16_t)((r->up ? LINK_UP : 0) | (r->announce ? ANNOUNCE : 0));

	for (unsigned int i = 0; i < 6; i++)
		check(drv_bar_read(r->d, r->d->config + i, 1) == r->mac[i]);
	check(drv_bar_read(r->d, r->d->config + 6, 2) == status);
}

/* Segments of bytes, each between guards; returns how many. */
static unsigned int cut_up(struct drv_sg *sg, unsigned int room, uint32_t bytes, uint32_t cut)
{
	uint64_t at = guest_alloc(g, bytes + (uint64_t)room * GUARD + GUARD, 1) + GUARD;
	unsigned int n = 0;

	for (uint32_t done = 0, len; done < bytes; done += len) {
		len = cut && n + 1 < room ? MIN(cut, bytes - done) : bytes - done;
		memset(guest_ptr(g, at - GUARD, len + 2 * GUARD), GUARD_BYTE, len + 2 * GUARD);
		sg[n++] = (struct drv_sg){at, len};
		at += len + GUARD;
	}
	return n;
}

static void fill(const struct drv_sg *sg, unsigned int n, const uint8_t *from)
{
	for (unsigned int i = 0; i < n; i++) {
		memcpy(guest_ptr(g, sg[i].gpa, sg[i].len), from, sg[i].len);
		from += sg[i].len;
	}
}

/* The segments hold `len` bytes of from, and then what they held before, and so do the guards. */
static void holds(const struct drv_sg *sg, unsigned int n, const uint8_t *from, uint32_t len)
{
	for (unsigned int i = 0; i < n; i++) {
		const uint8_t *p = guest_ptr(g, sg[i].gpa - GUARD, sg[i].len + 2 * GUARD);
		uint32_t part = MIN(len, sg[i].len);

		check(!memcmp(p + GUARD, from, part));
		for (uint32_t j = part; j < sg[i].len; j++)
			check(p[GUARD + j] == GUARD_BYTE);
		for (unsigned int j = 0; j < GUARD; j++)
			check(p[j] == GUARD_BYTE && p[GUARD + sg[i].len + j] == GUARD_BYTE);
		from += part;
		len -= part;
	}
}

/* The peer */

static void peer_reads(struct run *r)
{
	static uint8_t buf[65536];
	ssize_t n;

	while ((n = read(r->peer, buf, sizeof(buf))) > 0) {
		check((size_t)n <= r->n_sent && !memcmp(buf, r->sent, (size_t)n));
		r->n_sent -= (size_t)n;
		memmove(r->sent, r->sent + n, r->n_sent);
	}
}

static void peer_sends(struct run *r)
{
	struct frame f = {pick_len(r), byte(r)};
	uint8_t prefix[4] = {(uint8_t)(f.len >> 24), (uint8_t)(f.len >> 16), (uint8_t)(f.len >> 8),
			     (uint8_t)f.len};
	size_t n = 4 + f.len;

	/* The socket takes one of the large ones for sure. */
	if (r->n_frames == FRAMES_MAX || (r->n_frames && f.len > 2000))
		return;
	memcpy(scratch, prefix, 4);
	for (uint32_t i = 0; i < f.len; i++)
		scratch[4 + i] = frame_byte(&f, i);
	if (write(r->peer, scratch, n) == (ssize_t)n)
		r->frames[r->n_frames++] = f;
	else
		check(false);
}

/* Receive */

static void give(struct run *r)
{
	struct buffer *b = &r->buffers[r->n_buffers];
	uint32_t bytes = pick_len(r), cut = byte(r);

	if (r->n_buffers == BUFFERS_MAX)
		return;
	b->bytes = MAX(bytes, 1u);
	b->n = cut_up(b->sg, BUFFER_SEGMENTS, b->bytes, cut);
	b->head = drv_add(r->d, RX, NULL, 0, b->sg, b->n);
	drv_kick(r->d, RX);
	r->n_buffers++;
}

/* How many of the buffers the next packet takes; 0: it waits; -1: it is dropped. */
static int placed(const struct run *r)
{
	uint32_t bytes = HEADER + r->frames[0].len, sum = 0;

	if (!r->n_buffers)
		return 0;
	if (r->frames[0].len < FRAME_MIN)
		return -1;
	if (!(r->features & F_MRG))
		return r->buffers[0].bytes < bytes ? -1 : 1;
	for (unsigned int i = 0; i < r->n_buffers; i++) {
		sum += r->buffers[i].bytes;
		if (sum >= bytes)
			return (int)i + 1;
	}
	return 0;
}

/* A packet of frame f is in the first n buffers. */
static void taken(struct run *r, const struct frame *f, unsigned int n)
{
	uint32_t left = HEADER + f->len, got;
	const uint8_t *from = scratch;
	uint16_t head;

	memset(scratch, 0, HEADER);
	store_le16(scratch + 10, (uint16_t)n);
	for (uint32_t i = 0; i < f->len; i++)
		scratch[HEADER + i] = frame_byte(f, i);
	for (unsigned int i = 0; i < n; i++) {
		const struct buffer *b = &r->buffers[i];
		uint32_t part = MIN(left, b->bytes);

		for (unsigned int t = 0; !drv_used(r->d, RX, &head, &got); t++) {
			check(t < MAX_TURNS);
			guest_turn(g);
		}
		check(head == b->head && got == part);
		holds(b->sg, b->n, from, part);
		from += part;
		left -= part;
	}
	r->n_buffers -= n;
	memmove(r->buffers, r->buffers + n, r->n_buffers * sizeof(r->buffers[0]));
}

static void receive(struct run *r)
{
	while (r->up && r->n_frames) {
		int n = placed(r);

		if (!n)
			break;
		if (n > 0)
			taken(r, &r->frames[0], (unsigned int)n);
		r->n_frames--;
		memmove(r->frames, r->frames + 1, r->n_frames * sizeof(r->frames[0]));
	}
	for (unsigned int i = 0; i < 3; i++)
		guest_turn(g);
	check(!drv_used(r->d, RX, NULL, NULL));
}

/* Nothing to write in it, or something to read: found when a packet needs it. */
static void give_nonsense(struct run *r)
{
	static const uint8_t frame[4 + 60] = {0, 0, 0, 60};
	struct drv_sg sg = {guest_alloc(g, 64, 1), byte(r) & 1 ? 64 : 0};

	if (r->n_buffers || r->n_frames || !r->up)
		return;
	drv_add(r->d, RX, sg.len ? &sg : NULL, sg.len ? 1 : 0, sg.len ? NULL : &sg, sg.len ? 0 : 1);
	drv_kick(r->d, RX);
	check(write(r->peer, frame, sizeof(frame)) == sizeof(frame));
	expect_broken(r);
}

/* Transmit */

/* One chain; whether the ring had it. What may be sent is what the peer must read. */
static void send_one(struct run *r)
{
	struct drv_sg sg[SEGMENTS_MAX];
	struct frame f = {0, 0};
	uint32_t bytes = pick_len(r) + byte(r) % 16u, cut;
	unsigned int n;

	f.seed = byte(r);
	cut = byte(r);
	bytes = MAX(bytes, 1u);
	for (uint32_t i = 0; i < bytes; i++)
		scratch[4 + i] = frame_byte(&f, i);
	n = cut_up(sg, SEGMENTS_MAX / 3, bytes, cut < 16 ? cut : cut * 16u);
	fill(sg, n, scratch + 4);
	drv_add(r->d, TX, sg, n, NULL, 0);
	if (!r->up || bytes < HEADER + FRAME_MIN || bytes > HEADER + FRAME_MAX)
		return;
	bytes -= HEADER;
	scratch[HEADER] = (uint8_t)(bytes >> 24);
	scratch[HEADER + 1] = (uint8_t)(bytes >> 16);
	scratch[HEADER + 2] = (uint8_t)(bytes >> 8);
	scratch[HEADER + 3] = (uint8_t)bytes;
	check(r->n_sent + 4 + bytes <= STREAM_MAX);
	memcpy(r->sent + r->n_sent, scratch + HEADER, 4 + bytes);
	r->n_sent += 4 + bytes;
}

/* One more segment than the device keeps: such a packet is dropped. */
static void send_many_segments(struct run *r)
{
	struct drv_sg sg[SEGMENTS_MAX];
	unsigned int n = cut_up(sg, SEGMENTS_MAX, VIRTQ_MAX_SEGMENTS + 1u + byte(r) % 64u, 1);

	drv_add(r->d, TX, sg, n, NULL, 0);
}

static void transmit(struct run *r)
{
	unsigned int batch = 1 + byte(r) % 3u, done = 0;

	if (batch == 1 && byte(r) == 255)
		send_many_segments(r);
	else
		for (unsigned int i = 0; i < batch; i++)
			send_one(r);
	drv_kick(r->d, TX);
	/* The peer looks late, so that its socket is full for a while. */
	guest_turn(g);
	guest_turn(g);
	for (unsigned int i = 0; done < batch || r->n_sent; i++) {
		uint32_t len;

		check(i < MAX_TURNS);
		peer_reads(r);
		guest_turn(g);
		while (drv_used(r->d, TX, NULL, &len)) {
			check(!len);
			done++;
		}
	}
	check(done == batch);
}

/* Commands */

static bool tables_ok(const uint8_t *p, uint32_t len)
{
	for (int i = 0; i < 2; i++) {
		uint64_t bytes;

		if (len < 4)
			return false;
		bytes = 4 + 6ull * load_le32(p);
		if (bytes > len)
			return false;
		p += bytes;
		len -= (uint32_t)bytes;
	}
	return !len;
}

static bool model_coalescing(uint8_t *coalescing, const uint8_t *c)
{
	if (load_le32(c + 4) > COALESCING_US_MAX)
		return false;
	memcpy(coalescing, c, 8);
	return true;
}

/* result: 8 bytes, which are in front of the acknowledgement when true is stored in has_result. */
static bool model_command(struct run *r, const uint8_t *c, uint32_t len, uint32_t in_bytes,
			  uint8_t *result, bool *has_result)
{
	if (len < 2)
		return false;
	len -= 2;
	switch (c[0] << 8 | c[1]) {
	case 0x000:
	case 0x001:
		return r->features & F_CTRL_RX && len == 1 && c[2] <= 1;
	case 0x100:
		return r->features & F_CTRL_RX && tables_ok(c + 2, len);
	case 0x101:
		if (!(r->features & F_CTRL_MAC) || len != 6 || c[2] & 1)
			return false;
		memcpy(r->mac, c + 2, 6);
		return true;
	case 0x300:
		if (!(r->features & F_ANNOUNCE))
			return false;
		r->announce = false;
		return true;
	case 0x600:
	case 0x601:
		return r->features & F_COAL && len == 8 &&
		       model_coalescing(r->coalescing[!c[1]], c + 2);
	case 0x602:
		return r->features & F_VQ_COAL && len == 12 && load_le16(c + 2) < CTRL &&
		       model_coalescing(r->coalescing[load_le16(c + 2)], c + 6);
	case 0x603:
		*has_result = r->features & F_VQ_COAL && in_bytes > 8;
		if (!*has_result || (len != 2 && len != 4) || load_le16(c + 2) >= CTRL)
			return false;
		memcpy(result, r->coalescing[load_le16(c + 2)], 8);
		return true;
	default:
		return false;
	}
}

static void command(struct run *r)
{
	static const uint8_t usual[][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {3, 0}, {4, 0},
					   {5, 0}, {6, 0}, {6, 1}, {6, 2}, {6, 3}};
	uint8_t b = byte(r), c[64] = {0}, answer[9] = {0};
	struct drv_sg sg[CTRL_SIZE];
	uint32_t len = byte(r) % 62u, in_bytes = byte(r) & 15, used;
	bool has_result = false;
	unsigned int n, n_in, i, at;

	if (!(r->features & F_CTRL))
		return;
	memcpy(c, usual[b % ARRAY_SIZE(usual)], 2);
	if (b >= 200)
		c[0] = b;
	for (i = 0; i < len; i++)
		c[2 + i] = byte(r);
	len = b == 199 ? 1 : len + 2;
	n = cut_up(sg, 40, len, byte(r) % 16u);
	n_in = in_bytes == 15 ? 0 : cut_up(sg + n, 4, in_bytes + 1, 1);
	fill(sg, n, c);
	drv_add(r->d, CTRL, sg, n, sg + n, n_in);
	drv_kick(r->d, CTRL);
	if (!n_in) {
		expect_broken(r);
		return;
	}
	i = !model_command(r, c, len, in_bytes + 1, answer, &has_result);
	at = has_result ? 8 : 0;
	answer[at] = (uint8_t)i;
	for (i = 0; !drv_used(r->d, CTRL, NULL, &used); i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
	}
	check(used == at + 1);
	holds(sg, n, c, len);
	holds(sg + n, n_in, answer, at + 1);
}

/* The rest */

static void set_link(struct run *r, bool up)
{
	if (up && !r->up)
		r->announce = r->features & F_ANNOUNCE;
	else if (!up)
		r->announce = false;
	r->up = up;
	virtio_net_set_link(r->vdev, up);
}

static void pause_and_resume(struct run *r)
{
	/* A packet in the middle of its delivery would be lost, as networks may. */
	if (r->n_frames)
		return;
	r->d->dev->ops->quiesce(r->d->dev, 0);
	r->d->dev->ops->quiesce(r->d->dev, 1);
	r->d->dev->ops->resume(r->d->dev);
}

/* A length that no frame has: the link goes down for good. */
static void lose_place(struct run *r)
{
	static const uint8_t nonsense[4] = {0, 1, 0, 20};

	if (r->n_frames || !r->n_buffers || !r->up)
		return;
	check(write(r->peer, nonsense, sizeof(nonsense)) == sizeof(nonsense));
	for (unsigned int i = 0; drv_bar_read(r->d, r->d->config + 6, 2) & LINK_UP; i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
	}
	r->over = true;
}

static void step(struct run *r)
{
	uint8_t op = byte(r);

	switch (op % 16) {
	case 0 ... 3:
		give(r);
		break;
	case 4 ... 7:
		peer_sends(r);
		break;
	case 8 ... 10:
		transmit(r);
		break;
	case 11:
	case 12:
		command(r);
		break;
	case 13:
		set_link(r, op & 16);
		break;
	case 14:
		pause_and_resume(r);
		break;
	default:
		if (op == 255)
			lose_place(r);
		else if (op == 239)
			give_nonsense(r);
		break;
	}
}

static void start(struct run *r)
{
	static const uint64_t choices[] = {
		F_MRG | F_CTRL | F_CTRL_RX | F_CTRL_MAC | F_ANNOUNCE | F_EVENT | F_COAL | F_VQ_COAL,
		0,
		F_MRG,
		F_CTRL | F_CTRL_MAC | F_EVENT,
		F_MRG | F_CTRL | F_CTRL_RX | F_ANNOUNCE | F_COAL,
	};
	struct loop *loop = guest_loop(g, 0);
	int fds[2];
	struct virtio_net_setup c = {
		.name = "net0",
		.backend = VIRTIO_NET_SOCKET,
		.fds = fds,
		.pairs = 1,
		.queue_size = QUEUE_SIZE,
		.loops = &loop,
		.n_loops = 1,
	};

	guest_free_from(g, base);
	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	r->peer = fds[1];
	check(!fcntl(r->peer, F_SETFL, O_NONBLOCK));
	memcpy(c.mac, mac, 6);
	memcpy(r->mac, mac, 6);
	check(!virtio_net_create(&r->vdev, &c, guest_log(g), NULL));
	r->d = drv_create(g, r->vdev);
	r->features = choices[byte(r) % ARRAY_SIZE(choices)];
	r->up = true;
	drv_reset(r->d);
	check(drv_negotiate(r->d, r->features | 1ull << 5 | 1ull << 16));
	drv_setup_queue(r->d, RX, QUEUE_SIZE);
	drv_setup_queue(r->d, TX, QUEUE_SIZE);
	drv_setup_queue(r->d, CTRL, CTRL_SIZE);
	drv_set_status(r->d, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_config config = {.backend = LOOP_EPOLL};
	static uint8_t *stream;
	struct run r = {.data = data, .left = size};

	if (!g) {
		g = guest_create(&config);
		base = guest_alloc(g, 4096, 4096);
		stream = malloc(STREAM_MAX);
		check(stream);
	}
	r.sent = stream;
	start(&r);
	for (unsigned int i = 0; i < MAX_STEPS && r.left && !r.over; i++) {
		step(&r);
		if (r.over)
			break;
		receive(&r);
		check_config(&r);
		check(drv_status(r.d) == 15);
	}
	drv_destroy(r.d);
	close(r.peer);
	return 0;
}
