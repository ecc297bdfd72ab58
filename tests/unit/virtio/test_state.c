// SPDX-License-Identifier: Apache-2.0
/* virtio devices after a load: a driver that notices nothing. What a twin does that was never
 * saved, the device does that was loaded, with what was available before and was not served yet. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_balloon.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "core/reclaim.h"
#include "driver.h"
#include "state_rig.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"

enum {
	LOW_BYTES = 64 << 20,
	DISK_BYTES = 1 << 20,
	SECTOR = 512,
	REQUESTS = 12,
	BLK_IN = 0,
	BLK_OUT = 1,
	NET_HEADER = 12,
	F_VERSION_1 = 32,
};

struct vm {
	struct guest *g;
	struct drv *d;
	uint64_t data;
	int fd[2]; /* the test's ends */
};

/* The twin is never saved; `from` is, and `to` goes on. */
static struct vm twin, from, to;
static struct vm *const all[] = {&twin, &from, &to};
static struct err err;

static void add(struct vm *vm, struct virtio_device *vdev)
{
	vm->d = drv_create(vm->g, vdev);
	vm->data = guest_alloc(vm->g, 1 << 20, 4096);
}

static void set_up(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++)
		*all[i] = (struct vm){.g = guest_create(NULL), .fd = {-1, -1}};
}

static void tear_down(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++) {
		if (all[i]->d)
			drv_destroy(all[i]->d);
		guest_destroy(all[i]->g);
		fd_close(&all[i]->fd[0]);
		fd_close(&all[i]->fd[1]);
	}
}

TestSuite(virtio_state, .init = set_up, .fini = tear_down, .timeout = 60);

/* Device, guest memory and driver go from one to the other. */
static void move(void)
{
	struct drv *d = to.d;

	state_quiesce(from.d->dev);
	memcpy(guest_ptr(to.g, 0, LOW_BYTES), guest_ptr(from.g, 0, LOW_BYTES), LOW_BYTES);
	cr_assert_eq(d->bar, from.d->bar);
	memcpy(d->queues, from.d->queues, sizeof(d->queues));
	d->features = from.d->features;
	d->n_queues = from.d->n_queues;
	to.data = from.data;
	state_move(from.d->dev, d->dev);
}

static void turn(struct vm *vm)
{
	for (unsigned int i = 0; i < 20; i++)
		guest_turn(vm->g);
}

/* --- blk --- */

static void add_disk(struct vm *vm, int file, unsigned int queues)
{
	struct loop *loop = guest_loop(vm->g, 0);
	const struct virtio_blk_setup setup = {
		.name = "disk0",
		.fd = fcntl(file, F_DUPFD_CLOEXEC, 0),
		.size_bytes = DISK_BYTES,
		.block_bytes = 512,
		.align_bytes = 1,
		.cache = VIRTIO_BLK_WRITEBACK,
		.queues = queues,
		.loops = &loop,
		.n_loops = 1,
	};
	struct virtio_device *vdev;

	cr_assert_eq(virtio_blk_create(&vdev, &setup, guest_log(vm->g), &err), 0, "%s", err.text);
	add(vm, vdev);
}

static int disk_file(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	cr_assert(fd >= 0 && !ftruncate(fd, DISK_BYTES));
	return fd;
}

/* Request n: 512 bytes of it to or from sector n, available but not announced. */
static void blk_request(struct vm *vm, unsigned int n, uint32_t type)
{
	uint64_t at = vm->data + n * 4096ull;
	uint8_t *header = guest_ptr(vm->g, at, 4096);
	struct drv_sg head = {at, 16}, body = {at + 1024, SECTOR}, status = {at + 2048, 1};
	const struct drv_sg out[] = {head, body}, in[] = {body, status};

	store_le32(header, type);
	store_le64(header + 8, n);
	header[2048] = 0xee;
	if (type == BLK_OUT)
		memset(header + 1024, (int)(n + 1), SECTOR);
	if (type == BLK_OUT)
		drv_add(vm->d, 0, out, 2, &status, 1);
	else
		drv_add(vm->d, 0, &head, 1, in, 2);
}

