// SPDX-License-Identifier: Apache-2.0
// The configuration document. Oracle: what is accepted holds all that validation promises, and its
// effective document reads back to itself; what is refused has a one-line reason.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/num.h"
#include "machine/kind_disk.h"
#include "machine/kind_net.h"

struct seen {
	bool slot[32][8];
	const char *id[160];
	unsigned int n;
};

static void see_address(struct seen *seen, const struct schema_pci *pci)
{
	check(pci->set && pci->addr.bus == 0 && pci->addr.slot > 0 && pci->addr.slot < 32 &&
	      pci->addr.function < 8);
	check(!seen->slot[pci->addr.slot][pci->addr.function]);
	seen->slot[pci->addr.slot][pci->addr.function] = true;
}

static void see_id(struct seen *seen, const char *id)
{
	check(id && *id && strlen(id) < 32);
	for (unsigned int i = 0; i < seen->n; i++)
		check(strcmp(seen->id[i], id) != 0);
	check(seen->n < ARRAY_SIZE(seen->id));
	seen->id[seen->n++] = id;
}

static void see_device(struct seen *seen, struct config_device *d)
{
	const struct device_kind *kind = device_kind_of(d);
	const struct config_disk *disk = container_of(d, struct config_disk, base);
	const struct config_net *net = container_of(d, struct config_net, base);
	struct schema_pci *pci = kind->place ? kind->place(d) : &d->addr;

	if (pci)
		see_address(seen, pci);
	if (kind == &kind_disk)
		check((disk->path != NULL) != (disk->fd >= 0));
	if (kind == &kind_net)
		check(net->mac.set && !(net->mac.byte[0] & 1));
}

static void check_accepted(const struct config *c)
{
	struct seen seen = {.n = 0};
	struct config_device *d = NULL;

	check(c->kernel.path && c->kernel.cmdline && !c->firmware && c->uuid.set);
	check(c->cpus.count >= 1 && c->cpus.count <= 255);
	check(c->cpus.sockets * c->cpus.cores * c->cpus.threads == c->cpus.count);
	check(c->cpus.pin.n == 0 || c->cpus.pin.n == c->cpus.count);
	check(c->memory.size_bytes >= 32 * MiB && is_aligned(c->memory.size_bytes, 2 * MiB));
	for (unsigned int i = 0; i < c->pci.root_ports; i++)
		seen.slot[CONFIG_ROOT_PORT_SLOT][i] = true;
	while ((d = config_next(c, d, NULL))) {
		see_id(&seen, d->id);
		see_device(&seen, d);
	}
}

/* The effective document of what text describes, or NULL when it is refused. */
static char *effective(const char *text, size_t size)
{
	struct err err = ERR_INIT;
	struct config config;
	char *ret = NULL;

	if (config_read(&config, text, size, &err) == 0) {
		check_accepted(&config);
		ret = config_write(&config, true);
		check(ret != NULL);
	} else {
		check(err.code < 0 && err.text[0] && !strchr(err.text, '\n'));
	}
	config_done(&config);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *first = effective((const char *)data, size);
	char *second;

	if (!first)
		return 0;
	second = effective(first, strlen(first));
	check(second && strcmp(first, second) == 0);
	free(second);
	free(first);
	return 0;
}
