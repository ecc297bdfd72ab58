// SPDX-License-Identifier: Apache-2.0
// Checks between values, and defaults that follow from others: ids, MAC and PCI addresses.
#include "machine/validate.h"

#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/num.h"
#include "base/rand.h"
#include "iommu/strategy.h"

enum { ID_BYTES = 32 }; /* device.h's name, with its end */

static int check_cpus(struct config_cpus *cpus, struct err *err)
{
	uint64_t product;

	if (!cpus->sockets && !cpus->cores && !cpus->threads) {
		cpus->sockets = 1;
		cpus->threads = 1;
		cpus->cores = cpus->count;
	} else {
		/* What is left out follows from the rest, cores first: sockets are licensed. */
		if (!cpus->threads)
			cpus->threads = 1;
		if (!cpus->cores && !cpus->sockets)
			cpus->sockets = 1;
		if (!cpus->cores)
			cpus->cores = MAX(cpus->count / (cpus->sockets * cpus->threads), 1u);
		if (!cpus->sockets)
			cpus->sockets = MAX(cpus->count / (cpus->cores * cpus->threads), 1u);
	}
	product = (uint64_t)cpus->sockets * cpus->cores * cpus->threads;
	if (product != cpus->count)
		return err_set(err, -EINVAL,
			       "cpus: %u sockets x %u cores x %u threads are %" PRIu64
			       ", not count %u",
			       cpus->sockets, cpus->cores, cpus->threads, product, cpus->count);
	if (cpus->pin.n && cpus->pin.n != cpus->count)
		return err_set(err, -EINVAL,
			       "cpus.pin: names %u host CPUs for %u vCPUs; give one for each",
			       cpus->pin.n, cpus->count);
	return 0;
}

static uint64_t page_of_backing(int backing)
{
	if (backing == GMEM_HUGETLB_1G)
		return GiB;
	return 2 * MiB;
}

static int check_memory(const struct config_memory *memory, struct err *err)
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
	if (memory->size_bytes > total)
		return err_set(err, -ENOMEM,
			       "memory.size: %" PRIu64 "M, but this host has %" PRIu64 "M in all",
			       memory->size_bytes / MiB, total / MiB);
	return 0;
}

/* --- ids --- */

struct id_list {
	const char *id[160];
	const char *what[160];
	unsigned int n;
};

static int take_id(struct id_list *list, char **id, const char *what, unsigned int index,
		   struct err *err)
{
	char made[ID_BYTES];

	if (!*id) {
		snprintf(made, sizeof(made), "%s%u", what, index);
		*id = strdup(made);
		if (!*id)
			return err_set(err, -ENOMEM, "no memory");
	}
	if (!**id || strlen(*id) >= ID_BYTES ||
	    strspn(*id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
		    strlen(*id))
		return err_set(err, -EINVAL,
			       "%s id '%s': letters, digits, '-', '_' and '.', 1 to %d characters",
			       what, *id, ID_BYTES - 1);
	for (unsigned int i = 0; i < list->n; i++) {
		if (strcmp(list->id[i], *id) == 0)
			return err_set(
				err, -EEXIST,
				"two devices have the id '%s' (a %s and a %s); ids are unique", *id,
				list->what[i], what);
	}
	list->id[list->n] = *id;
	list->what[list->n++] = what;
	return 0;
}

static int check_ids(struct config *c, struct err *err)
{
	struct id_list list = {.n = 0};
	int rc = 0;

	_Static_assert(64 + 32 + 8 + CONFIG_MAX_PASSTHROUGH <= ARRAY_SIZE(list.id), "ids fit");
	for (unsigned int i = 0; i < c->disks.n && !rc; i++)
		rc = take_id(&list, &c->disks.items[i].id, "disk", i, err);
	for (unsigned int i = 0; i < c->nets.n && !rc; i++)
		rc = take_id(&list, &c->nets.items[i].id, "net", i, err);
	for (unsigned int i = 0; i < c->consoles.n && !rc; i++)
		rc = take_id(&list, &c->consoles.items[i].id, "console", i, err);
	for (unsigned int i = 0; i < c->passthrough.n && !rc; i++)
		rc = take_id(&list, &c->passthrough.items[i].id, "passthrough", i, err);
	return rc;
}

/* --- PCI addresses --- */

struct slots {
	const char *user[32][8];
};

static int take_slot(struct slots *slots, const struct schema_pci *pci, const char *id,
		     struct err *err)
{
	const struct pci_addr *a = &pci->addr;
	char text[PCI_ADDR_TEXT];

