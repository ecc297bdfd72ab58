// SPDX-License-Identifier: Apache-2.0
// Each format is one call into its library; the differences are in what counts as complete. gzip is
// libdeflate's: for a whole buffer at once it takes under half of zlib's instructions.
#include "firmware/unpack.h"

#include <errno.h>
#include <libdeflate.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zstd.h>

#include "base/le.h"
#include "base/num.h"

/* A dictionary of 128 MiB is the largest that the kernel's own build uses. */
#define XZ_MEMORY_MAX (192 * MiB)
/* lz4's legacy frame: blocks of at most 8 MiB, each led by its packed size. */
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8 * MiB)

static int damaged(struct err *err, const char *format, const char *why)
{
	return err_set(err, -EINVAL, "the %s payload is damaged: %s", format, why);
}

static int wrong_size(struct err *err, const char *format, size_t got, size_t want)
{
	return err_set(err, -EINVAL,
		       "the %s payload is damaged: unpacks to %zu instead of %zu bytes", format,
		       got, want);
}

static int unpack_gzip(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
		       struct err *err)
{
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	size_t got = 0;
	enum libdeflate_result r;

	if (!d)
		return err_set(err, -ENOMEM, "no memory to unpack gzip");
	r = libdeflate_gzip_decompress(d, in, in_bytes, out, out_bytes, &got);
	libdeflate_free_decompressor(d);
	switch (r) {
	case LIBDEFLATE_SUCCESS:
		return got == out_bytes ? 0 : wrong_size(err, "gzip", got, out_bytes);
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return damaged(err, "gzip", "it holds more than it says");
	default:
		return damaged(err, "gzip", "its data is corrupt, or ends early");
	}
}

static int unpack_xz(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
		     struct err *err)
{
	uint64_t memory = XZ_MEMORY_MAX;
	size_t in_at = 0, out_at = 0;
	lzma_ret r;

	r = lzma_stream_buffer_decode(&memory, 0, NULL, in, &in_at, in_bytes, out, &out_at,
				      out_bytes);
	switch (r) {
	case LZMA_OK:
		break;
	case LZMA_MEM_ERROR:
		return err_set(err, -ENOMEM, "no memory to unpack xz");
	case LZMA_MEMLIMIT_ERROR:
		return err_set(err, -EINVAL, "the xz payload asks for %lu MiB to unpack",
			       memory / MiB);
	case LZMA_BUF_ERROR:
		return damaged(err, "xz",
			       out_at == out_bytes ? "it holds more than it says"
						   : "it ends early");
	case LZMA_OPTIONS_ERROR:
		return damaged(err, "xz", "it uses a filter that is not known");
	default:
		return damaged(err, "xz", "its data is corrupt");
	}
	if (out_at != out_bytes)
		return wrong_size(err, "xz", out_at, out_bytes);
	return 0;
}

static int unpack_zstd(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
		       struct err *err)
{
	size_t frame = ZSTD_findFrameCompressedSize(in, in_bytes), got;
	ZSTD_DCtx *ctx;

	if (ZSTD_isError(frame))
		return damaged(err, "zstd", ZSTD_getErrorName(frame));
	ctx = ZSTD_createDCtx();
	if (!ctx)
		return err_set(err, -ENOMEM, "no memory to unpack zstd");
	/* With the whole output in one buffer, that is the window: its size costs nothing. */
	got = ZSTD_decompressDCtx(ctx, out, out_bytes, in, frame);
	ZSTD_freeDCtx(ctx);
	if (ZSTD_isError(got))
		return damaged(err, "zstd", ZSTD_getErrorName(got));
	if (got != out_bytes)
		return wrong_size(err, "zstd", got, out_bytes);
	return 0;
}

static int unpack_lz4(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
		      struct err *err)
{
	size_t in_at = 4, out_at = 0;

	if (in_bytes < 8 || load_le32(in) != LZ4_LEGACY_MAGIC)
		return damaged(err, "lz4", "it ends early");
	while (in_bytes - in_at >= 4 && out_at < out_bytes) {
		uint32_t block = load_le32(in + in_at);
		size_t room = MIN(out_bytes - out_at, (size_t)LZ4_LEGACY_BLOCK);
		int got;

		in_at += 4;
		if (block == LZ4_LEGACY_MAGIC)
			continue;
		if (!block || block > in_bytes - in_at)
			return damaged(err, "lz4", "it ends early");
		if (block > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK))
			return damaged(err, "lz4", "a block is larger than 8 MiB");
		got = LZ4_decompress_safe((const char *)in + in_at, (char *)out + out_at,
					  (int)block, (int)room);
		if (got < 0)
			return damaged(err, "lz4", "its data is corrupt, or more than it says");
		in_at += block;
		out_at += (size_t)got;
	}
	if (out_at != out_bytes)
		return wrong_size(err, "lz4", out_at, out_bytes);
	return 0;
}

int unpack(enum image_codec codec, const uint8_t *in, size_t in_bytes, uint8_t *out,
	   size_t out_bytes, struct err *err)
{
	if (in_bytes > IMAGE_UNPACKED_MAX || out_bytes > IMAGE_UNPACKED_MAX)
		return err_set(err, -EINVAL, "the payload is larger than a kernel can be");
	switch (codec) {
	case CODEC_NONE:
		if (in_bytes != out_bytes)
			return wrong_size(err, "stored", in_bytes, out_bytes);
		memcpy(out, in, in_bytes);
		return 0;
	case CODEC_GZIP:
		return unpack_gzip(in, in_bytes, out, out_bytes, err);
	case CODEC_XZ:
		return unpack_xz(in, in_bytes, out, out_bytes, err);
	case CODEC_ZSTD:
		return unpack_zstd(in, in_bytes, out, out_bytes, err);
	case CODEC_LZ4:
		return unpack_lz4(in, in_bytes, out, out_bytes, err);
	case CODEC_OTHER:
		break;
	}
	return err_set(err, -EINVAL, "the payload is packed in a way that hospes does not know");
}
