// SPDX-License-Identifier: Apache-2.0
/* vhost-user against a scripted daemon: what it is sent, and that whatever it answers costs no more
 * than the limit, no descriptor, and nothing but its device. Real daemons:
 * tests/host/machine/46-vhost-user.sh. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"
#include "virtio/vhost_user.h"
#include "virtio/vhost_user_wire.h"

enum { LIMIT_MS = 200, RAM = 1 << 20 };

enum fault {
	NONE,
	SILENT, /* no answer */
	HALF,   /* a part of one */
	LONGER, /* one of another size */
	SHORTER,
	OTHER,    /* one to another request */
	NO_REPLY, /* one that is no answer */
	WITH_FD,  /* one with a descriptor */
	REFUSES,  /* it says no, where it may */
	CLOSES,
	FAULTS,
};

struct daemon {
	int fd;
	pthread_t thread;
	uint64_t protocol, features, slots, queues;
	uint32_t at; /* misbehaves at this request */
	enum fault fault;
	/* What it was sent. */
	_Atomic unsigned int seen[64];
	struct vhost_user_region regions[16];
	char *mapped[16];
	_Atomic unsigned int n_regions;
	uint64_t set_features;
	unsigned int fds; /* that came with the last message */
	int last_fd;
	_Atomic int requests_fd; /* by which it may ask */
};

static void answer(struct daemon *d, const struct vhost_user_header *to, const void *payload,
		   uint32_t bytes)
{
	enum fault fault = d->at == to->request ? d->fault : NONE;
	struct vhost_user_header h = {to->request, VHOST_USER_VERSION | VHOST_USER_REPLY, bytes};
	uint8_t body[512] = {0};
	struct iovec iov[2] = {{&h, sizeof(h)}, {body, bytes}};
	alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	memcpy(body, payload, bytes);
	switch (fault) {
	case SILENT:
		return;
	case HALF:
		iov[1].iov_len = bytes / 2;
		break;
	case LONGER:
		h.bytes = 0xffffff00;
		break;
	case SHORTER:
		h.bytes = bytes - 4;
		iov[1].iov_len = bytes - 4;
		break;
	case OTHER:
		h.request = 60;
		break;
	case NO_REPLY:
		h.flags = VHOST_USER_VERSION;
		break;
	case WITH_FD:
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
							.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &d->fd, sizeof(int));
		break;
	case REFUSES:
		body[0] = 1;
		break;
	case CLOSES:
		shutdown(d->fd, SHUT_RDWR);
		return;
	default:
		break;
	}
	(void)sendmsg(d->fd, &msg, MSG_NOSIGNAL);
}

static void take_memory(struct daemon *d, uint32_t request, const uint8_t *body)
{
	struct vhost_user_one_region one;
	struct vhost_user_table table;

	memcpy(&one, body, sizeof(one));
	memcpy(&table, body, sizeof(table));
	if (request == VHOST_USER_ADD_MEM_REG) {
		d->regions[d->n_regions] = one.region;
		d->mapped[d->n_regions] = mmap(NULL, one.region.bytes, PROT_READ | PROT_WRITE,
					       MAP_SHARED, d->last_fd, (off_t)one.region.offset);
		d->n_regions++;
	} else if (request == VHOST_USER_REM_MEM_REG) {
		d->n_regions--;
	} else {
		memcpy(d->regions, table.regions, sizeof(table.regions));
		d->n_regions = table.n;
	}
}

static void serve(struct daemon *d, const struct vhost_user_header *h, const uint8_t *body)
{
	struct vhost_user_state state = {.value = 7};
	struct vhost_user_config config;

	switch (h->request) {
	case VHOST_USER_GET_FEATURES:
		answer(d, h, &d->features, 8);
		return;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		answer(d, h, &d->protocol, 8);
		return;
	case VHOST_USER_GET_QUEUE_NUM:
		answer(d, h, &d->queues, 8);
		return;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		answer(d, h, &d->slots, 8);
		return;
	case VHOST_USER_GET_VRING_BASE:
		memcpy(&state.index, body, 4);
		answer(d, h, &state, sizeof(state));
		return;
	case VHOST_USER_GET_CONFIG:
		memcpy(&config, body, sizeof(config));
		memset(config.data, 0x5a, sizeof(config.data));
		answer(d, h, &config, h->bytes);
		return;
	case VHOST_USER_ADD_MEM_REG:
	case VHOST_USER_REM_MEM_REG:
	case VHOST_USER_SET_MEM_TABLE:
		take_memory(d, h->request, body);
		break;
	case VHOST_USER_SET_BACKEND_REQ_FD:
		d->requests_fd = fd_dup(d->last_fd);
		break;
	case VHOST_USER_SET_FEATURES:
		memcpy(&d->set_features, body, 8);
		break;
	default:
		break;
	}
	if (h->flags & VHOST_USER_NEED_REPLY)
		answer(d, h, &(uint64_t){0}, 8);
}

