// SPDX-License-Identifier: Apache-2.0
// An x86-64 kernel as an ELF file. Nothing in it is believed before it is checked.
#include "firmware/vmlinux.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "firmware/image.h"

#define NOTE_PHYS32_ENTRY 18  /* XEN_ELFNOTE_PHYS32_ENTRY */
#define LOWEST_GPA        MiB /* below lie boot parameters and the legacy hole */
#define HIGHEST_GPA       (1ull << 46)

static int source_read(const struct elf_source *source, uint64_t offset, void *buf, size_t len,
		       struct err *err)
{
	int r;

	if (!range_inside(offset, len, 0, source->bytes))
		return err_set(err, -EINVAL, "cut short: its headers point past its end");
	if (source->buf) {
		memcpy(buf, source->buf + offset, len);
		return 0;
	}
	r = fd_read_full(source->fd, buf, len, (off_t)offset);
	if (r)
		return err_set(err, r, "cannot read it: %s", err_name(r));
	return 0;
}

static int check_segment(const Elf64_Phdr *p, const struct elf_source *source, struct err *err)
{
	if (p->p_filesz > p->p_memsz)
		return err_set(err, -EINVAL, "absurd segment: %lu bytes of file in %lu of memory",
			       p->p_filesz, p->p_memsz);
	if (p->p_filesz && !range_inside(p->p_offset, p->p_filesz, 0, source->bytes))
		return err_set(err, -EINVAL,
			       "cut short: a segment of %lu bytes at %lu in %lu bytes", p->p_filesz,
			       p->p_offset, source->bytes);
	if (p->p_memsz > IMAGE_UNPACKED_MAX || p->p_paddr > HIGHEST_GPA)
		return err_set(err, -EINVAL, "absurd segment: %lu bytes at 0x%lx", p->p_memsz,
			       p->p_paddr);
	if (p->p_paddr < LOWEST_GPA)
		return err_set(
			err, -EINVAL,
			"a segment at 0x%lx: a kernel is loaded above the first MiB; is this "
			"a Linux kernel?",
			p->p_paddr);
	return 0;
}

/* Insert in order of address; image_offset holds the gpa until all are known. */
static int add_segment(struct vmlinux *v, const Elf64_Phdr *p, struct err *err)
{
	struct vmlinux_segment s = {p->p_paddr, p->p_offset, p->p_filesz, p->p_memsz};
	unsigned int at = v->n_segments;

	if (v->n_segments == VMLINUX_SEGMENTS_MAX)
		return err_set(err, -EINVAL, "more than %d segments", VMLINUX_SEGMENTS_MAX);
	while (at && v->segment[at - 1].image_offset > s.image_offset) {
		v->segment[at] = v->segment[at - 1];
		at--;
	}
	v->segment[at] = s;
	v->n_segments++;
	if (!at)
		v->base_va = p->p_vaddr;
	return 0;
}

static int settle_segments(struct vmlinux *v, struct err *err)
{
	uint64_t end = 0;

	if (!v->n_segments)
		return err_set(err, -EINVAL, "an ELF file without a loadable segment");
	v->base_gpa = v->segment[0].image_offset;
	for (unsigned int i = 0; i < v->n_segments; i++) {
		struct vmlinux_segment *s = &v->segment[i];

		s->image_offset -= v->base_gpa;
		if (s->image_offset < end)
			return err_set(err, -EINVAL, "overlapping segments at 0x%lx",
				       v->base_gpa + s->image_offset);
		end = s->image_offset + s->mem_bytes;
		if (end > IMAGE_UNPACKED_MAX)
			return err_set(err, -EINVAL, "segments spread over more than 1 GiB");
	}
	v->span_bytes = end;
	return 0;
}

/* The note may lie in a section of its own file range; only PT_NOTE is looked at. */
static int find_pvh(struct vmlinux *v, const Elf64_Phdr *p, const struct elf_source *source,
		    struct err *err)
{
	uint8_t notes[4096];
	uint64_t len = p->p_filesz, at = 0;
	int r;

	if (!len || len > sizeof(notes))
		return 0;
	r = source_read(source, p->p_offset, notes, len, err);
	if (r)
		return r;
	while (len - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		uint64_t name, desc, next;

		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = name + align_up(n.n_namesz, 4);
		next = desc + align_up(n.n_descsz, 4);
		if (desc + n.n_descsz > len)
			break;
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 &&
		    !memcmp(notes + name, "Xen", 4)) {
			if (n.n_descsz >= 8)
				v->pvh_entry = load_le64(notes + desc);
			else if (n.n_descsz >= 4)
				v->pvh_entry = load_le32(notes + desc);
		}
		if (next >= len)
			break;
		at = next;
	}
	return 0;
}

