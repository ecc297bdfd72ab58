// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "firmware/unpack.h"
#include "synth.h"

static const enum image_codec codecs[] = {CODEC_NONE, CODEC_GZIP, CODEC_XZ, CODEC_ZSTD, CODEC_LZ4};

/* The packed data as unpack() gets it: without the appended size, where there is one. */
static size_t packed_len(enum image_codec codec, const struct blob *packed)
{
	return codec == CODEC_GZIP || codec == CODEC_NONE ? packed->len : packed->len - 4;
}

#define FOR_EACH_CODEC(name)                                                                      \
	ParameterizedTestParameters(unpack, name)                                                 \
	{                                                                                         \
		return cr_make_param_array(const enum image_codec, (void *)(uintptr_t)codecs, 5); \
	}                                                                                         \
	ParameterizedTest(const enum image_codec *codec, unpack, name)

FOR_EACH_CODEC(gives_back_what_was_packed)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){.lists = 3});
	cleanup_blob struct blob packed = synth_pack(*codec, elf.data, elf.len);
	cleanup_blob struct blob out = {malloc(elf.len), elf.len};
	struct err err = ERR_INIT;

	cr_assert_eq(
		unpack(*codec, packed.data, packed_len(*codec, &packed), out.data, out.len, &err),
		0, "%s", err.text);
	cr_assert_eq(memcmp(out.data, elf.data, elf.len), 0);
}

FOR_EACH_CODEC(refuses_data_that_ends_early)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	cleanup_blob struct blob packed = synth_pack(*codec, elf.data, elf.len);
	cleanup_blob struct blob out = {malloc(elf.len), elf.len};
	size_t len = packed_len(*codec, &packed);

	for (size_t cut = 1; cut < len; cut = cut * 2 + 1) {
		struct err err = ERR_INIT;

		cr_assert_eq(unpack(*codec, packed.data, len - cut, out.data, out.len, &err),
			     -EINVAL);
		cr_assert(*err.text);
	}
}

FOR_EACH_CODEC(refuses_data_of_another_size)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	cleanup_blob struct blob packed = synth_pack(*codec, elf.data, elf.len);
	cleanup_blob struct blob out = {malloc(elf.len + 4096), elf.len + 4096};
	size_t len = packed_len(*codec, &packed);

	cr_assert_eq(unpack(*codec, packed.data, len, out.data, elf.len - 1, NULL), -EINVAL);
	cr_assert_eq(unpack(*codec, packed.data, len, out.data, elf.len + 1, NULL), -EINVAL);
}

/* A flip is caught by the format (they have checksums), except lz4's legacy frame and a stored
 * file: there it must only not escape the buffers, which the sanitizers watch. */
FOR_EACH_CODEC(survives_a_flipped_bit_anywhere)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	cleanup_blob struct blob packed = synth_pack(*codec, elf.data, elf.len);
	cleanup_blob struct blob out = {malloc(elf.len), elf.len};
	size_t len = packed_len(*codec, &packed);

	for (size_t at = 0; at < len; at += len / 61 + 1) {
		int r;

		packed.data[at] ^= 0x10;
		r = unpack(*codec, packed.data, len, out.data, out.len, NULL);
		packed.data[at] ^= 0x10;
		if (!r && *codec != CODEC_LZ4 && *codec != CODEC_NONE)
			cr_assert_eq(memcmp(out.data, elf.data, elf.len), 0, "flip at %zu", at);
	}
}

Test(unpack, bzip2_is_left_to_the_kernel)
{
	uint8_t in[64] = "BZh9", out[64];

	cr_assert_eq(unpack(CODEC_OTHER, in, sizeof(in), out, sizeof(out), NULL), -EINVAL);
}

static struct blob run_tool(const char *tool, const struct blob *in)
{
	char path[] = "/tmp/hospes-unpack-XXXXXX", command[256];
	int fd = mkstemp(path);
	struct blob out = {malloc(in->len * 2 + 4096), 0};
	FILE *pipe;

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, in->data, in->len), (ssize_t)in->len);
	close(fd);
	snprintf(command, sizeof(command), "%s <%s", tool, path);
	pipe = popen(command, "r");
	cr_assert_not_null(pipe);
	out.len = fread(out.data, 1, in->len * 2 + 4096, pipe);
	if (pclose(pipe))
		out.len = 0;
	unlink(path);
	return out;
}

/* The very commands of the kernel's build (scripts/Makefile.lib). */
static const struct tool {
	enum image_codec codec;
	char command[112];
} tools[] = {
	{CODEC_GZIP, "gzip -n -f -9"},
	{CODEC_XZ, "xz --check=crc32 --x86 --lzma2=,dict=128MiB"},
	{CODEC_ZSTD, "zstd --ultra -22 --long=27 -q -c"},
	{CODEC_LZ4, "lz4 -l -9 -q - -"},
};

ParameterizedTestParameters(unpack, takes_what_the_real_tools_pack)
{
	return cr_make_param_array(const struct tool, (void *)(uintptr_t)tools, 4);
}

ParameterizedTest(const struct tool *tool, unpack, takes_what_the_real_tools_pack)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){.lists = 2});
	cleanup_blob struct blob packed = run_tool(tool->command, &elf);
	cleanup_blob struct blob out = {malloc(elf.len), elf.len};
	struct err err = ERR_INIT;

	if (!packed.len)
		cr_skip("the tool is not installed");
	cr_assert_eq(unpack(tool->codec, packed.data, packed.len, out.data, out.len, &err), 0,
		     "%s: %s", tool->command, err.text);
	cr_assert_eq(memcmp(out.data, elf.data, elf.len), 0);
}
