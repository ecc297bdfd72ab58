// SPDX-License-Identifier: Apache-2.0
// Checks between the machine's own values, and defaults that follow from others.
#include "firmware/kernel.h"
#include "machine/validate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/num.h"
#include "base/rand.h"
#include "iommu/ioas.h"
#include "machine/credentials.h"
#include "machine/kind_console.h"
#include "machine/kind_disk.h"

static int check_cpus(struct config_cpus *cpus, struct err *err)
{
	uint64_t product;
	const char *whole;

	if (!cpus->max)
		cpus->max = cpus->count;
	if (cpus->max < cpus->count)
		return err_set(err, -EINVAL,
			       "cpus.max: %u is less than count %u; give at least that", cpus->max,
			       cpus->count);
	whole = cpus->max == cpus->count ? "count" : "max";
	if (!cpus->sockets && !cpus->cores && !cpus->threads) {
		cpus->sockets = 1;
		cpus->threads = 1;
		cpus->cores = cpus->max;
	} else {
		/* What is left out follows from the rest, cores first: sockets are licensed. */
		if (!cpus->threads)
			cpus->threads = 1;
		if (!cpus->cores && !cpus->sockets)
			cpus->sockets = 1;
		if (!cpus->cores)
			cpus->cores = MAX(cpus->max / (cpus->sockets * cpus->threads), 1u);
		if (!cpus->sockets)
			cpus->sockets = MAX(cpus->max / (cpus->cores * cpus->threads), 1u);
	}
	product = (uint64_t)cpus->sockets * cpus->cores * cpus->threads;
	if (product != cpus->max)
		return err_set(
			err, -EINVAL,
			"cpus: %u sockets x %u cores x %u threads are %" PRIu64 ", not %s %u",
			cpus->sockets, cpus->cores, cpus->threads, product, whole, cpus->max);
	if (cpus->pin.n && cpus->pin.n != cpus->max)
		return err_set(err, -EINVAL,
			       "cpus.pin: names %u host CPUs for %u vCPUs; give one for each",
			       cpus->pin.n, cpus->max);
	return 0;
}

static uint64_t page_of_backing(int backing)
{
	if (backing == GMEM_HUGETLB_1G)
		return GiB;
	return 2 * MiB;
}

uint64_t config_memory_unit(const struct config_memory *memory)
{
	uint64_t more = memory->max_bytes - memory->size_bytes;
	uint64_t unit = memory->size_bytes >= 64 * GiB ? 2 * GiB : 128 * MiB;

	while (more > CONFIG_MEMORY_UNITS * unit)
		unit *= 2;
	return unit;
}

/* What there can be beside `size`. */
static int check_max(const struct config_memory *memory, uint64_t total, struct err *err)
{
	uint64_t more = memory->max_bytes - memory->size_bytes, unit, below;

	if (memory->max_bytes < memory->size_bytes)
		return err_set(err, -EINVAL,
			       "memory.max: %" PRIu64 "M is less than size %" PRIu64
			       "M; give at least that",
			       memory->max_bytes / MiB, memory->size_bytes / MiB);
	if (!more)
		return 0;
	if (page_of_backing(memory->backing) == GiB || memory->backing == GMEM_HUGETLB_2M)
		return err_set(err, -EINVAL,
			       "memory.max: memory.backing is %s: this host reserves such pages, "
			       "so none come or go; use auto",
			       config_backing_names[memory->backing]);
	unit = config_memory_unit(memory);
	if (!is_aligned(more, unit)) {
		below = memory->size_bytes + align_down(more, unit);
		return err_set(err, -EINVAL,
			       "memory.max: %" PRIu64
			       " bytes: beyond size it is in units of %" PRIu64
			       "M; the nearest are %" PRIu64 "M and %" PRIu64 "M",
			       memory->max_bytes, unit / MiB, below / MiB, (below + unit) / MiB);
	}
	if (memory->max_bytes > total)
		return err_set(err, -ENOMEM,
			       "memory.max: %" PRIu64 "M, but this host has %" PRIu64 "M in all",
			       memory->max_bytes / MiB, total / MiB);
	return 0;
}