static int settle_entries(struct vmlinux *v, uint64_t e_entry, struct err *err)
{
	if (range_inside(e_entry, 1, v->base_va, v->span_bytes))
		e_entry = e_entry - v->base_va + v->base_gpa;
	if (!range_inside(e_entry, 1, v->base_gpa, v->span_bytes))
		return err_set(err, -EINVAL, "absurd entry 0x%lx: outside of its segments",
			       e_entry);
	v->entry_offset = e_entry - v->base_gpa;
	if (v->pvh_entry && (!range_inside(v->pvh_entry, 1, v->base_gpa, v->span_bytes) ||
			     v->pvh_entry > UINT32_MAX))
		return err_set(err, -EINVAL, "absurd PVH entry 0x%lx: outside of its segments",
			       v->pvh_entry);
	return 0;
}

static int walk_program_headers(struct vmlinux *v, const Elf64_Ehdr *e,
				const struct elf_source *source, struct err *err)
{
	if (e->e_phentsize != sizeof(Elf64_Phdr) || !e->e_phnum || e->e_phnum > 128)
		return err_set(err, -EINVAL, "absurd program headers: %u of %u bytes", e->e_phnum,
			       e->e_phentsize);
	for (unsigned int i = 0; i < e->e_phnum; i++) {
		Elf64_Phdr p;
		uint64_t at;
		int r;

		if (add_overflows(e->e_phoff, i * sizeof(p), &at))
			return err_set(err, -EINVAL, "absurd program headers at 0x%lx", e->e_phoff);
		r = source_read(source, at, &p, sizeof(p), err);
		if (r)
			return r;
		if (p.p_type == PT_NOTE) {
			r = find_pvh(v, &p, source, err);
		} else if (p.p_type == PT_LOAD && p.p_memsz) {
			r = check_segment(&p, source, err);
			if (!r)
				r = add_segment(v, &p, err);
			if (!r && p.p_filesz)
				v->elf_end = MAX(v->elf_end, p.p_offset + p.p_filesz);
		}
		if (r)
			return r;
	}
	return 0;
}

/* objcopy leaves the section headers, or the names of the sections, last: what is appended to the
 * file begins where the last of all ends. */
static int find_end(struct vmlinux *v, const Elf64_Ehdr *e, const struct elf_source *source,
		    struct err *err)
{
	uint64_t end;

	if (!e->e_shoff || !e->e_shnum)
		return 0;
	if (e->e_shentsize != sizeof(Elf64_Shdr) ||
	    add_overflows(e->e_shoff, (uint64_t)e->e_shnum * sizeof(Elf64_Shdr), &end) ||
	    end > source->bytes)
		return err_set(err, -EINVAL, "cut short: its section headers are past its end");
	v->elf_end = MAX(v->elf_end, end);
	if (!source->buf)
		return 0; /* nothing follows a vmlinux file */
	for (unsigned int i = 0; i < e->e_shnum; i++) {
		Elf64_Shdr s;

		memcpy(&s, source->buf + e->e_shoff + i * sizeof(s), sizeof(s));
		if (s.sh_type == SHT_NOBITS || s.sh_type == SHT_NULL)
			continue;
		if (add_overflows(s.sh_offset, s.sh_size, &end) || end > source->bytes)
			return err_set(err, -EINVAL, "cut short: a section is past its end");
		v->elf_end = MAX(v->elf_end, end);
	}
	return 0;
}

int vmlinux_parse(struct vmlinux *ret, const struct elf_source *source, struct err *err)
{
	Elf64_Ehdr e;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = source_read(source, 0, &e, sizeof(e), err);
	if (r)
		return r;
	if (memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
	    e.e_ident[EI_DATA] != ELFDATA2LSB ||
	    (e.e_machine != EM_X86_64 && !(source->firmware && e.e_machine == EM_386)))
		return err_set(err, -ENOEXEC, "not an x86-64 ELF file");
	if (e.e_type != ET_EXEC && e.e_type != ET_DYN)
		return err_set(err, -ENOEXEC, "an ELF file that is not a program (type %u)",
			       e.e_type);
	r = walk_program_headers(ret, &e, source, err);
	if (!r)
		r = settle_segments(ret, err);
	if (!r && source->firmware && !ret->pvh_entry)
		return err_set(err, -ENOEXEC, "an ELF file without a PVH entry");
	if (!r)
		r = settle_entries(ret, source->firmware ? ret->base_gpa : e.e_entry, err);
	if (!r)
		r = find_end(ret, &e, source, err);
	return r;
}

/* In windows that overlap by the length of the text. */
static bool segment_has(const struct vmlinux_segment *s, const struct elf_source *source,
			const char *text, void *window, size_t window_bytes)
{
	size_t len = strlen(text);
	struct err ignored;

	for (uint64_t at = 0; at < s->file_bytes; at += window_bytes - len) {
		size_t n = MIN(window_bytes, s->file_bytes - at);

		if (source_read(source, s->file_offset + at, window, n, &ignored))
			return false;
		if (memmem(window, n, text, len))
			return true;
	}
	return false;
}

bool vmlinux_has_text(const struct vmlinux *v, const struct elf_source *source, const char *text)
{
	enum { WINDOW = 64 << 10 };
	cleanup_free void *window = malloc(WINDOW);
	bool found = false;

	for (unsigned int i = 0; i < v->n_segments && window && !found; i++)
		found = segment_has(&v->segment[i], source, text, window, WINDOW);
	return found;
}
