/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net's backend over a connected stream socket: each frame behind its length, 32 bits, big
 * endian. passt speaks it, and so does QEMU's "stream" netdev. There is no header, so no offloads.
 *
 * Frames come through a buffer, many per system call. Going out, a frame that the socket took in
 * part is kept here to its end: the stream must not lose its place when the guest resets.
 */
#include "virtio/net_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/mem.h"

enum {
	LENGTH_BYTES = 4,
	IN_BYTES = 256 << 10,
	IN_START = NET_HEADER_BYTES - LENGTH_BYTES,
	OUT_BYTES = LENGTH_BYTES + NET_FRAME_MAX,
};

struct net_socket {
	uint8_t *in;
	uint8_t *out;
	size_t begin; /* of what is unread in `in` */
	size_t end;
	size_t out_begin; /* of what the socket did not take */
	size_t out_end;
};

static void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int socket_open(struct net *net, uint64_t *features, struct err *err)
{
	struct net_pair *pair = &net->pairs[0];
	int type = 0;
	socklen_t len = sizeof(type);
	struct net_socket *s;

	if (net->n_pairs != 1)
		return err_set(err, -EINVAL, "net '%s': a socket has one queue pair, not %u",
			       net->vdev.name, net->n_pairs);
	if (getsockopt(pair->fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM)
		return err_set(err, -EINVAL, "net '%s': fd %d is not a stream socket",
			       net->vdev.name, pair->fd);
	if (!mem_new(s))
		return err_set(err, -ENOMEM, "net '%s': no memory", net->vdev.name);
	pair->backend = s;
	s->in = map_lazily(IN_BYTES);
	s->out = map_lazily(OUT_BYTES);
	if (!s->in || !s->out)
		return err_set(err, -ENOMEM, "net '%s': no memory", net->vdev.name);
	*features = 0;
	return 0;
}

static void socket_close(struct net *net)
{
	struct net_socket *s = net->pairs[0].backend;

	if (!s)
		return;
	if (s->in)
		(void)munmap(s->in, IN_BYTES);
	if (s->out)
		(void)munmap(s->out, OUT_BYTES);
	free(s);
	net->pairs[0].backend = NULL;
}

static int socket_set_offloads(struct net *net, uint64_t features)
{
	(void)net;
	return features ? -EINVAL : 0;
}

static int socket_set_enabled(struct net_pair *pair, bool on)
{
	(void)pair;
	(void)on;
	return 0;
}

static void socket_set_carrier(struct net *net, bool up)
{
	(void)net;
	(void)up;
}

/* More bytes from the peer. */
static int fill(struct net_pair *pair, struct net_socket *s)
{
	if (s->begin != s->end)
		memmove(s->in + IN_START, s->in + s->begin, s->end - s->begin);
	s->end = IN_START + (s->end - s->begin);
	s->begin = IN_START;
	for (;;) {
		ssize_t n = recv(pair->fd, s->in + s->end, IN_BYTES - s->end, MSG_DONTWAIT);

		if (n > 0) {
			s->end += (size_t)n;
			return 0;
		}
		if (!n)
			return -ECONNRESET;
		if (errno != EINTR)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	}
}

static uint32_t length_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int socket_receive(struct net_pair *pair)
{
	struct net_socket *s = pair->backend;
	struct net_rx *rx = &pair->rx;
	uint32_t len = 0;

	for (;;) {
		size_t have = s->end - s->begin;

		if (have >= LENGTH_BYTES) {
			len = length_at(s->in + s->begin);
			/* No such frame exists: the peer lost its place, nothing can be trusted. */
			if (len > NET_FRAME_MAX)
				return -EPROTO;
			if (have - LENGTH_BYTES >= len)
				break;
		}
		int r = fill(pair, s);

		if (r)
			return r;
	}
	/* The header goes in front of the frame, over its length and what was read before; the
	 * buffer has room for that at its start. What waits for guest buffers stays where it is:
	 * nothing is filled in meanwhile. */
	uint8_t *packet = s->in + s->begin + LENGTH_BYTES - NET_HEADER_BYTES;

	s->begin += LENGTH_BYTES + len;
	if (len < NET_FRAME_MIN)
		return 1;
	memset(packet, 0, NET_HEADER_BYTES);
	return net_rx_deliver(rx, NET_HEADER_BYTES + len, 0, packet);
}

static int socket_drain(struct net_pair *pair)
{
	struct net_socket *s = pair->backend;

	while (s->out_begin < s->out_end) {
		ssize_t n = send(pair->fd, s->out + s->out_begin, s->out_end - s->out_begin,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0)
			s->out_begin += (size_t)n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return -EAGAIN;
		else if (errno != EINTR)
			s->out_begin = s->out_end; /* the peer is gone: receive says so */
	}
	return 0;
}

static int socket_transmit(struct net_pair *pair, const struct iovec *iov, unsigned int n,
			   uint64_t bytes)
{
	struct net_socket *s = pair->backend;
	size_t len = bytes - NET_HEADER_BYTES;
	uint8_t prefix[LENGTH_BYTES] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16),
					(uint8_t)(len >> 8), (uint8_t)len};
	struct iovec out[VIRTQ_MAX_SEGMENTS + 1];
	ssize_t sent;

	if (socket_drain(pair))
		return -EAGAIN;
	out[0] = (struct iovec){prefix, sizeof(prefix)};
	int segments = iov_slice(out + 1, VIRTQ_MAX_SEGMENTS, iov, n, NET_HEADER_BYTES, len);

	if (segments < 0)
		return segments;
	struct msghdr msg = {.msg_iov = out, .msg_iovlen = (size_t)segments + 1};

	do
		sent = sendmsg(pair->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	if ((size_t)sent == sizeof(prefix) + len)
		return 0;
	s->out_begin = 0;
	s->out_end = sizeof(prefix) + len - (size_t)sent;
	(void)iov_to_buf(out, (unsigned int)segments + 1, (size_t)sent, s->out, s->out_end);
	return 1;
}

const struct net_backend_ops net_socket_ops = {
	.open = socket_open,
	.close = socket_close,
	.set_offloads = socket_set_offloads,
	.set_enabled = socket_set_enabled,
	.set_carrier = socket_set_carrier,
	.receive = socket_receive,
	.transmit = socket_transmit,
	.drain = socket_drain,
};
