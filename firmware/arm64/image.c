// SPDX-License-Identifier: Apache-2.0
// Recognise and unpack an arm64 kernel. See image.h.
#include "firmware/arm64/image.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"

enum {
	HEAD_TEXT_OFFSET = 8,
	HEAD_IMAGE_SIZE = 16,
	HEAD_FLAGS = 24,
	HEAD_MAGIC = 56,
	FLAG_BIG_ENDIAN = 1 << 0,

	GZIP_MIN = 18, /* header and trailer */
	/* Of a program that unpacks itself. */
	ZBOOT_MAGIC = 4,
	ZBOOT_OFFSET = 8,
	ZBOOT_SIZE = 12,
	ZBOOT_TYPE = 24,
	ZBOOT_HEAD = 64,
};
static const uint64_t TEXT_ALIGN = 2 * MiB;

int arm64_image_head(struct arm64_image *ret, const uint8_t *head, uint64_t len, struct err *err)
{
	if (len < ARM64_IMAGE_HEAD)
		return err_set(err, -ENOEXEC, "is only %llu bytes long, too short for a kernel",
			       (unsigned long long)len);
	if (memcmp(head + HEAD_MAGIC, "ARM\x64", 4))
		return err_set(
			err, -ENOEXEC,
			memcmp(head,
			       "\x7f"
			       "ELF",
			       4) == 0
				? "is an ELF file, not a kernel for booting: take arch/arm64/boot/Image"
				: "is no arm64 kernel (Image, Image.gz or vmlinuz.efi)");
	if (load_le64(head + HEAD_FLAGS) & FLAG_BIG_ENDIAN)
		return err_set(err, -ENOEXEC, "is a big-endian kernel, which hospes does not boot");
	ret->text_offset = load_le64(head + HEAD_TEXT_OFFSET);
	ret->image_bytes = load_le64(head + HEAD_IMAGE_SIZE);
	if (!ret->image_bytes)
		return err_set(err, -ENOEXEC,
			       "is a kernel older than Linux 3.17, which hospes does not boot");
	if (ret->text_offset >= TEXT_ALIGN || !is_aligned(ret->text_offset, 4096))
		return err_set(err, -EINVAL, "is damaged: its text offset is 0x%llx",
			       (unsigned long long)ret->text_offset);
	if (ret->image_bytes > ARM64_IMAGE_MAX)
		return err_set(err, -EINVAL, "is damaged: its image has %llu bytes",
			       (unsigned long long)ret->image_bytes);
	if (len > ret->image_bytes)
		return err_set(err, -EINVAL, "is damaged: %llu bytes of an image of %llu",
			       (unsigned long long)len, (unsigned long long)ret->image_bytes);
	return 0;
}

static int gunzip(struct arm64_image *ret, const uint8_t *in, uint64_t len, struct err *err)
{
	struct libdeflate_decompressor *d;
	enum libdeflate_result result;
	size_t out;

	if (len < GZIP_MIN)
		return err_set(err, -EINVAL, "is cut short");
	/* The trailer's size is modulo 2^32, which is more than is accepted. */
	out = load_le32(in + len - 4);
	if (out < ARM64_IMAGE_HEAD || out > ARM64_IMAGE_MAX)
		return err_set(err, -EINVAL, "is damaged: it unpacks to %llu bytes",
			       (unsigned long long)out);
	ret->bytes = malloc(out);
	d = libdeflate_alloc_decompressor();
	if (!ret->bytes || !d) {
		libdeflate_free_decompressor(d);
		return err_set(err, -ENOMEM, "no memory for its %llu bytes",
			       (unsigned long long)out);
	}
	result = libdeflate_gzip_decompress(d, in, len, ret->bytes, out, NULL);
	libdeflate_free_decompressor(d);
	if (result != LIBDEFLATE_SUCCESS)
		return err_set(err, -EINVAL, "is damaged: it cannot be unpacked");
	ret->compression = "gzip";
	ret->len = out;
	return 0;
}

static int unpack_zboot(struct arm64_image *ret, const uint8_t *file, uint64_t len, struct err *err)
{
	uint64_t offset = load_le32(file + ZBOOT_OFFSET), bytes = load_le32(file + ZBOOT_SIZE);
	char type[8] = "";

	memcpy(type, file + ZBOOT_TYPE, sizeof(type) - 1);
	if (offset > len || bytes > len - offset)
		return err_set(err, -EINVAL,
			       "is cut short: its payload ends at %llu, the file at %llu",
			       (unsigned long long)(offset + bytes), (unsigned long long)len);
	if (strcmp(type, "gzip"))
		return err_set(
			err, -ENOEXEC,
			"is packed by something else than gzip; give its Image, or build it with "
			"CONFIG_KERNEL_GZIP");
	ret->format = "zboot";
	return gunzip(ret, file + offset, bytes, err);
}

int arm64_image_unpack(struct arm64_image *ret, const uint8_t *file, uint64_t len, struct err *err)
{
	int rc;

	*ret = (struct arm64_image){.format = "Image", .compression = "none"};
	if (len >= ZBOOT_HEAD && !memcmp(file, "MZ", 2) && !memcmp(file + ZBOOT_MAGIC, "zimg", 4)) {
		rc = unpack_zboot(ret, file, len, err);
	} else if (len >= 2 && !memcmp(file, "\x1f\x8b", 2)) {
		rc = gunzip(ret, file, len, err);
	} else {
		/* Before it is copied. */
		rc = arm64_image_head(ret, file, len, err);
		ret->bytes = rc ? NULL : malloc(len);
		ret->len = len;
		if (ret->bytes)
			memcpy(ret->bytes, file, len);
		else if (!rc)
			rc = err_set(err, -ENOMEM, "no memory for its %llu bytes",
				     (unsigned long long)len);
	}
	if (!rc)
		rc = arm64_image_head(ret, ret->bytes, ret->len, err);
	if (rc)
		arm64_image_release(ret);
	return rc;
}

int arm64_image_read(struct arm64_image *ret, int fd, const char *path, struct err *err)
{
	cleanup_free uint8_t *file = NULL;
	struct stat st;
	int rc;

	*ret = (struct arm64_image){.bytes = NULL};
	if (fstat(fd, &st))
		return err_set(err, -errno, "kernel '%s': %s", path, err_name(errno));
	if (st.st_size < ARM64_IMAGE_HEAD || (uint64_t)st.st_size > ARM64_IMAGE_MAX)
		return err_set(err, -EINVAL,
			       "kernel '%s': is %lld bytes long; a kernel has 64 B to 1 GiB", path,
			       (long long)st.st_size);
	file = malloc((size_t)st.st_size);
	if (!file)
		return err_set(err, -ENOMEM, "kernel '%s': no memory for its %lld bytes", path,
			       (long long)st.st_size);
	rc = fd_read_full(fd, file, (size_t)st.st_size, 0);
	if (rc < 0)
		return err_set(err, rc, "kernel '%s': cannot read it: %s", path, err_name(rc));
	rc = arm64_image_unpack(ret, file, (uint64_t)st.st_size, err);
	if (rc)
		err_prefix(err, "kernel '%s'", path);
	return rc;
}

void arm64_image_release(struct arm64_image *image)
{
	free(image->bytes);
	image->bytes = NULL;
	image->len = 0;
}