static void blk_expect(struct vm *vm, unsigned int n)
{
	uint16_t head;
	uint32_t len;

	for (unsigned int i = 0; i < n; i++)
		cr_assert(drv_wait(vm->d, 0, &head, &len), "answer %u of %u", i, n);
	for (unsigned int i = 0; i < n; i++)
		cr_assert_eq(*(uint8_t *)guest_ptr(vm->g, vm->data + i * 4096ull + 2048, 1), 0);
}

/* Writes: some in flight, some available and not announced, when it is saved; then reads. */
static void blk_begin(struct vm *vm)
{
	drv_start(vm->d, drv_offered(vm->d), 64);
	for (unsigned int n = 0; n < REQUESTS / 2; n++)
		blk_request(vm, n, BLK_OUT);
	drv_kick(vm->d, 0);
	guest_turn(vm->g);
	for (unsigned int n = REQUESTS / 2; n < REQUESTS; n++)
		blk_request(vm, n, BLK_OUT);
	drv_publish(vm->d, 0);
}

static void blk_end(struct vm *vm)
{
	blk_expect(vm, REQUESTS);
	for (unsigned int n = 0; n < REQUESTS; n++)
		blk_request(vm, n, BLK_IN);
	drv_kick(vm->d, 0);
	blk_expect(vm, REQUESTS);
	for (unsigned int n = 0; n < REQUESTS; n++) {
		const uint8_t *got = guest_ptr(vm->g, vm->data + n * 4096ull + 1024, SECTOR);

		for (unsigned int k = 0; k < SECTOR; k++)
			cr_assert_eq(got[k], n + 1);
	}
}

Test(virtio_state, disk_requests_in_flight_and_waiting_end_as_the_twins)
{
	static uint8_t a[DISK_BYTES], b[DISK_BYTES];
	int shared = disk_file(), other = disk_file();

	add_disk(&twin, other, 1);
	add_disk(&from, shared, 1);
	add_disk(&to, shared, 1);
	blk_begin(&twin);
	drv_notify(twin.d, 0);
	blk_end(&twin);
	blk_begin(&from);
	move();
	blk_end(&to);
	cr_assert_geq(drv_interrupts(to.d, 0), 1);
	cr_assert_eq(pread(other, a, sizeof(a), 0), DISK_BYTES);
	cr_assert_eq(pread(shared, b, sizeof(b), 0), DISK_BYTES);
	cr_assert_eq(memcmp(a, b, sizeof(a)), 0);
	fd_close(&shared);
	fd_close(&other);
}

Test(virtio_state, registers_features_and_write_cache_come_back)
{
	int file = disk_file();

	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++)
		add_disk(all[i], file, 2);
	for (unsigned int i = 0; i < 2; i++) {
		drv_start(all[i]->d, drv_offered(all[i]->d), 32);
		drv_bar_write(all[i]->d, all[i]->d->config + 32, 0, 1); /* write through */
		drv_common_write(all[i]->d, QUEUE_SELECT, 1, 2);
		drv_common_write(all[i]->d, DEVICE_FEATURE_SELECT, 1, 4);
	}
	move();
	for (unsigned int at = 0; at < 64; at += 4)
		cr_assert_eq(drv_bar_read(to.d, to.d->common + at, 4),
			     drv_bar_read(twin.d, twin.d->common + at, 4), "common + 0x%x", at);
	for (unsigned int at = 0; at < 60; at += 4)
		cr_assert_eq(drv_bar_read(to.d, to.d->config + at, 4),
			     drv_bar_read(twin.d, twin.d->config + at, 4), "config + 0x%x", at);
	cr_assert_eq(drv_bar_read(to.d, to.d->config + 32, 1), 0);
	fd_close(&file);
}

