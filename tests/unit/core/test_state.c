// SPDX-License-Identifier: Apache-2.0
#include "core/state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/device.h"

struct thing {
	uint8_t small;
	bool on;
	uint16_t middle;
	uint32_t large;
	int64_t huge;
	uint8_t bytes[5000];
	uint16_t words[3];
	uint32_t size; /* of the configuration */
	uint32_t other;
};

static const struct state_field fields[] = {
	STATE_ONE(struct thing, small, .max = 9),
	STATE_ONE(struct thing, on),
	STATE_ONE(struct thing, middle),
	STATE_ONE(struct thing, large, .mask = 0x89abcdef),
	STATE_ONE(struct thing, huge),
	STATE_ARRAY(struct thing, bytes),
	STATE_ARRAY(struct thing, words),
	STATE_ONE(struct thing, size, .same = true),
};
static const struct state_section section = STATE_SECTION("thing", 1, struct thing, fields);

/* One that a hostile writer has: nothing is limited. */
static const struct state_field free_fields[] = {
	{.name = "small", .offset = offsetof(struct thing, small), .count = 1, .bytes = 1},
	{.name = "on", .offset = offsetof(struct thing, on), .count = 1, .bytes = 1},
};

static const struct thing one = {
	.small = 7,
	.on = true,
	.middle = 0x1234,
	.large = 0x89abcdef,
	.huge = -5,
	.bytes = {1, 2, 3, [4999] = 0xee},
	.words = {1, 0xffff, 2},
	.size = 64,
	.other = 42,
};

static struct err err;
static struct state_buffer buffer;
static struct state_writer writer;

static void begin(const char *owner)
{
	free(buffer.bytes);
	buffer = (struct state_buffer){0};
	state_writer_begin(&writer, state_buffer_sink, &buffer);
	state_writer_owner(&writer, owner);
}

static void end(void)
{
	cr_assert_eq(state_writer_end(&writer, &err), 0, "%s", err.text);
}

static void save_one(const struct thing *thing)
{
	begin("a");
	state_save(&writer, &section, thing, 1);
	end();
}

static int load_as(const struct state_section *s, void *thing, uint32_t n)
{
	struct state_reader *r = NULL;
	int ret = state_reader_open(&r, buffer.bytes, buffer.len, &err);

	if (!ret)
		state_reader_begin(r, "a");
	if (!ret)
		ret = state_load(r, s, thing, n, &err);
	if (!ret)
		ret = state_commit(r, &err);
	if (!ret)
		ret = state_reader_end(r, &err);
	state_reader_close(r);
	return ret;
}

static int load(struct thing *thing)
{
	return load_as(&section, thing, 1);
}

/* Refused with this in the message, and nothing is changed. */
static void expect_refused(int code, const char *text)
{
	struct thing thing = {.size = 64, .small = 3}, before = thing;

	cr_assert_eq(load(&thing), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "'%s' lacks '%s'", err.text, text);
	cr_assert_arr_eq(&thing, &before, sizeof(thing));
}

Test(state, fields_come_back_and_others_stay)
{
	struct thing thing = {.size = 64, .other = 1};

	save_one(&one);
	cr_assert_eq(load(&thing), 0, "%s", err.text);
	cr_assert_eq(thing.other, 1);
	thing.other = one.other;
	cr_assert_arr_eq(&thing, &one, sizeof(thing));
}

Test(state, saving_what_was_loaded_gives_the_same_bytes)
{
	struct thing thing = {.size = 64};
	struct state_buffer first;

	save_one(&one);
	cr_assert_eq(load(&thing), 0);
	first = buffer;
	buffer = (struct state_buffer){0};
	save_one(&thing);
	cr_assert_eq(buffer.len, first.len);
	cr_assert_arr_eq(buffer.bytes, first.bytes, first.len);
	free(first.bytes);
}

