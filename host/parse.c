// SPDX-License-Identifier: Apache-2.0
// Text and config space of the host's devices, parsed.
#include "host/parse.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

/* Linux's include/linux/ioport.h: the third column of `resource`. */
enum {
	RESOURCE_IO = 0x100,
	RESOURCE_MEM = 0x200,
	RESOURCE_PREFETCH = 0x2000,
	RESOURCE_MEM64 = 0x100000,
};

/* Hexadecimal digits, at least one and at most max; NULL: not so. */
static const char *hex(const char *text, unsigned int max, unsigned int *ret)
{
	unsigned int n = 0;

	*ret = 0;
	for (; isxdigit((unsigned char)text[n]); n++) {
		char digit[2] = {text[n], 0};

		if (n == max)
			return NULL;
		*ret = *ret << 4 | (unsigned int)strtoul(digit, NULL, 16);
	}
	return n ? text + n : NULL;
}

/* Past the character that has to be there; NULL when it is not. */
static const char *past(const char *p, char c)
{
	return p && *p == c ? p + 1 : NULL;
}

bool host_parse_bdf(const char *text, char bdf[HOST_BDF_BYTES])
{
	unsigned int domain = 0, bus, slot, function, colons = 0;
	const char *p = text;

	for (const char *c = text; *c; c++)
		colons += *c == ':';
	if (colons == 2) {
		/* Volume Management Devices have domains of five digits. */
		p = past(hex(p, 6, &domain), ':');
		if (!p)
			return false;
	}
	p = past(hex(p, 2, &bus), ':');
	if (!p)
		return false;
	p = past(hex(p, 2, &slot), '.');
	if (!p || slot > 31)
		return false;
	p = hex(p, 1, &function);
	if (!p || *p || function > 7)
		return false;
	snprintf(bdf, HOST_BDF_BYTES, "%04x:%02x:%02x.%x", domain, bus, slot, function);
	return true;
}

int host_parse_compare(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);

	/* Digits have a fixed width but for the domain's, which is longer when it is larger. */
	if (a_len != b_len)
		return a_len < b_len ? -1 : 1;
	return strcmp(a, b);
}

/* The start of the next line, or the end of text. */
static const char *next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end ? end + 1 : line + strlen(line);
}

void host_parse_resource(const char *text, struct host_bar bars[HOST_BARS])
{
	memset(bars, 0, HOST_BARS * sizeof(bars[0]));
	for (unsigned int i = 0; i < HOST_BARS && *text; i++, text = next_line(text)) {
		uint64_t first, last, flags;

		if (sscanf(text, "%" SCNx64 " %" SCNx64 " %" SCNx64, &first, &last, &flags) != 3)
			continue;
		if (!(flags & (RESOURCE_IO | RESOURCE_MEM)) || last < first ||
		    last - first == UINT64_MAX)
			continue;
		bars[i] = (struct host_bar){
			.size_bytes = last - first + 1,
			.io = flags & RESOURCE_IO,
			.mem64 = flags & RESOURCE_MEM64,
			.prefetchable = flags & RESOURCE_PREFETCH,
		};
	}
}

unsigned int host_parse_resets(const char *text)
{
	static const struct {
		const char *name;
		enum host_reset bit;
	} methods[] = {
		{"flr", HOST_RESET_FLR},     {"af_flr", HOST_RESET_AF_FLR},
		{"pm", HOST_RESET_PM},       {"bus", HOST_RESET_BUS},
		{"cxl_bus", HOST_RESET_BUS}, {"device_specific", HOST_RESET_DEVICE},
		{"acpi", HOST_RESET_DEVICE},
	};
	unsigned int resets = 0;

	while (*text) {
		size_t len = strcspn(text, " \n");

		for (unsigned int i = 0; i < ARRAY_SIZE(methods); i++) {
			if (strlen(methods[i].name) == len && !strncmp(methods[i].name, text, len))
				resets |= methods[i].bit;
		}
		text += len;
		text += strspn(text, " \n");
	}
	return resets;
}

unsigned int host_parse_vtd_bits(uint64_t cap)
{
	/* VT-d specification 4.1, 11.4.2: SAGAW in bits 12:8 (39, 48, 57 bits in bits 1, 2, 3), the
	 * maximum guest address width less one in bits 21:16. The tables are as deep as the
	 * hardware can, and the kernel uses no more than the width. */
	static const unsigned int widths[] = {0, 39, 48, 57, 0};
	unsigned int limit = (unsigned int)(cap >> 16 & 0x3f) + 1, deepest = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(widths); i++) {
		if (cap >> (8 + i) & 1 && widths[i] > deepest)
			deepest = widths[i];
	}
	return MIN(deepest, limit);
}

unsigned int host_parse_amd_bits(uint64_t features)
{
	/* AMD I/O Virtualization, MMIO offset 30h: HATS in bits 11:10, levels of host table. */
	static const unsigned int widths[] = {48, 57, 64, 0};

	return widths[features >> 10 & 3];
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* One capability at `at`, of which `len` bytes can be read. */
static void capability(const uint8_t *cap, unsigned int len, struct host_config *ret)
{
	/* PCI Express Base 6.0, 7.5.3.3; PCI Local Bus 3.0, 6.8.1 and 6.8.2; PCI-PM 1.2, 3.2.4;
	 * Conventional AF ECN, 7.x. */
	switch (cap[0]) {
	case 0x01: /* power management: a device that says No_Soft_Reset is not reset by D3hot */
		if (len >= 8 && !(get16(cap + 4) & 0x8))
			ret->resets |= HOST_RESET_PM;
		break;
	case 0x05:
		if (len >= 4)
			ret->msi = 1u << MIN(get16(cap + 2) >> 1 & 7u, 5u);
		break;
	case 0x10:
		ret->express = true;
		if (len >= 8 && get32(cap + 4) & 1u << 28)
			ret->resets |= HOST_RESET_FLR;
		break;
	case 0x11:
		if (len >= 4)
			ret->msix = (get16(cap + 2) & 0x7ffu) + 1;
		break;
	case 0x13: /* FLR counts only with transactions-pending beside it */
		if (len >= 4 && (cap[3] & 3) == 3)
			ret->resets |= HOST_RESET_AF_FLR;
		break;
	default:
		break;
	}
}

void host_config_parse(const uint8_t *config, unsigned int bytes, struct host_config *ret)
{
	unsigned int at;

	memset(ret, 0, sizeof(*ret));
	/* A VF's own vendor id reads all ones too, so a device that is gone shows by its status. */
	if (bytes < 0x40 || get16(config + 6) == 0xffff)
		return;
	ret->pin = config[0x3d] >= 1 && config[0x3d] <= 4;
	if (!(get16(config + 6) & 0x10))
		return;
	at = config[0x34] & ~3u;
	/* Each capability takes four bytes at least: more steps than that are a loop. */
	for (unsigned int steps = 0; at >= 0x40 && steps < (256 - 0x40) / 4; steps++) {
		if (at + 2 > MIN(bytes, 256u))
			return;
		capability(config + at, MIN(bytes, 256u) - at, ret);
		at = config[at + 1] & ~3u;
	}
}
