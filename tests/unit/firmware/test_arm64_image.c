// SPDX-License-Identifier: Apache-2.0
// Kernels for arm64: an Image, packed by gzip, in a zboot program; what is none or damaged is
// refused, and why.
#include <criterion/criterion.h>
#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "firmware/arm64/image.h"

enum { BYTES = 5000, ROOM = 16384, ZBOOT_HEAD = 64 };

/* An Image of BYTES with what Linux 6.12's header says. */
static void make_image(uint8_t image[BYTES])
{
	for (unsigned int i = 0; i < BYTES; i++)
		image[i] = (uint8_t)(i * 7);
	store_le64(image + 8, 0);
	store_le64(image + 16, 0x20000);
	store_le64(image + 24, 0xa);
	memcpy(image + 56, "ARM\x64", 4);
}

static size_t pack(const uint8_t *in, size_t len, uint8_t out[ROOM])
{
	struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
	size_t n = libdeflate_gzip_compress(c, in, len, out, ROOM);

	libdeflate_free_compressor(c);
	cr_assert_gt(n, 0);
	return n;
}

static void check(const struct arm64_image *got, const uint8_t image[BYTES], const char *format,
		  const char *compression)
{
	cr_assert_str_eq(got->format, format);
	cr_assert_str_eq(got->compression, compression);
	cr_assert_eq(got->len, BYTES);
	cr_assert_eq(got->image_bytes, 0x20000);
	cr_assert_eq(got->text_offset, 0);
	cr_assert_arr_eq(got->bytes, image, BYTES);
}

Test(arm64_image, is_taken_as_it_is)
{
	uint8_t image[BYTES];
	struct arm64_image got;
	struct err err = ERR_INIT;

	make_image(image);
	cr_assert_eq(arm64_image_unpack(&got, image, BYTES, &err), 0, "%s", err.text);
	check(&got, image, "Image", "none");
	arm64_image_release(&got);
}

Test(arm64_image, is_unpacked_from_gzip)
{
	uint8_t image[BYTES], packed[ROOM];
	struct arm64_image got;
	struct err err = ERR_INIT;
	size_t n;

	make_image(image);
	n = pack(image, BYTES, packed);
	cr_assert_eq(arm64_image_unpack(&got, packed, n, &err), 0, "%s", err.text);
	check(&got, image, "Image", "gzip");
	arm64_image_release(&got);
	for (size_t cut = 2; cut < n; cut += 97) {
		cr_assert_eq(arm64_image_unpack(&got, packed, cut, &err), -EINVAL, "%zu", cut);
		cr_assert_null(got.bytes);
	}
}

static size_t make_zboot(const uint8_t image[BYTES], uint8_t out[ROOM], const char *type)
{
	size_t n = pack(image, BYTES, out);

	memmove(out + ZBOOT_HEAD, out, n);
	memset(out, 0, ZBOOT_HEAD);
	memcpy(out, "MZ", 2);
	memcpy(out + 4, "zimg", 4);
	store_le32(out + 8, ZBOOT_HEAD);
	store_le32(out + 12, (uint32_t)n);
	strcpy((char *)out + 24, type);
	return ZBOOT_HEAD + n;
}

Test(arm64_image, is_unpacked_from_a_program_that_would_do_it_itself)
{
	uint8_t image[BYTES], file[ROOM];
	struct arm64_image got;
	struct err err = ERR_INIT;
	size_t n;

	make_image(image);
	n = make_zboot(image, file, "gzip");
	cr_assert_eq(arm64_image_unpack(&got, file, n, &err), 0, "%s", err.text);
	check(&got, image, "zboot", "gzip");
	arm64_image_release(&got);
	cr_assert_eq(arm64_image_unpack(&got, file, n - 1, &err), -EINVAL);
	cr_assert(strstr(err.text, "cut short"), "%s", err.text);
	store_le32(file + 8, UINT32_MAX);
	cr_assert_eq(arm64_image_unpack(&got, file, n, &err), -EINVAL);
	n = make_zboot(image, file, "zstd");
	cr_assert_eq(arm64_image_unpack(&got, file, n, &err), -ENOEXEC);
	cr_assert(strstr(err.text, "CONFIG_KERNEL_GZIP"), "%s", err.text);
}

Test(arm64_image, is_refused_with_the_reason)
{
	static const struct {
		unsigned int at, bytes;
		uint64_t value;
		int rc;
		const char *says;
	} bad[] = {
		{56, 4, 0x12345678, -ENOEXEC, "no arm64 kernel"},
		{24, 8, 1, -ENOEXEC, "big-endian"},
		{16, 8, 0, -ENOEXEC, "3.17"},
		{16, 8, BYTES - 1, -EINVAL, "5000 bytes of an image of 4999"},
		{16, 8, 2 * GiB, -EINVAL, "its image has"},
		{16, 8, UINT64_MAX, -EINVAL, "its image has"},
		{8, 8, 2 * MiB, -EINVAL, "text offset"},
		{8, 8, 0x1234, -EINVAL, "text offset"},
	};
	uint8_t image[BYTES];
	struct arm64_image got;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;

		make_image(image);
		if (bad[i].bytes == 4)
			store_le32(image + bad[i].at, (uint32_t)bad[i].value);
		else
			store_le64(image + bad[i].at, bad[i].value);
		cr_assert_eq(arm64_image_unpack(&got, image, BYTES, &err), bad[i].rc, "%zu", i);
		cr_assert(strstr(err.text, bad[i].says), "%zu: %s", i, err.text);
		cr_assert_null(got.bytes);
	}
}

Test(arm64_image, too_short_for_a_header_is_none)
{
	uint8_t image[BYTES];
	struct arm64_image got;
	struct err err = ERR_INIT;

	make_image(image);
	for (unsigned int n = 0; n < ARM64_IMAGE_HEAD; n++)
		cr_assert_lt(arm64_image_unpack(&got, image, n, &err), 0, "%u", n);
}

/* A small file that says that it is large. */
Test(arm64_image, takes_no_more_memory_than_a_kernel_may)
{
	uint8_t image[BYTES], packed[ROOM];
	struct arm64_image got;
	struct err err = ERR_INIT;
	size_t n;

	make_image(image);
	n = pack(image, BYTES, packed);
	store_le32(packed + n - 4, (1u << 30) + 1);
	cr_assert_eq(arm64_image_unpack(&got, packed, n, &err), -EINVAL);
	cr_assert(strstr(err.text, "unpacks to"), "%s", err.text);
}
