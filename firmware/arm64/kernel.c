// SPDX-License-Identifier: Apache-2.0
// Opening an arm64 kernel and placing it, by Linux Documentation/arch/arm64/booting.rst. The kernel
// randomises itself, by a seed in the device tree.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "firmware/arm64/kernel_impl.h"
#include "firmware/initrd.h"

/* What an arm64 kernel takes of a command line (COMMAND_LINE_SIZE), less the zero. */
enum { CMDLINE_MAX = 2047 };
static const uint64_t PLACE_ALIGN = 2 * MiB;

static int read_image(struct kernel *k, struct err *err)
{
	int rc = arm64_image_read(&k->image, k->fd, k->path, err);

	if (rc)
		return rc;
	k->text_offset = k->image.text_offset;
	k->image_bytes = k->image.image_bytes;
	k->format = k->image.format;
	k->compression = k->image.compression;
	return 0;
}

static int take_config(struct kernel *k, const struct kernel_config *config, struct err *err)
{
	k->log = config->log;
	k->kaslr = config->kaslr;
	k->path = strdup(config->path);
	k->initrd_path = strdup(config->initrd_path ? config->initrd_path : "initrd");
	k->cmdline = strdup(config->cmdline ? config->cmdline : "");
	if (!k->path || !k->initrd_path || !k->cmdline)
		return err_set(err, -ENOMEM, "no memory for a kernel's names");
	if (strlen(k->cmdline) > CMDLINE_MAX)
		return err_set(err, -EINVAL, "kernel.cmdline: %zu bytes; an arm64 kernel takes %d",
			       strlen(k->cmdline), CMDLINE_MAX);
	k->fd = fd_dup(config->kernel_fd);
	if (k->fd < 0)
		return err_set(err, k->fd, "kernel '%s': %s", k->path, err_name(k->fd));
	return initrd_take(config->initrd_fd, k->initrd_path, &k->initrd_fd, err);
}

int kernel_open(struct kernel **ret, const struct kernel_config *config, struct err *err)
{
	struct kernel *k;
	uint64_t bytes;
	int rc;

	if (config->firmware)
		return err_set(err, -EOPNOTSUPP,
			       "firmware '%s': UEFI on arm64 is not there yet; give a kernel",
			       config->path);
	if (!mem_new(k))
		return err_set(err, -ENOMEM, "no memory for a kernel");
	k->fd = k->initrd_fd = -1;
	rc = take_config(k, config, err);
	if (!rc)
		rc = initrd_size(k->initrd_fd, k->initrd_path, &bytes, err);
	if (!rc)
		rc = read_image(k, err);
	if (rc) {
		kernel_close(k);
		return rc;
	}
	*ret = k;
	return 0;
}

void kernel_close(struct kernel *k)
{
	if (!k)
		return;
	arm64_image_release(&k->image);
	fd_close(&k->fd);
	fd_close(&k->initrd_fd);
	free(k->path);
	free(k->initrd_path);
	free(k->cmdline);
	free(k);
}

void kernel_seal(struct kernel *k)
{
	/* Nothing is ever opened by name: it has its two files. */
	(void)k;
}

void kernel_describe(const struct kernel *k, struct kernel_info *ret)
{
	*ret = (struct kernel_info){
		.format = k->format,
		.protocol = "its first byte",
		.compression = k->compression,
		.kaslr = k->kaslr != KASLR_OFF,
		.ecam = true,
	};
}

int arm64_places(const struct kernel *k, const struct arch_platform *platform,
		 struct arm64_places *ret, struct err *err)
{
	uint64_t room = platform->low_bytes, at;
	int rc = initrd_size(k->initrd_fd, k->initrd_path, &ret->initrd_bytes, err);

	if (rc)
		return rc;
	ret->kernel_gpa = align_up(platform->low_gpa, PLACE_ALIGN) + k->text_offset;
	/* None of these is more than 1 GiB, but the initrd. */
	at = align_up(k->text_offset + k->image_bytes, PLACE_ALIGN);
	ret->initrd_gpa = platform->low_gpa + at;
	if (at > room || ret->initrd_bytes > room - at)
		return err_set(
			err, -EINVAL,
			"%s '%s': %llu MiB do not fit into the guest's memory beside the rest; give it "
			"more (memory.size)",
			at > room ? "kernel" : "initrd", at > room ? k->path : k->initrd_path,
			(unsigned long long)((at > room ? k->image_bytes : ret->initrd_bytes) /
						     MiB +
					     1));
	at = align_up(at + ret->initrd_bytes, PLACE_ALIGN);
	ret->fdt_gpa = platform->low_gpa + at;
	/* And 16 MiB for the kernel to begin with. */
	if (at > room || room - at < ARM64_FDT_BYTES + 16 * MiB)
		return err_set(
			err, -EINVAL,
			"memory: %llu MiB are too little for kernel '%s' with its initrd; give it at "
			"least %llu MiB",
			(unsigned long long)(room / MiB), k->path,
			(unsigned long long)((at + ARM64_FDT_BYTES) / MiB + 17));
	return 0;
}

static int load_initrd(const struct kernel *k, struct gmem *gmem, const struct arm64_places *places,
		       struct err *err)
{
	void *to;
	int rc;

	if (!places->initrd_bytes)
		return 0;
	to = gmem_host(gmem, places->initrd_gpa, places->initrd_bytes, true);
	rc = to ? fd_read_full(k->initrd_fd, to, places->initrd_bytes, 0) : -EFAULT;
	return rc < 0 ? err_set(err, rc, "initrd '%s': cannot read it: %s", k->initrd_path,
				err_name(rc))
		      : 0;
}

int kernel_load(struct kernel *k, struct gmem *gmem, const struct arch_platform *platform,
		const struct kernel_tables *tables, struct arch_entry *entry, struct err *err)
{
	const uint64_t was = k->image_bytes, offset = k->text_offset;
	struct arm64_places places;
	int rc = 0;

	(void)tables;
	/* At a reset. */
	if (!k->image.bytes)
		rc = read_image(k, err);
	if (rc)
		return rc;
	if (k->image_bytes != was || k->text_offset != offset)
		rc = err_set(err, -EINVAL, "kernel '%s': is another one than at the start",
			     k->path);
	if (!rc)
		rc = arm64_places(k, platform, &places, err);
	if (!rc && gmem_write(gmem, places.kernel_gpa, k->image.bytes, k->image.len))
		rc = err_set(err, -EFAULT, "kernel '%s': no guest memory at 0x%llx for %llu bytes",
			     k->path, (unsigned long long)places.kernel_gpa,
			     (unsigned long long)k->image.len);
	arm64_image_release(&k->image);
	if (!rc)
		rc = load_initrd(k, gmem, &places, err);
	*entry = (struct arch_entry){
		.mode = ARCH_ENTRY_IMAGE,
		.pc = rc ? 0 : places.kernel_gpa,
		.fdt_gpa = rc ? 0 : places.fdt_gpa,
	};
	return rc;
}
