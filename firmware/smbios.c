/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS 3.3: who this machine says it is, in the structures that DSP0134 makes compulsory.
 *
 * A structure is a formatted part followed by its strings, numbered from 1, and a zero byte.
 */
#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "firmware/acpi_impl.h"

enum {
	ENTRY_BYTES = 24,
	ENTRY_ROOM = 32,
	STRING_MAX = 64, /* longer strings are cut, but those of type 11 */

	HANDLE_BIOS = 0x0000,
	HANDLE_SYSTEM = 0x0100,
	HANDLE_CHASSIS = 0x0300,
	HANDLE_PROCESSOR = 0x0400, /* one per socket */
	HANDLE_OEM = 0x0b00,
	HANDLE_MEMORY_ARRAY = 0x1000,
	HANDLE_MEMORY_DEVICE = 0x1100,
	HANDLE_MEMORY_RANGE = 0x1300, /* up to two */
	HANDLE_BOOT = 0x2000,
	HANDLE_END = 0x7f00,
};

struct smbios {
	uint8_t *bytes;
	size_t capacity;
	size_t used;
	unsigned int strings;
	bool full;
};

static void put(struct smbios *s, const void *bytes, size_t n)
{
	if (n > s->capacity - s->used) {
		s->full = true;
		return;
	}
	memcpy(s->bytes + s->used, bytes, n);
	s->used += n;
}

/* Begin a structure: its formatted part is zero but for the header; returns it, NULL when the area
 * is full. */
static uint8_t *begin(struct smbios *s, uint8_t type, uint8_t len, uint16_t handle)
{
	s->strings = 0;
	if (len > s->capacity - s->used) {
		s->full = true;
		return NULL;
	}
	uint8_t *p = s->bytes + s->used;
	memset(p, 0, len);
	p[0] = type;
	p[1] = len;
	store_le16(p + 2, handle);
	s->used += len;
	return p;
}

/* Append a string and put its number at offset of the formatted part; an empty one is number 0. */
static void string(struct smbios *s, uint8_t *p, unsigned int offset, const char *text)
{
	if (!text || !*text)
		return;
	put(s, text, MIN(strlen(text), (size_t)STRING_MAX));
	put(s, "", 1);
	p[offset] = (uint8_t)++s->strings;
}

static void end(struct smbios *s)
{
	put(s, "\0", s->strings ? 1 : 2);
}

static const char *or_default(const char *text, const char *otherwise)
{
	return text ? text : otherwise;
}

static void bios(struct smbios *s)
{
	uint8_t *p = begin(s, 0, 0x1a, HANDLE_BIOS);

	if (!p)
		return;
	store_le64(p + 0x0a, 1 << 3); /* characteristics not supported */
	p[0x13] = 0x10;               /* this describes a virtual machine */
	p[0x14] = p[0x15] = p[0x16] = p[0x17] = 0xff;
	string(s, p, 0x04, "hospes");
	string(s, p, 0x05, HOSPES_VERSION);
	/* Linux trusts PCI's configuration mechanism 1 unseen from 2001 on. */
	string(s, p, 0x08, "01/01/2026");
	end(s);
}

static void machine(struct smbios *s, const struct acpi_config *c)
{
	/* The first three fields of a UUID are stored little-endian (DSP0134, 7.2.1). */
	static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	uint8_t *p = begin(s, 1, 0x1b, HANDLE_SYSTEM);

	if (!p)
		return;
	for (unsigned int i = 0; i < 16; i++)
		p[0x08 + i] = c->uuid[order[i]];
	p[0x18] = 6; /* woken by the power switch */
	string(s, p, 0x04, or_default(c->manufacturer, "hospes"));
	string(s, p, 0x05, or_default(c->product, "hospes"));
	string(s, p, 0x06, or_default(c->version, HOSPES_VERSION));
	string(s, p, 0x07, c->serial);
	end(s);
}

static void chassis(struct smbios *s, const struct acpi_config *c)
{
	uint8_t *p = begin(s, 3, 0x16, HANDLE_CHASSIS);

	if (!p)
		return;
	p[0x05] = 1;                     /* type: other */
	p[0x09] = p[0x0a] = p[0x0b] = 3; /* safe */
	p[0x0c] = 2;                     /* security: unknown */
	string(s, p, 0x04, or_default(c->manufacturer, "hospes"));
	end(s);
}

static void processor(struct smbios *s, const struct arch_topology *t, unsigned int socket)
{
	unsigned int threads = t->cores * t->threads;
	uint8_t *p = begin(s, 4, 0x30, (uint16_t)(HANDLE_PROCESSOR + socket));

	if (!p)
		return;
	p[0x05] = 3;    /* central processor */
	p[0x06] = 0x01; /* family: other */
	p[0x18] = 0x41; /* populated, enabled */
	p[0x19] = 0x01; /* upgrade: other */
	store_le16(p + 0x1a, 0xffff);
	store_le16(p + 0x1c, 0xffff);
	store_le16(p + 0x1e, 0xffff);
	p[0x23] = p[0x24] = (uint8_t)MIN(t->cores, 255u);
	p[0x25] = (uint8_t)MIN(threads, 255u);
	store_le16(p + 0x26, 0x0004 | (t->cores > 1 ? 0x0008 : 0) | (t->threads > 1 ? 0x0010 : 0));
	store_le16(p + 0x28, 0x01);
	store_le16(p + 0x2a, (uint16_t)t->cores);
	store_le16(p + 0x2c, (uint16_t)t->cores);
	store_le16(p + 0x2e, (uint16_t)threads);
	string(s, p, 0x04, "CPU");
	string(s, p, 0x07, "hospes");
	end(s);
}

