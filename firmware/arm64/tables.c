// SPDX-License-Identifier: Apache-2.0
// On arm64: a device tree, behind the kernel and its initrd, with new random numbers each time.
#include "firmware/tables.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "firmware/arm64/fdt.h"
#include "firmware/arm64/kernel_impl.h"

static int random_bytes(void *to, size_t len, struct err *err)
{
	/* So few come at once. */
	return getrandom(to, len, 0) == (ssize_t)len
		       ? 0
		       : err_set(err, -errno, "getrandom: %s", err_name(errno));
}

int tables_build(struct gmem *gmem, const struct acpi_config *config, const struct kernel *kernel,
		 struct err *err)
{
	struct fdt_boot boot = {.cmdline = kernel->cmdline};
	struct arm64_places places;
	void *tree;
	int rc = arm64_places(kernel, config->platform, &places, err);

	if (rc)
		return rc;
	boot.initrd_gpa = places.initrd_gpa;
	boot.initrd_bytes = places.initrd_bytes;
	rc = random_bytes(boot.rng_seed, sizeof(boot.rng_seed), err);
	if (!rc && kernel->kaslr != KASLR_OFF)
		rc = random_bytes(&boot.kaslr_seed, sizeof(boot.kaslr_seed), err);
	if (rc)
		return rc;
	tree = gmem_host(gmem, places.fdt_gpa, ARM64_FDT_BYTES, true);
	if (!tree)
		return err_set(err, -EFAULT, "no guest memory at 0x%llx for the device tree",
			       (unsigned long long)places.fdt_gpa);
	rc = fdt_build(tree, ARM64_FDT_BYTES, config, &boot, err);
	explicit_bzero(&boot, sizeof(boot));
	return rc;
}
