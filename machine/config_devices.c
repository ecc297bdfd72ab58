// SPDX-License-Identifier: Apache-2.0
// The devices of a document: ids, addresses, and each one's own values against those of the others.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "machine/kind.h"
#include "machine/validate.h"

static const char *kind_name(const struct config_device *device)
{
	return device->item.schema->what;
}

struct config_device *config_next(const struct config *config, const struct config_device *after,
				  const struct device_kind *kind)
{
	const struct list *i = after ? &after->item.link : &config->devices;

	while ((i = i->next) != &config->devices) {
		struct config_device *d = container_of(i, struct config_device, item.link);

		if ((d->enabled || device_kind_of(d)->max) && (!kind || device_kind_of(d) == kind))
			return d;
	}
	return NULL;
}

bool config_device_shares_memory(const struct config_device *device)
{
	return device->shares_memory || device_kind_of(device)->shares_memory;
}

bool config_shares_memory(const struct config *config)
{
	struct config_device *d = NULL;

	while ((d = config_next(config, d, NULL))) {
		if (config_device_shares_memory(d))
			return true;
	}
	return false;
}

bool config_has_small_pages(const struct config *config)
{
	struct config_device *d = NULL;

	while ((d = config_next(config, d, NULL))) {
		if (d->small_pages)
			return true;
	}
	return false;
}

/* --- ids --- */

/* Who has it, of the devices before this one. */
static const struct config_device *user_of(const struct config *c, const char *id,
					   const struct config_device *device)
{
	struct config_device *d = NULL;

	while ((d = config_next(c, d, NULL)) && d != device) {
		if (strcmp(d->id, id) == 0)
			return d;
	}
	return NULL;
}

/* By its place among those of its kind; the next number when another one is called so. */
static int make_id(const struct config *c, struct config_device *device, struct err *err)
{
	const struct device_kind *kind = device_kind_of(device);
	struct config_device *d = NULL;
	char id[CONFIG_ID_BYTES];
	unsigned int n = 0;

	while ((d = config_next(c, d, kind)) && d != device)
		n++;
	snprintf(id, sizeof(id), "%s", kind_name(device));
	do {
		if (kind->max)
			snprintf(id, sizeof(id), "%s%u", kind_name(device), n++);
	} while (kind->max && user_of(c, id, device));
	device->id = strdup(id);
	return device->id ? 0 : err_set(err, -ENOMEM, "no memory");
}

