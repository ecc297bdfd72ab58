// SPDX-License-Identifier: Apache-2.0
// The table of capabilities, and the walk (PCI Express Base 6.0, 7.5.1.1.11 and 7.6).
#include "passthrough/caps.h"

#include <linux/pci_regs.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"

enum {
	STANDARD_END = 0x100,

};

/* Dropped on purpose, with the reason, where a reader might miss them; the rest by not being
 * here. */
static const struct caps_rule table[] = {
	/* standard */
	{0x01, false, CAPS_VIRTUAL, 8, "power management"},
	{0x03, false, CAPS_VIRTUAL, 8, "vital product data"}, /* read only: it outlives the guest */
	{PCI_CAP_ID_MSI, false, CAPS_VIRTUAL, 0, "MSI"},
	{0x07, false, CAPS_DROP, 0, "PCI-X"},
	{PCI_CAP_ID_VNDR, false, CAPS_READ, 0, "vendor-specific"},
	{PCI_CAP_ID_EXP, false, CAPS_VIRTUAL, 0, "PCI Express"},
	{0x11, false, CAPS_VIRTUAL, 12, "MSI-X"},
	{0x12, false, CAPS_READ, 8, "SATA"},
	{0x13, false, CAPS_VIRTUAL, 6, "advanced features"},
	{0x14, false, CAPS_DROP, 0, "enhanced allocation"}, /* BARs are where hospes says */
	/* extended */
	{0x0001, true, CAPS_VIRTUAL, 0x2c, "advanced error reporting"},
	{0x0002, true, CAPS_DROP, 0, "virtual channel"}, /* of the real link */
	{0x0003, true, CAPS_READ, 12, "serial number"},
	{0x0004, true, CAPS_DROP, 0, "power budgeting"},
	{PCI_EXT_CAP_ID_VNDR, true, CAPS_READ, 0, "vendor-specific (extended)"},
	{0x000d, true, CAPS_DROP, 0, "ACS"},           /* the host's isolation */
	{0x000e, true, CAPS_DROP, 0, "ARI"},           /* of the real bus */
	{0x000f, true, CAPS_DROP, 0, "ATS"},           /* translated requests pass the IOMMU */
	{0x0010, true, CAPS_DROP, 0, "SR-IOV"},        /* functions that nobody has assigned */
	{0x0013, true, CAPS_DROP, 0, "page requests"}, /* need ATS */
	{0x0015, true, CAPS_DROP, 0, "resizable BAR"}, /* moves the host's resources */
	{0x0017, true, CAPS_DROP, 0, "TPH requester"}, /* steers the host's caches */
	{0x0018, true, CAPS_DROP, 0, "latency tolerance"},
	{0x0019, true, CAPS_DROP, 0,
	 "secondary PCI Express"}, /* of the real link, like the next ones */
	{0x001b, true, CAPS_DROP, 0, "PASID"},
	{0x001e, true, CAPS_DROP, 0, "L1 substates"},
	{0x001f, true, CAPS_DROP, 0, "time measurement"},
	{PCI_EXT_CAP_ID_DVSEC, true, CAPS_READ, 0, "designated vendor-specific"},
	{0x0024, true, CAPS_DROP, 0, "VF resizable BAR"},
};

const struct caps_rule *caps_table(unsigned int *n)
{
	*n = ARRAY_SIZE(table);
	return table;
}

const struct caps_rule *caps_rule(uint16_t id, bool extended)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].id == id && table[i].extended == extended)
			return &table[i];
	}
	return NULL;
}

/* 7.7.1: 10 bytes, 4 more for a 64-bit address, and mask and pending bits behind a gap of 2 */
static unsigned int msi_length(uint16_t control)
{
	unsigned int wide = control & 1 << 7 ? 4 : 0;

	return control & 1 << 8 ? 20 + wide : 10 + wide;
}

