/* SPDX-License-Identifier: Apache-2.0 */
/* AML builder. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "firmware/acpi_aml.h"

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL_NAME = 0x2e,
	OP_MULTI_NAME = 0x2f,
	OP_EXT = 0x5b,
	OP_EXT_DEVICE = 0x82,
	OP_ARG0 = 0x68,
	OP_STORE = 0x70,
	OP_NOTIFY = 0x86,
	OP_EQUAL = 0x93,
	OP_IF = 0xa0,
	OP_RETURN = 0xa4,
};

void aml_done(struct aml *a)
{
	free(a->bytes);
	*a = (struct aml){0};
}

static bool reserve(struct aml *a, size_t n)
{
	if (a->failed)
		return false;
	if (n > a->capacity - a->len) {
		size_t capacity = power_of_two_up(MAX(a->len + n, (size_t)4096));
		uint8_t *bytes = realloc(a->bytes, capacity);

		if (!bytes) {
			a->failed = true;
			return false;
		}
		a->bytes = bytes;
		a->capacity = capacity;
	}
	return true;
}

void aml_bytes(struct aml *a, const void *bytes, size_t n)
{
	if (!n || !reserve(a, n))
		return;
	memcpy(a->bytes + a->len, bytes, n);
	a->len += n;
}

static void byte(struct aml *a, unsigned int v)
{
	uint8_t b = (uint8_t)v;

	aml_bytes(a, &b, 1);
}

static void insert(struct aml *a, size_t at, const uint8_t *bytes, size_t n)
{
	if (!reserve(a, n))
		return;
	memmove(a->bytes + at + n, a->bytes + at, a->len - at);
	memcpy(a->bytes + at, bytes, n);
	a->len += n;
}

/* One name segment, padded with underscores (20.2.2). Returns the first character not taken. */
static const char *segment(struct aml *a, const char *text)
{
	char seg[4] = {'_', '_', '_', '_'};
	size_t n = strcspn(text, ".");

	assert(n >= 1 && n <= 4);
	memcpy(seg, text, n);
	aml_bytes(a, seg, 4);
	return text + n;
}

void aml_path(struct aml *a, const char *path)
{
	unsigned int segments = 1;

	if (*path == '\\') {
		byte(a, '\\');
		path++;
	}
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		byte(a, OP_DUAL_NAME);
	} else if (segments > 2) {
		byte(a, OP_MULTI_NAME);
		byte(a, segments);
	}
	while (segments--) {
		path = segment(a, path);
		path += *path == '.';
	}
}

void aml_integer(struct aml *a, uint64_t value)
{
	uint8_t v[8];

	store_le64(v, value);
	if (value == 0) {
		byte(a, OP_ZERO);
	} else if (value == 1) {
		byte(a, OP_ONE);
	} else if (value <= UINT8_MAX) {
		byte(a, OP_BYTE);
		aml_bytes(a, v, 1);
	} else if (value <= UINT16_MAX) {
		byte(a, OP_WORD);
		aml_bytes(a, v, 2);
	} else if (value <= UINT32_MAX) {
		byte(a, OP_DWORD);
		aml_bytes(a, v, 4);
	} else {
		byte(a, OP_QWORD);
		aml_bytes(a, v, 8);
	}
}

void aml_string(struct aml *a, const char *text)
{
	byte(a, OP_STRING);
	aml_bytes(a, text, strlen(text) + 1);
}

static unsigned int hex_digit(char c)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *p = strchr(digits, c);

	assert(c && p);
	return (unsigned int)(p - digits);
}

/* 19.3.4: three letters of five bits, four hexadecimal digits, most significant byte first. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;
	uint8_t b[5] = {OP_DWORD};

	assert(strlen(id) == 7);
	for (unsigned int i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)id[i] - 0x40);
	for (unsigned int i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	store_le32(b + 1, __builtin_bswap32(v));
	aml_bytes(a, b, sizeof(b));
}

void aml_name(struct aml *a, const char *path)
{
	byte(a, OP_NAME);
	aml_path(a, path);
}

size_t aml_scope(struct aml *a, const char *path)
{
	byte(a, OP_SCOPE);
	size_t mark = a->len;
	aml_path(a, path);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	byte(a, OP_EXT);
	byte(a, OP_EXT_DEVICE);
	size_t mark = a->len;
	aml_path(a, name);
	return mark;
}

size_t aml_package(struct aml *a, uint8_t elements)
{
	byte(a, OP_PACKAGE);
	size_t mark = a->len;
	byte(a, elements);
	return mark;
}

size_t aml_method(struct aml *a, const char *name, uint8_t args)
{
	byte(a, OP_METHOD);
	size_t mark = a->len;
	aml_path(a, name);
	byte(a, args); /* not serialized */
	return mark;
}

void aml_arg(struct aml *a, uint8_t n)
{
	byte(a, OP_ARG0 + n);
}

void aml_return(struct aml *a)
{
	byte(a, OP_RETURN);
}

void aml_store(struct aml *a)
{
	byte(a, OP_STORE);
}

void aml_notify(struct aml *a)
{
	byte(a, OP_NOTIFY);
}

size_t aml_if(struct aml *a)
{
	byte(a, OP_IF);
	return a->len;
}

void aml_equal(struct aml *a)
{
	byte(a, OP_EQUAL);
}

