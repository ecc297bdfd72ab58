// SPDX-License-Identifier: Apache-2.0
// The stream of sections: writer and reader. state.h says what the bytes mean.
#include "core/state.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/le.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/device.h"

enum {
	KIND_END = 0,
	KIND_SECTION = 1,
	STREAM_HEAD_BYTES = 16,
	HEAD_BYTES = 12,
	BUFFER_FIRST_BYTES = 16384,
};

static const char magic[8] = {'H', 'O', 'S', 'P', 'E', 'S', 'S', 'T'};

static bool name_valid(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	}
	return len >= 1 && len < STATE_NAME_BYTES;
}

/* Elements in memory */

static uint64_t element_get(const void *at, unsigned int bytes)
{
	uint64_t v = 0;

	switch (bytes) {
	case 1:
		return *(const uint8_t *)at;
	case 2:
		return *(const uint16_t *)at;
	case 4:
		return *(const uint32_t *)at;
	default:
		memcpy(&v, at, sizeof(v));
		return v;
	}
}

static void element_put(void *at, unsigned int bytes, uint64_t v)
{
	switch (bytes) {
	case 1:
		*(uint8_t *)at = (uint8_t)v;
		break;
	case 2:
		*(uint16_t *)at = (uint16_t)v;
		break;
	case 4:
		*(uint32_t *)at = (uint32_t)v;
		break;
	default:
		memcpy(at, &v, sizeof(v));
		break;
	}
}

/* Record i of what is alive. */
static void make_record(uint8_t *record, const struct state_section *s, const void *live,
			uint32_t i)
{
	if (!s->fill) {
		memcpy(record, (const uint8_t *)live + (size_t)i * s->bytes, s->bytes);
		return;
	}
	memset(record, 0, s->bytes);
	s->fill(record, live, i);
}

/* Writing */

static void emit(struct state_writer *w, const void *bytes, size_t len)
{
	if (!w->error && len)
		w->error = w->sink(w->opaque, bytes, len);
}

static void emit_chunk(struct state_writer *w)
{
	uint8_t head[4];

	store_le32(head, w->n);
	emit(w, head, sizeof(head));
	emit(w, w->chunk, w->n);
	w->n = 0;
}

static void put(struct state_writer *w, const uint8_t *bytes, size_t len)
{
	while (len) {
		unsigned int n = (unsigned int)MIN(len, (size_t)(STATE_CHUNK_BYTES - w->n));

		memcpy(w->chunk + w->n, bytes, n);
		w->n += n;
		bytes += n;
		len -= n;
		if (w->n == STATE_CHUNK_BYTES)
			emit_chunk(w);
	}
}

void state_writer_begin(struct state_writer *w, state_sink sink, void *opaque)
{
	uint8_t head[STREAM_HEAD_BYTES] = {0};

	w->sink = sink;
	w->opaque = opaque;
	w->error = 0;
	w->n = 0;
	w->owner[0] = '\0';
	memcpy(head, magic, sizeof(magic));
	store_le32(head + 8, STATE_FORMAT);
	emit(w, head, sizeof(head));
}

void state_writer_owner(struct state_writer *w, const char *owner)
{
	size_t len = strnlen(owner, STATE_NAME_BYTES);

	if (name_valid(owner, len))
		memcpy(w->owner, owner, len + 1);
	else if (!w->error)
		w->error = -EINVAL;
}

static void save_record(struct state_writer *w, const struct state_section *section,
			const uint8_t *record)
{
	for (unsigned int i = 0; i < section->n_fields; i++) {
		const struct state_field *f = &section->fields[i];

		if (f->bytes == 1)
			put(w, record + f->offset, f->count);
		for (uint32_t k = 0; k < f->count && f->bytes > 1; k++) {
			uint8_t wire[8];

			store_le64(wire, element_get(record + f->offset + (size_t)k * f->bytes,
						     f->bytes));
			put(w, wire, f->bytes);
		}
	}
}

void state_save(struct state_writer *w, const struct state_section *section, const void *live,
		uint32_t n)
{
	size_t name_len = strlen(section->name), owner_len = strlen(w->owner);
	cleanup_free void *record = malloc(section->bytes);
	uint8_t head[HEAD_BYTES] = {KIND_SECTION};

	assert(name_valid(section->name, name_len));
	if (!record || !owner_len)
		w->error = w->error ? w->error : record ? -EINVAL : -ENOMEM;
	if (w->error)
		return;
	head[1] = (uint8_t)owner_len;
	head[2] = (uint8_t)name_len;
	store_le32(head + 4, section->version);
	store_le32(head + 8, n);
	emit(w, head, sizeof(head));
	emit(w, w->owner, owner_len);
	emit(w, section->name, name_len);
	for (uint32_t i = 0; i < n; i++) {
		make_record(record, section, live, i);
		save_record(w, section, record);
	}
	emit_chunk(w);
}