Test(virtio_state, driver_in_the_middle_of_its_negotiation_goes_on)
{
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 1);
	drv_reset(from.d);
	cr_assert(drv_negotiate(from.d, drv_offered(from.d)));
	move();
	drv_enable_msix(to.d);
	drv_setup_queue(to.d, 0, 64);
	drv_set_status(to.d, 4);
	blk_request(&to, 0, BLK_OUT);
	drv_kick(to.d, 0);
	blk_expect(&to, 1);
	fd_close(&file);
}

Test(virtio_state, device_that_needs_a_reset_still_does_and_takes_it)
{
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 1);
	drv_start(from.d, drv_offered(from.d), 64);
	drv_write_desc(from.d, 0, 0, 0, 1, 1, 9999);
	store_le16((uint8_t *)guest_ptr(from.g, from.d->queues[0].avail, 8) + 4, 0);
	from.d->queues[0].avail_idx = 1;
	drv_kick(from.d, 0);
	turn(&from);
	cr_assert_eq(drv_status(from.d) & 0x40, 0x40);
	move();
	cr_assert_eq(drv_status(to.d), drv_status(from.d));
	drv_start(to.d, drv_offered(to.d), 64);
	blk_request(&to, 0, BLK_OUT);
	drv_kick(to.d, 0);
	blk_expect(&to, 1);
	fd_close(&file);
}

Test(virtio_state, line_that_was_raised_without_msix_is_up)
{
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 1);
	drv_reset(from.d);
	cr_assert(drv_negotiate(from.d, 0));
	drv_setup_queue(from.d, 0, 64);
	drv_set_status(from.d, 4);
	blk_request(&from, 0, BLK_OUT);
	drv_kick(from.d, 0);
	blk_expect(&from, 1);
	turn(&from);
	cr_assert(drv_intx(from.d));
	move();
	cr_assert(drv_intx(to.d));
	cr_assert_eq(drv_bar_read(to.d, to.d->isr, 1), 1);
	cr_assert(!drv_intx(to.d));
	fd_close(&file);
}

/* --- refusals --- */

/* `from` is saved, with an edit; `to` refuses that with this message, and is as it was. */
static void expect_refused(void (*edit)(struct state_buffer *), const char *text)
{
	struct state_buffer state, before, after;

	state_quiesce(from.d->dev);
	state_quiesce(to.d->dev);
	state = state_of(from.d->dev);
	before = state_of(to.d->dev);
	edit(&state);
	cr_assert_eq(state_put(to.d->dev, &state, &err), -EPROTO);
	cr_assert_not_null(strstr(err.text, text), "'%s' lacks '%s'", err.text, text);
	after = state_of(to.d->dev);
	state_assert_same(&before, &after);
	free(state.bytes);
	free(before.bytes);
	free(after.bytes);
}

static uint8_t *section(struct state_buffer *state, const char *owner_and_name)
{
	uint8_t *at = memmem(state->bytes, state->len, owner_and_name, strlen(owner_and_name));

	cr_assert_not_null(at);
	return at + strlen(owner_and_name) + 4;
}

static void no_features_ok(struct state_buffer *state)
{
	section(state, "disk0virtio\x12")[-1 + 16] = 7;
}

static void feature_not_offered(struct state_buffer *state)
{
	section(state, "disk0virtio\x12")[-1 + 15] = 0x80;
}

static void more_offered(struct state_buffer *state)
{
	section(state, "disk0virtio\x12")[-1 + 7] = 0x40;
}

static void odd_size(struct state_buffer *state)
{
	store_le16(section(state, "disk0virtio-queues"), 3);
}

static void far_vector(struct state_buffer *state)
{
	store_le16(section(state, "disk0virtio-pci") + 11, 2);
}

static void other_capacity(struct state_buffer *state)
{
	store_le64(section(state, "disk0blk") + 1, 7);
}