Test(state, values_are_little_endian_without_padding)
{
	static const uint8_t head[] = {'H',  'O',  'S',  'P',  'E',  'S',  'S',  'T', 1,   0,
				       0,    0,    0,    0,    0,    0,    1,    1,   5,   0,
				       1,    0,    0,    0,    1,    0,    0,    0,   'a', 't',
				       'h',  'i',  'n',  'g',  0,    16,   0,    0,   7,   1,
				       0x34, 0x12, 0xef, 0xcd, 0xab, 0x89, 0xfb, 0xff};

	save_one(&one);
	cr_assert_arr_eq(buffer.bytes, head, sizeof(head));
}

Test(state, every_truncation_is_refused_and_changes_nothing)
{
	size_t len;

	save_one(&one);
	len = buffer.len;
	for (buffer.len = 0; buffer.len < len; buffer.len++) {
		struct thing thing = {.size = 64}, before = thing;

		cr_assert_eq(load(&thing), -EPROTO, "%zu bytes", buffer.len);
		cr_assert_arr_eq(&thing, &before, sizeof(thing));
	}
	cr_assert_not_null(strstr(err.text, "ends after"));
}

Test(state, bytes_behind_the_end_are_refused)
{
	uint8_t more = 0;

	save_one(&one);
	cr_assert_eq(state_buffer_sink(&buffer, &more, 1), 0);
	expect_refused(-EPROTO, "1 bytes behind the state's end");
}

Test(state, value_above_its_limit_is_refused_by_name)
{
	struct thing thing = one;

	thing.small = 10;
	save_one(&thing);
	expect_refused(-EPROTO, "a: section 'thing': small is 10; at most 9");
}

Test(state, bit_that_may_not_be_set_is_refused_by_name)
{
	struct thing thing = one;

	thing.large |= 1 << 4;
	save_one(&thing);
	expect_refused(-EPROTO, "large is 2309737983; its bits are 2309737967");
}

Test(state, bool_that_is_neither_is_refused)
{
	struct state_section s = section;
	struct thing thing = {.size = 64};

	s.fields = free_fields;
	s.n_fields = ARRAY_SIZE(free_fields);
	*(uint8_t *)&thing.on = 2;
	begin("a");
	state_save(&writer, &s, &thing, 1);
	end();
	expect_refused(-EPROTO, "on is 2; at most 1");
}

Test(state, other_configuration_is_refused_with_both_values)
{
	struct thing thing = one;

	thing.size = 128;
	save_one(&thing);
	expect_refused(-EPROTO, "size is 128; this machine is configured with 64");
}

Test(state, element_of_an_array_is_named)
{
	static const struct state_field words[] = {STATE_ARRAY(struct thing, words, .max = 5)};
	const struct state_section s = STATE_SECTION("thing", 1, struct thing, words);
	struct thing thing = {0};

	begin("a");
	state_save(&writer, &s, &one, 1);
	end();
	cr_assert_eq(load_as(&s, &thing, 1), -EPROTO);
	cr_assert_str_eq(err.text, "a: section 'thing': words[1] is 65535; at most 5");
}

Test(state, section_that_ends_early_names_the_field)
{
	struct state_section s = section;

	s.n_fields = 3;
	begin("a");
	state_save(&writer, &s, &one, 1);
	end();
	expect_refused(-EPROTO, "section 'thing' ends before large");
}

Test(state, section_that_goes_on_too_long_is_refused)
{
	struct state_field more[ARRAY_SIZE(fields) + 1];
	struct state_section s = section;

	memcpy(more, fields, sizeof(fields));
	more[ARRAY_SIZE(fields)] = fields[0];
	s.fields = more;
	s.n_fields++;
	begin("a");
	state_save(&writer, &s, &one, 1);
	end();
	expect_refused(-EPROTO, "longer than its fields");
}

Test(state, unknown_section_is_refused_by_name)
{
	struct state_section s = section;

	s.name = "extra";
	begin("a");
	state_save(&writer, &section, &one, 1);
	state_save(&writer, &s, &one, 1);
	end();
	expect_refused(-EPROTO, "a: section 'extra' is not known here");
}