int state_writer_end(struct state_writer *w, struct err *err)
{
	const uint8_t end[HEAD_BYTES] = {KIND_END};

	emit(w, end, sizeof(end));
	if (w->error)
		return err_set(err, w->error, "the state cannot be written: %s",
			       err_name(w->error));
	return 0;
}

int state_buffer_sink(void *opaque, const void *bytes, size_t len)
{
	struct state_buffer *b = opaque;
	size_t want, room = b->room ? b->room : BUFFER_FIRST_BYTES;
	uint8_t *more;

	if (add_overflows(b->len, len, &want) || want > SIZE_MAX / 2)
		return -ENOMEM;
	while (room < want)
		room *= 2;
	if (room != b->room) {
		more = realloc(b->bytes, room);
		if (!more)
			return -ENOMEM;
		b->bytes = more;
		b->room = room;
	}
	memcpy(b->bytes + b->len, bytes, len);
	b->len = want;
	return 0;
}

/* Reading */

/* Values that were loaded, until they are committed. */
struct staged {
	struct list link;
	const struct state_section *section;
	uint32_t version;
	uint32_t n;
	void *live;
	uint8_t copy[];
};

struct state_reader {
	const uint8_t *bytes;
	size_t len;
	size_t at; /* behind the head of the section that comes next, then in its chunks */
	bool end;  /* no section comes */
	char current[STATE_NAME_BYTES]; /* whose state is being loaded */
	char owner[STATE_NAME_BYTES];
	char name[STATE_NAME_BYTES];
	uint32_t version;
	uint32_t records;
	/* In the section that is being read: bytes left of this chunk, and whether it is the
	 * last. */
	uint32_t left;
	bool last;
	struct list staged;
};

static int cut_short(const struct state_reader *r, struct err *err)
{
	return err_set(err, -EPROTO, "the state ends after %zu bytes, in the middle of it", r->len);
}

static int copy_name(struct state_reader *r, char *ret, size_t len, struct err *err)
{
	if (r->len - r->at < len)
		return cut_short(r, err);
	if (!name_valid((const char *)r->bytes + r->at, len))
		return err_set(err, -EPROTO, "byte %zu: not the name of a section", r->at);
	memcpy(ret, r->bytes + r->at, len);
	ret[len] = '\0';
	r->at += len;
	return 0;
}

/* Read the head at r->at. */
static int read_head(struct state_reader *r, struct err *err)
{
	static const uint8_t end[HEAD_BYTES] = {KIND_END};
	const uint8_t *head = r->bytes + r->at;
	int ret;

	if (r->len - r->at < HEAD_BYTES)
		return cut_short(r, err);
	r->end = !memcmp(head, end, sizeof(end));
	if (!r->end && (head[0] != KIND_SECTION || head[3]))
		return err_set(err, -EPROTO, "byte %zu: not the head of a section", r->at);
	r->at += HEAD_BYTES;
	if (r->end)
		return r->at == r->len ? 0
				       : err_set(err, -EPROTO, "%zu bytes behind the state's end",
						 r->len - r->at);
	r->version = load_le32(head + 4);
	r->records = load_le32(head + 8);
	r->left = 0;
	r->last = false;
	ret = copy_name(r, r->owner, head[1], err);
	return ret ? ret : copy_name(r, r->name, head[2], err);
}

static int next_chunk(struct state_reader *r, struct err *err)
{
	if (r->len - r->at < 4)
		return cut_short(r, err);
	r->left = load_le32(r->bytes + r->at);
	r->last = r->left < STATE_CHUNK_BYTES;
	if (r->left > STATE_CHUNK_BYTES)
		return err_set(err, -EPROTO, "%s: section '%s': a chunk of %u bytes; at most %d",
			       r->owner, r->name, r->left, STATE_CHUNK_BYTES);
	r->at += 4;
	return r->len - r->at < r->left ? cut_short(r, err) : 0;
}

