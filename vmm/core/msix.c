// SPDX-License-Identifier: Apache-2.0
// MSI-X: the guest's table, and the interrupt source behind each of its entries.
//
// A source is in one of these states:
//
//   idle ── MSI-X on and vector unmasked ──► connected ⇄ masked ── MSI-X off ──► idle
//
// idle has no GSI; in masked the GSI and its route stay. What the guest writes while a vector is
// masked counts when it is unmasked (PCI Local Bus 3.0, 6.8.2: changing an entry that is not masked
// is undefined; here it takes effect at once).
#include "core/msix.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/pci_impl.h"
#include "core/state.h"

/* Under the device's lock. */
struct vector {
	struct irq_msi msi;
	uint8_t entry[MSIX_ENTRY_BYTES]; /* as the guest reads it */
	bool used;                       /* vector_used was called */
	bool fresh;                      /* route_all has just given it a route */
	bool dead; /* the kernel refused its message; tried again when the entry changes */
};

struct msix {
	/* Constant. */
	struct pci_cap hook;
	struct pci_device *dev;
	struct irq_chip *chip;
	unsigned int n;
	unsigned int cap;
	int (*vector_used)(void *opaque, unsigned int v, bool on);
	void *opaque;
	/* Under the device's lock. */
	bool enabled;
	bool mask_all; /* by the function mask, or for want of bus mastering */
	struct log_limit limit;
	struct vector vectors[];
};

