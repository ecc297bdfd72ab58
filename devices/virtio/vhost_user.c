// SPDX-License-Identifier: Apache-2.0
// The vhost-user protocol, the front end's side. See vhost_user.h.
#include "virtio/vhost_user.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/virtio_config.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "virtio/vhost_user_wire.h"

/* A region that it has. Of memory that goes as a table, the fd is a duplicate: the table is sent
 * again when another region comes. */
struct region {
	struct vhost_user_region wire;
	int fd;
};

struct vhost_user {
	struct vhost base;
	uint64_t protocol;     /* negotiated; constant, as are: */
	unsigned int slots;    /* regions it takes */
	unsigned int limit_ms; /* for a message and its answer */
	int requests_fd;       /* by which it asks; -1 */
	/* Under base.lock. */
	int fd;
	bool gone;
	char why[160];
	unsigned int n_regions;
	struct region *regions; /* slots */
};

static struct vhost_user *of(struct vhost *v)
{
	return container_of(v, struct vhost_user, base);
}

static bool has(const struct vhost_user *u, unsigned int feature)
{
	return u->protocol >> feature & 1;
}

/* The first reason counts. Whoever polls the socket wakes. */
__attribute__((format(printf, 2, 3))) static int give_up(struct vhost_user *u, const char *fmt, ...)
{
	va_list ap;

	if (u->gone)
		return -EPIPE;
	u->gone = true;
	va_start(ap, fmt);
	vsnprintf(u->why, sizeof(u->why), fmt, ap);
	va_end(ap);
	(void)shutdown(u->fd, SHUT_RDWR);
	return -EPIPE;
}

/* --- messages --- */

struct message {
	uint32_t request;
	const char *name;
	const void *payload;
	uint32_t bytes;
	const int *fds;
	unsigned int n_fds;
};
#define MESSAGE(request_, ...) \
	(&(const struct message){.request = VHOST_USER_##request_, .name = #request_, __VA_ARGS__})

/* 0 when the socket is ready for that. */
static int wait_for(struct vhost_user *u, short events, uint64_t until_ns, const char *name)
{
	struct pollfd p = {.fd = u->fd, .events = events};

	for (;;) {
		uint64_t now = clock_ns();
		int r = now >= until_ns
				? 0
				: poll(&p, 1, (int)((until_ns - now + NS_PER_MS - 1) / NS_PER_MS));

		if (r > 0)
			return 0;
		if (r == 0)
			return give_up(u, "it has not answered %s for %u ms", name, u->limit_ms);
		if (errno != EINTR)
			return give_up(u, "%s: poll: %s", name, err_name(errno));
	}
}

static bool try_again(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static int send_all(struct vhost_user *u, const struct message *m, uint32_t flags,
		    uint64_t until_ns)
{
	struct vhost_user_header header = {m->request, VHOST_USER_VERSION | flags, m->bytes};
	struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)m->payload, m->bytes}};
	alignas(struct cmsghdr) char control[CMSG_SPACE(VHOST_USER_REGIONS * sizeof(int))] = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	size_t left = sizeof(header) + m->bytes;

	if (m->n_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(m->n_fds * sizeof(int));
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(m->n_fds * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), m->fds, m->n_fds * sizeof(int));
	}
	while (left) {
		ssize_t n = sendmsg(u->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && !try_again())
			return give_up(u, "%s: %s", m->name, err_name(errno));
		if (n < 0) {
			if (wait_for(u, POLLOUT, until_ns, m->name))
				return -EPIPE;
			continue;
		}
		left -= (size_t)n;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		for (unsigned int i = 0; i < 2; i++) {
			size_t gone = MIN((size_t)n, iov[i].iov_len);

			if (!gone)
				continue;
			iov[i].iov_base = (char *)iov[i].iov_base + gone;
			iov[i].iov_len -= gone;
			n -= (ssize_t)gone;
		}
	}
	return 0;
}

