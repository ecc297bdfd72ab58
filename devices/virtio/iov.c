// SPDX-License-Identifier: Apache-2.0
// Segments of host memory as one run of bytes.
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "virtio/queue.h"

size_t iov_to_buf(const struct iovec *iov, unsigned int n, size_t skip, void *buf, size_t len)
{
	size_t done = 0;

	if (n == 1 && skip <= iov->iov_len) { /* as mostly */
		len = MIN(len, iov->iov_len - skip);
		memcpy(buf, (const uint8_t *)iov->iov_base + skip, len);
		return len;
	}
	for (unsigned int i = 0; i < n && done < len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - skip, len - done);
		memcpy((uint8_t *)buf + done, (const uint8_t *)iov[i].iov_base + skip, part);
		done += part;
		skip = 0;
	}
	return done;
}

size_t iov_from_buf(const struct iovec *iov, unsigned int n, size_t skip, const void *buf,
		    size_t len)
{
	size_t done = 0;

	if (n == 1 && skip <= iov->iov_len) {
		len = MIN(len, iov->iov_len - skip);
		memcpy((uint8_t *)iov->iov_base + skip, buf, len);
		return len;
	}
	for (unsigned int i = 0; i < n && done < len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - skip, len - done);
		memcpy((uint8_t *)iov[i].iov_base + skip, (const uint8_t *)buf + done, part);
		done += part;
		skip = 0;
	}
	return done;
}

int iov_slice(struct iovec *dst, unsigned int max, const struct iovec *iov, unsigned int n,
	      size_t skip, size_t len)
{
	unsigned int used = 0;

	for (unsigned int i = 0; i < n && len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		if (used == max)
			return -E2BIG;
		part = MIN(iov[i].iov_len - skip, len);
		dst[used++] = (struct iovec){(uint8_t *)iov[i].iov_base + skip, part};
		len -= part;
		skip = 0;
	}
	return (int)used;
}