/* Walk over all sections, once, so that what is read later is known to be there. */
static int check_framing(struct state_reader *r, struct err *err)
{
	int ret = read_head(r, err);

	while (!ret && !r->end) {
		while (!ret && !r->last) {
			ret = next_chunk(r, err);
			r->at += ret ? 0 : r->left;
		}
		if (!ret)
			ret = read_head(r, err);
	}
	return ret;
}

int state_reader_open(struct state_reader **ret, const void *bytes, size_t len, struct err *err)
{
	struct state_reader *r;
	int code;

	if (len < STREAM_HEAD_BYTES || memcmp(bytes, magic, sizeof(magic)))
		return err_set(err, -EPROTO, "this is not the state of a machine");
	if (load_le32((const uint8_t *)bytes + 8) != STATE_FORMAT ||
	    load_le32((const uint8_t *)bytes + 12))
		return err_set(err, -ENOTSUP,
			       "the state has format %u; this version of hospes knows format %d",
			       load_le32((const uint8_t *)bytes + 8), STATE_FORMAT);
	if (!mem_new(r))
		return err_set(err, -ENOMEM, "state: out of memory");
	r->bytes = bytes;
	r->len = len;
	r->at = STREAM_HEAD_BYTES;
	list_init(&r->staged);
	code = check_framing(r, err);
	r->at = STREAM_HEAD_BYTES;
	if (!code)
		code = read_head(r, err);
	if (code) {
		state_reader_close(r);
		return code;
	}
	*ret = r;
	return 0;
}

static void drop_staged(struct state_reader *r)
{
	list_for_each_safe (item, &r->staged)
		free(container_of(item, struct staged, link));
	list_init(&r->staged);
}

void state_reader_close(struct state_reader *r)
{
	if (!r)
		return;
	drop_staged(r);
	free(r);
}

const char *state_reader_owner(const struct state_reader *r)
{
	return r->end ? NULL : r->owner;
}

void state_reader_begin(struct state_reader *r, const char *owner)
{
	drop_staged(r);
	memset(r->current, 0, sizeof(r->current));
	memcpy(r->current, owner, strnlen(owner, sizeof(r->current) - 1));
}

/* The next len bytes of the section that is being read; false when it ends before. */
static bool take(struct state_reader *r, uint8_t *ret, size_t len)
{
	while (len) {
		size_t n = MIN(len, (size_t)r->left);

		if (!n && (r->last || next_chunk(r, NULL)))
			return false;
		memcpy(ret, r->bytes + r->at, n);
		r->at += n;
		r->left -= (uint32_t)n;
		ret += n;
		len -= n;
	}
	return true;
}

static int refuse(const struct state_reader *r, const struct state_field *f, uint32_t record,
		  uint32_t element, const char *text, uint64_t v, uint64_t limit, struct err *err)
{
	char where[64] = "", which[32] = "";

	if (r->records > 1)
		snprintf(where, sizeof(where), ", record %u", record);
	if (f->count > 1)
		snprintf(which, sizeof(which), "[%u]", element);
	return err_set(err, -EPROTO, "%s: section '%s'%s: %s%s is %llu; %s %llu", r->owner, r->name,
		       where, f->name, which, (unsigned long long)v, text,
		       (unsigned long long)limit);
}

static int load_field(struct state_reader *r, const struct state_field *f, uint8_t *record,
		      uint32_t number, struct err *err)
{
	for (uint32_t k = 0; k < f->count; k++) {
		uint8_t *at = record + f->offset + (size_t)k * f->bytes;
		uint64_t v, here = element_get(at, f->bytes);
		uint8_t wire[8] = {0};

		if (!take(r, wire, f->bytes))
			return err_set(err, -EPROTO, "%s: section '%s' ends before %s", r->owner,
				       r->name, f->name);
		v = load_le64(wire);
		if (f->kind == STATE_BOOL && v > 1)
			return refuse(r, f, number, k, "at most", v, 1, err);
		if (f->max && v > f->max)
			return refuse(r, f, number, k, "at most", v, f->max, err);
		if (f->mask && v & ~f->mask)
			return refuse(r, f, number, k, "its bits are", v, f->mask, err);
		if (f->same && v != here)
			return refuse(r, f, number, k, "this machine is configured with", v, here,
				      err);
		element_put(at, f->bytes, v);
	}
	return 0;
}

