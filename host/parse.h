/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsers for what sysfs shows of PCI devices. Pure: they touch no file.
 * Config space is the device's own, so its lists may loop or lead out of the space; a removed
 * device answers all ones.
 */
#ifndef HOST_PARSE_H
#define HOST_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "host/device.h"

/* "0000:01:10.0", also without the domain: the canonical form. false: no address. */
bool host_parse_bdf(const char *text, char bdf[HOST_BDF_BYTES]);
/* Order of addresses: as strcmp. */
int host_parse_compare(const char *a, const char *b);

/* The file `resource`: a line per BAR, first last flags. Lines that do not parse count as none. */
void host_parse_resource(const char *text, struct host_bar bars[HOST_BARS]);
/* The file `reset_method`: enum host_reset. */
unsigned int host_parse_resets(const char *text);

/* The capability register of VT-d: bits of address that its second-stage tables translate; 0. */
unsigned int host_parse_vtd_bits(uint64_t cap);
/* AMD's extended feature register: likewise. */
unsigned int host_parse_amd_bits(uint64_t features);

struct host_config {
	unsigned int msix, msi; /* vectors */
	bool pin, express;
	unsigned int resets; /* FLR, AF_FLR and PM only, which config space shows */
};
/* bytes: 64 is all that an ordinary user may read, and has no capabilities. */
void host_config_parse(const uint8_t *config, unsigned int bytes, struct host_config *ret);

#endif