static int check_memory(struct config_memory *memory, struct err *err)
{
	uint64_t page = page_of_backing(memory->backing);
	struct sysinfo host;
	uint64_t total = UINT64_MAX;

	if (memory->size_bytes < 32 * MiB)
		return err_set(err, -EINVAL, "memory.size: %" PRIu64 " bytes; the least is 32M",
			       memory->size_bytes);
	if (!is_aligned(memory->size_bytes, page))
		return err_set(err, -EINVAL,
			       "memory.size: %" PRIu64
			       " bytes is not a multiple of %s, e.g. %" PRIu64 "M",
			       memory->size_bytes, page == GiB ? "1G" : "2M",
			       align_up(memory->size_bytes, page) / MiB);
	if (sysinfo(&host) == 0)
		total = (uint64_t)host.totalram * host.mem_unit;
	if (!memory->max_bytes)
		memory->max_bytes = memory->size_bytes;
	if (memory->size_bytes > total)
		return err_set(err, -ENOMEM,
			       "memory.size: %" PRIu64 "M, but this host has %" PRIu64 "M in all",
			       memory->size_bytes / MiB, total / MiB);
	return check_max(memory, total, err);
}

static int check_iommu(const struct config *c, struct err *err)
{
	if (c->iommu.fd >= 0 && c->iommu.backend == IOMMU_TYPE1)
		return err_set(
			err, -EINVAL,
			"iommu.fd %d is for iommufd, and iommu.backend is type1; leave one out",
			c->iommu.fd);
	return 0;
}

static int check_gdb(const struct config_gdb *gdb, struct err *err)
{
	if (gdb->path && gdb->fd >= 0)
		return err_set(err, -EINVAL, "gdb: has path '%s' and fd %d; leave one out",
			       gdb->path, gdb->fd);
	if (gdb->wait && !gdb->path && gdb->fd < 0)
		return err_set(err, -EINVAL,
			       "gdb.wait: there is no socket to wait at; give gdb.path");
	return 0;
}

/* What it starts comes from a disk, with its own command line and initrd. */
static int check_firmware(const struct config *c, struct err *err)
{
	const struct config_kernel *k = &c->kernel;
	const char *other = k->path                ? "kernel.path"
			    : k->initrd            ? "kernel.initrd"
			    : k->cmdline           ? "kernel.cmdline"
			    : k->kaslr == KASLR_ON ? "kernel.kaslr=on"
						   : NULL;

	if (!*c->firmware)
		return err_set(err, -EINVAL, "firmware: is empty; give a file");
	if (other)
		return err_set(err, -EINVAL,
			       "firmware '%s' and %s: firmware boots what is on a disk, with the "
			       "kernel's options that are there; leave one out",
			       c->firmware, other);
	if (c->pci.config_ports == CONFIG_PORTS_OFF)
		return err_set(err, -EINVAL,
			       "firmware '%s': it reaches PCI devices by the ports that "
			       "pci.config_ports=off takes away; leave that out",
			       c->firmware);
	return 0;
}

static int check_kernel(const struct config *c, struct err *err)
{
	if (c->firmware)
		return check_firmware(c, err);
	if (!c->kernel.path || !*c->kernel.path)
		return err_set(
			err, -EINVAL,
			"no kernel: give one by --kernel FILE (kernel.path in the document), or "
			"firmware that boots a disk by --firmware FILE");
	return 0;
}

/* The kernel's messages go where there is a console. */
static int default_cmdline(struct config *c, struct err *err)
{
	bool serial = config_has_serial(c) || !config_next(c, NULL, &kind_console);

	c->kernel.cmdline = strdup(serial ? "console=ttyS0" : "console=hvc0");
	return c->kernel.cmdline ? 0 : err_set(err, -ENOMEM, "no memory");
}

int config_validate(struct config *c, struct err *err)
{
	int rc = check_kernel(c, err);

	if (!rc)
		rc = check_cpus(&c->cpus, err);
	if (!rc)
		rc = check_memory(&c->memory, err);
	/* A disk's requests are as large as the guest likes: they are not to keep the machine's
	 * thread, which answers signals and the public API, from its work. */
	if (c->io_threads == CONFIG_IO_THREADS_AUTO)
		c->io_threads = config_next(c, NULL, &kind_disk) ? 1 : 0;
	if (!rc)
		rc = config_check_devices(c, err);
	if (!rc)
		rc = check_iommu(c, err);
	if (!rc)
		rc = check_gdb(&c->gdb, err);
	if (!rc)
		rc = credentials_check(&c->credentials, err);
	if (!rc && !c->uuid.set) {
		rand_bytes(c->uuid.byte, sizeof(c->uuid.byte));
		c->uuid.byte[6] =
			(uint8_t)((c->uuid.byte[6] & 0x0f) | 0x40); /* RFC 9562: version 4 */
		c->uuid.byte[8] = (uint8_t)((c->uuid.byte[8] & 0x3f) | 0x80);
		c->uuid.set = true;
	}
	if (!rc && !c->firmware && !c->kernel.cmdline)
		rc = default_cmdline(c, err);
	return rc;
}
