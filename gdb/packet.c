// SPDX-License-Identifier: Apache-2.0
// Frames and digits. See packet.h.
#include "gdb/packet.h"

static const char digits[] = "0123456789abcdef";

int gdb_hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

bool gdb_hex_number(const char **text, uint64_t *ret)
{
	uint64_t value = 0;
	int n = 0;

	for (; n < 16 && gdb_hex_digit(**text) >= 0; n++)
		value = value << 4 | (uint64_t)gdb_hex_digit(*(*text)++);
	*ret = value;
	return n > 0 && gdb_hex_digit(**text) < 0;
}

void gdb_hex_write(char *text, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*text++ = digits[bytes[i] >> 4];
		*text++ = digits[bytes[i] & 15];
	}
}

bool gdb_hex_read(const char *text, uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++, text += 2) {
		int high = gdb_hex_digit(text[0]);
		int low = high < 0 ? -1 : gdb_hex_digit(text[1]);

		if (low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static enum gdb_frame between(struct gdb_reader *r, char c)
{
	switch (c) {
	case '$':
		r->state = GDB_DATA;
		r->sum = 0;
		r->n = 0;
		r->too_long = r->no_sum = false;
		return GDB_MORE;
	case '+':
		return GDB_ACK;
	case '-':
		return GDB_NAK;
	case 3:
		return GDB_INTERRUPT;
	default:
		return GDB_MORE;
	}
}

static void put(struct gdb_reader *r, uint8_t byte)
{
	if (r->n < GDB_PACKET_MAX)
		r->bytes[r->n++] = (char)byte;
	else
		r->too_long = true;
}

static enum gdb_frame step(struct gdb_reader *r, uint8_t byte)
{
	char c = (char)byte;

	switch (r->state) {
	case GDB_BETWEEN:
		return between(r, c);
	case GDB_DATA:
		if (c == '$') /* the end of the last one was lost */
			return between(r, c);
		if (c == '#') {
			r->state = GDB_SUM1;
			return GDB_MORE;
		}
		r->sum = (uint8_t)(r->sum + byte);
		if (c == '}')
			r->state = GDB_ESCAPED;
		else
			put(r, byte);
		return GDB_MORE;
	case GDB_ESCAPED:
		r->sum = (uint8_t)(r->sum + byte);
		put(r, byte ^ 0x20);
		r->state = GDB_DATA;
		return GDB_MORE;
	case GDB_SUM1:
		r->no_sum = gdb_hex_digit(c) < 0;
		r->given = (uint8_t)((gdb_hex_digit(c) & 15) << 4);
		r->state = GDB_SUM2;
		return GDB_MORE;
	case GDB_SUM2:
		break;
	}
	r->no_sum |= gdb_hex_digit(c) < 0;
	r->given |= (uint8_t)(gdb_hex_digit(c) & 15);
	r->state = GDB_BETWEEN;
	r->bytes[r->n] = '\0';
	return r->no_sum || r->given != r->sum ? GDB_BAD_SUM
	       : r->too_long                   ? GDB_TOO_LONG
					       : GDB_PACKET;
}

size_t gdb_reader_feed(struct gdb_reader *reader, const uint8_t *bytes, size_t n,
		       enum gdb_frame *frame)
{
	size_t i = 0;

	*frame = GDB_MORE;
	while (i < n && *frame == GDB_MORE)
		*frame = step(reader, bytes[i++]);
	return i;
}

size_t gdb_frame_write(char frame[GDB_FRAME_MAX], const char *data, size_t n)
{
	char *at = frame;
	uint8_t sum = 0;

	*at++ = '$';
	for (size_t i = 0; i < n; i++) {
		char c = data[i];

		/* '*' would say that what is before it comes again. */
		if (c == '#' || c == '$' || c == '}' || c == '*') {
			*at++ = '}';
			sum = (uint8_t)(sum + '}');
			c = (char)(c ^ 0x20);
		}
		*at++ = c;
		sum = (uint8_t)(sum + (uint8_t)c);
	}
	*at++ = '#';
	gdb_hex_write(at, &sum, 1);
	return (size_t)(at + 2 - frame);
}
