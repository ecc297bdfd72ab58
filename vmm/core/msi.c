// SPDX-License-Identifier: Apache-2.0
// MSI: the capability, and the interrupt sources behind its one message.
//
// The kernel takes all routes at once and refuses them at once, so either every vector that the
// guest enabled has its route or none has (`dead`): then MSI stays silent until the guest changes
// the message.
#include "core/msi.h"

#include <assert.h>
#include <errno.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/pci_impl.h"
#include "core/state.h"

enum {
	CONTROL_CAPABLE_SHIFT = 1, /* log2 of the vectors that there are */
	CONTROL_ENABLED_SHIFT = 4, /* log2 of those that are enabled */
};

struct msi {
	/* Constant. */
	struct pci_cap hook;
	struct pci_device *dev;
	struct irq_chip *chip;
	struct msi_config config;
	unsigned int n; /* vectors that exist: config.vectors once built */
	unsigned int cap;
	unsigned int data_at, mask_at; /* offsets in config space; mask_at 0: no mask bits */
	/* Under the device's lock. */
	unsigned int active; /* vectors the guest enabled */
	uint64_t address;    /* the message in use, when active */
	uint16_t data;
	bool used; /* vectors_used was called */
	bool dead;
	struct log_limit limit;
	struct irq_msi vectors[MSI_MAX_VECTORS];
};

unsigned int msi_bytes(const struct msi_config *config)
{
	return 10u + (config->wide ? 4 : 0) + (config->maskable ? 10 : 0);
}

