/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of devices as a stream: named, versioned sections, written field by field.
 *
 *   stream    magic "HOSPESST", le32 format, le32 0, section …, end
 *   section   u8 kind (1; end: 0 and nothing else but zeroes), u8 owner_len, u8 name_len, u8 0,
 *             le32 version, le32 records, owner, name, chunk …
 *   chunk     le32 bytes, the bytes. Each holds STATE_CHUNK_BYTES but the last one of a section,
 *             which holds fewer (0 too).
 *
 * A section holds one structure, or an array of them (records), of one owner: a device, by its
 * name. Its table says which members are written, in which order, and what a reader accepts of
 * them; the values are little-endian and have no padding. A member with `since` is in sections of
 * that version and newer ones only; a reader leaves it as it is when the section is older. So a
 * version is raised when fields are appended, and an old stream stays readable.
 *
 *   static const struct state_field clock_fields[] = {
 *           STATE_ONE(struct clock, index, .max = 127),
 *           STATE_ARRAY(struct clock, reg),
 *   };
 *   STATE_DERIVED(struct clock, "created with the device", dev, region);
 *   static const struct state_section clock_section =
 *           STATE_SECTION("clock", 1, struct clock, clock_fields);
 *
 * Every member of such a structure is in its table or in a STATE_DERIVED with the reason: a test
 * reads the sources (tests/unit/core/state-tables) and fails when a member is in neither or in
 * both.
 *
 * The reader treats the stream as hostile. It checks the framing of the whole first; then sections
 * are taken in their order, so that one that is unknown, missing, or there twice is found at its
 * place. state_load checks a section and keeps the result aside; state_commit checks that the owner
 * has nothing more in the stream, and only then changes the structures. So a refused stream has
 * changed nothing. What can be checked in a section has to be: after state_commit nothing fails.
 *
 * Errors name the owner, the section and the field. -EPROTO: not a stream, or one that does not fit
 * this configuration; -ENOTSUP: a version that is not known; -ENOMEM.
 *
 * Threads: the caller's. Devices are quiesced (device.h).
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct device;

enum {
	STATE_FORMAT = 1,
	STATE_NAME_BYTES = 32, /* of an owner or a section, its end included */
	STATE_CHUNK_BYTES = 4096,
};

/* Tables */

enum state_kind {
	STATE_NUMBER, /* of 1, 2, 4 or 8 bytes; signed ones as their bits */
	STATE_BOOL,   /* 0 or 1 */
};

struct state_field {
	const char *name;
	uint32_t offset; /* in the structure */
	uint32_t count;  /* of elements: 1 unless it is an array */
	uint8_t bytes;   /* of an element */
	uint8_t kind;    /* enum state_kind */
	bool same;       /* part of the configuration: has to be what it is here already */
	uint16_t since;  /* the version that brought it; 0: the first */
	uint64_t max;    /* the highest that is accepted; 0: any */
	uint64_t mask;   /* the bits that may be set; 0: any */
};

struct state_section {
	const char *name;
	uint16_t version; /* that is written, and the newest that is read */
	uint16_t oldest;  /* that is read; 0: 1 */
	uint32_t bytes;   /* of the structure */
	unsigned int n_fields;
	const struct state_field *fields;
	/* Of a section whose structure exists for the stream only (both or none): make record i of
	 * what is to be saved, in zeroed memory; and change what was loaded to a record. */
	void (*fill)(void *record, const void *live, uint32_t i);
	void (*apply)(void *live, const void *record, uint32_t i);
	/* Is a record with the fields as loaded possible? What is in no field is as it is here. 0,
	 * or -EPROTO and a message that begins with the field. May be NULL. */
	int (*check)(const void *record, const void *live, uint32_t i, struct err *err);
};

#define STATE_KIND(value) _Generic((value), bool: STATE_BOOL, default: STATE_NUMBER)
/* A member that is a number or a bool, and one that is an array of them; then other members of
 * struct state_field, where they are wanted. */
#define STATE_ONE(type, member, ...)              \
	{.name = #member,                         \
	 .offset = offsetof(type, member),        \
	 .count = 1,                              \
	 .bytes = sizeof(((type *)0)->member),    \
	 .kind = STATE_KIND(((type *)0)->member), \
	 ##__VA_ARGS__}
#define STATE_ARRAY(type, member, ...)                                          \
	{.name = #member,                                                       \
	 .offset = offsetof(type, member),                                      \
	 .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), \
	 .bytes = sizeof(((type *)0)->member[0]),                               \
	 .kind = STATE_KIND(((type *)0)->member[0]),                            \
	 ##__VA_ARGS__}
#define STATE_SECTION(text, number, type, table, ...)    \
	{.name = text,                                   \
	 .version = number,                              \
	 .bytes = sizeof(type),                          \
	 .n_fields = sizeof(table) / sizeof((table)[0]), \
	 .fields = table,                                \
	 ##__VA_ARGS__}
/* Members that no stream holds, and why. Read by the test. */
#define STATE_DERIVED(type, why, ...) _Static_assert(sizeof(type) && sizeof(why) > 1, #type)

/* Writing */

/* Takes the stream's bytes in order: 0 or a negative errno, which ends the writing. */
typedef int (*state_sink)(void *opaque, const void *bytes, size_t len);

struct state_writer {
	state_sink sink;
	void *opaque;
	int error; /* the first one; nothing is written after it */
	char owner[STATE_NAME_BYTES];
	unsigned int n;
	uint8_t chunk[STATE_CHUNK_BYTES];
};

void state_writer_begin(struct state_writer *w, state_sink sink, void *opaque);
/* Whose sections follow: 1 to 31 printable characters without spaces. */
void state_writer_owner(struct state_writer *w, const char *owner);
/* n records: an array of n structures, or what the section's fill makes n records of. */
void state_save(struct state_writer *w, const struct state_section *section, const void *live,
		uint32_t n);
/* Write the end. Returns the first error of all. */
int state_writer_end(struct state_writer *w, struct err *err);

/* A sink that keeps everything. Begins as zeroes; the caller frees bytes. */
struct state_buffer {
	uint8_t *bytes;
	size_t len;
	size_t room;
};
int state_buffer_sink(void *opaque, const void *bytes, size_t len);

/* Reading */

struct state_reader;

/* bytes stay the caller's, unchanged until close. */
int state_reader_open(struct state_reader **ret, const void *bytes, size_t len, struct err *err);
void state_reader_close(struct state_reader *r);
/* The owner of the section that comes next; NULL at the end. */
const char *state_reader_owner(const struct state_reader *r);
/* Whose sections are loaded next. Drops what was loaded and not committed. */
void state_reader_begin(struct state_reader *r, const char *owner);
/* Check the next section, which has to be this one with n records, and keep its values until
 * state_commit. */
int state_load(struct state_reader *r, const struct state_section *section, void *live, uint32_t n,
	       struct err *err);
/* The owner's sections are all loaded (-EPROTO when more are there): change the structures. */
int state_commit(struct state_reader *r, struct err *err);
/* -EPROTO when sections are left. */
int state_reader_end(const struct state_reader *r, struct err *err);

/* Devices */

/* The device's sections, by its ops; -EOPNOTSUPP with the reason when it has no such op. */
int state_save_device(struct state_writer *w, struct device *dev, struct err *err);
/* The same for load. After an error the device is as it was, and the reader is of use for
 * state_reader_close only. */
int state_load_device(struct state_reader *r, struct device *dev, struct err *err);

#endif
