// SPDX-License-Identifier: Apache-2.0
// Made-up kernels.
#include "synth.h"

#include <assert.h>
#include <elf.h>
#include <lz4.h>
#include <lz4hc.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/le.h"
#include "base/num.h"

#define DATA_AT   (2u << 20) /* in the image */
#define PERCPU_AT (DATA_AT + SYNTH_DATA)
#define BSS_AT    (PERCPU_AT + SYNTH_PERCPU)
#define FILE_TEXT 0x1000u
#define FILE_DATA (FILE_TEXT + SYNTH_TEXT)
#define FILE_PER  (FILE_DATA + SYNTH_DATA)
#define FILE_NOTE (FILE_PER + SYNTH_PERCPU)
#define FILE_SHDR (FILE_NOTE + 0x100)
#define FILE_END  (FILE_SHDR + 2 * sizeof(Elf64_Shdr))
#define N_RELOCS  100u

void blob_free(struct blob *blob)
{
	free(blob->data);
	blob->data = NULL;
}

static struct blob blob_new(size_t len)
{
	struct blob b = {calloc(1, len), len};

	assert(b.data);
	return b;
}

/* Every byte says where it is; no page is zero but those of the hole. */
static void pattern(uint8_t *to, size_t len, uint32_t seed)
{
	for (size_t i = 0; i + 4 <= len; i += 4)
		store_le32(to + i, (uint32_t)(i * 2654435761u) ^ seed);
}

static void fill(uint8_t *text, uint8_t *data, uint8_t *percpu)
{
	pattern(text, SYNTH_TEXT, 0x11111111);
	pattern(data, SYNTH_DATA, 0x22222222);
	pattern(percpu, SYNTH_PERCPU, 0x33333333);
	memset(data + (SYNTH_HOLE_AT - DATA_AT), 0, 64 * 1024);
	memcpy(data + SYNTH_DATA - 64, "Linux version 0", 16);
}

/* Where the i-th field of a kind lies in the image. Text, data and per-cpu data have some. */
static uint32_t field_at(unsigned int kind, unsigned int i)
{
	uint32_t step = i * 24 + kind * 8;

	if (i < N_RELOCS / 2)
		return 0x1000 + step + 1; /* no alignment */
	if (i < N_RELOCS - 4)
		return DATA_AT + step;
	return PERCPU_AT + step % (SYNTH_PERCPU - 16);
}

static size_t put_relocs(uint8_t *to, unsigned int lists)
{
	size_t at = 0;

	for (unsigned int list = 0; list < lists; list++) {
		unsigned int kind = lists == 2 && list == 1 ? 2 : list;

		at += 4;
		for (unsigned int i = 0; i < N_RELOCS; i++, at += 4)
			if (to)
				store_le32(to + at, (uint32_t)(SYNTH_VA + field_at(kind, i)));
	}
	return at;
}

struct blob synth_elf(const struct synth *s)
{
	struct blob b = blob_new(FILE_END + put_relocs(NULL, s->lists));
	Elf64_Ehdr *e = (void *)b.data;
	Elf64_Phdr *p = (void *)(b.data + sizeof(*e));
	Elf64_Shdr *sh = (void *)(b.data + FILE_SHDR);
	Elf64_Nhdr *n = (void *)(b.data + FILE_NOTE);

	memcpy(e->e_ident, ELFMAG, SELFMAG);
	e->e_ident[EI_CLASS] = ELFCLASS64;
	e->e_ident[EI_DATA] = ELFDATA2LSB;
	e->e_ident[EI_VERSION] = EV_CURRENT;
	e->e_type = ET_EXEC;
	e->e_machine = EM_X86_64;
	e->e_version = EV_CURRENT;
	e->e_entry = SYNTH_BASE + SYNTH_ENTRY;
	e->e_phoff = sizeof(*e);
	e->e_ehsize = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = s->no_pvh ? 3 : 4;
	if (!s->no_sections) {
		e->e_shoff = FILE_SHDR;
		e->e_shentsize = sizeof(*sh);
		e->e_shnum = 2;
		sh[1].sh_type = SHT_PROGBITS;
		sh[1].sh_offset = FILE_TEXT;
		sh[1].sh_size = SYNTH_TEXT;
	}
	p[0] = (Elf64_Phdr){PT_LOAD,    PF_R | PF_X, FILE_TEXT,  SYNTH_VA,
			    SYNTH_BASE, SYNTH_TEXT,  SYNTH_TEXT, 0x200000};
	p[1] = (Elf64_Phdr){
		PT_LOAD,    PF_R | PF_W, FILE_DATA, SYNTH_VA + DATA_AT, SYNTH_BASE + DATA_AT,
		SYNTH_DATA, SYNTH_DATA,  0x200000};
	p[2] = (Elf64_Phdr){PT_LOAD,
			    PF_R | PF_W,
			    FILE_PER,
			    0,
			    SYNTH_BASE + PERCPU_AT,
			    SYNTH_PERCPU,
			    SYNTH_SPAN - PERCPU_AT,
			    0x1000};
	p[3] = (Elf64_Phdr){PT_NOTE, PF_R, FILE_NOTE, 0, 0, 20, 20, 4};
	n->n_namesz = 4;
	n->n_descsz = 4;
	n->n_type = 18;
	memcpy(b.data + FILE_NOTE + 12, "Xen", 4);
	store_le32(b.data + FILE_NOTE + 16, (uint32_t)SYNTH_BASE + SYNTH_PVH);
	fill(b.data + FILE_TEXT, b.data + FILE_DATA, b.data + FILE_PER);
	if (s->no_banner)
		b.data[FILE_DATA + SYNTH_DATA - 64] = 'X';
	if (s->ecam)
		memcpy(b.data + FILE_DATA + SYNTH_DATA - 128, "nommconf", 9);
	put_relocs(b.data + FILE_END, s->lists);
	if (s->no_sections && s->lists) {
		/* Without section headers nothing says that they are there. */
		memmove(b.data + FILE_NOTE, b.data + FILE_END, b.len - FILE_END);
		b.len -= FILE_END - FILE_NOTE;
		e->e_phnum = 3;
	}
	return b;
}

