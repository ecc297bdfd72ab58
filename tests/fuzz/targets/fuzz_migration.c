// SPDX-License-Identifier: Apache-2.0
// A hostile source: the first byte says whether the input is the stream itself, or a list of frames
// to make, most of them well-formed. It comes in parts of odd sizes. Oracle, a reader of its own
// that knows the whole stream and does no more than the description in wire.h and receive.h:
//
// - both take the same frames and refuse the same one, with a message;
// - guest memory is what the frames that were taken say, byte by byte, and the ROM is as it was;
// - the machine may run only after all was loaded and the source said so, after that.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "core/gmem.h"
#include "migration/receive.h"

enum {
	PAGE = 4096,
	LOW_PAGES = 16,
	HIGH_PAGE = 24, /* a hole before it */
	HIGH_PAGES = 16,
	ROM_PAGE = 64,
	STREAM_MAX = 1 << 20,
	FRAMES_MAX = 400,
};

/* A stream, and from where in it on the target has loaded its state, where it can (0: never). */
struct stream {
	uint8_t bytes[STREAM_MAX];
	size_t len, loaded_at;
};

struct model {
	uint8_t low[LOW_PAGES * PAGE], high[HIGH_PAGES * PAGE];
	unsigned int stage, rounds;
	uint64_t cost, state;
	bool runs;
};

static struct stream stream;
static struct model model;
static struct gmem *gmem;

/* --- the oracle --- */

static uint8_t *model_ram(uint64_t at, uint64_t bytes)
{
	uint64_t page = at / PAGE, end = page + bytes / PAGE;

	if (end <= LOW_PAGES)
		return model.low + at;
	if (page >= HIGH_PAGE && end <= HIGH_PAGE + HIGH_PAGES)
		return model.high + (at - HIGH_PAGE * PAGE);
	return NULL;
}

static bool model_pages(uint64_t at, uint64_t bytes, const uint8_t *payload)
{
	uint8_t *to;

	if (model.stage > 1 || !bytes || (at | bytes) % PAGE || at + bytes < at ||
	    bytes > 1ull << 52)
		return false;
	model.cost += bytes;
	to = model_ram(at, bytes);
	if (model.cost > (LOW_PAGES + HIGH_PAGES) * PAGE || !to)
		return false;
	if (payload)
		memcpy(to, payload, bytes);
	else
		memset(to, 0, bytes);
	return true;
}

/* 1: taken, 0: refused, -1: cut. */
static int model_frame(size_t *at)
{
	const uint8_t *head = stream.bytes + *at;
	uint64_t where, bytes;
	const uint8_t *payload = head + 24;
	bool has_payload, ok = false;
	uint32_t kind;

	if (stream.len - *at < 24)
		return -1;
	kind = load_le32(head);
	where = load_le64(head + 8);
	bytes = load_le64(head + 16);
	has_payload = kind == WIRE_PAGES || kind == WIRE_STATE || kind == WIRE_CANCEL ||
		      kind == WIRE_DOCUMENT || kind == WIRE_FAILED;
	if (load_le32(head + 4) || (has_payload && bytes > 1 << 20))
		return 0;
	/* What is refused by its head is refused before its payload comes. */
	if ((kind == WIRE_CANCEL || kind == WIRE_FAILED) && bytes > 512)
		return 0;
	if (kind == WIRE_PAGES && (!bytes || (where | bytes) % PAGE || where + bytes < where))
		return 0;
	if ((kind == WIRE_STATE && !bytes) || (kind == WIRE_DOCUMENT && bytes < 2))
		return 0;
	if (has_payload && stream.len - *at - 24 < bytes)
		return -1;
	*at += 24 + (has_payload ? bytes : 0);
	if (kind == WIRE_PAGES)
		ok = model_pages(where, bytes, payload);
	else if (kind == WIRE_ZERO)
		ok = model_pages(where, bytes, NULL);
	else if (kind == WIRE_ROUND)
		ok = model.stage == 0 && bytes <= 1ull << 52 && ++model.rounds <= 128;
	else if (kind == WIRE_STILL)
		ok = model.stage == 0 && !bytes;
	else if (kind == WIRE_STATE)
		ok = model.stage == 1;
	else if (kind == WIRE_WHOLE)
		ok = model.stage == 1 && !bytes && where == model.state;
	else if (kind == WIRE_GO)
		ok = model.stage == 3 && !bytes;
	if (ok && (kind == WIRE_ROUND || kind == WIRE_STILL))
		model.cost = 0;
	if (ok && kind == WIRE_STATE)
		model.state += bytes;
	if (ok && (kind == WIRE_STILL || kind == WIRE_WHOLE || kind == WIRE_GO))
		model.stage++;
	model.runs |= ok && kind == WIRE_GO;
	return ok;
}

