// SPDX-License-Identifier: Apache-2.0
/*
 * A vhost-user daemon's answers. The input is two bytes, and then what the daemon says, all of it
 * before it is asked, with a descriptor at some place; then it says nothing more.
 *
 * Oracle: a second, independent reading of the same bytes says how far the front end may come. It
 * comes so far and no further; what it read of the configuration is in the input, and nothing is
 * written beside it; no descriptor stays; nothing waits.
 */
#include <stdalign.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "core/gmem.h"
#include "fuzz.h"
#include "virtio/vhost_user.h"
#include "virtio/vhost_user_wire.h"

enum { RINGS = 2, CONFIG = 60, GUARD = 64 };

/* --- the second reading --- */

struct reading {
	const uint8_t *at;
	size_t left;
	long fd_at; /* from `at`; negative: none, or behind it */
};

/* The payload of the next message, if it is this answer. */
static const uint8_t *expect(struct reading *r, uint32_t request, uint32_t bytes)
{
	const uint8_t *body = r->at + 12;
	uint32_t head[3];

	if (r->left < 12)
		return NULL;
	memcpy(head, r->at, sizeof(head));
	if (head[0] != request || (head[1] & 7) != 5 || head[2] != bytes || r->left < 12 + bytes)
		return NULL;
	if (r->fd_at >= 0 && r->fd_at < (long)(12 + bytes))
		return NULL;
	r->at += 12 + bytes;
	r->left -= 12 + bytes;
	r->fd_at -= 12 + (long)bytes;
	return body;
}

static bool number(struct reading *r, uint32_t request, uint64_t *ret)
{
	const uint8_t *body = expect(r, request, 8);

	if (body)
		memcpy(ret, body, 8);
	return body;
}

static bool acknowledged(struct reading *r, uint32_t request)
{
	uint64_t refused = 1;

	return number(r, request, &refused) && !refused;
}

/* May it be created? */
static bool may_create(struct reading *r)
{
	uint64_t features, protocol, n;

	if (!number(r, 1, &features) || !(features >> 32 & 1) || !(features >> 30 & 1))
		return false;
	if (!number(r, 15, &protocol) || !(protocol >> 3 & 1) || !(protocol >> 9 & 1))
		return false;
	if (!acknowledged(r, 3) || (protocol >> 5 & 1 && !acknowledged(r, 21)))
		return false;
	if (protocol & 1 && (!number(r, 17, &n) || n < RINGS))
		return false;
	if (!(protocol >> 15 & 1))
		return acknowledged(r, 5);
	return number(r, 36, &n) && n && acknowledged(r, 37);
}

static const uint8_t *may_configure(struct reading *r)
{
	const uint8_t *body = expect(r, 24, 12 + CONFIG);
	uint32_t head[2];

	if (!body)
		return NULL;
	memcpy(head, body, sizeof(head));
	return head[0] || head[1] != CONFIG ? NULL : body + 12;
}

static bool may_stop(struct reading *r, uint16_t *next)
{
	const uint8_t *body = expect(r, 11, 8);
	uint32_t state[2];

	if (!body)
		return false;
	memcpy(state, body, sizeof(state));
	if (state[0] != 1 || state[1] > 0xffff)
		return false;
	*next = (uint16_t)state[1];
	return true;
}

/* --- the front end --- */

static void say(int fd, const uint8_t *data, size_t size, int with)
{
	struct iovec iov = {(void *)(uintptr_t)data, size};
	alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (!size)
		return;
	if (with >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
							.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &with, sizeof(with));
	}
	check(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static struct gmem *memory(void)
{
	static const struct gmem_region_config region = {.name = "ram",
							 .size_bytes = 1 << 20,
							 .backing = GMEM_MEMFD,
							 .numa_node = -1,
							 .share = true};
	static struct gmem *gmem;
	static struct log log;
	struct err err = ERR_INIT;

	if (gmem)
		return gmem;
	check(!gmem_create(&gmem, &log, &err) && !gmem_begin(gmem, &err));
	check(!gmem_add(gmem, &region, &err) && !gmem_commit(gmem, &err));
	return gmem;
}

static void use(struct vhost *v, struct reading *r)
{
	uint8_t buf[CONFIG + GUARD];
	const uint8_t *wanted = may_configure(r);
	struct err err = ERR_INIT;
	uint16_t next = 3, wanted_next = 3;
	bool stops;
	int rc;

	memset(buf, 0xa5, sizeof(buf));
	rc = vhost_user_get_config(v, buf, CONFIG, &err);
	check((rc == 0) == (wanted != NULL));
	check(!wanted || memcmp(buf, wanted, CONFIG) == 0);
	for (unsigned int i = wanted ? CONFIG : 0; i < sizeof(buf); i++)
		check(buf[i] == 0xa5);
	if (!wanted)
		return;
	stops = may_stop(r, &wanted_next);
	pthread_mutex_lock(&v->lock);
	rc = v->ops->stop(v, 1, &next);
	pthread_mutex_unlock(&v->lock);
	check((rc == 0) == stops && next == wanted_next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reading r;
	struct err err = ERR_INIT;
	struct vhost *v = NULL;
	uint64_t start = clock_ns();
	int s[2], first, last;
	size_t split;
	bool created;

	if (size < 2)
		return 0;
	split = (size_t)data[0] | (size_t)data[1] << 8;
	data += 2;
	size -= 2;
	r = (struct reading){data, size, split < size ? (long)split : -1};
	(void)memory();
	first = dup(0);
	check(first >= 0 && !close(first));
	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	say(s[1], data, split < size ? split : size, -1);
	if (split < size)
		say(s[1], data + split, size - split, s[1]);
	check(!shutdown(s[1], SHUT_WR));

	created = may_create(&r);
	check((vhost_user_create(&v,
				 &(struct vhost_user_setup){.name = "disk0",
							    .fd = s[0],
							    .n_rings = RINGS,
							    .config = true,
							    .gmem = memory(),
							    .limit_ms = 1000},
				 &err) == 0) == created);
	check(created || err.text[0]);
	if (created)
		use(v, &r);
	vhost_destroy(v);
	close(s[0]);
	close(s[1]);
	last = dup(0);
	check(last == first && !close(last));
	check(clock_ns() - start < NS_PER_S);
	return 0;
}
