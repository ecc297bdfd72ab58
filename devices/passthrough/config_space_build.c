// SPDX-License-Identifier: Apache-2.0
// What the guest sees of config space when the device is attached: the header, and the capabilities
// that the table lets through, each at its real place. Which bits are whose is said here once:
// wmask and w1c of the PCI framework, live and forward of ours (config.c).
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "passthrough/vfio_pci_impl.h"

enum {
	CONFIG_STANDARD_END = 0x100,
	STATUS_LIVE = 0xf900, /* errors; W1C. The INTx bit is not shown: the pin is KVM's */

	PM_CAPS_SHOWN =
		0x003f, /* version, clock, immediate readiness, initialization; no D1, D2, PME */

	EXP_DEVCTL_RESET = 0x2810,
	EXP_DEVCTL_OURS = 0x00ef,    /* error reporting stays the host's policy; payload VFIO's */
	EXP_DEVCTL_FORWARD = 0x7910, /* relaxed ordering, extended tags, no snoop, read size */
	EXP_DEVSTA_W1C = 0x000f,
	EXP_DEVSTA_LIVE = 0x002f, /* and transactions pending */
	EXP_LNKCAP_ASPM =
		3 << 10 | 1 << 18,      /* power of the real link is the host's: ASPM, clocks */
	EXP_DEVCAP2_SHOWN = 0x0000039f, /* completion timeouts, atomic completer */

	AF_BYTES = 2,
	AF_CAPS = 3,
	AF_STATUS = 5,

	AER_UNCORRECTABLE = 0x04,
	AER_MASK = 0x08,
	AER_SEVERITY = 0x0c,
	AER_CORRECTABLE = 0x10,
	AER_CORRECTABLE_MASK = 0x14,
	AER_CONTROL = 0x18,
	AER_LOG = 0x1c,
	AER_UNCORRECTABLE_BITS = 0x07fff030,
	AER_CORRECTABLE_BITS = 0xf1c1,
};

struct build {
	struct vfio_pci *v;
	const uint8_t *real; /* the device's config space as found */
	bool integrated;     /* on bus 0 of the guest */
	struct err *err;
};

/* A capability keeps its place: some drivers know where theirs are. */
static unsigned int add(struct build *b, const struct caps_entry *c)
{
	struct pci_device *pci = &b->v->pci;
	unsigned int at;

	if (c->rule->extended) {
		if (!pci->last_ecap && c->at != CONFIG_STANDARD_END) {
			/* the list begins here, be it with the capability that says nothing
			 * (7.9.27) */
			pci_add_ecap(pci, 0, 0, 4);
		}
		pci->next_ecap = c->at;
		return pci_add_ecap(pci, c->rule->id, c->version, c->bytes);
	}
	pci->next_cap = c->at;
	at = pci_add_cap(pci, (uint8_t)c->rule->id, c->bytes);
	return at;
}

static void copy(struct build *b, unsigned int at, unsigned int bytes)
{
	memcpy(&b->v->pci.config[at], &b->real[at], bytes);
}

static void live32(struct build *b, unsigned int at, uint32_t bits)
{
	store_le32(&b->v->live[at], bits);
}

static void live16(struct build *b, unsigned int at, uint32_t bits)
{
	store_le16(&b->v->live[at], (uint16_t)bits);
}

static int add_read_only(struct build *b, const struct caps_entry *c)
{
	unsigned int head = c->rule->extended ? 4 : 2, at = add(b, c);

	copy(b, at + head, c->bytes - head);
	memset(&b->v->live[at + head], 0xff, c->bytes - head);
	return 0;
}

static int add_pm(struct build *b, const struct caps_entry *c)
{
	struct pci_device *pci = &b->v->pci;
	unsigned int at = add(b, c);

	b->v->pm = at;
	store_le16(&pci->config[at + PCI_PM_PMC],
		   load_le16(&b->real[at + PCI_PM_PMC]) & PM_CAPS_SHOWN);
	store_le16(&pci->config[at + PCI_PM_CTRL],
		   load_le16(&b->real[at + PCI_PM_CTRL]) & PCI_PM_CTRL_NO_SOFT_RESET);
	pci->wmask[at + PCI_PM_CTRL] = PCI_PM_CTRL_STATE_MASK;
	return 0;
}