static void add_capability(struct msi *m)
{
	struct pci_device *dev = m->dev;
	unsigned int n = m->config.vectors, log2 = 0;

	while (1u << log2 < n)
		log2++;
	m->cap = pci_add_cap(dev, PCI_CAP_ID_MSI, msi_bytes(&m->config));
	store_le16(&dev->config[m->cap + PCI_MSI_FLAGS],
		   (uint16_t)(log2 << CONTROL_CAPABLE_SHIFT |
			      (m->config.wide ? PCI_MSI_FLAGS_64BIT : 0) |
			      (m->config.maskable ? PCI_MSI_FLAGS_MASKBIT : 0)));
	store_le16(&dev->wmask[m->cap + PCI_MSI_FLAGS], PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	store_le32(&dev->wmask[m->cap + PCI_MSI_ADDRESS_LO], ~3u);
	m->data_at = m->cap + PCI_MSI_ADDRESS_LO + 4;
	if (m->config.wide) {
		store_le32(&dev->wmask[m->data_at], ~0u);
		m->data_at += 4;
	}
	store_le16(&dev->wmask[m->data_at], 0xffff);
	if (m->config.maskable) {
		m->mask_at = m->data_at + 4;
		store_le32(&dev->wmask[m->mask_at], (uint32_t)((1ull << n) - 1));
	}
}

static const struct pci_cap_ops hook_ops;

int msi_init(struct msi **ret, struct pci_device *dev, struct irq_chip *chip,
	     const struct msi_config *config, struct err *err)
{
	struct msi *m;
	int r;

	assert(is_power_of_two(config->vectors) && config->vectors <= MSI_MAX_VECTORS);
	if (!mem_new(m))
		return err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	m->dev = dev;
	m->chip = chip;
	m->config = *config;
	for (; m->n < config->vectors; m->n++) {
		r = irq_msi_init(&m->vectors[m->n], chip, 0, err);
		if (r) {
			err_prefix(err, "%s: MSI vector %u", dev->name, m->n);
			msi_done(m);
			return r;
		}
		irq_msi_mask(&m->vectors[m->n]);
	}
	add_capability(m);
	pci_cap_hook(dev, &m->hook, &hook_ops);
	*ret = m;
	return 0;
}

/* Give up all GSIs and routes. */
static void disable(struct msi *m)
{
	for (unsigned int v = 0; v < m->n; v++)
		irq_msi_mask(&m->vectors[v]);
	if (m->used && m->config.vectors_used)
		m->config.vectors_used(m->config.opaque, 0);
	m->used = false;
	irq_batch_begin(m->chip);
	for (unsigned int v = 0; v < m->n; v++)
		irq_msi_disable(&m->vectors[v]);
	/* A refusal leaves routes that nothing signals; the next table is without them. */
	irq_batch_end(m->chip);
}

void msi_done(struct msi *m)
{
	if (!m)
		return;
	disable(m);
	for (unsigned int v = 0; v < m->n; v++)
		irq_msi_done(&m->vectors[v]);
	pci_cap_unhook(&m->hook);
	free(m);
}

static void refused(struct msi *m, int code)
{
	const struct log *log = m->dev->root ? m->dev->root->config.log : NULL;

	if (log)
		log_guest(log, &m->limit, m->dev->name,
			  "MSI with address 0x%llx, data 0x%x, %u vectors: %s; it stays silent",
			  (unsigned long long)m->address, m->data, m->active, err_name(code));
}

/* Routes of the message for all that is active. What was not enabled before is masked. */
static void connect(struct msi *m)
{
	int r = 0, end;

	m->dead = false;
	irq_batch_begin(m->chip);
	for (unsigned int v = 0; v < m->active && !r; v++) {
		m->vectors[v].devid = pci_requester_id(m->dev);
		r = irq_msi_enable(&m->vectors[v], m->address, (m->data & ~(m->active - 1)) | v);
	}
	end = irq_batch_end(m->chip);
	r = r ? r : end;
	if (!r && !m->used && m->config.vectors_used)
		r = m->config.vectors_used(m->config.opaque, m->active);
	if (!r) {
		m->used = true;
		return;
	}
	/* Not with the previous message either: the guest has withdrawn that. */
	disable(m);
	m->dead = true;
	refused(m, r);
}

static unsigned int wanted(const struct msi *m)
{
	uint16_t control = load_le16(&m->dev->config[m->cap + PCI_MSI_FLAGS]);
	unsigned int n = 1u << ((control & PCI_MSI_FLAGS_QSIZE) >> CONTROL_ENABLED_SHIFT);

	/* More than there are is undefined (7.7.1.2). */
	return control & PCI_MSI_FLAGS_ENABLE ? MIN(n, m->config.vectors) : 0;
}

static void update_masks(struct msi *m)
{
	uint32_t masks = m->mask_at ? load_le32(&m->dev->config[m->mask_at]) : 0;

	if (m->dead || !pci_bus_master(m->dev))
		masks = ~0u;
	for (unsigned int v = 0; v < m->active; v++) {
		int r = 0;

		if (masks >> v & 1)
			irq_msi_mask(&m->vectors[v]);
		else
			r = irq_msi_unmask(&m->vectors[v]);
		if (r)
			refused(m, r);
	}
}

static void config_written(struct pci_cap *hook)
{
	struct msi *m = container_of(hook, struct msi, hook);
	const uint8_t *config = m->dev->config;
	unsigned int n = wanted(m);
	uint64_t address = m->config.wide ? load_le64(&config[m->cap + PCI_MSI_ADDRESS_LO])
					  : load_le32(&config[m->cap + PCI_MSI_ADDRESS_LO]);
	uint16_t data = load_le16(&config[m->data_at]);

	if (n != m->active) {
		disable(m);
		__atomic_store_n(&m->active, n, __ATOMIC_RELAXED);
		for (unsigned int v = 0; v < m->n; v++)
			fd_event_drain(m->vectors[v].fd);
	} else if (!n || (address == m->address && data == m->data)) {
		update_masks(m);
		return;
	}
	m->address = address;
	m->data = data;
	if (n)
		connect(m);
	update_masks(m);
}

static void config_read(struct pci_cap *hook)
{
	struct msi *m = container_of(hook, struct msi, hook);
	uint32_t bits = 0;

	if (!m->mask_at)
		return;
	for (unsigned int v = 0; v < m->active; v++) {
		if (irq_msi_pending(&m->vectors[v]))
			bits |= 1u << v;
	}
	store_le32(&m->dev->config[m->mask_at + 4], bits);
}

static void reset(struct pci_cap *hook)
{
	struct msi *m = container_of(hook, struct msi, hook);

	m->dev->config[m->cap + PCI_MSI_FLAGS] &=
		(uint8_t)~(PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	config_written(hook);
}

unsigned int msi_enabled(const struct msi *m)
{
	return __atomic_load_n(&m->active, __ATOMIC_RELAXED);
}

void msi_raise(struct msi *m, unsigned int v)
{
	if (v < msi_enabled(m))
		irq_msi_raise(&m->vectors[v]);
}

int msi_fd(struct msi *m, unsigned int v)
{
	return v < m->config.vectors ? m->vectors[v].fd : -1;
}

/* State */

struct msi_record {
	uint32_t pending; /* bit per vector */
};

static const struct state_field msi_fields[] = {
	STATE_ONE(struct msi_record, pending),
};

STATE_DERIVED(struct msi, "made by msi_init; pending is in struct msi_record", hook, dev, chip,
	      config, n, cap, data_at, mask_at, vectors);
STATE_DERIVED(struct msi, "follow from the capability in config space", active, address, data, used,
	      dead);
STATE_DERIVED(struct msi, "of the log, not of the device", limit);

static void fill_msi(void *record, const void *live, uint32_t n)
{
	const struct msi *m = live;
	struct msi_record *r = record;

	(void)n;
	for (unsigned int v = 0; v < m->n; v++)
		r->pending |= (uint32_t)irq_msi_signalled(&m->vectors[v]) << v;
}

/* Connecting begins with no signal, so these come last. */
static void apply_msi(void *live, const void *record, uint32_t n)
{
	const struct msi_record *r = record;
	struct msi *m = live;

	(void)n;
	disable(m);
	__atomic_store_n(&m->active, 0, __ATOMIC_RELAXED);
	config_written(&m->hook);
	for (unsigned int v = 0; v < m->n; v++) {
		fd_event_drain(m->vectors[v].fd);
		if (r->pending >> v & 1)
			irq_msi_raise(&m->vectors[v]);
	}
}

static int check_msi(const void *record, const void *live, uint32_t i, struct err *err)
{
	uint32_t pending = ((const struct msi_record *)record)->pending;
	const struct msi *m = live;

	(void)i;
	return (uint64_t)pending >> m->n
		       ? err_set(err, -EPROTO, "pending is 0x%x; there are %u vectors", pending,
				 m->n)
		       : 0;
}

static const struct state_section msi_section =
	STATE_SECTION("msi", 1, struct msi_record, msi_fields, .fill = fill_msi, .apply = apply_msi,
		      .check = check_msi);

static void save(const struct pci_cap *hook, struct state_writer *w)
{
	const struct msi *m = container_of(hook, struct msi, hook);

	state_save(w, &msi_section, m, 1);
}

static int load(struct pci_cap *hook, struct state_reader *r, struct err *err)
{
	struct msi *m = container_of(hook, struct msi, hook);

	return state_load(r, &msi_section, m, 1, err);
}

static const struct pci_cap_ops hook_ops = {
	.config_read = config_read,
	.config_written = config_written,
	.reset = reset,
	.save = save,
	.load = load,
};
