// SPDX-License-Identifier: Apache-2.0
// Frames of a migration's stream. See wire.h.
#include "migration/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

/* What a kind's `bytes` may be. */
static const struct kind {
	const char *name;
	uint64_t least, most;
	bool payload; /* so many bytes follow */
	bool pages;   /* `at` and `bytes` are whole pages */
} kinds[WIRE_KINDS] = {
	[WIRE_HELLO] = {"hello", WIRE_FORMAT, WIRE_FORMAT},
	[WIRE_DOCUMENT] = {"document", 2, WIRE_PAYLOAD_MAX, .payload = true},
	[WIRE_PAGES] = {"pages", WIRE_PAGE_BYTES, WIRE_PAYLOAD_MAX, .payload = true, .pages = true},
	[WIRE_ZERO] = {"zero", WIRE_PAGE_BYTES, 1ull << 52, .pages = true},
	[WIRE_ROUND] = {"round", 0, 1ull << 52},
	[WIRE_STILL] = {"still", 0, 0},
	[WIRE_STATE] = {"state", 1, WIRE_PAYLOAD_MAX, .payload = true},
	[WIRE_WHOLE] = {"whole", 0, 0},
	[WIRE_GO] = {"go", 0, 0},
	[WIRE_CANCEL] = {"cancel", 0, WIRE_TEXT_MAX, .payload = true},
	[WIRE_ACCEPT] = {"accept", 0, 0},
	[WIRE_LOADED] = {"loaded", 0, 0},
	[WIRE_RUNNING] = {"running", 0, 0},
	[WIRE_FAILED] = {"failed", 0, WIRE_TEXT_MAX, .payload = true},
};

struct wire_head wire_head(enum wire_kind kind, uint64_t at, uint64_t bytes)
{
	return (struct wire_head){
		.kind = le32_of((uint32_t)kind), .at = le64_of(at), .bytes = le64_of(bytes)};
}

const char *wire_name(enum wire_kind kind)
{
	return kind > 0 && kind < WIRE_KINDS ? kinds[kind].name : "unknown";
}

static int refuse(const struct kind *kind, const char *what, uint64_t value, struct err *err)
{
	return err_set(err, -EPROTO, "migration: a frame '%s' with %s 0x%llx", kind->name, what,
		       (unsigned long long)value);
}

int wire_parse(const struct wire_head *head, struct wire_frame *ret, size_t *payload,
	       struct err *err)
{
	uint32_t number = le32_get(head->kind);
	uint64_t at = le64_get(head->at), bytes = le64_get(head->bytes), end;
	const struct kind *kind = &kinds[number < WIRE_KINDS ? number : 0];

	if (!kind->name)
		return err_set(err, -EPROTO, "migration: a frame of kind 0x%x, which is none",
			       number);
	if (number == WIRE_HELLO && at != WIRE_MAGIC)
		return refuse(kind, "magic", at, err);
	if (number == WIRE_HELLO && bytes != WIRE_FORMAT)
		return err_set(err, -ENOTSUP,
			       "migration: the stream has format %llu, and this hospes knows %d",
			       (unsigned long long)bytes, WIRE_FORMAT);
	if (le32_get(head->zero))
		return refuse(kind, "a reserved field", le32_get(head->zero), err);
	if (bytes < kind->least || bytes > kind->most)
		return refuse(kind, "bytes", bytes, err);
	if (kind->pages &&
	    (!is_aligned(at | bytes, WIRE_PAGE_BYTES) || add_overflows(at, bytes, &end)))
		return refuse(kind, "address", at, err);
	*ret = (struct wire_frame){.kind = (enum wire_kind)number, .at = at, .bytes = bytes};
	*payload = kind->payload ? (size_t)bytes : 0;
	return 0;
}

const char *wire_text(const struct wire_frame *frame, char text[WIRE_TEXT_MAX + 1])
{
	size_t n = frame->payload ? (size_t)frame->bytes : 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t c = frame->payload[i];

		text[i] = c >= ' ' && c < 0x7f ? (char)c : '?';
	}
	text[n] = '\0';
	return text;
}

int wire_reader_init(struct wire_reader *r, struct err *err)
{
	*r = (struct wire_reader){.buffer = malloc(WIRE_BUFFER_BYTES)};
	return r->buffer ? 0 : err_set(err, -ENOMEM, "migration: no memory for the stream");
}

void wire_reader_done(struct wire_reader *r)
{
	free(r->buffer);
	*r = (struct wire_reader){0};
}

uint8_t *wire_reader_free(struct wire_reader *r, size_t *room)
{
	if (r->begin) {
		memmove(r->buffer, r->buffer + r->begin, r->end - r->begin);
		r->end -= r->begin;
		r->begin = 0;
	}
	*room = WIRE_BUFFER_BYTES - r->end;
	return r->buffer + r->end;
}

void wire_reader_filled(struct wire_reader *r, size_t bytes)
{
	r->end += bytes;
}

int wire_reader_take(struct wire_reader *r, struct wire_frame *ret, struct err *err)
{
	struct wire_head head;
	size_t payload;
	int rc;

	if (r->end - r->begin < sizeof(head))
		return 0;
	memcpy(&head, r->buffer + r->begin, sizeof(head));
	rc = wire_parse(&head, ret, &payload, err);
	if (rc)
		return rc;
	if (r->end - r->begin - sizeof(head) < payload)
		return 0;
	if (payload)
		ret->payload = r->buffer + r->begin + sizeof(head);
	r->begin += sizeof(head) + payload;
	return 1;
}
