// SPDX-License-Identifier: Apache-2.0
// Relocation tables and random offsets.
#include "firmware/kaslr.h"

#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "base/rand.h"
#include "firmware/block.h"

static const uint8_t field_bytes[RELOC_KINDS] = {
	[RELOC_64] = 8,
	[RELOC_32] = 4,
	[RELOC_INVERSE] = 4,
};

/* Addresses become offsets; every field must be inside the image. */
static int to_offsets(struct reloc_list *list, uint64_t size, const struct vmlinux *v,
		      struct err *err)
{
	for (uint32_t i = 0; i < list->n; i++) {
		uint8_t *word = list->word + 4ull * i;
		uint64_t va = (uint64_t)(int64_t)(int32_t)load_le32(word);

		if (!range_inside(va, size, v->base_va, v->span_bytes))
			return err_set(err, -EINVAL, "a relocation is outside of the kernel: 0x%lx",
				       va);
		store_le32(word, (uint32_t)(va - v->base_va));
	}
	return 0;
}

int relocs_parse(struct relocs *ret, const struct vmlinux *v, uint8_t *buf, uint64_t bytes,
		 struct err *err)
{
	struct reloc_list found[RELOC_KINDS] = {0};
	uint64_t words;
	uint8_t *at = buf + v->elf_end;
	unsigned int lists = 0;

	memset(ret, 0, sizeof(*ret));
	if (v->elf_end >= bytes)
		return 0;
	words = (bytes - v->elf_end) / 4;
	if (words < 2 || words > UINT32_MAX || (bytes - v->elf_end) % 4)
		return err_set(err, -EINVAL, "%lu bytes behind the kernel are no relocations",
			       bytes - v->elf_end);
	for (uint64_t i = 0; i < words; i++, at += 4) {
		if (load_le32(at)) {
			if (!lists)
				return err_set(err, -EINVAL,
					       "what is behind the kernel are no "
					       "relocations: no leading zero");
			found[lists - 1].n++;
		} else if (lists == RELOC_KINDS) {
			return err_set(err, -EINVAL,
				       "what is behind the kernel are no relocations: "
				       "more than three lists");
		} else {
			found[lists++].word = at + 4;
		}
	}
	if (lists < 2)
		return err_set(err, -EINVAL, "the relocations are cut short: one list");
	ret->list[RELOC_64] = found[0];
	ret->list[RELOC_32] = found[lists - 1];
	if (lists == 3)
		ret->list[RELOC_INVERSE] = found[1];
	for (unsigned int i = 0; i < RELOC_KINDS; i++) {
		int r = to_offsets(&ret->list[i], field_bytes[i], v, err);

		if (r)
			return r;
	}
	return 0;
}

bool relocs_inside(const struct relocs *r, uint64_t span_bytes)
{
	for (unsigned int i = 0; i < RELOC_KINDS; i++) {
		const struct reloc_list *list = &r->list[i];

		if (list->n &&
		    block_max(list->word, list->n) + (uint64_t)field_bytes[i] > span_bytes)
			return false;
	}
	return true;
}

/* Both are the hot loops of a start: a few hundred thousand rounds for a distribution's kernel.
 * Fields lie at any alignment. From the last to the first, as the kernel's own decompressor does:
 * where fields overlap (in no sane kernel), the outcome is the same. */
static void add64(const struct reloc_list *list, uint8_t *image, uint64_t delta)
{
	for (uint64_t i = list->n; i-- > 0;) {
		uint8_t *field = image + load_le32(list->word + 4 * i);

		store_le64(field, load_le64(field) + delta);
	}
}

static void add32(const struct reloc_list *list, uint8_t *image, uint32_t delta)
{
	for (uint64_t i = list->n; i-- > 0;) {
		uint8_t *field = image + load_le32(list->word + 4 * i);

		store_le32(field, load_le32(field) + delta);
	}
}

void relocs_apply(const struct relocs *r, uint8_t *image, uint64_t delta)
{
	if (!delta)
		return;
	add32(&r->list[RELOC_32], image, (uint32_t)delta);
	add32(&r->list[RELOC_INVERSE], image, (uint32_t)-delta);
	add64(&r->list[RELOC_64], image, delta);
}

int kaslr_random_below(uint64_t n, uint64_t *ret)
{
	uint64_t limit = UINT64_MAX - UINT64_MAX % n, v;
	int r;

	do {
		r = rand_bytes(&v, sizeof(v));
		if (r)
			return r;
	} while (v >= limit);
	*ret = v % n;
	return 0;
}

int kaslr_choose_virtual(const struct vmlinux *v, uint64_t align, uint64_t *delta)
{
	uint64_t start = v->base_va - KASLR_MAP, slot;
	int r;

	*delta = 0;
	if (!range_inside(start, v->span_bytes, 0, KASLR_WINDOW))
		return -EINVAL;
	r = kaslr_random_below((KASLR_WINDOW - start - v->span_bytes) / align + 1, &slot);
	if (!r)
		*delta = slot * align;
	return r;
}

bool cmdline_has(const char *cmdline, const char *word)
{
	size_t len = strlen(word);

	while (*cmdline) {
		size_t n;

		cmdline += strspn(cmdline, " \t\n");
		n = strcspn(cmdline, " \t\n");
		if (n == len && !memcmp(cmdline, word, len))
			return true;
		cmdline += n;
	}
	return false;
}