/* 7.12: strings with a meaning of their own, whole. */
static void oem_strings(struct smbios *s, const struct acpi_config *c)
{
	uint8_t *p = c->n_oem_strings ? begin(s, 11, 0x05, HANDLE_OEM) : NULL;

	if (!p)
		return;
	p[0x04] = (uint8_t)c->n_oem_strings;
	for (unsigned int i = 0; i < c->n_oem_strings; i++)
		put(s, c->oem_strings[i], strlen(c->oem_strings[i]) + 1);
	s->strings = c->n_oem_strings;
	end(s);
}

static void memory(struct smbios *s, uint64_t bytes)
{
	uint8_t *p = begin(s, 16, 0x17, HANDLE_MEMORY_ARRAY);

	if (!p)
		return;
	p[0x04] = 1; /* location: other */
	p[0x05] = 3; /* system memory */
	p[0x06] = 2; /* error correction: unknown */
	if (bytes < 2 * TiB) {
		store_le32(p + 0x07, (uint32_t)(bytes / KiB));
	} else {
		store_le32(p + 0x07, 0x80000000u);
		store_le64(p + 0x0f, bytes);
	}
	store_le16(p + 0x0b, 0xfffe); /* no error information */
	store_le16(p + 0x0d, 1);
	end(s);

	p = begin(s, 17, 0x28, HANDLE_MEMORY_DEVICE);
	if (!p)
		return;
	store_le16(p + 0x04, HANDLE_MEMORY_ARRAY);
	store_le16(p + 0x06, 0xfffe);
	store_le16(p + 0x08, 0xffff); /* widths unknown */
	store_le16(p + 0x0a, 0xffff);
	if (bytes / MiB < 0x7fff) {
		store_le16(p + 0x0c, (uint16_t)(bytes / MiB));
	} else {
		store_le16(p + 0x0c, 0x7fff);
		store_le32(p + 0x1c, (uint32_t)MIN(bytes / MiB, 0x7fffffffull));
	}
	p[0x0e] = 1;                  /* form factor: other */
	p[0x12] = 7;                  /* RAM */
	store_le16(p + 0x13, 1 << 1); /* other */
	string(s, p, 0x10, "DIMM 0");
	end(s);
}

static void memory_range(struct smbios *s, unsigned int index, uint64_t gpa, uint64_t bytes)
{
	if (!bytes)
		return;
	uint8_t *p = begin(s, 19, 0x1f, (uint16_t)(HANDLE_MEMORY_RANGE + index));
	uint64_t last = gpa + (bytes - 1);

	if (!p)
		return;
	if (last / KiB < UINT32_MAX) {
		store_le32(p + 0x04, (uint32_t)(gpa / KiB));
		store_le32(p + 0x08, (uint32_t)(last / KiB));
	} else {
		store_le32(p + 0x04, UINT32_MAX);
		store_le32(p + 0x08, UINT32_MAX);
		store_le64(p + 0x0f, gpa);
		store_le64(p + 0x17, last);
	}
	store_le16(p + 0x0c, HANDLE_MEMORY_ARRAY);
	p[0x0e] = 1;
	end(s);
}

static void structures(struct smbios *s, const struct acpi_config *c)
{
	const struct arch_platform *platform = c->platform;

	bios(s);
	machine(s, c);
	chassis(s, c);
	for (unsigned int i = 0; i < c->topology->sockets; i++)
		processor(s, c->topology, i);
	oem_strings(s, c);
	memory(s, platform->low_bytes + platform->high_bytes);
	memory_range(s, 0, 0, platform->low_bytes);
	memory_range(s, 1, platform->high_gpa, platform->high_bytes);
	if (begin(s, 32, 0x0b, HANDLE_BOOT)) /* booted without error */
		end(s);
	if (begin(s, 127, 4, HANDLE_END))
		end(s);
}

int smbios_build(const struct acpi_config *config, uint64_t gpa, uint8_t *area, size_t bytes,
		 size_t *used)
{
	struct smbios s = {.bytes = area + ENTRY_ROOM, .capacity = bytes - ENTRY_ROOM};
	uint8_t sum = 0;

	structures(&s, config);
	if (s.full)
		return -E2BIG;

	memset(area, 0, ENTRY_ROOM);
	memcpy(area, "_SM3_", 5);
	area[6] = ENTRY_BYTES;
	area[7] = 3;
	area[8] = 3;
	area[10] = 1; /* entry point revision */
	store_le32(area + 12, (uint32_t)s.used);
	store_le64(area + 16, gpa + ENTRY_ROOM);
	for (unsigned int i = 0; i < ENTRY_BYTES; i++)
		sum = (uint8_t)(sum + area[i]);
	area[5] = (uint8_t)-sum;
	*used = ENTRY_ROOM + s.used;
	return 0;
}
