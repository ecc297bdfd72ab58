/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of gdb's remote serial protocol, "$data#cs": bytes of a client become packets, within a
 * bound, and packets become bytes ("Overview" of the protocol, in gdb's manual, appendix E).
 *
 * Threads: no state but the caller's.
 */
#ifndef GDB_PACKET_H
#define GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GDB_PACKET_MAX = 16384,                 /* bytes of data in a packet */
	GDB_FRAME_MAX = 2 * GDB_PACKET_MAX + 4, /* with each byte escaped */
};

enum gdb_frame {
	GDB_MORE,      /* nothing is complete */
	GDB_PACKET,    /* bytes, n */
	GDB_TOO_LONG,  /* a packet that has no room */
	GDB_BAD_SUM,   /* one that was damaged on the way */
	GDB_INTERRUPT, /* Ctrl-C, between packets */
	GDB_ACK,       /* the last packet has arrived */
	GDB_NAK,       /* it was damaged */
};

struct gdb_reader {
	enum { GDB_BETWEEN, GDB_DATA, GDB_ESCAPED, GDB_SUM1, GDB_SUM2 } state;
	uint8_t sum, given;
	bool too_long, no_sum;
	size_t n;
	char bytes[GDB_PACKET_MAX + 1]; /* ends with a zero byte, which n does not count */
};

/* All zero is a reader before the first byte. Returns how many of the n bytes were used: those up
 * to the end of what *frame says. */
size_t gdb_reader_feed(struct gdb_reader *reader, const uint8_t *bytes, size_t n,
		       enum gdb_frame *frame);

/* n bytes of data, at most GDB_PACKET_MAX, as a packet. Returns its length. */
size_t gdb_frame_write(char frame[GDB_FRAME_MAX], const char *data, size_t n);

/* The value of a digit, or -1. */
int gdb_hex_digit(char c);
/* A number in hexadecimal, of 16 digits at most; *text moves behind it. False: there is none. */
bool gdb_hex_number(const char **text, uint64_t *ret);
/* 2 * n digits to text; and n bytes from text, false where it is too short or no such digits. */
void gdb_hex_write(char *text, const uint8_t *bytes, size_t n);
bool gdb_hex_read(const char *text, uint8_t *bytes, size_t n);

#endif