static void *run(void *opaque)
{
	struct daemon *d = opaque;
	struct vhost_user_header h;

	for (;;) {
		uint8_t body[512] = {0};
		struct iovec iov = {&h, sizeof(h)};
		alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {0};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control,
				     .msg_controllen = sizeof(control)};

		if (recvmsg(d->fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(h))
			return NULL;
		d->fds = 0;
		if (CMSG_FIRSTHDR(&msg)) {
			int fds[8];

			d->fds = (unsigned int)((CMSG_FIRSTHDR(&msg)->cmsg_len - CMSG_LEN(0)) / 4);
			memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), 4 * d->fds);
			d->last_fd = fds[0];
			if (h.bytes && recv(d->fd, body, h.bytes, MSG_WAITALL) != (ssize_t)h.bytes)
				return NULL;
			d->seen[h.request & 63]++;
			serve(d, &h, body);
			for (unsigned int i = 0; i < d->fds; i++)
				close(fds[i]);
			continue;
		}
		if (h.bytes && recv(d->fd, body, h.bytes, MSG_WAITALL) != (ssize_t)h.bytes)
			return NULL;
		d->seen[h.request & 63]++;
		serve(d, &h, body);
	}
}

struct rig {
	struct log log;
	struct gmem *gmem;
	struct daemon d;
	int fd;
	struct vhost *v;
	struct err err;
};

#define PROTOCOL                                                                            \
	(1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |       \
	 1ull << VHOST_USER_PROTOCOL_F_CONFIG | 1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ | \
	 1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)

static int add_memory(struct rig *r, uint64_t gpa, struct err *err)
{
	const struct gmem_region_config c = {.name = "ram",
					     .gpa = gpa,
					     .size_bytes = RAM,
					     .backing = GMEM_MEMFD,
					     .numa_node = -1,
					     .share = true};

	cr_assert_eq(gmem_begin(r->gmem, err), 0);
	cr_assert_eq(gmem_add(r->gmem, &c, err), 0, "%s", err->text);
	return gmem_commit(r->gmem, err);
}

