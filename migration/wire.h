/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream of a live migration: frames.
 *
 *   frame   le32 kind, le32 0, le64 at, le64 bytes, and so many bytes of payload, where the kind
 *           has one
 *
 *   source                                                        target
 *   HELLO (magic, format) DOCUMENT ─────────────────────────────►
 *                                  ◄───────────────────────────── ACCEPT, or FAILED (text)
 *   ( PAGES | ZERO … ROUND ) …      ────────────────────────────►
 *   STILL, ( PAGES | ZERO ) …, STATE …, WHOLE ──────────────────►  loads it
 *                                  ◄───────────────────────────── LOADED, or FAILED
 *   GO ─────────────────────────────────────────────────────────►  runs
 *                                  ◄───────────────────────────── RUNNING, or FAILED
 *
 * The source may run until it sends GO, and the target once it has read it: never both. CANCEL
 * (text) may come before GO.
 *
 * All of it is hostile to its reader: kinds, sizes and alignment are checked here; what may come
 * when, and what it may cost, by receive.h. 0 or a negative errno; -EPROTO: no such stream.
 *
 * Threads: the caller's.
 */
#ifndef MIGRATION_WIRE_H
#define MIGRATION_WIRE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/le.h"

#define WIRE_MAGIC 0x474d534550534f48ull /* "HOSPESMG" */

enum {
	WIRE_FORMAT = 1,
	WIRE_HEAD_BYTES = 24,
	WIRE_PAGE_BYTES = 4096,
	WIRE_PAYLOAD_MAX = 1 << 20,
	WIRE_TEXT_MAX = 512,
	WIRE_BUFFER_BYTES = WIRE_HEAD_BYTES + WIRE_PAYLOAD_MAX,
};

enum wire_kind {
	WIRE_HELLO = 1, /* at: magic, bytes: format; no payload */
	WIRE_DOCUMENT,  /* JSON */
	WIRE_PAGES,     /* at: gpa; whole pages */
	WIRE_ZERO,      /* the same, without payload: they are zero */
	WIRE_ROUND,     /* at: its number; bytes: what is dirty now; no payload */
	WIRE_STILL,     /* the source stands still; at: CLOCK_REALTIME, ns; no payload */
	WIRE_STATE,     /* the next bytes of it (core/state.h) */
	WIRE_WHOLE,     /* nothing more comes; at: bytes of the state; no payload */
	WIRE_GO,        /* at: 1: run, 0: stand still, as the source did; no payload */
	WIRE_CANCEL,    /* text */
	WIRE_ACCEPT,    /* no payload, as the next two */
	WIRE_LOADED,
	WIRE_RUNNING,
	WIRE_FAILED, /* text */
	WIRE_KINDS,
};

struct wire_head {
	le32 kind, zero;
	le64 at, bytes;
};
static_assert(sizeof(struct wire_head) == WIRE_HEAD_BYTES, "as on the wire");

/* One that is whole and well-formed; payload is in the reader's buffer until the next take. */
struct wire_frame {
	enum wire_kind kind;
	uint64_t at, bytes;
	const uint8_t *payload; /* NULL: none */
};

struct wire_head wire_head(enum wire_kind kind, uint64_t at, uint64_t bytes);
const char *wire_name(enum wire_kind kind);
/* Check one head. *payload: how many bytes follow it. */
int wire_parse(const struct wire_head *head, struct wire_frame *ret, size_t *payload,
	       struct err *err);
/* A frame's text: printable, terminated, cut where it is too long. */
const char *wire_text(const struct wire_frame *frame, char text[WIRE_TEXT_MAX + 1]);

/* Frames out of bytes as they come. Put up to `room` bytes at `free`, say how many (filled), and
 * take frames until there is none. */
struct wire_reader {
	uint8_t *buffer; /* of WIRE_BUFFER_BYTES; NULL: not made */
	size_t begin, end;
};
int wire_reader_init(struct wire_reader *r, struct err *err);
void wire_reader_done(struct wire_reader *r);
uint8_t *wire_reader_free(struct wire_reader *r, size_t *room);
void wire_reader_filled(struct wire_reader *r, size_t bytes);
/* 1: there is one, 0: more bytes are needed, or -EPROTO. */
int wire_reader_take(struct wire_reader *r, struct wire_frame *ret, struct err *err);

#endif
