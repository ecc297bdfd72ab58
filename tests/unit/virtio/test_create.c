// SPDX-License-Identifier: Apache-2.0
// Constructors of virtio devices and their transport, with each descriptor and mapping that they
// ask for refused: an error that names the device, and nothing left behind or taken.
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "core/reclaim.h"
#include "deny.h"
#include "driver.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"

/* The descriptors that a device is given; the constructor takes them over only when it succeeds. */
struct given {
	int fd[2];
};

static int make_blk(struct virtio_device **ret, struct guest *g, struct given *given,
		    struct err *err)
{
	struct loop *loop = guest_loop(g, 0);
	struct virtio_blk_setup c = {
		.name = "victim",
		.fd = given->fd[0],
		.size_bytes = MiB,
		.block_bytes = 512,
		.align_bytes = 1,
		.queues = 4,
		.loops = &loop,
		.n_loops = 1,
	};

	return virtio_blk_create(ret, &c, guest_log(g), err);
}

static int make_net(struct virtio_device **ret, struct guest *g, struct given *given,
		    struct err *err)
{
	struct loop *loop = guest_loop(g, 0);
	struct virtio_net_setup c = {
		.name = "victim",
		.backend = VIRTIO_NET_SOCKET,
		.fds = &given->fd[0],
		.pairs = 1,
		.loops = &loop,
		.n_loops = 1,
	};

	return virtio_net_create(ret, &c, guest_log(g), err);
}

static int make_console(struct virtio_device **ret, struct guest *g, struct given *given,
			struct err *err)
{
	struct virtio_console_setup c = {
		.name = "victim",
		.in_fd = given->fd[0],
		.out_fd = given->fd[1],
		.loop = guest_loop(g, 0),
	};

	return virtio_console_create(ret, &c, guest_log(g), err);
}

static int make_rng(struct virtio_device **ret, struct guest *g, struct given *given,
		    struct err *err)
{
	struct virtio_rng_setup c = {.name = "victim", .loop = guest_loop(g, 0)};

	(void)given;
	return virtio_rng_create(ret, &c, guest_log(g), err);
}

static void ignore(void *opaque, enum virtio_balloon_event event, const char *text)
{
	(void)opaque;
	(void)event;
	(void)text;
}

static int make_balloon(struct virtio_device **ret, struct guest *g, struct given *given,
			struct err *err)
{
	struct virtio_balloon_setup c = {
		.name = "victim",
		.loop = guest_loop(g, 0),
		.gmem = guest_memory(g),
		.reporting = true,
		.event = ignore,
	};

	(void)given;
	cr_assert_eq(reclaim_enable(c.gmem, RECLAIM_MAX_GRANULE, err), 0);
	return virtio_balloon_create(ret, &c, guest_log(g), err);
}

/* AddressSanitizer maps 64 KiB for itself, and cannot be refused. */
#if defined(__SANITIZE_ADDRESS__)
enum { ZEROES_BYTES = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { ZEROES_BYTES = 0 };
#else
enum { ZEROES_BYTES = 64 << 10 };
#endif
#else
enum { ZEROES_BYTES = 64 << 10 };
#endif

/* The sanitizers' own allocators map chunks of these sizes, and give up when they cannot. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define REFUSE_MAPPINGS 0
#endif
#endif
#ifndef REFUSE_MAPPINGS
#define REFUSE_MAPPINGS 1
#endif

static const struct maker {
	const char *name;
	int (*make)(struct virtio_device **ret, struct guest *g, struct given *given,
		    struct err *err);
	uint32_t mapping; /* bytes of a mapping that it makes; 0: none */
} makers[] = {
	{"blk", make_blk, ZEROES_BYTES},
	{"net", make_net, 256 << 10},
	{"net out", make_net, 4 + 14 + 4 + 65535},
	{"console", make_console, 0},
	{"rng", make_rng, 0},
	{"balloon", make_balloon, 0},
};

/* By number: a test runs in a process where functions lie elsewhere. */
static unsigned int which[ARRAY_SIZE(makers)] = {0, 1, 2, 3, 4, 5};

ParameterizedTestParameters(create, each_descriptor_may_be_refused)
{
	return cr_make_param_array(unsigned int, which, ARRAY_SIZE(makers));
}

ParameterizedTest(unsigned int *i, create, each_descriptor_may_be_refused)
{
	const struct maker *m = &makers[*i];
	struct guest *g = guest_create(NULL);
	struct device_env env = guest_env(g);
	struct virtio_pci_config config = {.bus = guest_bus(g)};
	struct virtio_device *vdev = NULL;
	struct device *dev = NULL;
	struct err err = ERR_INIT;
	struct given given;
	int fds, n, r;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, given.fd), 0);
	fds = count_fds();
	for (n = 0;; n++) {
		allow_fds(n);
		r = m->make(&vdev, g, &given, &err);
		allow_fds(-1);
		if (!r)
			break;
		cr_assert_eq(r, -EMFILE, "%s, descriptor %d: %s", m->name, n, err.text);
		cr_assert_not_null(strstr(err.text, "victim"), "%s", err.text);
		cr_assert_eq(count_fds(), fds, "%s, descriptor %d: one is left", m->name, n);
		cr_assert_null(vdev);
	}
	fds = count_fds();
	for (n = 0;; n++) {
		allow_fds(n);
		r = virtio_pci_create(&dev, &env, &config, vdev, &err);
		allow_fds(-1);
		if (!r)
			break;
		cr_assert_eq(r, -EMFILE, "%s, descriptor %d: %s", m->name, n, err.text);
		cr_assert_not_null(strstr(err.text, "victim"), "%s", err.text);
		cr_assert_eq(count_fds(), fds, "%s, descriptor %d: one is left", m->name, n);
		cr_assert_null(dev);
	}
	/* One of each vector and of each queue. */
	cr_assert_geq(n, (int)vdev->n_queues * 2, "%s: %d", m->name, n);
	dev->ops->destroy(dev);
	guest_destroy(g);
}

ParameterizedTestParameters(create, each_mapping_may_be_refused)
{
	return cr_make_param_array(unsigned int, which, ARRAY_SIZE(makers));
}

ParameterizedTest(unsigned int *i, create, each_mapping_may_be_refused)
{
	const struct maker *m = &makers[*i];
	struct guest *g = guest_create(NULL);
	struct virtio_device *vdev = NULL;
	struct err err = ERR_INIT;
	struct given given;
	int fds;

	if (m->mapping && REFUSE_MAPPINGS) {
		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, given.fd), 0);
		fds = count_fds();
		cr_assert_eq(deny(SYS_mmap, m->mapping, ENOMEM), 0);
		cr_assert_eq(m->make(&vdev, g, &given, &err), -ENOMEM, "%s", m->name);
		cr_assert_not_null(strstr(err.text, "victim"), "%s", err.text);
		cr_assert_eq(count_fds(), fds);
		cr_assert_null(vdev);
	}
	guest_destroy(g);
}