static void open_rig(struct rig *r)
{
	int s[2];

	*r = (struct rig){.d = {.protocol = PROTOCOL,
				.features = 1ull << VIRTIO_F_VERSION_1 |
					    1ull << VHOST_USER_F_PROTOCOL_FEATURES | 0xff,
				.slots = 16,
				.queues = 2}};
	cr_assert_eq(gmem_create(&r->gmem, &r->log, &r->err), 0);
	cr_assert_eq(add_memory(r, 0, &r->err), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	r->fd = s[0];
	r->d.fd = s[1];
	r->d.requests_fd = -1;
}

static int create(struct rig *r, unsigned int queues)
{
	const struct vhost_user_setup setup = {.name = "disk0",
					       .fd = r->fd,
					       .n_rings = queues,
					       .config = r->d.protocol & PROTOCOL & 1 << 9,
					       .gmem = r->gmem,
					       .limit_ms = LIMIT_MS};

	cr_assert_eq(pthread_create(&r->d.thread, NULL, run, &r->d), 0);
	return vhost_user_create(&r->v, &setup, &r->err);
}

static void close_rig(struct rig *r)
{
	vhost_destroy(r->v);
	shutdown(r->fd, SHUT_RDWR);
	fd_close(&r->fd);
	pthread_join(r->d.thread, NULL);
	fd_close(&r->d.fd);
	if (r->d.requests_fd >= 0)
		close(r->d.requests_fd);
	gmem_destroy(r->gmem);
}

static unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int start_ring(struct rig *r)
{
	struct vhost_ring ring = {
		.layout = {.size = 8, .desc_iova = 4096, .avail_iova = 8192, .used_iova = 12288},
		.next_avail = 3,
		.kick_fd = r->v->err_fd[0],
		.call_fd = r->v->err_fd[0],
		.err_fd = r->v->err_fd[0]};
	int rc;

	pthread_mutex_lock(&r->v->lock);
	rc = r->v->ops->set_features(r->v, 1ull << VIRTIO_F_VERSION_1);
	if (!rc)
		rc = r->v->ops->start(r->v, &ring);
	pthread_mutex_unlock(&r->v->lock);
	return rc;
}

static int stop_ring(struct rig *r, uint16_t *next)
{
	int rc;

	pthread_mutex_lock(&r->v->lock);
	rc = r->v->ops->stop(r->v, 0, next);
	pthread_mutex_unlock(&r->v->lock);
	return rc;
}

Test(vhost_user, memory_is_given_by_the_guests_addresses_and_follows_it)
{
	struct rig r;
	uint8_t config[60];
	uint16_t next = 0;

	open_rig(&r);
	cr_assert_eq(create(&r, 2), 0, "%s", r.err.text);
	cr_assert_eq(r.d.n_regions, 1);
	cr_assert_eq(r.d.regions[0].gpa, 0);
	cr_assert_eq(r.d.regions[0].user, 0, "no address of this process");
	cr_assert_eq(add_memory(&r, 1ull << 32, &r.err), 0, "%s", r.err.text);
	cr_assert_eq(r.d.n_regions, 2);
	cr_assert_eq(r.d.regions[1].user, 1ull << 32);
	/* What the balloon gives back is gone for both. */
	*(char *)gmem_host(r.gmem, 4096, 1, true) = 'x';
	cr_assert_eq(r.d.mapped[0][4096], 'x');
	cr_assert_eq(gmem_discard(r.gmem, 4096, 4096), 0);
	cr_assert_eq(r.d.mapped[0][4096], 0);
	r.d.mapped[0][4096] = 'y';
	cr_assert_eq(*(char *)gmem_host(r.gmem, 4096, 1, false), 'y');

	cr_assert_eq(vhost_user_get_config(r.v, config, sizeof(config), &r.err), 0);
	cr_assert_eq(config[59], 0x5a);
	cr_assert_eq(start_ring(&r), 0);
	cr_assert_eq(r.d.set_features,
		     1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
	cr_assert_eq(r.d.seen[VHOST_USER_SET_VRING_ENABLE], 1);
	cr_assert_eq(stop_ring(&r, &next), 0);
	cr_assert_eq(next, 7);

	cr_assert_eq(gmem_begin(r.gmem, &r.err), 0);
	cr_assert_eq(gmem_remove(r.gmem, 1ull << 32, &r.err), 0);
	cr_assert_eq(gmem_commit(r.gmem, &r.err), 0);
	cr_assert_eq(r.d.n_regions, 1);
	close_rig(&r);
}

Test(vhost_user, a_daemon_without_slots_has_a_table_of_eight_regions)
{
	struct rig r;

	open_rig(&r);
	r.d.protocol &= ~(1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	cr_assert_eq(create(&r, 2), 0, "%s", r.err.text);
	for (unsigned int i = 1; i < 8; i++)
		cr_assert_eq(add_memory(&r, i * 0x10000000ull, &r.err), 0, "%s", r.err.text);
	cr_assert_eq(r.d.n_regions, 8);
	cr_assert_eq(r.d.fds, 8);
	cr_assert_eq(add_memory(&r, 0x90000000ull, &r.err), -ENOSPC);
	cr_assert(strstr(r.err.text, "takes 8 regions"), "%s", r.err.text);
	cr_assert_eq(r.d.n_regions, 8);
	close_rig(&r);
}

Test(vhost_user, what_a_daemon_lacks_is_said)
{
	static const struct {
		uint64_t protocol, features;
		const char *text;
	} lacks[] = {
		{PROTOCOL, 1ull << VIRTIO_F_VERSION_1, "protocol features"},
		{PROTOCOL, 1ull << VHOST_USER_F_PROTOCOL_FEATURES, "virtio 1"},
		{PROTOCOL & ~8ull, 1ull << 32 | 1ull << 30, "REPLY_ACK"},
	};
	struct rig r;

	for (unsigned int i = 0; i < ARRAY_SIZE(lacks); i++) {
		open_rig(&r);
		r.d.protocol = lacks[i].protocol;
		r.d.features = lacks[i].features;
		cr_assert_lt(create(&r, 2), 0);
		cr_assert(strstr(r.err.text, lacks[i].text), "%s", r.err.text);
		close_rig(&r);
	}
	open_rig(&r);
	cr_assert_eq(create(&r, 3), -EINVAL);
	cr_assert(strstr(r.err.text, "has 2 queues, and 3 are wanted"), "%s", r.err.text);
	close_rig(&r);
}

static int use(struct rig *r)
{
	uint8_t config[60];
	uint16_t next = 3;
	int rc = create(r, 2);

	if (!rc)
		rc = vhost_user_get_config(r->v, config, sizeof(config), &r->err);
	if (!rc)
		rc = start_ring(r);
	if (!rc)
		rc = stop_ring(r, &next);
	return rc;
}

Test(vhost_user, a_wrong_answer_costs_the_daemon_and_no_more, .timeout = 60)
{
	static const uint32_t requests[] = {
		VHOST_USER_GET_FEATURES,       VHOST_USER_GET_PROTOCOL_FEATURES,
		VHOST_USER_GET_QUEUE_NUM,      VHOST_USER_GET_MAX_MEM_SLOTS,
		VHOST_USER_ADD_MEM_REG,        VHOST_USER_GET_CONFIG,
		VHOST_USER_SET_FEATURES,       VHOST_USER_SET_VRING_KICK,
		VHOST_USER_SET_BACKEND_REQ_FD, VHOST_USER_GET_VRING_BASE,
	};
	unsigned int before = count_fds();

	for (unsigned int i = 0; i < ARRAY_SIZE(requests); i++) {
		for (enum fault f = SILENT; f < FAULTS; f++) {
			bool acked = requests[i] == VHOST_USER_ADD_MEM_REG ||
				     requests[i] == VHOST_USER_SET_FEATURES ||
				     requests[i] == VHOST_USER_SET_BACKEND_REQ_FD ||
				     requests[i] == VHOST_USER_SET_VRING_KICK;
			uint64_t start = clock_ns();
			char why[160] = "";
			struct rig r;

			if (f == REFUSES && !acked)
				continue;
			open_rig(&r);
			r.d.at = requests[i];
			r.d.fault = f;
			cr_assert_lt(use(&r), 0, "request %u, fault %d", requests[i], f);
			cr_assert_lt(clock_ns() - start, 20 * LIMIT_MS * NS_PER_MS);
			if (r.v && f != REFUSES) {
				cr_assert(vhost_user_gone(r.v, why, sizeof(why)));
				cr_assert_neq(why[0], '\0');
				/* Memory changes all the same. */
				cr_assert_eq(add_memory(&r, 1ull << 32, &r.err), 0);
				cr_assert_eq(start_ring(&r), -EPIPE);
			}
			close_rig(&r);
			cr_assert_eq(count_fds(), before, "request %u, fault %d", requests[i], f);
		}
	}
}

Test(vhost_user, memory_that_a_daemon_refuses_does_not_come)
{
	struct rig r;

	open_rig(&r);
	cr_assert_eq(create(&r, 2), 0);
	r.d.fault = REFUSES;
	r.d.at = VHOST_USER_ADD_MEM_REG;
	cr_assert_eq(add_memory(&r, 1ull << 32, &r.err), -EREMOTEIO);
	cr_assert_null(gmem_host(r.gmem, 1ull << 32, 1, false));
	close_rig(&r);
}

Test(vhost_user, a_daemon_that_ends_is_noticed)
{
	struct rig r;
	char why[160];

	open_rig(&r);
	cr_assert_eq(create(&r, 2), 0);
	cr_assert_not(vhost_user_gone(r.v, why, sizeof(why)));
	shutdown(r.d.fd, SHUT_RDWR);
	cr_assert(vhost_user_gone(r.v, why, sizeof(why)));
	cr_assert(strstr(why, "closed its socket"), "%s", why);
	close_rig(&r);
}

Test(vhost_user, a_daemon_may_say_that_its_configuration_changes_and_nothing_else)
{
	static const struct {
		struct vhost_user_header header;
		uint32_t bytes;
		bool changed, answered, gone;
	} cases[] = {
		{{VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 0}, 12, true},
		{{VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY,
		  0},
		 12,
		 true,
		 true},
		{{VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 8}, 12, .gone = true},
		{{3, VHOST_USER_VERSION, 0}, 12, .gone = true},
		{{VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 0}, 5, .gone = true},
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		char why[160], answer[64];
		struct rig r;

		open_rig(&r);
		cr_assert_eq(create(&r, 2), 0, "%s", r.err.text);
		cr_assert_not(vhost_user_config_changed(r.v), "nobody has said anything");
		cr_assert_eq(send(r.d.requests_fd, &cases[i].header, cases[i].bytes, 0),
			     cases[i].bytes);
		cr_assert_eq(vhost_user_config_changed(r.v), cases[i].changed, "case %u", i);
		cr_assert_eq(vhost_user_gone(r.v, why, sizeof(why)), cases[i].gone, "case %u", i);
		cr_assert_eq(recv(r.d.requests_fd, answer, sizeof(answer), MSG_DONTWAIT),
			     cases[i].answered ? 20 : -1, "case %u", i);
		close_rig(&r);
	}
}

Test(vhost_user, memory_comes_though_a_daemon_does_not_answer)
{
	char why[160] = "";
	struct rig r;

	open_rig(&r);
	cr_assert_eq(create(&r, 2), 0);
	r.d.fault = SILENT;
	r.d.at = VHOST_USER_ADD_MEM_REG;
	cr_assert_eq(add_memory(&r, 1ull << 32, &r.err), 0, "%s", r.err.text);
	cr_assert_not_null(gmem_host(r.gmem, 1ull << 32, 1, false));
	cr_assert(vhost_user_gone(r.v, why, sizeof(why)));
	cr_assert(strstr(why, "has not answered ADD_MEM_REG for 200 ms"), "%s", why);
	close_rig(&r);
}
