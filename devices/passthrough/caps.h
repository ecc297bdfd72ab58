/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which capabilities of a real device a guest sees: one table, and the walk through a config space
 * that may be hostile (a device's firmware is not to be trusted more than its user).
 *
 * Capabilities that the table does not name are dropped: they are not in the guest's lists, and
 * their bytes read 0.
 *
 * Threads: no state; any thread.
 */
#ifndef PASSTHROUGH_CAPS_H
#define PASSTHROUGH_CAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/pci.h"

enum caps_treatment {
	CAPS_DROP,    /* the guest does not see it */
	CAPS_READ,    /* the guest reads what the device has; its writes go nowhere */
	CAPS_VIRTUAL, /* registers of ours, some bits of which live in the device
		       * (config_space.c) */
};

struct caps_rule {
	uint16_t id;
	bool extended;
	enum caps_treatment treatment;
	/* Bytes; 0: written in the capability itself (caps_parse knows where). */
	uint16_t bytes;
	const char *name;
};
/* The rule for id; NULL: dropped because the table does not name it. */
const struct caps_rule *caps_rule(uint16_t id, bool extended);
/* The whole table, for tests and documentation. */
const struct caps_rule *caps_table(unsigned int *n);

enum {
	CAPS_EXPRESS_BYTES = 0x3c,    /* version 2 */
	CAPS_EXPRESS_V1_BYTES = 0x14, /* without slot and root registers */
	CAPS_MAX = 48 + 960,          /* as many as fit into config space */
};

struct caps_entry {
	const struct caps_rule *rule;
	uint16_t at, bytes;
	uint8_t version; /* of an extended one */
};

struct caps {
	unsigned int n;
	unsigned int dropped; /* by the table, or since they are malformed */
	bool malformed;       /* a pointer or a length was wrong: the walk ended or left it out */
	struct caps_entry entries[CAPS_MAX];
};

/* The capabilities in config (bytes long: 256 or 4096) that the guest may see, in the device's
 * order: standard ones first. Entries are aligned to 4, lie behind the header and in their half of
 * config space, and share no byte. A loop ends the walk. */
void caps_parse(struct caps *ret, const uint8_t *config, unsigned int bytes);

#endif