	if (a->bus)
		return err_set(err, -EINVAL,
			       "'%s' addr %s: only bus 00 holds devices that are there at start",
			       id, pci_addr_format(a, text));
	if (slots->user[a->slot][a->function])
		return err_set(err, -EEXIST, "'%s' addr %s: taken by '%s'", id,
			       pci_addr_format(a, text), slots->user[a->slot][a->function]);
	if (a->slot < CONFIG_FIRST_SLOT)
		return err_set(err, -EINVAL, "'%s' addr %s: slot 00 is the host bridge's alone", id,
			       pci_addr_format(a, text));
	if (a->function && !slots->user[a->slot][0])
		return err_set(err, -EINVAL,
			       "'%s' addr %s: function 0 of that slot must exist and come first",
			       id, pci_addr_format(a, text));
	slots->user[a->slot][a->function] = id;
	return 0;
}

/* Explicit addresses first, then the lowest free slot in the document's order: the same document
 * gives the same addresses. */
static int place(struct slots *slots, struct schema_pci *pci, const char *id, bool explicit_pass,
		 struct err *err)
{
	if (pci->set != explicit_pass)
		return 0;
	if (pci->set)
		return take_slot(slots, pci, id, err);
	for (uint8_t slot = CONFIG_FIRST_SLOT; slot < 32; slot++) {
		if (slots->user[slot][0])
			continue;
		slots->user[slot][0] = id;
		*pci = (struct schema_pci){.set = true, .addr = {.slot = slot}};
		return 0;
	}
	return err_set(err, -ENOSPC,
		       "'%s': all 31 PCI slots are taken; put several devices in one slot by "
		       "addr=SLOT.FUNCTION",
		       id);
}

static int place_all(struct config *c, struct slots *slots, bool explicit_pass, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < c->disks.n && !rc; i++)
		rc = place(slots, &c->disks.items[i].addr, c->disks.items[i].id, explicit_pass,
			   err);
	for (unsigned int i = 0; i < c->nets.n && !rc; i++)
		rc = place(slots, &c->nets.items[i].addr, c->nets.items[i].id, explicit_pass, err);
	for (unsigned int i = 0; i < c->consoles.n && !rc; i++) {
		struct config_console *console = &c->consoles.items[i];

		if (console->type == CONFIG_CONSOLE_VIRTIO)
			rc = place(slots, &console->addr, console->id, explicit_pass, err);
	}
	if (c->rng.enabled && !rc)
		rc = place(slots, &c->rng.addr, "rng", explicit_pass, err);
	for (unsigned int i = 0; i < c->passthrough.n && !rc; i++) {
		struct config_passthrough *p = &c->passthrough.items[i];

		/* On bus 0 if the user says so, else its root port is. */
		rc = place(slots, p->addr.set ? &p->addr : &p->port, p->id, explicit_pass, err);
	}
	if (c->viommu.enabled && !rc)
		rc = place(slots, &c->viommu.addr, "viommu", explicit_pass, err);
	return rc;
}

static int check_addresses(struct config *c, struct err *err)
{
	struct slots slots = {0};
	int rc;

	slots.user[0][0] = "the host bridge";
	for (unsigned int i = 0; i < c->pci.root_ports; i++)
		slots.user[CONFIG_ROOT_PORT_SLOT + i][0] = "a root port";
	rc = place_all(c, &slots, true, err);
	return rc ? rc : place_all(c, &slots, false, err);
}