Test(virtio_state, what_no_driver_can_bring_about_is_refused_by_name)
{
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 1);
	drv_start(from.d, drv_offered(from.d), 64);
	expect_refused(no_features_ok, "disk0: section 'virtio': status is 0x7: DRIVER_OK without");
	expect_refused(feature_not_offered, "disk0: section 'virtio': accepted is 0x8");
	expect_refused(more_offered, "disk0: section 'virtio': offered is 0x4");
	expect_refused(odd_size, "disk0: section 'virtio-queues': size is 3; a power of two up to");
	expect_refused(far_vector, "disk0: section 'virtio-pci': config_vector is 2, of 2");
	expect_refused(other_capacity, "disk0: section 'blk': sectors is 7; this machine is "
				       "configured with 2048");
	fd_close(&file);
}

Test(virtio_state, rings_that_are_nowhere_break_the_device_and_no_more)
{
	struct state_buffer state;
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 1);
	drv_start(from.d, drv_offered(from.d), 64);
	state_quiesce(from.d->dev);
	state_quiesce(to.d->dev);
	state = state_of(from.d->dev);
	store_le64(section(&state, "disk0virtio-queues") + 2, 1ull << 50);
	cr_assert_eq(state_put(to.d->dev, &state, &err), 0, "%s", err.text);
	to.d->dev->ops->resume(to.d->dev);
	turn(&to);
	cr_assert_eq(drv_status(to.d) & 0x40, 0x40);
	drv_start(to.d, drv_offered(to.d), 64);
	free(state.bytes);
	fd_close(&file);
}

/* --- console --- */

static void add_console(struct vm *vm)
{
	struct virtio_console_setup setup = {.name = "console0", .loop = guest_loop(vm->g, 0)};
	struct virtio_device *vdev;
	int in[2], out[2];

	cr_assert(!pipe2(in, O_CLOEXEC | O_NONBLOCK) && !pipe2(out, O_CLOEXEC | O_NONBLOCK));
	fcntl(out[1], F_SETPIPE_SZ, 4096);
	setup.in_fd = in[0];
	setup.out_fd = out[1];
	vm->fd[0] = in[1];
	vm->fd[1] = out[0];
	cr_assert_eq(virtio_console_create(&vdev, &setup, guest_log(vm->g), &err), 0);
	add(vm, vdev);
}