Test(state, section_that_is_there_twice_is_refused)
{
	begin("a");
	state_save(&writer, &section, &one, 1);
	state_save(&writer, &section, &one, 1);
	end();
	expect_refused(-EPROTO, "a: section 'thing' is not known here");
}

Test(state, section_in_anothers_place_is_refused)
{
	struct state_section s = section;

	s.name = "extra";
	begin("a");
	state_save(&writer, &s, &one, 1);
	end();
	expect_refused(-EPROTO, "a: section 'extra' is in the place of 'thing'");
}

Test(state, missing_section_is_told)
{
	begin("a");
	end();
	expect_refused(-EPROTO, "a: section 'thing' is missing: the end follows");
}

Test(state, state_of_a_device_that_is_not_here_is_refused)
{
	begin("b");
	state_save(&writer, &section, &one, 1);
	end();
	expect_refused(-EPROTO, "a: section 'thing' is missing: something of 'b' follows");
	begin("a");
	state_save(&writer, &section, &one, 1);
	state_writer_owner(&writer, "b");
	state_save(&writer, &section, &one, 1);
	end();

	struct thing thing = {.size = 64};

	cr_assert_eq(load(&thing), -EPROTO);
	cr_assert_not_null(strstr(err.text, "'b', which this machine lacks"), "%s", err.text);
}

Test(state, other_number_of_records_is_refused)
{
	const struct thing two[2] = {one, one};

	begin("a");
	state_save(&writer, &section, two, 2);
	end();
	expect_refused(-EPROTO, "has 2 records; this machine is configured with 1");
	store_le32(buffer.bytes + 16 + 8, ~0u);
	expect_refused(-EPROTO, "has 4294967295 records");
}

Test(state, records_of_an_array_come_back)
{
	struct thing two[2] = {one, one}, back[2] = {{.size = 64}, {.size = 64}};

	two[1].middle = 5;
	begin("a");
	state_save(&writer, &section, two, 2);
	end();
	cr_assert_eq(load_as(&section, back, 2), 0, "%s", err.text);
	cr_assert_eq(back[0].middle, 0x1234);
	cr_assert_eq(back[1].middle, 5);
	two[1].small = 99;
	begin("a");
	state_save(&writer, &section, two, 2);
	end();
	cr_assert_eq(load_as(&section, back, 2), -EPROTO);
	cr_assert_not_null(strstr(err.text, "record 1: small is 99"), "%s", err.text);
}

/* As it was before `other` was saved, and as it is after. */
static const struct state_field new_fields[] = {
	STATE_ONE(struct thing, small),
	STATE_ONE(struct thing, other, .since = 2),
};
static const struct state_section new_section = STATE_SECTION("thing", 2, struct thing, new_fields);
static const struct state_section old_section = {
	.name = "thing",
	.version = 1,
	.bytes = sizeof(struct thing),
	.n_fields = 1,
	.fields = new_fields,
};

Test(state, older_version_leaves_what_came_later)
{
	struct thing thing = {.other = 8};

	begin("a");
	state_save(&writer, &old_section, &one, 1);
	end();
	cr_assert_eq(load_as(&new_section, &thing, 1), 0, "%s", err.text);
	cr_assert_eq(thing.small, 7);
	cr_assert_eq(thing.other, 8);
	begin("a");
	state_save(&writer, &new_section, &one, 1);
	end();
	cr_assert_eq(load_as(&new_section, &thing, 1), 0, "%s", err.text);
	cr_assert_eq(thing.other, 42);
}

Test(state, version_that_is_not_known_is_refused)
{
	struct state_section s = new_section;
	struct thing thing = {0};

	begin("a");
	state_save(&writer, &new_section, &one, 1);
	end();
	cr_assert_eq(load_as(&old_section, &thing, 1), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "has version 2; this version of hospes knows 1 to 1"),
			   "%s", err.text);
	begin("a");
	state_save(&writer, &old_section, &one, 1);
	end();
	s.oldest = 2;
	cr_assert_eq(load_as(&s, &thing, 1), -ENOTSUP);
	cr_assert_eq(thing.small, 0);
	store_le32(buffer.bytes + 8, 2);
	cr_assert_eq(load_as(&s, &thing, 1), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "format 2"), "%s", err.text);
}