/* --- devices --- */

static int check_disk(const struct config_disk *d, struct err *err)
{
	if (!d->path == (d->fd < 0))
		return err_set(err, -EINVAL, "disk '%s': give either path or fd", d->id);
	if (!is_power_of_two(d->queue_size))
		return err_set(err, -EINVAL, "disk '%s': queue_size %u is not a power of two",
			       d->id, d->queue_size);
	if (d->block_bytes && d->block_bytes != 512 && d->block_bytes != 4096)
		return err_set(err, -EINVAL, "disk '%s': block_size %u is neither 512 nor 4096",
			       d->id, d->block_bytes);
	if (d->serial && strlen(d->serial) > 20)
		return err_set(err, -EINVAL, "disk '%s': serial '%s' has more than 20 characters",
			       d->id, d->serial);
	return 0;
}

/* FNV-1a: spreads names over the locally administered addresses; not a secret. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return (hash ^ 0xff) * 0x100000001b3ull;
}

static void default_mac(const struct config *c, struct config_net *net)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	if (c->name)
		hash = hash_text(hash, c->name);
	else
		rand_bytes(&hash, sizeof(hash));
	hash = hash_text(hash, net->id);
	net->mac.set = true;
	net->mac.byte[0] = 0x02; /* locally administered, one station */
	for (int i = 1; i < 6; i++)
		net->mac.byte[i] = (uint8_t)(hash >> (8 * i));
}

static int check_net(const struct config *c, struct config_net *n, struct err *err)
{
	int ways = (n->tap != NULL) + (n->fd >= 0) + (n->socket != NULL);

	if (ways != 1)
		return err_set(err, -EINVAL, "net '%s': give one of tap, fd, socket", n->id);
	if (n->tap &&
	    (!*n->tap || strlen(n->tap) >= IFNAMSIZ || strchr(n->tap, '/') || strchr(n->tap, '%')))
		return err_set(err, -EINVAL,
			       "net '%s': '%s' is no interface name (1 to %d characters)", n->id,
			       n->tap, IFNAMSIZ - 1);
	if (!n->tap && n->queues > 1)
		return err_set(err, -EINVAL, "net '%s': %u queues need a tap by name", n->id,
			       n->queues);
	if (n->socket && n->vhost)
		return err_set(err, -EINVAL, "net '%s': vhost needs a tap", n->id);
	if (!is_power_of_two(n->queue_size))
		return err_set(err, -EINVAL, "net '%s': queue_size %u is not a power of two", n->id,
			       n->queue_size);
	if (n->mtu && n->mtu < 68)
		return err_set(err, -EINVAL, "net '%s': mtu %u; IPv4 needs at least 68", n->id,
			       n->mtu);
	if (!n->mac.set)
		default_mac(c, n);
	for (unsigned int i = 0; &c->nets.items[i] != n; i++) {
		if (memcmp(c->nets.items[i].mac.byte, n->mac.byte, 6) == 0)
			return err_set(err, -EEXIST, "net '%s' and net '%s' have the same mac",
				       c->nets.items[i].id, n->id);
	}
	return 0;
}

static int check_consoles(const struct config *c, struct err *err)
{
	unsigned int serials = 0;

	for (unsigned int i = 0; i < c->consoles.n; i++) {
		const struct config_console *console = &c->consoles.items[i];

		serials += console->type == CONFIG_CONSOLE_SERIAL;
		if (console->path && console->out >= 0)
			return err_set(err, -EINVAL, "console '%s': give either out or path",
				       console->id);
		if (console->type == CONFIG_CONSOLE_SERIAL && console->addr.set)
			return err_set(err, -EINVAL,
				       "console '%s': a serial port has no PCI address",
				       console->id);
	}
	if (serials > 1)
		return err_set(
			err, -EINVAL,
			"%u serial consoles; a machine has one, the others can be of type virtio",
			serials);
	return 0;
}