static void console_say(struct vm *vm, unsigned int bytes)
{
	struct drv_sg out = {vm->data, bytes};
	uint8_t *p = guest_ptr(vm->g, vm->data, bytes);

	for (unsigned int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(i % 251);
	drv_add(vm->d, 1, &out, 1, NULL, 0);
	drv_kick(vm->d, 1);
}

/* What comes out until nothing does, behind the n bytes that came before. */
static unsigned int console_hear(struct vm *vm, unsigned int n)
{
	uint8_t buf[4096];
	ssize_t got;

	for (unsigned int quiet = 0; quiet < 50; quiet++) {
		guest_turn(vm->g);
		got = read(vm->fd[1], buf, sizeof(buf));
		for (ssize_t i = 0; i < got; i++)
			cr_assert_eq(buf[i], n++ % 251);
		if (got > 0)
			quiet = 0;
	}
	return n;
}

Test(virtio_state, console_output_that_was_written_in_part_goes_on_at_that_byte)
{
	unsigned int n;
	uint16_t head;
	uint32_t len;

	add_console(&from);
	add_console(&to);
	drv_start(from.d, 0, 16);
	console_say(&from, 20000);
	turn(&from); /* the pipe takes 4096 */
	move();
	n = console_hear(&from, 0);
	cr_assert(n >= 4096 && n < 20000);
	cr_assert(!drv_used(from.d, 1, &head, &len));
	cr_assert_eq(console_hear(&to, n), 20000);
	cr_assert(drv_wait(to.d, 1, &head, &len));
}

Test(virtio_state, console_input_without_buffers_waits_for_the_other_drivers)
{
	uint16_t head;
	uint32_t len;

	add_console(&from);
	add_console(&to);
	drv_start(from.d, 0, 16);
	cr_assert_eq(write(from.fd[0], "before", 6), 6);
	turn(&from); /* it is read; the driver has no buffer for it */
	move();
	cr_assert_eq(write(to.fd[0], " and after", 10), 10);
	struct drv_sg in = {to.data, 64};

	for (unsigned int at = 0; at < 16; at += len) {
		in.gpa = to.data + at;
		drv_add(to.d, 0, NULL, 0, &in, 1);
		drv_kick(to.d, 0);
		cr_assert(drv_wait(to.d, 0, &head, &len));
	}
	cr_assert_eq(memcmp(guest_ptr(to.g, to.data, 16), "before and after", 16), 0);
}

/* --- net --- */

static void add_nic(struct vm *vm)
{
	struct loop *loop = guest_loop(vm->g, 0);
	struct virtio_net_setup setup = {
		.name = "net0",
		.mac = {2, 0, 0, 0, 0, 1},
		.backend = VIRTIO_NET_SOCKET,
		.pairs = 1,
		.loops = &loop,
		.n_loops = 1,
	};
	struct virtio_device *vdev;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	setup.fds = &pair[0];
	vm->fd[0] = pair[1];
	cr_assert_eq(virtio_net_create(&vdev, &setup, guest_log(vm->g), &err), 0, "%s", err.text);
	add(vm, vdev);
}

static void nic_offer(struct vm *vm, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct drv_sg in = {vm->data + i * 4096ull, 2048};

		drv_add(vm->d, 0, NULL, 0, &in, 1);
	}
	drv_kick(vm->d, 0);
}

/* A frame of 60 bytes with this content, made available. */
static void nic_send(struct vm *vm, unsigned int i)
{
	struct drv_sg out = {vm->data + 0x80000 + i * 4096ull, NET_HEADER + 60};

	memset(guest_ptr(vm->g, out.gpa, out.len), 0, NET_HEADER);
	memset(guest_ptr(vm->g, out.gpa + NET_HEADER, 60), (int)i + 1, 60);
	drv_add(vm->d, 1, &out, 1, NULL, 0);
}

static void nic_peer_sends(struct vm *vm, uint8_t content)
{
	uint8_t frame[64] = {0, 0, 0, 60};

	memset(frame + 4, content, 60);
	cr_assert_eq(write(vm->fd[0], frame, 64), 64);
}

static void nic_peer_expects(struct vm *vm, uint8_t content)
{
	uint8_t frame[64];
	ssize_t got;

	do
		guest_turn(vm->g);
	while ((got = read(vm->fd[0], frame, 64)) < 0);
	cr_assert_eq(got, 64);
	cr_assert_eq(frame[4], content);
}

static void nic_set_mac(struct vm *vm)
{
	static const uint8_t command[] = {1, 1, 2, 9, 9, 9, 9, 9};
	struct drv_sg out = {vm->data + 0xf0000, 8}, in = {vm->data + 0xf0010, 1};
	uint16_t head;
	uint32_t len;

	memcpy(guest_ptr(vm->g, out.gpa, 8), command, 8);
	drv_add(vm->d, 2, &out, 1, &in, 1);
	drv_kick(vm->d, 2);
	cr_assert(drv_wait(vm->d, 2, &head, &len));
	cr_assert_eq(*(uint8_t *)guest_ptr(vm->g, in.gpa, 1), 0);
}