/* --- a stream out of the input --- */

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t u8(struct input *in)
{
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

static void put(const void *bytes, size_t n)
{
	n = MIN(n, sizeof(stream.bytes) - stream.len);
	if (bytes)
		memcpy(stream.bytes + stream.len, bytes, n);
	else
		memset(stream.bytes + stream.len, (int)(stream.len & 0x7f) | 1, n);
	stream.len += n;
}

static void put_frame(struct input *in)
{
	uint8_t what = u8(in), kind = what % (WIRE_KINDS + 1), odd = u8(in);
	uint64_t at = (uint64_t)u8(in) * PAGE, bytes = 0;
	struct wire_head head;
	uint8_t text[4];

	if (kind == WIRE_KINDS) { /* the target has loaded what there is */
		if (!stream.loaded_at)
			stream.loaded_at = stream.len;
		return;
	}
	if (kind == WIRE_PAGES || kind == WIRE_ZERO)
		bytes = (uint64_t)(u8(in) % 20) * PAGE;
	else if (kind == WIRE_STATE || kind == WIRE_CANCEL)
		bytes = u8(in);
	else if (kind == WIRE_HELLO || kind == WIRE_DOCUMENT)
		bytes = 2;
	if (kind == WIRE_WHOLE)
		at /= PAGE;
	head = wire_head((enum wire_kind)kind, at, bytes);
	if (odd >= 0xf0) { /* one byte of the head is another */
		odd = u8(in);
		((uint8_t *)&head)[odd % sizeof(head)] ^= u8(in);
	}
	put(&head, sizeof(head));
	if (kind == WIRE_CANCEL || kind == WIRE_DOCUMENT || kind == WIRE_STATE) {
		memset(text, odd, sizeof(text));
		for (uint64_t n = 0; n < bytes; n += sizeof(text))
			put(text, (size_t)MIN(bytes - n, (uint64_t)sizeof(text)));
	} else if (kind == WIRE_PAGES) {
		put(NULL, (size_t)bytes);
	}
}

/* --- the code under test --- */

static void add(uint64_t page, uint64_t pages, unsigned int flags)
{
	const struct gmem_region_config c = {.name = "ram",
					     .gpa = page * PAGE,
					     .size_bytes = pages * PAGE,
					     .backing = GMEM_ANONYMOUS,
					     .flags = flags,
					     .numa_node = -1,
					     .fd = -1};

	check(!gmem_begin(gmem, NULL) && !gmem_add(gmem, &c, NULL) && !gmem_commit(gmem, NULL));
}

static void make_memory(void)
{
	static struct log silent;

	check(!gmem_create(&gmem, &silent, NULL));
	add(0, LOW_PAGES, 0);
	add(HIGH_PAGE, HIGH_PAGES, 0);
	add(ROM_PAGE, 1, GMEM_READONLY);
}

static void check_memory(void)
{
	const uint8_t *rom = gmem_host(gmem, ROM_PAGE * PAGE, PAGE, false);

	check(!memcmp(gmem_host(gmem, 0, sizeof(model.low), false), model.low, sizeof(model.low)));
	check(!memcmp(gmem_host(gmem, HIGH_PAGE * PAGE, sizeof(model.high), false), model.high,
		      sizeof(model.high)));
	for (unsigned int i = 0; i < PAGE; i++)
		check(!rom[i]);
}

/* The next frame of both. 1: taken, 0: more bytes are needed, -1: refused, which ends it. */
static int compare(struct wire_reader *reader, struct receive *receive, size_t *at)
{
	struct err err = ERR_INIT;
	struct wire_frame frame;
	size_t before = *at;
	int rc = wire_reader_take(reader, &frame, &err), want;

	if (!rc)
		return 0;
	if (receive->stage == RECEIVE_WHOLE && stream.loaded_at && before >= stream.loaded_at) {
		receive_loaded(receive);
		model.stage = 3;
	}
	if (rc > 0)
		rc = receive_frame(receive, &frame, &err);
	want = model_frame(at);
	check(want >= 0);
	check(want == (rc == 0));
	check(rc == 0 || (err.code == rc && err.text[0]));
	check(rc || receive->stage == model.stage);
	check((receive->stage == RECEIVE_GONE_ON) == model.runs);
	return rc ? -1 : 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct wire_reader reader;
	struct receive receive;
	size_t given = 0, at = 0;
	int rc = 0;

	if (!gmem)
		make_memory();
	memset(&model, 0, sizeof(model));
	memset(gmem_host(gmem, 0, sizeof(model.low), true), 0, sizeof(model.low));
	memset(gmem_host(gmem, HIGH_PAGE * PAGE, sizeof(model.high), true), 0, sizeof(model.high));
	stream.len = stream.loaded_at = 0;
	if (u8(&in) & 1)
		put(in.data, in.size);
	else
		for (unsigned int n = 0; in.size && n < FRAMES_MAX; n++)
			put_frame(&in);
	check(!wire_reader_init(&reader, NULL));
	receive_init(&receive, gmem);
	while (rc >= 0 && given < stream.len) {
		size_t room, n = 1 + (given * 7919 + size) % 9000;
		uint8_t *to = wire_reader_free(&reader, &room);

		n = MIN(MIN(n, room), stream.len - given);
		memcpy(to, stream.bytes + given, n);
		wire_reader_filled(&reader, n);
		given += n;
		while ((rc = compare(&reader, &receive, &at)) > 0)
			;
	}
	check_memory();
	receive_done(&receive);
	wire_reader_done(&reader);
	return 0;
}