/* Devices that share an address space agree on what is in it. */
static int check_ioas(const struct config *c, const struct config_passthrough *p, struct err *err)
{
	for (const struct config_passthrough *q = c->passthrough.items; q != p; q++) {
		if (p->device && q->device && strcmp(p->device, q->device) == 0)
			return err_set(err, -EEXIST, "passthrough '%s' and '%s' are both %s", q->id,
				       p->id, p->device);
		if (p->ioas && q->ioas && strcmp(p->ioas, q->ioas) == 0 &&
		    strcmp(p->strategy, q->strategy) != 0)
			return err_set(err, -EINVAL,
				       "passthrough '%s' and '%s' share ioas '%s', but their "
				       "strategies are %s and %s",
				       q->id, p->id, p->ioas, q->strategy, p->strategy);
	}
	return 0;
}

/* A device of the host behind the guest's IOMMU: the guest's domains are its address spaces. */
static int check_behind(const struct config *c, const struct config_passthrough *p, struct err *err)
{
	if (!p->viommu)
		return 0;
	if (p->ioas)
		return err_set(err, -EINVAL,
			       "passthrough '%s': ioas '%s': behind the guest's IOMMU its domains "
			       "are the address spaces; leave ioas out, or viommu=off",
			       p->id, p->ioas);
	if (c->iommu.backend == CONFIG_IOMMU_TYPE1)
		return err_set(err, -EINVAL,
			       "passthrough '%s': type1 cannot move a device between the guest's "
			       "domains; use iommu.backend iommufd, or viommu=off",
			       p->id);
	for (const struct config_passthrough *q = c->passthrough.items; q != p; q++) {
		if (q->viommu && strcmp(p->strategy, q->strategy) != 0)
			return err_set(
				err, -EINVAL,
				"passthrough '%s' and '%s' are both behind the guest's IOMMU, "
				"but their strategies are %s and %s",
				q->id, p->id, q->strategy, p->strategy);
	}
	return 0;
}

static int check_passthrough(struct config *c, struct config_passthrough *p, struct err *err)
{
	const struct strategy_ops *strategy;
	int rc;

	if (!p->device && p->fd < 0)
		return err_set(err, -EINVAL,
			       "passthrough '%s': give a device (0000:01:10.0) or an fd", p->id);
	if (p->device && !*p->device)
		return err_set(err, -EINVAL, "passthrough '%s': device is empty", p->id);
	if (p->addr.set && p->port.set)
		return err_set(err, -EINVAL,
			       "passthrough '%s': give either addr (on bus 0) or port (its root "
			       "port's)",
			       p->id);
	if (p->iommufd >= 0 && c->iommu.fd >= 0 && p->iommufd != c->iommu.fd)
		return err_set(err, -EINVAL,
			       "passthrough '%s': iommufd %d, but the machine's is %d already; one "
			       "serves all devices",
			       p->id, p->iommufd, c->iommu.fd);
	if (p->iommufd >= 0)
		c->iommu.fd = p->iommufd;
	p->iommufd = -1;
	if (p->ioas && (!*p->ioas || strlen(p->ioas) >= ID_BYTES))
		return err_set(err, -EINVAL, "passthrough '%s': ioas '%s': 1 to %d characters",
			       p->id, p->ioas, ID_BYTES - 1);
	if (!p->strategy) {
		p->strategy = strdup(p->viommu ? "strict" : "direct");
		if (!p->strategy)
			return err_set(err, -ENOMEM, "no memory");
	}
	rc = strategy_find(p->strategy, &strategy, err);
	if (rc)
		return err_prefix(err, "passthrough '%s'", p->id);
	if (strategy->needs_viommu && !c->viommu.enabled)
		return err_set(err, -EINVAL,
			       "passthrough '%s': strategy %s maps what a guest's own IOMMU asks "
			       "for, and this machine has none; use direct, or --viommu on",
			       p->id, p->strategy);
	p->viommu |= strategy->needs_viommu;
	rc = check_behind(c, p, err);
	return rc ? rc : check_ioas(c, p, err);
}