Test(virtio_state, net_goes_on_with_buffers_frames_and_address_of_before)
{
	uint16_t head;
	uint32_t len;

	add_nic(&from);
	add_nic(&to);
	drv_start(from.d, drv_offered(from.d), 64);
	nic_set_mac(&from);
	nic_offer(&from, 4);
	nic_peer_sends(&from, 0x11);
	cr_assert(drv_wait(from.d, 0, &head, &len));
	nic_send(&from, 0);
	drv_kick(from.d, 1);
	nic_peer_expects(&from, 1);
	nic_send(&from, 1);
	drv_publish(from.d, 1); /* available, but nobody has looked */
	virtio_net_set_link(from.d->vdev, false);
	virtio_net_set_link(from.d->vdev, true);
	move();
	cr_assert_eq(drv_bar_read(to.d, to.d->config, 4), 0x09090902);
	cr_assert_eq(drv_bar_read(to.d, to.d->config + 6, 2), 3, "up, and to be announced");
	nic_peer_expects(&to, 2);
	nic_peer_sends(&to, 0x22);
	cr_assert(drv_wait(to.d, 0, &head, &len));
	cr_assert_eq(len, NET_HEADER + 60);
	cr_assert_eq(*(uint8_t *)guest_ptr(to.g, to.data + 4096 + NET_HEADER, 1), 0x22,
		     "into the buffer that was next");
	nic_set_mac(&to);
}

/* Coalescing of all receive queues by 5 packets, 50 us, of queue 0 by 7, 70. */
static void nic_coalesces(struct vm *vm)
{
	static const uint8_t commands[2][14] = {{6, 1, 5, 0, 0, 0, 50},
						{6, 2, 0, 0, 0, 0, 7, 0, 0, 0, 70}};
	uint16_t head;
	uint32_t len;

	for (unsigned int i = 0; i < 2; i++) {
		struct drv_sg out = {vm->data + 0xf0000, i ? 14 : 10}, in = {vm->data + 0xf0010, 1};

		memcpy(guest_ptr(vm->g, out.gpa, 14), commands[i], 14);
		drv_add(vm->d, 2, &out, 1, &in, 1);
		drv_kick(vm->d, 2);
		cr_assert(drv_wait(vm->d, 2, &head, &len));
		cr_assert_eq(*(uint8_t *)guest_ptr(vm->g, in.gpa, 1), 0);
	}
}

Test(virtio_state, net_goes_on_with_its_coalescing)
{
	add_nic(&from);
	add_nic(&to);
	drv_start(from.d, drv_offered(from.d), 64);
	nic_coalesces(&from);
	move();
	cr_assert_eq(to.d->vdev->queues[0].coalescing, 7ull << 32 | 70);
	cr_assert_eq(to.d->vdev->queues[1].coalescing, 0);
}

/* What hospes did not offer before it knew of it. */
static void less_offered(struct state_buffer *state)
{
	uint8_t *offered = section(state, "net0virtio\x12") - 1;

	offered[6] &= (uint8_t)~0x30;
	offered[8 + 6] &= (uint8_t)~0x30;
}

Test(virtio_state, net_of_an_older_hospes_goes_on_offering_what_it_did)
{
	struct state_buffer state;

	add_nic(&from);
	add_nic(&to);
	drv_start(from.d, drv_offered(from.d) & ~(3ull << 52), 64);
	cr_assert(drv_offered(from.d) & 1ull << 53);
	state_quiesce(from.d->dev);
	state_quiesce(to.d->dev);
	state = state_of(from.d->dev);
	less_offered(&state);
	cr_assert_eq(state_put(to.d->dev, &state, &err), 0, "%s", err.text);
	cr_assert_eq(drv_offered(to.d), drv_offered(from.d) & ~(3ull << 52));
	free(state.bytes);
}

static void long_coalescing(struct state_buffer *state)
{
	store_le32(section(state, "net0net") + 24, 2000000);
}

static void many_pairs(struct state_buffer *state)
{
	store_le16(section(state, "net0net") + 18, 2);
}

static void multicast(struct state_buffer *state)
{
	*section(state, "net0net") |= 1;
}

