// SPDX-License-Identifier: Apache-2.0
// Pages into frames. See send.h.
#include "migration/send.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"

enum { PAGE_BYTES = WIRE_PAGE_BYTES };

void send_init(struct send *s, const struct gmem *gmem, struct dirty *dirty)
{
	*s = (struct send){.gmem = gmem, .dirty = dirty, .first_round = true};
}

bool send_is_empty(const struct send *s)
{
	return s->at == s->n_iov;
}

void send_frame(struct send *s, enum wire_kind kind, uint64_t at, const void *payload,
		uint64_t bytes)
{
	if (send_is_empty(s))
		s->n_heads = s->n_iov = s->at = 0;
	assert(s->n_heads < SEND_FRAMES);
	s->heads[s->n_heads] = wire_head(kind, at, bytes);
	s->iov[s->n_iov++] = (struct iovec){&s->heads[s->n_heads++], WIRE_HEAD_BYTES};
	if (payload)
		s->iov[s->n_iov++] = (struct iovec){(void *)payload, (size_t)bytes};
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

/* Pages that are all zero, or none of them: how many of n from here. */
static uint64_t count_alike(const uint8_t *host, uint64_t n, bool *zero)
{
	uint64_t pages = 1;

	*zero = is_zero(host);
	while (pages < n && is_zero(host + pages * PAGE_BYTES) == *zero)
		pages++;
	return pages;
}

/* A run of the round, as frames: how many pages fitted; *bytes grows by what is not zero. */
static uint64_t add_run(struct send *s, uint64_t gpa, uint64_t pages, const uint8_t *host,
			uint64_t *bytes)
{
	uint64_t done = 0;

	while (done < pages && s->n_heads < SEND_FRAMES) {
		bool zero;
		uint64_t n = count_alike(host + done * PAGE_BYTES, pages - done, &zero);
		uint64_t at = gpa + done * PAGE_BYTES;

		if (!zero)
			send_frame(s, WIRE_PAGES, at, host + done * PAGE_BYTES, n * PAGE_BYTES);
		else if (!s->first_round)
			send_frame(s, WIRE_ZERO, at, NULL, n * PAGE_BYTES);
		s->pages += n;
		s->zeroes += zero ? n : 0;
		*bytes += zero ? 0 : n * PAGE_BYTES;
		done += n;
	}
	return done;
}

bool send_pages(struct send *s, int *rc)
{
	uint64_t bytes = 0, scanned = 0, gpa, pages;
	bool any = false;

	*rc = 0;
	if (send_is_empty(s))
		s->n_heads = s->n_iov = s->at = 0;
	while (bytes < SEND_BYTES && scanned < SEND_SCAN_PAGES && s->n_heads < SEND_FRAMES) {
		const uint8_t *host;
		uint64_t done;

		if (!dirty_next(s->dirty, (SEND_BYTES - bytes) / PAGE_BYTES, &gpa, &pages))
			break;
		any = true;
		host = gmem_host(s->gmem, gpa, pages * PAGE_BYTES, false);
		if (!host) {
			*rc = -EFAULT;
			return false;
		}
		done = add_run(s, gpa, pages, host, &bytes);
		scanned += done;
		if (done < pages)
			dirty_put_back(s->dirty, gpa + done * PAGE_BYTES, pages - done);
	}
	return any;
}

void send_gone(struct send *s, size_t bytes)
{
	s->bytes += bytes;
	while (bytes) {
		struct iovec *iov = &s->iov[s->at];
		size_t n = MIN(bytes, iov->iov_len);

		iov->iov_base = (char *)iov->iov_base + n;
		iov->iov_len -= n;
		bytes -= n;
		if (!iov->iov_len)
			s->at++;
	}
}

enum round_next rounds_end(struct rounds *r, uint64_t bytes, uint64_t ns, uint64_t left_bytes,
			   uint64_t fixed_ns)
{
	/* A round of a few pages says nothing of the stream. */
	if (ns && (!r->rate || bytes >= SEND_BYTES))
		r->rate = (uint64_t)((__uint128_t)bytes * NS_PER_S / ns);
	r->n++;
	r->left_bytes = left_bytes;
	r->pause_ns = fixed_ns;
	if (left_bytes)
		r->pause_ns = r->rate ? fixed_ns + (uint64_t)((__uint128_t)left_bytes * NS_PER_S /
							      r->rate)
				      : UINT64_MAX;
	if (r->n == 1 || left_bytes < r->best_bytes) {
		r->best_bytes = left_bytes;
		r->since = 0;
	} else {
		r->since++;
	}
	if (r->pause_ns <= r->downtime_ns)
		return ROUND_LAST;
	return r->n >= ROUNDS_MAX || r->since >= ROUNDS_PATIENCE ? ROUND_NEVER : ROUND_AGAIN;
}