static int check_id(const struct config *c, struct config_device *device, struct err *err)
{
	const struct config_device *other;
	const char *what = kind_name(device);
	int rc = device->id ? 0 : make_id(c, device, err);

	if (rc)
		return rc;
	if (!*device->id || strlen(device->id) >= CONFIG_ID_BYTES ||
	    strspn(device->id,
		   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
		    strlen(device->id))
		return err_set(err, -EINVAL,
			       "%s id '%s': letters, digits, '-', '_' and '.', 1 to %d characters",
			       what, device->id, CONFIG_ID_BYTES - 1);
	other = user_of(c, device->id, device);
	return other ? err_set(err, -EEXIST,
			       "two devices have the id '%s' (a %s and a %s); ids are unique",
			       device->id, kind_name(other), what)
		     : 0;
}

/* --- PCI addresses --- */

struct schema_pci *config_no_place(struct config_device *device)
{
	(void)device;
	return NULL;
}

static struct schema_pci *place_of(struct config_device *device)
{
	const struct device_kind *kind = device_kind_of(device);

	return kind->place ? kind->place(device) : &device->addr;
}

static bool is_at(const struct schema_pci *pci, unsigned int slot, unsigned int function)
{
	return pci->set && pci->addr.slot == slot && pci->addr.function == function;
}

/* Who is there: of the devices, those before the one whose place is `until`; NULL: nobody. */
static const char *slot_user(const struct config *c, unsigned int slot, unsigned int function,
			     const struct schema_pci *until)
{
	struct config_device *d = NULL;
	const struct schema_pci *pci;

	if (slot == 0 && function == 0)
		return "the host bridge";
	if (slot == CONFIG_ROOT_PORT_SLOT && function < c->pci.root_ports)
		return "a root port";
	while ((d = config_next(c, d, NULL)) && (pci = place_of(d), !until || pci != until)) {
		if (pci && is_at(pci, slot, function))
			return d->id;
	}
	if (c->viommu.enabled && until != &c->viommu.addr && is_at(&c->viommu.addr, slot, function))
		return "viommu";
	return NULL;
}

static int check_place(const struct config *c, const struct schema_pci *pci, const char *id,
		       struct err *err)
{
	const struct pci_addr *a = &pci->addr;
	char text[PCI_ADDR_TEXT];
	const char *user;

	if (a->bus)
		return err_set(err, -EINVAL,
			       "'%s' addr %s: only bus 00 holds devices that are there at start",
			       id, pci_addr_format(a, text));
	user = slot_user(c, a->slot, a->function, pci);
	if (user)
		return err_set(err, -EEXIST, "'%s' addr %s: taken by '%s'", id,
			       pci_addr_format(a, text), user);
	if (a->slot < CONFIG_FIRST_SLOT)
		return err_set(err, -EINVAL, "'%s' addr %s: slot 00 is the host bridge's alone", id,
			       pci_addr_format(a, text));
	if (a->function && !slot_user(c, a->slot, 0, pci))
		return err_set(err, -EINVAL,
			       "'%s' addr %s: function 0 of that slot must exist and come first",
			       id, pci_addr_format(a, text));
	return 0;
}

/* The lowest free slot: the same document gives the same addresses. */
static int find_place(const struct config *c, struct schema_pci *pci, const char *id,
		      struct err *err)
{
	for (uint8_t slot = CONFIG_FIRST_SLOT; slot < 32; slot++) {
		if (slot_user(c, slot, 0, NULL))
			continue;
		*pci = (struct schema_pci){.set = true, .addr = {.slot = slot}};
		return 0;
	}
	return err_set(err, -ENOSPC,
		       "'%s': all 31 PCI slots are taken; put several devices in one slot by "
		       "addr=SLOT.FUNCTION",
		       id);
}

/* --- each device --- */

static int check_values(struct config *c, struct config_device *d, struct err *err)
{
	const struct device_kind *kind = device_kind_of(d);
	int rc = kind->validate ? kind->validate(c, d, err) : 0;

	if (!rc && config_device_shares_memory(d) && c->memory.backing == GMEM_ANONYMOUS)
		rc = err_set(
			err, -EINVAL,
			"%s '%s': shares guest memory, and memory.backing is anonymous; use auto "
			"or memfd",
			kind->schema.what, d->id);
	if (rc || !d->viommu)
		return rc;
	if (!c->viommu.enabled)
		return err_set(
			err, -EINVAL,
			"'%s' is to be behind the virtual IOMMU, and this machine has none; add "
			"--viommu on (viommu.enabled)",
			d->id);
	/* An unmap waits for what queues have open, and the machine's thread may wait for the
	 * unmap: so these queues are not the machine's thread's. */
	if (!kind->host_device && !c->io_threads)
		return err_set(
			err, -EINVAL,
			"'%s': behind the virtual IOMMU its queues need an I/O thread; start "
			"the machine with io_threads 1",
			d->id);
	return 0;
}

int config_check_devices(struct config *c, struct err *err)
{
	struct config_device *d = NULL;
	int rc = 0;

	while (!rc && (d = config_next(c, d, NULL)))
		rc = check_id(c, d, err);
	/* Those with an address first. */
	for (bool with_address = true;; with_address = false) {
		d = NULL;
		while (!rc && (d = config_next(c, d, NULL))) {
			struct schema_pci *pci = place_of(d);

			if (pci && pci->set && with_address)
				rc = check_place(c, pci, d->id, err);
			else if (pci && !pci->set && !with_address)
				rc = find_place(c, pci, d->id, err);
		}
		if (!rc && c->viommu.enabled && with_address && c->viommu.addr.set)
			rc = check_place(c, &c->viommu.addr, "viommu", err);
		if (!with_address)
			break;
	}
	if (!rc && c->viommu.enabled && !c->viommu.addr.set)
		rc = find_place(c, &c->viommu.addr, "viommu", err);
	d = NULL;
	while (!rc && (d = config_next(c, d, NULL))) {
		if (d->viommu && !device_kind_of(d)->host_device && c->viommu.enabled &&
		    !c->io_threads)
			c->io_threads = 1;
		rc = check_values(c, d, err);
	}
	return rc;
}

int config_device_read(const struct device_kind *kind, const json_t *json, const char *path,
		       struct config_device **ret, struct err *err)
{
	struct schema_item *item;
	int rc = schema_item_read(&kind->schema, json, path, &item, err);

	*ret = rc ? NULL : container_of(item, struct config_device, item);
	return rc;
}

void config_device_free(struct config_device *device)
{
	if (device)
		schema_item_free(&device->item);
}

static int check_number(const struct config *c, const struct config_device *device, struct err *err)
{
	const struct device_kind *kind = device_kind_of(device);
	struct config_device *d = NULL;
	unsigned int n = 0, max = MAX(kind->max, 1u);

	while ((d = config_next(c, d, kind)))
		n++;
	return n < max ? 0
		       : err_set(err, -ENOSPC, "%s: the machine has %u, which is the most",
				 kind->key, max);
}

static void drop_disabled(struct config *c, const struct schema *schema)
{
	list_for_each_safe (i, &c->devices) {
		struct config_device *d = container_of(i, struct config_device, item.link);

		if (d->item.schema == schema && !d->enabled && !device_kind_of(d)->max)
			config_device_free(d);
	}
}

bool config_device_is_pci(struct config_device *device)
{
	return place_of(device) != NULL;
}

static int check_new_place(const struct config *c, struct config_device *device, bool hot_plug,
			   struct err *err)
{
	struct schema_pci *pci = place_of(device);
	char text[PCI_ADDR_TEXT];

	if (!pci)
		return 0;
	if (hot_plug && pci->set)
		return err_set(err, -EINVAL,
			       "'%s' addr %s: the guest runs, and sees what comes behind a spare "
			       "root port only; leave the address out",
			       device->id, pci_addr_format(&pci->addr, text));
	if (hot_plug)
		return 0;
	return pci->set ? check_place(c, pci, device->id, err)
			: find_place(c, pci, device->id, err);
}

int config_device_add(struct config *c, struct config_device *device, bool hot_plug,
		      struct err *err)
{
	int rc = check_number(c, device, err);

	if (rc)
		return rc;
	/* As one that is named: for a document the kind's default decides. */
	device->enabled = true;
	list_append(&c->devices, &device->item.link);
	rc = check_id(c, device, err);
	if (!rc)
		rc = check_new_place(c, device, hot_plug, err);
	if (!rc)
		rc = check_values(c, device, err);
	if (rc)
		list_remove(&device->item.link);
	else
		drop_disabled(c, device->item.schema);
	return rc;
}

void config_device_remove(struct config_device *device)
{
	if (device_kind_of(device)->max)
		config_device_free(device);
	else
		device->enabled = false; /* so says the document, whose default may be another */
}