static int add_vpd(struct build *b, const struct caps_entry *c)
{
	struct pci_device *pci = &b->v->pci;
	unsigned int at = add(b, c);

	b->v->vpd = at;
	store_le16(&pci->wmask[at + PCI_VPD_ADDR], 0xffff);
	live16(b, at + PCI_VPD_ADDR, PCI_VPD_ADDR_F);
	live32(b, at + PCI_VPD_DATA, ~0u);
	return 0;
}

static int add_af(struct build *b, const struct caps_entry *c)
{
	struct pci_device *pci = &b->v->pci;
	unsigned int at = add(b, c);

	b->v->af = at;
	pci->config[at + AF_BYTES] = 6;
	pci->config[at + AF_CAPS] = b->v->resets ? 3 : 0;
	b->v->live[at + AF_STATUS] = 1;
	return 0;
}

static void add_link(struct build *b, unsigned int at, bool v2)
{
	struct pci_device *pci = &b->v->pci;

	store_le32(&pci->config[at + PCI_EXP_LNKCAP],
		   load_le32(&b->real[at + PCI_EXP_LNKCAP]) & ~(uint32_t)EXP_LNKCAP_ASPM);
	copy(b, at + PCI_EXP_LNKSTA, 2);
	live16(b, at + PCI_EXP_LNKSTA, 0xffff);
	store_le16(&pci->wmask[at + PCI_EXP_LNKCTL],
		   0x00c8); /* what software sets: without effect */
	if (v2) {
		copy(b, at + PCI_EXP_LNKCAP2, 8);
		live16(b, at + PCI_EXP_LNKSTA2, 0xffff);
	}
}

static int add_express(struct build *b, const struct caps_entry *c)
{
	struct vfio_pci *v = b->v;
	struct pci_device *pci = &v->pci;
	unsigned int at = add(b, c);
	bool v2 = c->bytes == CAPS_EXPRESS_BYTES;
	uint16_t flags = load_le16(&b->real[at + PCI_EXP_FLAGS]) & 0x3e0f;
	uint32_t devcap = load_le32(&b->real[at + PCI_EXP_DEVCAP]) & ~(uint32_t)PCI_EXP_DEVCAP_FLR;

	pci->express = (uint16_t)at;
	/* an endpoint, be it a legacy one on the host: where it sits decides (7.5.3.2) */
	store_le16(&pci->config[at + PCI_EXP_FLAGS], flags | (b->integrated ? 9 << 4 : 0));
	store_le32(&pci->config[at + PCI_EXP_DEVCAP],
		   devcap | (v->resets ? PCI_EXP_DEVCAP_FLR : 0));
	store_le16(&pci->config[at + PCI_EXP_DEVCTL], EXP_DEVCTL_RESET);
	store_le16(&pci->wmask[at + PCI_EXP_DEVCTL], EXP_DEVCTL_OURS | EXP_DEVCTL_FORWARD);
	store_le16(&v->forward[at + PCI_EXP_DEVCTL], EXP_DEVCTL_FORWARD);
	live16(b, at + PCI_EXP_DEVSTA, EXP_DEVSTA_LIVE);
	store_le16(&pci->w1c[at + PCI_EXP_DEVSTA], EXP_DEVSTA_W1C);
	if (!b->integrated)
		add_link(b, at, v2);
	if (v2) {
		store_le32(&pci->config[at + PCI_EXP_DEVCAP2],
			   load_le32(&b->real[at + PCI_EXP_DEVCAP2]) & EXP_DEVCAP2_SHOWN);
		store_le16(&pci->wmask[at + PCI_EXP_DEVCTL2], 0x001f);
	}
	return 0;
}

/* Masks and severities are the guest's own: what the device signals to the host is the host's
 * policy. */