static void offload_not_offered(struct state_buffer *state)
{
	section(state, "net0net")[8] = 2;
}

Test(virtio_state, net_refuses_what_its_control_queue_would)
{
	add_nic(&from);
	add_nic(&to);
	expect_refused(many_pairs, "net0: section 'net': pairs is 2, of 1");
	expect_refused(multicast, "a multicast address");
	expect_refused(long_coalescing, "coalescing[0] is 0x1e8480: more than 1000000 us");
	expect_refused(offload_not_offered, "offloads is 0x2; this device offers 0x0");
}

/* --- balloon --- */

static void ignore(void *opaque, enum virtio_balloon_event event, const char *text)
{
	(void)opaque;
	(void)event;
	(void)text;
}

Test(virtio_state, balloon_goes_on_to_its_target_and_has_nothing_given)
{
	struct virtio_balloon_setup setup = {.name = "balloon", .event = ignore};
	struct virtio_balloon_status status;
	struct virtio_device *vdev;
	le32 *pfn;

	for (unsigned int i = 1; i < ARRAY_SIZE(all); i++) {
		setup.loop = guest_loop(all[i]->g, 0);
		setup.gmem = guest_memory(all[i]->g);
		cr_assert_eq(reclaim_enable(setup.gmem, RECLAIM_MAX_GRANULE, &err), 0);
		cr_assert_eq(virtio_balloon_create(&vdev, &setup, guest_log(all[i]->g), &err), 0);
		add(all[i], vdev);
	}
	drv_start(from.d, 1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST, 16);
	virtio_balloon_set(from.d->vdev, 8192);
	drv_bar_write(from.d, from.d->config + 4, 1, 4);
	struct drv_sg out = {from.data, 4};

	pfn = guest_ptr(from.g, from.data, 4);
	*pfn = le32_of(1 << 13);
	drv_add(from.d, 0, &out, 1, NULL, 0);
	drv_kick(from.d, 0);
	cr_assert(drv_wait(from.d, 0, NULL, NULL));
	move();
	virtio_balloon_status(to.d->vdev, &status);
	cr_assert_eq(status.target_bytes, 8192);
	cr_assert_eq(status.actual_bytes, 4096);
	cr_assert_eq(status.given_bytes, 0);
	drv_add(to.d, 1, &out, 1, NULL, 0);
	drv_kick(to.d, 1);
	cr_assert(drv_wait(to.d, 1, NULL, NULL), "to take it back needs nothing");
}

/* --- rng --- */

Test(virtio_state, rng_answers_what_was_asked_before)
{
	struct virtio_rng_setup setup = {.name = "rng0"};
	struct virtio_device *vdev;
	uint16_t head;
	uint32_t len;

	for (unsigned int i = 1; i < ARRAY_SIZE(all); i++) {
		setup.loop = guest_loop(all[i]->g, 0);
		cr_assert_eq(virtio_rng_create(&vdev, &setup, guest_log(all[i]->g), &err), 0);
		add(all[i], vdev);
	}
	drv_start(from.d, 0, 16);
	struct drv_sg in = {from.data, 32};

	drv_add(from.d, 0, NULL, 0, &in, 1);
	drv_publish(from.d, 0);
	move();
	cr_assert(drv_wait(to.d, 0, &head, &len));
	cr_assert_eq(len, 32);
	turn(&to);
	cr_assert_eq(drv_interrupts(to.d, 0), 1);
}

Test(virtio_state, other_number_of_queues_is_refused)
{
	struct state_buffer state;
	int file = disk_file();

	add_disk(&from, file, 1);
	add_disk(&to, file, 2);
	state_quiesce(from.d->dev);
	state_quiesce(to.d->dev);
	state = state_of(from.d->dev);
	cr_assert_eq(state_put(to.d->dev, &state, &err), -EPROTO);
	free(state.bytes);
	fd_close(&file);
}