/* PkgLength counts itself: 6 bits in one byte, or 4 + 8 per byte in up to four (20.2.4). */
void aml_end(struct aml *a, size_t mark)
{
	uint8_t enc[4];
	size_t body = a->len - mark, n = 1;

	if (a->failed)
		return;
	if (body + 1 > 0x3f) {
		n = 2;
		while (body + n >= (size_t)1 << (4 + 8 * (n - 1)))
			n++;
		assert(n <= sizeof(enc));
		size_t rest = (body + n) >> 4;
		enc[0] = (uint8_t)((n - 1) << 6 | ((body + n) & 0xf));
		for (size_t i = 1; i < n; i++, rest >>= 8)
			enc[i] = (uint8_t)rest;
	} else {
		enc[0] = (uint8_t)(body + 1);
	}
	insert(a, mark, enc, n);
}

void aml_buffer(struct aml *a, const void *bytes, size_t n)
{
	byte(a, OP_BUFFER);
	size_t mark = a->len;
	aml_integer(a, n);
	aml_bytes(a, bytes, n);
	aml_end(a, mark);
}

size_t aml_resources(struct aml *a)
{
	byte(a, OP_BUFFER);
	return a->len;
}

void aml_resources_end(struct aml *a, size_t mark)
{
	struct aml size = {0};
	uint8_t sum = 0x79;

	byte(a, 0x79); /* end tag, with a checksum over the template (6.4.2.9) */
	if (a->failed)
		return;
	for (size_t i = mark; i + 1 < a->len; i++)
		sum = (uint8_t)(sum + a->bytes[i]);
	byte(a, (uint8_t)-sum);

	aml_integer(&size, a->len - mark);
	if (size.failed)
		a->failed = true;
	else
		insert(a, mark, size.bytes, size.len);
	aml_done(&size);
	aml_end(a, mark);
}

void aml_res_io(struct aml *a, uint16_t port, uint8_t len)
{
	uint8_t d[8] = {0x47, 1 /* decodes 16 bits */};

	store_le16(d + 2, port);
	store_le16(d + 4, port);
	d[6] = 1;
	d[7] = len;
	aml_bytes(a, d, sizeof(d));
}

void aml_res_irq(struct aml *a, uint32_t gsi)
{
	if (gsi < 16) {
		uint8_t d[3] = {0x22};

		store_le16(d + 1, (uint16_t)(1u << gsi));
		aml_bytes(a, d, sizeof(d));
	} else {
		uint8_t d[9] = {0x89, 6, 0, 0x03 /* consumer, edge */, 1};

		store_le32(d + 5, gsi);
		aml_bytes(a, d, sizeof(d));
	}
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len)
{
	uint8_t d[12] = {0x86, 9, 0, 1 /* writable */};

	store_le32(d + 4, base);
	store_le32(d + 8, len);
	aml_bytes(a, d, sizeof(d));
}

enum {
	SPACE_MEMORY = 0,
	SPACE_IO = 1,
	SPACE_BUS = 2,
	GENERAL_CONSUMER = 0x01,
	GENERAL_FIXED = 0x0c, /* minimum and maximum are fixed */
	MEMORY_RW = 0x01,     /* writable, not cacheable */
	MEMORY_RAM = 0x03,    /* writable, cacheable */
	IO_ENTIRE_RANGE = 0x03,
};

/* Address space descriptors (6.4.3.5), in the three widths: granularity 0, minimum, maximum,
 * translation 0, length. */
static void address_space(struct aml *a, unsigned int width, uint8_t space, uint8_t general,
			  uint8_t specific, uint64_t base, uint64_t len)
{
	uint64_t fields[5] = {0, base, base + (len - 1), 0, len};
	uint8_t tag = width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a;
	uint8_t head[6] = {tag, (uint8_t)(3 + 5 * width), 0, space, general, specific};
	uint8_t v[8];

	assert(len);
	aml_bytes(a, head, sizeof(head));
	for (unsigned int i = 0; i < ARRAY_SIZE(fields); i++) {
		store_le64(v, fields[i]);
		aml_bytes(a, v, width);
	}
}

void aml_res_bus(struct aml *a, uint8_t first, uint8_t last)
{
	address_space(a, 2, SPACE_BUS, GENERAL_FIXED, 0, first, (uint64_t)last - first + 1);
}

void aml_res_io_window(struct aml *a, uint16_t base, uint32_t len)
{
	/* All of the ports would need a length that 16 bits do not hold. */
	address_space(a, len > UINT16_MAX ? 4 : 2, SPACE_IO, GENERAL_FIXED, IO_ENTIRE_RANGE, base,
		      len);
}

static void memory_space(struct aml *a, uint8_t general, uint8_t specific, uint64_t base,
			 uint64_t len)
{
	address_space(a, base + (len - 1) <= UINT32_MAX ? 4 : 8, SPACE_MEMORY, general, specific,
		      base, len);
}

void aml_res_memory_window(struct aml *a, uint64_t base, uint64_t len)
{
	memory_space(a, GENERAL_FIXED, MEMORY_RW, base, len);
}

void aml_res_memory64(struct aml *a, uint64_t base, uint64_t len)
{
	memory_space(a, GENERAL_FIXED | GENERAL_CONSUMER, MEMORY_RW, base, len);
}

void aml_res_ram(struct aml *a, uint64_t base, uint64_t len)
{
	memory_space(a, GENERAL_FIXED | GENERAL_CONSUMER, MEMORY_RAM, base, len);
}