static void entry_clear(struct vector *v)
{
	memset(v->entry, 0, sizeof(v->entry));
	store_le32(&v->entry[PCI_MSIX_ENTRY_VECTOR_CTRL], PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static const struct pci_cap_ops hook_ops;

int msix_init(struct msix **ret, struct pci_device *dev, struct irq_chip *chip,
	      const struct msix_config *config, struct err *err)
{
	struct msix *m;
	int r;

	assert(config->vectors >= 1 && config->vectors <= MSIX_MAX_VECTORS);
	assert(is_aligned(config->table_offset, 8) && is_aligned(config->pba_offset, 8));
	m = calloc(1, sizeof(*m) + config->vectors * sizeof(m->vectors[0]));
	if (!m)
		return err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	m->dev = dev;
	m->chip = chip;
	m->vector_used = config->vector_used;
	m->opaque = config->opaque;
	for (; m->n < config->vectors; m->n++) {
		struct vector *v = &m->vectors[m->n];

		r = irq_msi_init(&v->msi, chip, 0, err);
		if (r) {
			err_prefix(err, "%s: MSI-X vector %u", dev->name, m->n);
			msix_done(m);
			return r;
		}
		irq_msi_mask(&v->msi);
		entry_clear(v);
	}
	m->cap = pci_add_cap(dev, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	store_le16(&dev->config[m->cap + PCI_MSIX_FLAGS], (uint16_t)(config->vectors - 1));
	store_le16(&dev->wmask[m->cap + PCI_MSIX_FLAGS],
		   PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	store_le32(&dev->config[m->cap + PCI_MSIX_TABLE], config->table_offset | config->bar);
	store_le32(&dev->config[m->cap + PCI_MSIX_PBA], config->pba_offset | config->bar);
	pci_cap_hook(dev, &m->hook, &hook_ops);
	*ret = m;
	return 0;
}

static void told_unused(struct msix *m, unsigned int i)
{
	if (m->vectors[i].used && m->vector_used)
		m->vector_used(m->opaque, i, false);
	m->vectors[i].used = false;
}

/* Give up all GSIs and routes. */
static void all_idle(struct msix *m)
{
	for (unsigned int i = 0; i < m->n; i++) {
		m->vectors[i].dead = false;
		irq_msi_mask(&m->vectors[i].msi);
		told_unused(m, i);
	}
	irq_batch_begin(m->chip);
	for (unsigned int i = 0; i < m->n; i++)
		irq_msi_disable(&m->vectors[i].msi);
	/* A refusal leaves routes that nothing signals; the next table is without them. */
	irq_batch_end(m->chip);
}

void msix_done(struct msix *m)
{
	if (!m)
		return;
	all_idle(m);
	for (unsigned int i = 0; i < m->n; i++)
		irq_msi_done(&m->vectors[i].msi);
	pci_cap_unhook(&m->hook);
	free(m);
}

static void refused(struct msix *m, unsigned int i, int code)
{
	const struct log *log = m->dev->root ? m->dev->root->config.log : NULL;
	const struct vector *v = &m->vectors[i];

	if (log)
		log_guest(log, &m->limit, m->dev->name,
			  "MSI-X vector %u with address 0x%llx, data 0x%x: %s; it stays silent", i,
			  (unsigned long long)load_le64(&v->entry[PCI_MSIX_ENTRY_LOWER_ADDR]),
			  load_le32(&v->entry[PCI_MSIX_ENTRY_DATA]), err_name(code));
}

/* Connect vector i with the message that its entry holds now. */
static int vector_connect(struct msix *m, unsigned int i)
{
	struct vector *v = &m->vectors[i];
	int r;

	v->msi.devid = pci_requester_id(m->dev);
	r = irq_msi_enable(&v->msi, load_le64(&v->entry[PCI_MSIX_ENTRY_LOWER_ADDR]),
			   load_le32(&v->entry[PCI_MSIX_ENTRY_DATA]));
	if (!r && !v->used && m->vector_used) {
		r = m->vector_used(m->opaque, i, true);
		v->used = !r;
		if (r)
			irq_msi_disable(&v->msi);
	}
	return r ? r : irq_msi_unmask(&v->msi);
}

static bool vector_masked(const struct msix *m, const struct vector *v)
{
	return m->mask_all ||
	       (load_le32(&v->entry[PCI_MSIX_ENTRY_VECTOR_CTRL]) & PCI_MSIX_ENTRY_CTRL_MASKBIT) ||
	       v->dead;
}

/* Bring vector i to what function mask and entry say. MSI-X is on. changed: its entry was
 * written. */
static void vector_update(struct msix *m, unsigned int i, bool changed)
{
	struct vector *v = &m->vectors[i];
	int r;

	if (changed)
		v->dead = false;
	if (vector_masked(m, v)) {
		irq_msi_mask(&v->msi);
		return;
	}
	r = vector_connect(m, i);
	if (r) {
		/* Not to the previous message: the guest has withdrawn that. */
		irq_msi_mask(&v->msi);
		v->dead = true;
		refused(m, i, r);
	}
}

/* Routes for all that come to need one, in one go. Where the kernel refuses, vector_update finds
 * out which by trying one at a time. */
static void route_all(struct msix *m)
{
	irq_batch_begin(m->chip);
	for (unsigned int i = 0; i < m->n; i++) {
		struct vector *v = &m->vectors[i];

		v->fresh = false;
		if (vector_masked(m, v) || v->msi.enabled)
			continue;
		assert(v->msi.masked);
		v->msi.devid = pci_requester_id(m->dev);
		v->fresh = !irq_msi_enable(&v->msi, load_le64(&v->entry[PCI_MSIX_ENTRY_LOWER_ADDR]),
					   load_le32(&v->entry[PCI_MSIX_ENTRY_DATA]));
	}
	if (!irq_batch_end(m->chip))
		return;
	irq_batch_begin(m->chip);
	for (unsigned int i = 0; i < m->n; i++) {
		if (m->vectors[i].fresh)
			irq_msi_disable(&m->vectors[i].msi);
	}
	irq_batch_end(m->chip);
}

static void update_all(struct msix *m)
{
	if (!m->enabled) {
		all_idle(m);
		return;
	}
	route_all(m);
	for (unsigned int i = 0; i < m->n; i++)
		vector_update(m, i, false);
}

static void config_written(struct pci_cap *hook)
{
	struct msix *m = container_of(hook, struct msix, hook);
	uint16_t control = load_le16(&m->dev->config[m->cap + PCI_MSIX_FLAGS]);
	bool enabled = control & PCI_MSIX_FLAGS_ENABLE;
	bool mask_all = control & PCI_MSIX_FLAGS_MASKALL || !pci_bus_master(m->dev);

	if (enabled == m->enabled && mask_all == m->mask_all)
		return;
	__atomic_store_n(&m->enabled, enabled, __ATOMIC_RELAXED);
	m->mask_all = mask_all;
	update_all(m);
}

static void reset(struct pci_cap *hook)
{
	struct msix *m = container_of(hook, struct msix, hook);

	m->dev->config[m->cap + PCI_MSIX_FLAGS + 1] &=
		(uint8_t)~((PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8);
	config_written(hook);
	all_idle(m);
	for (unsigned int i = 0; i < m->n; i++) {
		entry_clear(&m->vectors[i]);
		fd_event_drain(m->vectors[i].msi.fd);
	}
}

uint64_t msix_table_read(struct msix *m, uint64_t offset, unsigned int size)
{
	uint64_t i = offset / MSIX_ENTRY_BYTES, value = 0;

	if (i >= m->n)
		return 0;
	memcpy(&value, &m->vectors[i].entry[offset % MSIX_ENTRY_BYTES], size);
	return value;
}

void msix_table_write(struct msix *m, uint64_t offset, uint64_t value, unsigned int size)
{
	uint64_t i = offset / MSIX_ENTRY_BYTES;
	uint8_t old[MSIX_ENTRY_BYTES];
	struct vector *v;

	if (i >= m->n)
		return;
	v = &m->vectors[i];
	memcpy(old, v->entry, sizeof(old));
	memcpy(&v->entry[offset % MSIX_ENTRY_BYTES], &value, size);
	/* of the vector control only the mask bit is there (7.7.2.8) */
	store_le32(&v->entry[PCI_MSIX_ENTRY_VECTOR_CTRL],
		   load_le32(&v->entry[PCI_MSIX_ENTRY_VECTOR_CTRL]) & PCI_MSIX_ENTRY_CTRL_MASKBIT);
	if (!memcmp(old, v->entry, sizeof(old)))
		return;
	if (m->enabled)
		vector_update(m, (unsigned int)i, true);
	else
		v->dead = false;
}

uint64_t msix_pba_read(struct msix *m, uint64_t offset, unsigned int size)
{
	uint64_t bits = 0;

	for (unsigned int b = 0; b < 8 * size; b++) {
		uint64_t i = offset * 8 + b;

		if (i < m->n && irq_msi_pending(&m->vectors[i].msi))
			bits |= 1ull << b;
	}
	return bits;
}

bool msix_enabled(const struct msix *m)
{
	return __atomic_load_n(&m->enabled, __ATOMIC_RELAXED);
}

unsigned int msix_vectors(const struct msix *m)
{
	return m->n;
}

void msix_raise(struct msix *m, unsigned int v)
{
	if (v < m->n)
		irq_msi_raise(&m->vectors[v].msi);
}

int msix_fd(struct msix *m, unsigned int v)
{
	return v < m->n ? m->vectors[v].msi.fd : -1;
}

/* State */

struct vector_record {
	uint8_t entry[MSIX_ENTRY_BYTES];
	bool pending;
};

static const struct state_field vector_fields[] = {
	STATE_ARRAY(struct vector_record, entry),
	STATE_ONE(struct vector_record, pending),
};

STATE_DERIVED(struct vector, "written as a struct vector_record", entry);
STATE_DERIVED(struct vector, "made by msix_init; pending is in struct vector_record", msi);
STATE_DERIVED(struct vector, "follow from the entry and the capability's control register", used,
	      fresh, dead);
STATE_DERIVED(struct msix, "made by msix_init", hook, dev, chip, n, cap, vector_used, opaque);
STATE_DERIVED(struct msix, "follow from the capability's control register", enabled, mask_all);
STATE_DERIVED(struct msix, "of the log, not of the device", limit);
STATE_DERIVED(struct msix, "the records", vectors);

static void fill_vector(void *record, const void *live, uint32_t i)
{
	const struct vector *v = &((const struct msix *)live)->vectors[i];
	struct vector_record *r = record;

	memcpy(r->entry, v->entry, sizeof(r->entry));
	r->pending = irq_msi_signalled(&v->msi);
}

/* Config space is applied before. With the last entry the table is whole and gets its routes. */
static void apply_vector(void *live, const void *record, uint32_t i)
{
	const struct vector_record *r = record;
	struct msix *m = live;
	struct vector *v = &m->vectors[i];

	if (!i)
		all_idle(m);
	memcpy(v->entry, r->entry, sizeof(v->entry));
	fd_event_drain(v->msi.fd);
	if (r->pending)
		irq_msi_raise(&v->msi);
	if (i < m->n - 1)
		return;
	__atomic_store_n(&m->enabled, false, __ATOMIC_RELAXED);
	config_written(&m->hook);
}

static int check_vector(const void *record, const void *live, uint32_t i, struct err *err)
{
	uint32_t control = load_le32(
		&((const struct vector_record *)record)->entry[PCI_MSIX_ENTRY_VECTOR_CTRL]);

	(void)live;
	(void)i;
	if (control > PCI_MSIX_ENTRY_CTRL_MASKBIT)
		return err_set(err, -EPROTO, "entry has vector control 0x%x; its bits are 0x%x",
			       control, PCI_MSIX_ENTRY_CTRL_MASKBIT);
	return 0;
}

static const struct state_section msix_section =
	STATE_SECTION("msix", 1, struct vector_record, vector_fields, .fill = fill_vector,
		      .apply = apply_vector, .check = check_vector);

static void save(const struct pci_cap *hook, struct state_writer *w)
{
	const struct msix *m = container_of(hook, struct msix, hook);

	state_save(w, &msix_section, m, m->n);
}

static int load(struct pci_cap *hook, struct state_reader *r, struct err *err)
{
	struct msix *m = container_of(hook, struct msix, hook);

	return state_load(r, &msix_section, m, m->n, err);
}

static const struct pci_cap_ops hook_ops = {
	.config_written = config_written,
	.reset = reset,
	.save = save,
	.load = load,
};