static int odd_only(const void *record, const void *live, uint32_t i, struct err *e)
{
	const struct thing *thing = record, *here = live;

	cr_assert_eq(i, 0);
	return thing->middle & 1 || thing->size != here->size
		       ? 0
		       : err_set(e, -EPROTO, "middle is %u: even", thing->middle);
}

Test(state, check_of_a_section_has_the_last_word)
{
	struct thing thing = one, back = {.size = 64};
	struct state_section s = section;

	s.check = odd_only;
	save_one(&thing);
	cr_assert_eq(load_as(&s, &back, 1), -EPROTO);
	cr_assert_str_eq(err.text, "a: section 'thing': middle is 4660: even");
	cr_assert_eq(back.middle, 0);
	thing.middle++;
	save_one(&thing);
	cr_assert_eq(load_as(&s, &back, 1), 0, "%s", err.text);
	cr_assert_eq(back.middle, 0x1235);
}

/* A structure for the stream: one bit of each of the thing's words. */
struct bit {
	bool on;
};
static const struct state_field bit_fields[] = {STATE_ONE(struct bit, on)};

static void fill_bit(void *record, const void *live, uint32_t i)
{
	((struct bit *)record)->on = ((const struct thing *)live)->words[i] & 1;
}

static void apply_bit(void *live, const void *record, uint32_t i)
{
	((struct thing *)live)->words[i] = ((const struct bit *)record)->on ? 1 : 0;
}

Test(state, structure_of_the_stream_is_filled_and_applied)
{
	const struct state_section s = STATE_SECTION("bits", 1, struct bit, bit_fields,
						     .fill = fill_bit, .apply = apply_bit);
	struct thing thing = {.words = {8, 8, 8}};

	begin("a");
	state_save(&writer, &s, &one, 3);
	end();
	cr_assert_eq(load_as(&s, &thing, 3), 0, "%s", err.text);
	cr_assert_eq(thing.words[0], 1);
	cr_assert_eq(thing.words[1], 1);
	cr_assert_eq(thing.words[2], 0);
}

static int full(void *opaque, const void *bytes, size_t len)
{
	unsigned int *calls = opaque;

	(void)bytes;
	(void)len;
	return ++*calls == 3 ? -ENOSPC : 0;
}

Test(state, error_of_the_sink_ends_the_writing)
{
	unsigned int calls = 0;

	state_writer_begin(&writer, full, &calls);
	state_writer_owner(&writer, "a");
	state_save(&writer, &section, &one, 1);
	cr_assert_eq(calls, 3);
	cr_assert_eq(state_writer_end(&writer, &err), -ENOSPC);
	cr_assert_eq(calls, 3);
}

Test(state, name_that_no_reader_would_take_is_not_written)
{
	static const char *const names[] = {"", "a b", "a\n", "0123456789012345678901234567890123"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		begin(names[i]);
		cr_assert_eq(state_writer_end(&writer, &err), -EINVAL);
	}
}

static const struct device_ops no_ops = {.type = "rock"};

Test(state, device_without_the_op_is_refused)
{
	struct device dev = {.ops = &no_ops, .name = "rock0"};
	struct state_reader *r;

	begin("a");
	cr_assert_eq(state_save_device(&writer, &dev, &err), -EOPNOTSUPP);
	cr_assert_str_eq(err.text, "rock0: a rock cannot be saved");
	end();
	cr_assert_eq(state_reader_open(&r, buffer.bytes, buffer.len, &err), 0);
	cr_assert_eq(state_load_device(r, &dev, &err), -EOPNOTSUPP);
	state_reader_close(r);
}