/* There is no room for descriptors, so that none is ever installed. */
static int receive(struct vhost_user *u, void *buf, size_t bytes, uint64_t until_ns,
		   const char *name)
{
	while (bytes) {
		struct iovec iov = {buf, bytes};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = recvmsg(u->fd, &msg, MSG_DONTWAIT);

		if (n == 0)
			return give_up(u, "it has closed its socket");
		if (n < 0 && errno == ECONNRESET)
			return give_up(u, "it has closed its socket");
		if (n < 0 && !try_again())
			return give_up(u, "%s: %s", name, err_name(errno));
		if (n < 0) {
			if (wait_for(u, POLLIN, until_ns, name))
				return -EPIPE;
			continue;
		}
		if (msg.msg_flags & MSG_CTRUNC)
			return give_up(u, "it has answered %s with a file descriptor", name);
		buf = (char *)buf + n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* "Header", "Communication": the answer has the request's number and exactly this size. */
static int receive_answer(struct vhost_user *u, const struct message *m, void *answer,
			  uint32_t bytes, uint64_t until_ns)
{
	struct vhost_user_header header;
	int r = receive(u, &header, sizeof(header), until_ns, m->name);

	if (r)
		return r;
	if (header.request != m->request ||
	    (header.flags & (VHOST_USER_VERSION_MASK | VHOST_USER_REPLY)) !=
		    (VHOST_USER_VERSION | VHOST_USER_REPLY))
		return give_up(u, "it has answered %s by message %" PRIu32 " with flags 0x%" PRIx32,
			       m->name, header.request, header.flags);
	if (header.bytes != bytes)
		return give_up(u, "its answer to %s has %" PRIu32 " bytes, not %" PRIu32, m->name,
			       header.bytes, bytes);
	return receive(u, answer, bytes, until_ns, m->name);
}

/* Send, and take the answer that the request has anyway. */
static int ask(struct vhost_user *u, const struct message *m, void *answer, uint32_t bytes)
{
	uint64_t until_ns = clock_ns() + u->limit_ms * NS_PER_MS;
	int r = u->gone ? -EPIPE : send_all(u, m, 0, until_ns);

	return r ? r : receive_answer(u, m, answer, bytes, until_ns);
}

/* Send what has no answer but, with REPLY_ACK, whether it was done. */
static int tell(struct vhost_user *u, const struct message *m)
{
	uint64_t until_ns = clock_ns() + u->limit_ms * NS_PER_MS, refused = 0;
	bool ack = has(u, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	int r = u->gone ? -EPIPE : send_all(u, m, ack ? VHOST_USER_NEED_REPLY : 0, until_ns);

	if (!r && ack)
		r = receive_answer(u, m, &refused, sizeof(refused), until_ns);
	return r ? r : refused ? -EREMOTEIO : 0;
}

/* --- guest memory: "Memory regions description", "Multiple memory slots" --- */

static int check_region(const struct vhost_user *u, const struct gmem_region *region,
			struct err *err)
{
	if (region->fd < 0)
		return err_set(err, -EINVAL,
			       "'%s': its daemon needs guest memory that can be shared; start the "
			       "machine with memory.backing memfd",
			       u->base.name);
	if (u->n_regions == u->slots)
		return err_set(err, -ENOSPC,
			       "'%s': its daemon takes %u regions of memory, and this would be one "
			       "more",
			       u->base.name, u->slots);
	return 0;
}

static int add_region(struct vhost_user *u, const struct region *r, struct err *err)
{
	const struct vhost_user_one_region body = {.region = r->wire};
	int rc = tell(u, MESSAGE(ADD_MEM_REG, &body, sizeof(body), &r->fd, 1));

	/* One that is gone hinders no change of memory. */
	if (rc != -EREMOTEIO)
		return 0;
	return err_set(err, rc, "'%s': its daemon does not take memory at 0x%" PRIx64, u->base.name,
		       r->wire.gpa);
}

static int map(struct vhost *v, const struct gmem_region *region, struct err *err)
{
	struct vhost_user *u = of(v);
	struct region *r;
	int rc;

	if (u->gone)
		return 0;
	rc = check_region(u, region, err);
	if (rc)
		return rc;
	r = &u->regions[u->n_regions];
	*r = (struct region){
		.wire = {.gpa = region->gpa,
			 .bytes = region->size_bytes,
			 .user = region->gpa,
			 .offset = region->fd_offset},
		.fd = region->fd,
	};
	if (has(u, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
		rc = add_region(u, r, err);
	} else {
		r->fd = fd_dup(region->fd);
		if (r->fd < 0)
			rc = err_set(err, r->fd, "'%s': memory: %s", v->name, err_name(r->fd));
	}
	u->n_regions += !rc;
	return rc;
}

static void unmap(struct vhost *v, const struct gmem_region *region)
{
	struct vhost_user *u = of(v);

	for (unsigned int i = 0; i < u->n_regions; i++) {
		struct region gone = u->regions[i];
		const struct vhost_user_one_region body = {.region = gone.wire};

		if (gone.wire.gpa != region->gpa)
			continue;
		u->regions[i] = u->regions[--u->n_regions];
		if (!has(u, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
			fd_close(&gone.fd);
		else if (tell(u, MESSAGE(REM_MEM_REG, &body, sizeof(body))) == -EREMOTEIO)
			give_up(u, "it does not give back memory at 0x%" PRIx64, gone.wire.gpa);
		return;
	}
}

static int batch_end(struct vhost *v, struct err *err)
{
	struct vhost_user *u = of(v);
	struct vhost_user_table table = {.n = u->n_regions};
	int fds[VHOST_USER_REGIONS];
	uint32_t bytes = (uint32_t)(offsetof(struct vhost_user_table, regions) +
				    u->n_regions * sizeof(table.regions[0]));

	if (u->gone || !u->n_regions || has(u, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		return 0;
	for (unsigned int i = 0; i < u->n_regions; i++) {
		table.regions[i] = u->regions[i].wire;
		fds[i] = u->regions[i].fd;
	}
	if (tell(u, MESSAGE(SET_MEM_TABLE, &table, bytes, fds, u->n_regions)) != -EREMOTEIO)
		return 0;
	return err_set(err, -EREMOTEIO, "'%s': its daemon does not take %u regions of memory",
		       v->name, u->n_regions);
}

/* --- rings: "Starting and stopping rings" --- */

static int tell_u64(struct vhost_user *u, const struct message *m, uint64_t value)
{
	struct message with = *m;

	with.payload = &value;
	with.bytes = sizeof(value);
	return tell(u, &with);
}

static int set_features(struct vhost *v, uint64_t features)
{
	return tell_u64(of(v), MESSAGE(SET_FEATURES),
			features | 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
}

static int set_call(struct vhost *v, unsigned int ring, int call_fd)
{
	return tell_u64(of(v), MESSAGE(SET_VRING_CALL, .fds = &call_fd, .n_fds = 1), ring);
}

static int start(struct vhost *v, const struct vhost_ring *ring)
{
	struct vhost_user *u = of(v);
	const struct vhost_user_state num = {ring->index, ring->layout.size};
	const struct vhost_user_state base = {ring->index, ring->next_avail};
	const struct vhost_user_state enable = {ring->index, 1};
	const struct vhost_user_addr addr = {
		.index = ring->index,
		.desc = ring->layout.desc_iova,
		.used = ring->layout.used_iova,
		.avail = ring->layout.avail_iova,
	};
	int r;

	if ((r = tell(u, MESSAGE(SET_VRING_NUM, &num, sizeof(num)))) ||
	    (r = tell(u, MESSAGE(SET_VRING_BASE, &base, sizeof(base)))) ||
	    (r = tell(u, MESSAGE(SET_VRING_ADDR, &addr, sizeof(addr)))) ||
	    (r = set_call(v, ring->index, ring->call_fd)) ||
	    (r = tell_u64(u, MESSAGE(SET_VRING_ERR, .fds = &ring->err_fd, .n_fds = 1),
			  ring->index)) ||
	    (r = tell_u64(u, MESSAGE(SET_VRING_KICK, .fds = &ring->kick_fd, .n_fds = 1),
			  ring->index)))
		return r;
	return tell(u, MESSAGE(SET_VRING_ENABLE, &enable, sizeof(enable)));
}

static int stop(struct vhost *v, unsigned int ring, uint16_t *next_avail)
{
	struct vhost_user *u = of(v);
	const struct vhost_user_state which = {.index = ring};
	struct vhost_user_state base = {0};
	int r = ask(u, MESSAGE(GET_VRING_BASE, &which, sizeof(which)), &base, sizeof(base));

	if (r)
		return r;
	if (base.index != ring || base.value > UINT16_MAX)
		return give_up(u,
			       "it has answered GET_VRING_BASE of ring %u by %" PRIu32
			       " of ring %" PRIu32,
			       ring, base.value, base.index);
	*next_avail = (uint16_t)base.value;
	return 0;
}

/* --- the configuration space --- */

int vhost_user_get_config(struct vhost *v, void *buf, uint32_t bytes, struct err *err)
{
	struct vhost_user *u = of(v);
	struct vhost_user_config config = {.bytes = bytes}, answer = {.bytes = 0};
	uint32_t all = (uint32_t)offsetof(struct vhost_user_config, data) + bytes;
	int r;

	pthread_mutex_lock(&v->lock);
	r = ask(u, MESSAGE(GET_CONFIG, &config, all), &answer, all);
	if (!r && (answer.offset || answer.bytes != bytes))
		r = give_up(u, "it has answered GET_CONFIG by %" PRIu32 " bytes, not %" PRIu32,
			    answer.bytes, bytes);
	if (r)
		err_set(err, r, "'%s': its daemon: %s", v->name, u->why);
	else
		memcpy(buf, answer.data, bytes);
	pthread_mutex_unlock(&v->lock);
	return r;
}

int vhost_user_requests_fd(const struct vhost *v)
{
	return container_of(v, const struct vhost_user, base)->requests_fd;
}

/* It has no payload; and a header is sent at once or by nobody who means well. */
static bool take_request(struct vhost_user *u)
{
	struct vhost_user_header header;
	struct iovec iov = {&header, sizeof(header)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	const struct {
		struct vhost_user_header header;
		uint8_t done[8];
	} answer = {
		.header = {VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
			   VHOST_USER_VERSION | VHOST_USER_REPLY, 8},
	};
	ssize_t n = recvmsg(u->requests_fd, &msg, MSG_DONTWAIT);

	if (n < 0 && try_again())
		return false;
	if (n == 0 || (n < 0 && errno == ECONNRESET)) {
		give_up(u, "it has closed its socket");
		return false;
	}
	if (n != sizeof(header) || msg.msg_flags & MSG_CTRUNC ||
	    header.request != VHOST_USER_BACKEND_CONFIG_CHANGE_MSG || header.bytes) {
		give_up(u, "it has asked for what it may not have");
		return false;
	}
	if (header.flags & VHOST_USER_NEED_REPLY)
		(void)send(u->requests_fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
	return true;
}

bool vhost_user_config_changed(struct vhost *v)
{
	struct vhost_user *u = of(v);
	bool changed;

	pthread_mutex_lock(&v->lock);
	changed = !u->gone && take_request(u);
	pthread_mutex_unlock(&v->lock);
	return changed;
}

/* --- life --- */

bool vhost_user_gone(struct vhost *v, char *text, size_t bytes)
{
	struct vhost_user *u = of(v);
	struct pollfd p = {.fd = u->fd, .events = POLLRDHUP};
	bool gone;

	pthread_mutex_lock(&v->lock);
	if (!u->gone && poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR))
		give_up(u, "it has closed its socket");
	gone = u->gone;
	if (gone)
		snprintf(text, bytes, "%s", u->why);
	pthread_mutex_unlock(&v->lock);
	return gone;
}

static void destroy(struct vhost *v)
{
	struct vhost_user *u = of(v);

	/* Whatever memory it still has, it has until it closes that. */
	if (u->fd >= 0) {
		pthread_mutex_lock(&v->lock);
		give_up(u, "the device is gone");
		pthread_mutex_unlock(&v->lock);
	}
	vhost_done(v);
	while (u->n_regions) {
		u->n_regions--;
		if (!has(u, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
			fd_close(&u->regions[u->n_regions].fd);
	}
	fd_close(&u->requests_fd);
	fd_close(&u->fd);
	free(u->regions);
	free(u);
}

static const struct vhost_ops user_ops = {
	.name = "vhost-user",
	.set_features = set_features,
	.map = map,
	.unmap = unmap,
	.batch_end = batch_end,
	.start = start,
	.set_call = set_call,
	.stop = stop,
	.destroy = destroy,
};

static int lacks(const struct vhost_user *u, const char *what, struct err *err)
{
	return err_set(err, -EOPNOTSUPP,
		       "'%s': its vhost-user daemon has no %s; use another, or a newer one",
		       u->base.name, what);
}

/* "VHOST_USER_GET_PROTOCOL_FEATURES" */
static int negotiate(struct vhost_user *u, bool config, struct err *err)
{
	uint64_t want = 1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |
			1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;
	uint64_t offered = 0;
	int r;

	if (config)
		want |= 1ull << VHOST_USER_PROTOCOL_F_CONFIG |
			1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ;
	r = ask(u, MESSAGE(GET_FEATURES), &u->base.features, sizeof(u->base.features));
	if (r)
		return r;
	if (!(u->base.features >> VIRTIO_F_VERSION_1 & 1))
		return lacks(u, "virtio 1", err);
	if (!(u->base.features >> VHOST_USER_F_PROTOCOL_FEATURES & 1))
		return lacks(u, "protocol features", err);
	r = ask(u, MESSAGE(GET_PROTOCOL_FEATURES), &offered, sizeof(offered));
	if (r)
		return r;
	if (!(offered >> VHOST_USER_PROTOCOL_F_REPLY_ACK & 1))
		return lacks(u, "REPLY_ACK", err);
	if (config && !(offered >> VHOST_USER_PROTOCOL_F_CONFIG & 1))
		return lacks(u, "CONFIG: it is no disk's", err);
	r = tell_u64(u, MESSAGE(SET_PROTOCOL_FEATURES), want & offered);
	u->protocol = want & offered;
	return r ? r : tell(u, MESSAGE(SET_OWNER));
}

/* "VHOST_USER_SET_BACKEND_REQ_FD" */
static int open_requests(struct vhost_user *u, struct err *err)
{
	int ends[2], r;

	if (!has(u, VHOST_USER_PROTOCOL_F_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_set(err, -errno, "'%s': socketpair: %s", u->base.name, err_name(errno));
	u->requests_fd = ends[0];
	r = tell(u, MESSAGE(SET_BACKEND_REQ_FD, .fds = &ends[1], .n_fds = 1));
	fd_close(&ends[1]);
	return r;
}

/* Rings and regions of memory that it takes. */
static int ask_limits(struct vhost_user *u, unsigned int n_rings, struct err *err)
{
	uint64_t rings = n_rings, slots = VHOST_USER_REGIONS;
	int r = 0;

	if (has(u, VHOST_USER_PROTOCOL_F_MQ))
		r = ask(u, MESSAGE(GET_QUEUE_NUM), &rings, sizeof(rings));
	if (!r && has(u, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		r = ask(u, MESSAGE(GET_MAX_MEM_SLOTS), &slots, sizeof(slots));
	if (r)
		return r;
	if (rings < n_rings)
		return err_set(err, -EINVAL,
			       "'%s': its daemon has %" PRIu64 " queues, and %u are wanted; give "
			       "that many (queues=), or start it with more",
			       u->base.name, rings, n_rings);
	u->slots = (unsigned int)MIN(slots, (uint64_t)VHOST_USER_SLOTS_MAX);
	u->regions = calloc(MAX(u->slots, 1u), sizeof(*u->regions));
	return u->regions ? 0 : err_set(err, -ENOMEM, "'%s': no memory", u->base.name);
}

static int prepare(struct vhost_user *u, const struct vhost_user_setup *setup, struct err *err)
{
	int r = negotiate(u, setup->config, err);

	if (!r)
		r = open_requests(u, err);
	if (!r)
		r = ask_limits(u, setup->n_rings, err);
	if (!r)
		r = vhost_listen(&u->base, err);
	if (u->gone)
		r = err_set(err, -EPIPE, "'%s': its vhost-user daemon: %s", setup->name, u->why);
	else if (r == -EREMOTEIO)
		err_set(err, r, "'%s': its vhost-user daemon refuses what it offers", setup->name);
	return r;
}

int vhost_user_create(struct vhost **ret, const struct vhost_user_setup *setup, struct err *err)
{
	struct vhost_user *u;
	int r;

	if (!mem_new(u))
		return err_set(err, -ENOMEM, "'%s': no memory", setup->name);
	u->fd = u->requests_fd = -1;
	u->limit_ms = setup->limit_ms ? setup->limit_ms : VHOST_USER_LIMIT_MS;
	r = vhost_init(&u->base, &user_ops, setup->name, setup->gmem, setup->n_rings, err);
	if (!r) {
		u->fd = fd_dup(setup->fd);
		if (u->fd < 0)
			r = err_set(err, u->fd, "'%s': %s", setup->name, err_name(u->fd));
	}
	if (!r)
		r = prepare(u, setup, err);
	if (r)
		destroy(&u->base);
	else
		*ret = &u->base;
	return r;
}