static int add_aer(struct build *b, const struct caps_entry *c)
{
	struct pci_device *pci = &b->v->pci;
	unsigned int at = add(b, c);

	copy(b, at + AER_MASK, 8);
	copy(b, at + AER_CORRECTABLE_MASK, 8);
	store_le32(&pci->wmask[at + AER_MASK], AER_UNCORRECTABLE_BITS);
	store_le32(&pci->wmask[at + AER_SEVERITY], AER_UNCORRECTABLE_BITS);
	store_le32(&pci->wmask[at + AER_CORRECTABLE_MASK], AER_CORRECTABLE_BITS);
	live32(b, at + AER_UNCORRECTABLE, AER_UNCORRECTABLE_BITS);
	store_le32(&pci->w1c[at + AER_UNCORRECTABLE], AER_UNCORRECTABLE_BITS);
	live32(b, at + AER_CORRECTABLE, AER_CORRECTABLE_BITS);
	store_le32(&pci->w1c[at + AER_CORRECTABLE], AER_CORRECTABLE_BITS);
	live32(b, at + AER_CONTROL, 0x1f); /* first error */
	memset(&b->v->live[at + AER_LOG], 0xff, 16);
	return 0;
}

static int add_msi(struct build *b, const struct caps_entry *c)
{
	struct vfio_pci *v = b->v;
	uint16_t control = load_le16(&b->real[c->at + 2]);
	struct msi_config config = {
		.vectors = 1u << MIN(control >> 1 & 7, 5),
		.wide = control & 1 << 7,
		.maskable = control & 1 << 8,
		.vectors_used = vfio_msi_used,
		.opaque = v,
	};

	if (v->irqs.has_msi < config.vectors) {
		log_warn(v->dev.log, v->dev.name, "no MSI: the host offers %u of %u vectors",
			 v->irqs.has_msi, config.vectors);
		return 0;
	}
	v->pci.next_cap = c->at;
	return msi_init(&v->msi, &v->pci, v->irq, &config, b->err);
}

/* Table and pending bits must lie in memory BARs, apart from each other. */
static bool msix_place_ok(const struct vfio_pci *v, unsigned int vectors)
{
	uint64_t table_bytes = (uint64_t)vectors * MSIX_ENTRY_BYTES;
	uint64_t pba_bytes = align_up(vectors, 64) / 8;

	if (v->msix_bar >= PCI_BARS || v->pba_bar >= PCI_BARS ||
	    v->bars[v->msix_bar].kind <= PCI_BAR_IO || v->bars[v->pba_bar].kind <= PCI_BAR_IO)
		return false;
	if (!range_inside(v->msix_table, table_bytes, 0, v->bars[v->msix_bar].file.bytes) ||
	    !range_inside(v->msix_pba, pba_bytes, 0, v->bars[v->pba_bar].file.bytes))
		return false;
	return v->msix_bar != v->pba_bar ||
	       !ranges_overlap(v->msix_table, table_bytes, v->msix_pba, pba_bytes);
}

static int add_msix(struct build *b, const struct caps_entry *c)
{
	struct vfio_pci *v = b->v;
	uint32_t table = load_le32(&b->real[c->at + 4]), pba = load_le32(&b->real[c->at + 8]);
	struct msix_config config = {
		.vectors = (load_le16(&b->real[c->at + 2]) & 0x7ffu) + 1,
		.vector_used = vfio_msix_used,
		.opaque = v,
	};
	int ret;

	v->msix_bar = table & 7;
	v->msix_table = table & ~7u;
	v->pba_bar = pba & 7;
	v->msix_pba = pba & ~7u;
	config.bar = v->msix_bar;
	config.table_offset = v->msix_table;
	config.pba_offset = v->msix_pba;
	if (!msix_place_ok(v, config.vectors) || v->irqs.has_msix < config.vectors) {
		log_warn(v->dev.log, v->dev.name,
			 "no MSI-X: %u vectors in BAR %u, the host offers %u", config.vectors,
			 v->msix_bar, v->irqs.has_msix);
		return 0;
	}
	v->pci.next_cap = c->at;
	ret = msix_init(&v->msix, &v->pci, v->irq, &config, b->err);
	if (!ret)
		store_le32(&v->pci.config[c->at + 8], pba);
	return ret;
}