struct blob synth_expected(const struct synth *s, uint64_t delta)
{
	struct blob b = blob_new(SYNTH_SPAN);

	fill(b.data, b.data + DATA_AT, b.data + PERCPU_AT);
	for (unsigned int kind = 0; kind < 3; kind++) {
		if (!s->lists || (kind == 1 && s->lists == 2))
			continue;
		for (unsigned int i = 0; i < N_RELOCS; i++) {
			uint8_t *field = b.data + field_at(kind, i);

			if (kind == 0)
				store_le64(field, load_le64(field) + delta);
			else if (kind == 1)
				store_le32(field, load_le32(field) - (uint32_t)delta);
			else
				store_le32(field, load_le32(field) + (uint32_t)delta);
		}
	}
	return b;
}

static size_t pack_gzip(uint8_t *to, size_t room, const void *data, size_t len)
{
	z_stream z = {.next_in = (void *)data,
		      .avail_in = (uInt)len,
		      .next_out = to,
		      .avail_out = (uInt)room};

	assert(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	assert(deflate(&z, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_xz(uint8_t *to, size_t room, const void *data, size_t len)
{
	lzma_options_lzma options;
	lzma_filter filters[] = {
		{LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
	size_t at = 0;

	lzma_lzma_preset(&options, 1);
	options.dict_size = 32u << 20;
	assert(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, data, len, to, &at,
					 room) == LZMA_OK);
	return at;
}

static size_t pack_zstd(uint8_t *to, size_t room, const void *data, size_t len)
{
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	size_t n;

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, 27);
	ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
	n = ZSTD_compress2(ctx, to, room, data, len);
	assert(!ZSTD_isError(n));
	ZSTD_freeCCtx(ctx);
	return n;
}

static size_t pack_lz4(uint8_t *to, size_t room, const void *data, size_t len)
{
	size_t at = 4, in = 0;

	store_le32(to, 0x184c2102);
	while (in < len) {
		size_t chunk = MIN(len - in, (size_t)8 << 20);
		int n = LZ4_compress_HC((const char *)data + in, (char *)to + at + 4, (int)chunk,
					(int)(room - at - 4), 9);

		assert(n > 0);
		store_le32(to + at, (uint32_t)n);
		at += 4 + (size_t)n;
		in += chunk;
	}
	return at;
}

struct blob synth_pack(enum image_codec codec, const void *data, size_t len)
{
	struct blob b = blob_new(len + len / 8 + 65536);
	size_t n;

	switch (codec) {
	case CODEC_GZIP:
		n = pack_gzip(b.data, b.len, data, len);
		b.len = n;
		return b; /* has the size in its own trailer */
	case CODEC_XZ:
		n = pack_xz(b.data, b.len, data, len);
		break;
	case CODEC_ZSTD:
		n = pack_zstd(b.data, b.len, data, len);
		break;
	case CODEC_LZ4:
		n = pack_lz4(b.data, b.len, data, len);
		break;
	case CODEC_NONE:
		memcpy(b.data, data, len);
		b.len = len;
		return b;
	default:
		memcpy(b.data, "BZh9", 4);
		n = 64;
		break;
	}
	store_le32(b.data + n, (uint32_t)len);
	b.len = n + 4;
	return b;
}

struct setup_header *synth_header(struct blob *bzimage)
{
	return (void *)(bzimage->data + 0x1f1);
}

struct blob synth_bzimage(const struct synth *s, const struct blob *payload)
{
	const size_t code_at = 5 * 512, payload_at = 0x400;
	struct blob elf = synth_elf(s), own = {0}, b;
	struct setup_header *h;

	if (!payload) {
		own = synth_pack(s->codec, elf.data, elf.len);
		payload = &own;
	}
	b = blob_new(align_up(code_at + payload_at + payload->len + 64, 16));
	h = synth_header(&b);
	h->setup_sects = 4;
	h->boot_flag = 0xaa55;
	h->jump = (uint16_t)(0xeb | (sizeof(*h) - 0x11) << 8);
	h->header = 0x53726448;
	h->version = 0x20f;
	h->loadflags = LOADED_HIGH;
	h->syssize = (uint32_t)((b.len - code_at + 15) / 16);
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 2u << 20;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
	h->cmdline_size = 2047;
	h->payload_offset = (uint32_t)payload_at;
	h->payload_length = (uint32_t)payload->len;
	h->pref_address = SYNTH_BASE;
	h->init_size = SYNTH_SPAN;
	pattern(b.data + code_at, payload_at, 0x44444444);
	memcpy(b.data + code_at + payload_at, payload->data, payload->len);
	blob_free(&own);
	blob_free(&elf);
	return b;
}

int synth_file(const struct blob *blob)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert(fd >= 0);
	assert(!blob->len || write(fd, blob->data, blob->len) == (ssize_t)blob->len);
	return fd;
}

struct gmem *synth_memory(uint64_t bytes)
{
	struct gmem_region_config config = {
		.name = "ram",
		.size_bytes = bytes,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};
	struct err err = ERR_INIT;
	struct gmem *gmem = NULL;

	if (gmem_create(&gmem, NULL, &err) || gmem_begin(gmem, &err) ||
	    gmem_add(gmem, &config, &err) || gmem_commit(gmem, &err))
		abort();
	return gmem;
}