static int load_records(struct state_reader *r, struct staged *st, struct err *err)
{
	const struct state_section *s = st->section;

	for (uint32_t i = 0; i < st->n; i++) {
		uint8_t *record = st->copy + (size_t)i * s->bytes;
		int ret;

		for (unsigned int k = 0; k < s->n_fields; k++) {
			if (s->fields[k].since > st->version)
				continue;
			ret = load_field(r, &s->fields[k], record, i, err);
			if (ret)
				return ret;
		}
		ret = s->check ? s->check(record, st->live, i, err) : 0;
		if (ret)
			return err_prefix(err, "%s: section '%s'", r->owner, r->name);
	}
	while (!r->last && !r->left)
		(void)next_chunk(r, NULL);
	if (r->left || !r->last)
		return err_set(err, -EPROTO, "%s: section '%s' is longer than its fields", r->owner,
			       r->name);
	return 0;
}

static int check_head(const struct state_reader *r, const struct state_section *section, uint32_t n,
		      struct err *err)
{
	unsigned int oldest = section->oldest ? section->oldest : 1;

	if (r->end || strcmp(r->owner, r->current))
		return err_set(err, -EPROTO, "%s: section '%s' is missing: %s%s%s follows",
			       r->current, section->name, r->end ? "the end" : "something of '",
			       r->end ? "" : r->owner, r->end ? "" : "'");
	if (strcmp(r->name, section->name))
		return err_set(err, -EPROTO, "%s: section '%s' is in the place of '%s'", r->owner,
			       r->name, section->name);
	if (r->version < oldest || r->version > section->version)
		return err_set(err, -ENOTSUP,
			       "%s: section '%s' has version %u; this version of hospes knows %u "
			       "to %u",
			       r->owner, r->name, r->version, oldest, section->version);
	if (r->records != n)
		return err_set(err, -EPROTO,
			       "%s: section '%s' has %u records; this machine is configured with "
			       "%u",
			       r->owner, r->name, r->records, n);
	return 0;
}

static void commit_fields(const struct staged *st, uint32_t record)
{
	const struct state_section *s = st->section;

	for (unsigned int k = 0; k < s->n_fields; k++) {
		const struct state_field *f = &s->fields[k];
		size_t at = (size_t)record * s->bytes + f->offset;

		if (f->since <= st->version && !f->same)
			memcpy((uint8_t *)st->live + at, st->copy + at,
			       (size_t)f->count * f->bytes);
	}
}

static void commit_one(const struct staged *st)
{
	for (uint32_t i = 0; i < st->n; i++) {
		if (st->section->apply)
			st->section->apply(st->live, st->copy + (size_t)i * st->section->bytes, i);
		else
			commit_fields(st, i);
	}
}

int state_load(struct state_reader *r, const struct state_section *section, void *live, uint32_t n,
	       struct err *err)
{
	int ret = check_head(r, section, n, err);
	struct staged *st;

	if (ret)
		return ret;
	st = malloc(sizeof(*st) + (size_t)n * section->bytes);
	if (!st)
		return err_set(err, -ENOMEM, "%s: section '%s': out of memory", r->owner, r->name);
	st->section = section;
	st->version = r->version;
	st->n = n;
	st->live = live;
	for (uint32_t i = 0; i < n; i++)
		make_record(st->copy + (size_t)i * section->bytes, section, live, i);
	list_append(&r->staged, &st->link);
	ret = load_records(r, st, err);
	return ret ? ret : read_head(r, err);
}

int state_commit(struct state_reader *r, struct err *err)
{
	if (!r->end && !strcmp(r->owner, r->current))
		return err_set(err, -EPROTO, "%s: section '%s' is not known here", r->owner,
			       r->name);
	list_for_each (item, &r->staged)
		commit_one(container_of(item, struct staged, link));
	drop_staged(r);
	return 0;
}

int state_reader_end(const struct state_reader *r, struct err *err)
{
	return r->end ? 0
		      : err_set(err, -EPROTO, "section '%s' is of '%s', which this machine lacks",
				r->name, r->owner);
}

/* Devices */

int state_save_device(struct state_writer *w, struct device *dev, struct err *err)
{
	if (!dev->ops->save)
		return err_set(err, -EOPNOTSUPP, "%s: a %s cannot be saved", dev->name,
			       dev->ops->type);
	state_writer_owner(w, dev->name);
	return dev->ops->save(dev, w, err);
}

int state_load_device(struct state_reader *r, struct device *dev, struct err *err)
{
	if (!dev->ops->load)
		return err_set(err, -EOPNOTSUPP, "%s: a %s cannot be loaded", dev->name,
			       dev->ops->type);
	state_reader_begin(r, dev->name);
	return dev->ops->load(dev, r, err);
}