/* Length of the capability at `at`, of which `room` bytes (at least 4) can be read; 0: nonsense. */
static unsigned int length_of(const struct caps_rule *rule, const uint8_t *c, unsigned int room)
{
	unsigned int bytes = rule->bytes;

	if (rule->extended && (rule->id == PCI_EXT_CAP_ID_VNDR || rule->id == PCI_EXT_CAP_ID_DVSEC))
		bytes = room < 8 ? 0 : load_le32(&c[4]) >> 20;
	else if (!rule->extended && rule->id == PCI_CAP_ID_MSI)
		bytes = msi_length(load_le16(&c[2]));
	else if (!rule->extended && rule->id == PCI_CAP_ID_VNDR)
		bytes = c[2];
	else if (!rule->extended && rule->id == PCI_CAP_ID_EXP)
		bytes = (c[2] & 0xf) < 2 ? CAPS_EXPRESS_V1_BYTES : CAPS_EXPRESS_BYTES;
	/* a header at least, and behind it what says how long it is */
	if (bytes < (rule->extended ? 8u : 3u) || bytes > room)
		return 0;
	return bytes;
}

struct walk {
	struct caps *caps;
	const uint8_t *config;
	unsigned int end;               /* of this half */
	uint8_t seen[PCI_CONFIG_BYTES]; /* a capability begins here, by byte */
	uint8_t used[PCI_CONFIG_BYTES]; /* belongs to one that the guest sees */
};

static bool claim(struct walk *w, unsigned int at, unsigned int bytes)
{
	for (unsigned int i = at; i < at + bytes; i++) {
		if (w->used[i])
			return false;
	}
	memset(&w->used[at], 1, bytes);
	return true;
}

static bool have(const struct caps *caps, const struct caps_rule *rule)
{
	for (unsigned int i = 0; i < caps->n; i++) {
		if (caps->entries[i].rule == rule)
			return true;
	}
	return false;
}

/* Take in the one at `at`, whose first 4 bytes are there. */
static void visit(struct walk *w, uint16_t id, bool extended, unsigned int at, uint8_t version)
{
	const struct caps_rule *rule = caps_rule(id, extended);
	struct caps *caps = w->caps;
	unsigned int bytes;

	if (!rule || rule->treatment == CAPS_DROP) {
		caps->dropped++;
		return;
	}
	bytes = length_of(rule, &w->config[at], w->end - at);
	/* Registers of ours exist once. */
	if (!bytes || (rule->treatment == CAPS_VIRTUAL && have(caps, rule)) ||
	    !claim(w, at, bytes)) {
		caps->dropped++;
		caps->malformed = true;
		return;
	}
	caps->entries[caps->n++] = (struct caps_entry){
		.rule = rule, .at = (uint16_t)at, .bytes = (uint16_t)bytes, .version = version};
}

static void walk_standard(struct walk *w)
{
	unsigned int at;

	w->end = STANDARD_END;
	if (!(w->config[PCI_STATUS] & PCI_STATUS_CAP_LIST))
		return;
	/* the two lowest bits of a pointer are reserved and ignored */
	for (at = w->config[PCI_CAPABILITY_LIST] & ~3u; at; at = w->config[at + 1] & ~3u) {
		if (at < PCI_STD_HEADER_SIZEOF || w->seen[at]) {
			w->caps->malformed = true;
			return;
		}
		w->seen[at] = 1;
		visit(w, w->config[at], false, at, 0);
	}
}

static void walk_extended(struct walk *w)
{
	unsigned int at = STANDARD_END;
	uint32_t header;

	w->end = PCI_CONFIG_BYTES;
	while (at) {
		if (at < STANDARD_END || w->seen[at]) {
			w->caps->malformed = true;
			return;
		}
		w->seen[at] = 1;
		header = load_le32(&w->config[at]);
		/* An empty list is a header of 0, or all ones where nobody answers. */
		if (!header || header == UINT32_MAX)
			return;
		visit(w, (uint16_t)header, true, at, header >> 16 & 0xf);
		at = header >> 20 & ~3u;
	}
}

void caps_parse(struct caps *ret, const uint8_t *config, unsigned int bytes)
{
	struct walk w = {.caps = ret, .config = config};

	ret->n = ret->dropped = 0;
	ret->malformed = false;
	walk_standard(&w);
	if (bytes == PCI_CONFIG_BYTES)
		walk_extended(&w);
}
