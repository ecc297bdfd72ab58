// SPDX-License-Identifier: Apache-2.0
// From a packed payload to extents that can be placed.
#include "firmware/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/num.h"
#include "firmware/unpack.h"

#define PAGE 4096ull
/* Holes shorter than this are copied: skipping costs more than it saves. */
#define HOLE_MIN (16 * KiB)

void payload_release(struct payload *payload)
{
	if (payload->map)
		munmap(payload->map, payload->map_bytes);
	free(payload->extent_array);
	memset(payload, 0, sizeof(*payload));
}

/* Adds the non-zero extents of one segment to the array; counts only, when there is none. */
static uint32_t split_segment(const struct vmlinux_segment *s, const uint8_t *data,
			      struct extent *array)
{
	uint64_t start = 0, at = 0, zero_from = 0;
	uint32_t n = 0;

	while (at < s->file_bytes) {
		uint64_t step = MIN(PAGE, s->file_bytes - at);
		bool zero = step == PAGE && block_is_zero(data + s->file_offset + at, PAGE);

		at += step;
		if (zero)
			continue;
		/* [zero_from, at - step) is zero, the page before `at` is not. */
		if (at - step - zero_from >= HOLE_MIN ||
		    (zero_from == start && at - step > start)) {
			if (zero_from > start) {
				if (array)
					array[n] = (struct extent){s->image_offset + start,
								   s->file_offset + start,
								   zero_from - start};
				n++;
			}
			start = at - step;
		}
		zero_from = at;
	}
	if (zero_from > start) {
		if (array)
			array[n] = (struct extent){s->image_offset + start, s->file_offset + start,
						   zero_from - start};
		n++;
	}
	return n;
}

static int split(struct payload *p, struct err *err)
{
	uint32_t n = 0;

	for (unsigned int pass = 0; pass < 2; pass++) {
		n = 0;
		for (unsigned int i = 0; i < p->elf.n_segments; i++)
			n += split_segment(&p->elf.segment[i], p->data,
					   pass ? p->extent_array + n : NULL);
		if (pass)
			break;
		p->extent_array = calloc(n ? n : 1, sizeof(*p->extent_array));
		if (!p->extent_array)
			return err_set(err, -ENOMEM, "no memory for %u extents", n);
	}
	p->extent = p->extent_array;
	p->n_extents = n;
	return 0;
}

/* Not by malloc: it would keep the address space, and raise its threshold for all that follows. */
static void *map_anonymous(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	/* Written once from end to end: fewer faults. Refusal does not matter. */
	madvise(map, bytes, MADV_HUGEPAGE);
	return map;
}

static int read_and_unpack(struct payload *p, const struct image *image, int fd, struct err *err)
{
	void *packed = map_anonymous(image->payload_bytes);
	int r;

	if (!packed)
		return err_set(err, -ENOMEM, "no memory for %lu bytes of payload",
			       image->payload_bytes);
	r = fd_read_full(fd, packed, image->payload_bytes, (off_t)image->payload_offset);
	if (r)
		err_set(err, r, "cannot read it: %s", err_name(r));
	else
		r = unpack(image->codec, packed, image->payload_bytes, p->map,
			   image->unpacked_bytes, err);
	munmap(packed, image->payload_bytes);
	return r;
}

int payload_unpack(struct payload *ret, const struct image *image, int fd, struct err *err)
{
	struct elf_source source;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->map_bytes = align_up(image->unpacked_bytes, PAGE);
	ret->map = map_anonymous(ret->map_bytes);
	if (!ret->map)
		return err_set(err, -ENOMEM, "no memory to unpack %lu bytes",
			       image->unpacked_bytes);
	ret->data = ret->map;
	ret->data_bytes = image->unpacked_bytes;
	r = read_and_unpack(ret, image, fd, err);
	if (r)
		goto fail;
	source = (struct elf_source){ret->data, -1, ret->data_bytes};
	r = vmlinux_parse(&ret->elf, &source, err);
	if (r) {
		err_prefix(err, "the unpacked kernel");
		goto fail;
	}
	/* The name of an option that kernels with CONFIG_PCI_MMCONFIG have, and others have not. */
	ret->elf.ecam = vmlinux_has_text(&ret->elf, &source, "nommconf");
	r = relocs_parse(&ret->relocs, &ret->elf, ret->map, ret->data_bytes, err);
	if (r) {
		err->code = r = -ENOTSUP;
		goto fail;
	}
	r = split(ret, err);
	if (!r)
		return 0;
fail:
	payload_release(ret);
	return r;
}

int payload_place(const struct payload *payload, uint8_t *image, bool fresh)
{
	struct digest digest;
	uint64_t at = 0;

	digest_init(&digest);
	for (uint32_t i = 0; i < payload->n_extents; i++) {
		const struct extent *e = &payload->extent[i];
		const uint8_t *data = payload->data + e->data_offset;

		if (!fresh && e->image_offset > at)
			memset(image + at, 0, e->image_offset - at);
		if (payload->cached)
			digest_copy(&digest, image + e->image_offset, data, e->bytes);
		else
			block_copy(image + e->image_offset, data, e->bytes);
		at = e->image_offset + e->bytes;
	}
	if (!fresh && payload->elf.span_bytes > at)
		memset(image + at, 0, payload->elf.span_bytes - at);
	if (!payload->cached)
		return 0;
	for (unsigned int i = 0; i < RELOC_KINDS; i++)
		digest_update(&digest, payload->relocs.list[i].word,
			      4ull * payload->relocs.list[i].n);
	if (!digest_equal(&digest, &payload->digest) ||
	    !relocs_inside(&payload->relocs, payload->elf.span_bytes))
		return -EBADMSG;
	return 0;
}

void payload_digest(const struct payload *payload, struct digest *ret)
{
	digest_init(ret);
	for (uint32_t i = 0; i < payload->n_extents; i++)
		digest_update(ret, payload->data + payload->extent[i].data_offset,
			      payload->extent[i].bytes);
	for (unsigned int i = 0; i < RELOC_KINDS; i++)
		digest_update(ret, payload->relocs.list[i].word, 4ull * payload->relocs.list[i].n);
}