static const struct {
	uint16_t id;
	bool extended;
	int (*add)(struct build *b, const struct caps_entry *c);
} virtual[] = {
	{0x01, false, add_pm},      {0x03, false, add_vpd},  {0x05, false, add_msi},
	{0x10, false, add_express}, {0x11, false, add_msix}, {0x13, false, add_af},
	{0x0001, true, add_aer},
};

static int add_cap(struct build *b, const struct caps_entry *c)
{
	if (c->rule->treatment == CAPS_READ)
		return add_read_only(b, c);
	for (unsigned int i = 0; i < ARRAY_SIZE(virtual); i++) {
		if (virtual[i].id == c->rule->id && virtual[i].extended == c->rule->extended)
			return virtual[i].add(b, c);
	}
	return 0;
}

static int init_header(struct vfio_pci *v, const struct pci_device_ops *ops, const uint8_t *real,
		       struct err *err)
{
	struct pci_ids ids = {
		.vendor = load_le16(&real[0]),
		.device = load_le16(&real[2]),
		.subsystem_vendor = load_le16(&real[PCI_SUBSYSTEM_VENDOR_ID]),
		.subsystem = load_le16(&real[PCI_SUBSYSTEM_VENDOR_ID + 2]),
		.revision = real[PCI_REVISION_ID],
		.class_code = load_le32(&real[PCI_REVISION_ID]) >> 8,
		.pin = v->irqs.has_intx ? real[PCI_INTERRUPT_PIN] : 0,
	};

	if (ids.vendor == 0xffff || load_le32(&real[PCI_REVISION_ID]) == UINT32_MAX)
		return err_set(err, -ENODEV, "the device does not answer (it reads all ones)");
	if (real[PCI_HEADER_TYPE] & 0x7f)
		return err_set(err, -EINVAL,
			       "header type %u: bridges cannot be passed through, only endpoints",
			       real[PCI_HEADER_TYPE] & 0x7f);
	if (ids.pin > 4)
		ids.pin = 0;
	v->pci.lock = &v->dev.lock;
	pci_device_init(&v->pci, ops, v->dev.name, &ids);
	store_le16(&v->live[PCI_STATUS], STATUS_LIVE);
	store_le16(&v->forward[PCI_COMMAND], PCI_COMMAND_MASTER);
	return 0;
}

int vfio_config_init(struct vfio_pci *v, const struct pci_device_ops *ops, bool integrated,
		     struct err *err)
{
	uint8_t real[PCI_CONFIG_BYTES] = {0};
	struct build b = {.v = v, .real = real, .integrated = integrated, .err = err};
	struct caps *caps;
	unsigned int bytes;
	int ret = vfio_get_region(&v->file, VFIO_PCI_CONFIG_REGION_INDEX, &v->config_region);

	if (ret)
		return err_set(err, ret, "config space: VFIO_DEVICE_GET_REGION_INFO: %s",
			       err_name(ret));
	bytes = v->config_region.bytes < PCI_CONFIG_BYTES ? 256 : PCI_CONFIG_BYTES;
	ret = vfio_read(&v->file, &v->config_region, 0, real, bytes);
	if (ret)
		return err_set(err, ret, "config space: %s", err_name(ret));
	ret = init_header(v, ops, real, err);
	if (!ret)
		ret = vfio_bars_init(v, real, err);
	if (ret)
		return ret;
	caps = calloc(1, sizeof(*caps));
	if (!caps)
		return err_set(err, -ENOMEM, "out of memory");
	caps_parse(caps, real, bytes);
	if (caps->malformed)
		log_warn(v->dev.log, v->dev.name,
			 "its list of capabilities is malformed: what is wrong is left out");
	for (unsigned int i = 0; i < caps->n && !ret; i++)
		ret = add_cap(&b, &caps->entries[i]);
	free(caps);
	return ret;
}

void vfio_config_done(struct vfio_pci *v)
{
	msix_done(v->msix);
	msi_done(v->msi);
	v->msix = NULL;
	v->msi = NULL;
}
