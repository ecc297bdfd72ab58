// SPDX-License-Identifier: Apache-2.0
// Signatures of formats that are not raw.
#include "machine/disk_format.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"

enum {
	SECTOR = 512,
	BLOCK = 4096, /* direct I/O asks for no more alignment than this */
};

struct format {
	const char *name;
	bool at_end; /* offset counts from the start of the last sector */
	uint8_t offset;
	uint8_t len;
	const char *signature;
	const char *before, *after; /* the file, in the line to type */
	const char *also;           /* what else can be done */
};

#define QEMU_IMG        "qemu-img convert -O raw", "disk.raw"
#define UNPACK(tool)    tool, ">disk.raw"
#define SIGNATURE(text) sizeof(text) - 1, text
static const struct format formats[] = {
	{"a qcow2 image", false, 0, SIGNATURE("QFI\xfb"), QEMU_IMG,
	 "; format=qcow2, if you made it an image and no guest did"},
	{"a QED image", false, 0, SIGNATURE("QED\0"), QEMU_IMG},
	{"a VMDK image", false, 0, SIGNATURE("KDMV"), QEMU_IMG},
	{"a VMDK image", false, 0, SIGNATURE("COWD"), QEMU_IMG},
	{"the description of a VMDK image", false, 0, SIGNATURE("# Disk DescriptorFile"), QEMU_IMG},
	{"a VDI image", false, 0x40, SIGNATURE("\x7f\x10\xda\xbe"), QEMU_IMG},
	{"a VHDX image", false, 0, SIGNATURE("vhdxfile"), QEMU_IMG},
	{"a VHD image", false, 0, SIGNATURE("conectix"), QEMU_IMG},
	/* Of a fixed size it has only a footer, which the guest would see as one more sector. */
	{"a VHD image of fixed size", true, 0, SIGNATURE("conectix"),
	 "qemu-img convert -f vpc -O raw", "disk.raw"},
	{"a Parallels image", false, 0, SIGNATURE("WithoutFreeSpace"), QEMU_IMG},
	{"a Parallels image", false, 0, SIGNATURE("WithouFreSpacExt"), QEMU_IMG},
	{"a DMG image", true, 0, SIGNATURE("koly\0\0\0\4"), QEMU_IMG},
	{"an Android sparse image", false, 0, SIGNATURE("\x3a\xff\x26\xed"), "simg2img",
	 "disk.raw"},
	{"compressed by xz", false, 0, SIGNATURE("\xfd\x37zXZ\0"), UNPACK("xz -dc")},
	{"compressed by gzip", false, 0, SIGNATURE("\x1f\x8b\x08"), UNPACK("gzip -dc")},
	{"compressed by zstd", false, 0, SIGNATURE("\x28\xb5\x2f\xfd"), UNPACK("zstd -dc")},
	{"compressed by lz4", false, 0, SIGNATURE("\x04\x22\x4d\x18"), UNPACK("lz4 -dc")},
	{"compressed by bzip2", false, 4, SIGNATURE("1AY&SY"), UNPACK("bzip2 -dc")},
	{"a zip archive", false, 0, SIGNATURE("PK\3\4"), UNPACK("unzip -p")},
	{"a 7z archive", false, 0, SIGNATURE("7z\xbc\xaf\x27\x1c"), UNPACK("7z e -so")},
};

/* What the file holds from `offset` to the end of the block that it is in. */
struct end {
	_Alignas(BLOCK) uint8_t block[BLOCK];
	const uint8_t *at;
	ssize_t bytes;
};

static void read_end(struct end *end, int fd, uint64_t offset)
{
	uint64_t start = align_down(offset, BLOCK);

	end->at = end->block + (offset - start);
	end->bytes = pread(fd, end->block, BLOCK, (off_t)start) - (ssize_t)(offset - start);
}

int disk_format_check(int fd, uint64_t size_bytes, const char *name, const char *path,
		      struct err *err)
{
	struct end first, last;

	read_end(&first, fd, 0);
	read_end(&last, fd, size_bytes > SECTOR ? size_bytes - SECTOR : 0);
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		const struct format *f = &formats[i];
		const struct end *end = f->at_end ? &last : &first;

		if (end->bytes >= f->offset + f->len &&
		    memcmp(end->at + f->offset, f->signature, f->len) == 0)
			return err_set(err, -EINVAL,
				       "%s: is %s, not a raw disk; type: %s '%s' %s (or give "
				       "format=raw, which takes the bytes as they are%s)",
				       name, f->name, f->before, path, f->after,
				       f->also ? f->also : "");
	}
	return 0;
}