static int check_viommu(struct config *c, struct err *err)
{
	const char *behind = NULL;
	bool queues = false;

	for (unsigned int i = 0; i < c->passthrough.n; i++) {
		if (c->passthrough.items[i].viommu)
			behind = c->passthrough.items[i].id;
	}
	for (unsigned int i = 0; i < c->disks.n; i++) {
		if (c->disks.items[i].viommu)
			behind = c->disks.items[i].id;
		queues |= c->disks.items[i].viommu;
	}
	for (unsigned int i = 0; i < c->nets.n; i++) {
		const struct config_net *net = &c->nets.items[i];

		if (net->viommu && net->vhost)
			return err_set(
				err, -EINVAL,
				"net '%s': the host kernel's queues (vhost) do not translate "
				"by the guest's IOMMU; leave out vhost or viommu",
				net->id);
		if (net->viommu)
			behind = net->id;
		queues |= net->viommu;
	}
	if (behind && !c->viommu.enabled)
		return err_set(
			err, -EINVAL,
			"'%s' is to be behind the guest's IOMMU, and this machine has none; add "
			"--viommu on (viommu.enabled)",
			behind);
	/* An unmap waits for what queues have open, and the machine's thread may wait for the unmap: so
	 * these queues are not the machine's thread's. */
	if (queues && !c->io_threads)
		c->io_threads = 1;
	return 0;
}

static int check_iommu(const struct config *c, struct err *err)
{
	if (c->iommu.fd >= 0 && c->iommu.backend == CONFIG_IOMMU_TYPE1)
		return err_set(
			err, -EINVAL,
			"iommu.fd %d is for iommufd, and iommu.backend is type1; leave one out",
			c->iommu.fd);
	return 0;
}

static int check_kernel(const struct config *c, struct err *err)
{
	if (c->firmware)
		return err_set(err, -ENOTSUP,
			       "firmware '%s': booting firmware is not built yet; give a kernel "
			       "(--kernel), which is booted directly",
			       c->firmware);
	if (!c->kernel.path || !*c->kernel.path)
		return err_set(
			err, -EINVAL,
			"no kernel: give one by --kernel FILE (kernel.path in the document)");
	return 0;
}

/* The kernel's messages go where there is a console. */
static int default_cmdline(struct config *c, struct err *err)
{
	bool serial = !c->consoles.n;

	for (unsigned int i = 0; i < c->consoles.n; i++)
		serial |= c->consoles.items[i].type == CONFIG_CONSOLE_SERIAL;
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
	if (!rc)
		rc = check_ids(c, err);
	if (!rc)
		rc = check_addresses(c, err);
	for (unsigned int i = 0; i < c->disks.n && !rc; i++)
		rc = check_disk(&c->disks.items[i], err);
	for (unsigned int i = 0; i < c->nets.n && !rc; i++)
		rc = check_net(c, &c->nets.items[i], err);
	if (!rc)
		rc = check_consoles(c, err);
	for (unsigned int i = 0; i < c->passthrough.n && !rc; i++)
		rc = check_passthrough(c, &c->passthrough.items[i], err);
	if (!rc)
		rc = check_iommu(c, err);
	if (!rc)
		rc = check_viommu(c, err);
	if (!rc && !c->uuid.set) {
		rand_bytes(c->uuid.byte, sizeof(c->uuid.byte));
		c->uuid.byte[6] =
			(uint8_t)((c->uuid.byte[6] & 0x0f) | 0x40); /* RFC 9562: version 4 */
		c->uuid.byte[8] = (uint8_t)((c->uuid.byte[8] & 0x3f) | 0x80);
		c->uuid.set = true;
	}
	if (!rc && !c->kernel.cmdline)
		rc = default_cmdline(c, err);
	return rc;
}
