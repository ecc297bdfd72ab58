/* SPDX-License-Identifier: Apache-2.0 */
/* Which capabilities of a config space come through, and what a malformed list does. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "passthrough/caps.h"

static uint8_t config[PCI_CONFIG_BYTES];
static struct caps caps;

static void put(unsigned int at, uint8_t id, uint8_t next)
{
	config[at] = id;
	config[at + 1] = next;
}

static void put_ext(unsigned int at, uint16_t id, unsigned int next)
{
	store_le32(&config[at], id | 1u << 16 | next << 20);
}

static void parse(void)
{
	caps_parse(&caps, config, sizeof(config));
}

static void set_up(void)
{
	memset(config, 0, sizeof(config));
	config[6] = 0x10;
	config[0x34] = 0x40;
}

TestSuite(caps, .init = set_up);

Test(caps, come_in_the_devices_order_with_their_lengths)
{
	put(0x40, 0x01, 0xa0);
	put(0xa0, 0x10, 0x50);
	config[0xa2] = 2; /* version 2 */
	put(0x50, 0x11, 0x70);
	put(0x70, 0x09, 0);
	config[0x72] = 20;
	put_ext(0x100, 0x0001, 0x140);
	put_ext(0x140, 0x0003, 0);
	parse();
	cr_assert_eq(caps.n, 6);
	cr_assert(!caps.malformed && !caps.dropped);
	cr_assert_eq(caps.entries[0].at, 0x40);
	cr_assert_eq(caps.entries[1].at, 0xa0);
	cr_assert_eq(caps.entries[1].bytes, CAPS_EXPRESS_BYTES);
	cr_assert_eq(caps.entries[3].bytes, 20);
	cr_assert_eq(caps.entries[4].bytes, 0x2c);
	cr_assert_eq(caps.entries[5].at, 0x140);
}

Test(caps, what_reaches_around_isolation_is_dropped)
{
	static const uint16_t never[] = {0x000d, 0x000e, 0x000f, 0x0010, 0x0013,
					 0x0015, 0x0017, 0x001b, 0x0024, 0x7777};

	for (unsigned int i = 0; i < ARRAY_SIZE(never); i++)
		put_ext(0x100 + 0x40 * i, never[i],
			i + 1 < ARRAY_SIZE(never) ? 0x100 + 0x40 * (i + 1) : 0);
	put(0x40, 0x14, 0x50); /* enhanced allocation */
	put(0x50, 0x99, 0);
	parse();
	cr_assert_eq(caps.n, 0);
	cr_assert_eq(caps.dropped, ARRAY_SIZE(never) + 2);
	cr_assert(!caps.malformed);
}

Test(caps, a_loop_ends_the_walk)
{
	put(0x40, 0x01, 0x48);
	put(0x48, 0x03, 0x40);
	put_ext(0x100, 0x0003, 0x100);
	parse();
	cr_assert_eq(caps.n, 3);
	cr_assert(caps.malformed);
}

Test(caps, pointers_into_the_header_end_the_walk)
{
	put(0x40, 0x01, 0x3c);
	put_ext(0x100, 0x0003, 0x40);
	parse();
	cr_assert_eq(caps.n, 2);
	cr_assert(caps.malformed);
}

Test(caps, what_does_not_fit_or_overlaps_is_left_out)
{
	put(0x40, 0x01, 0x44); /* 8 bytes */
	put(0x44, 0x03, 0xf8); /* inside of it */
	put(0xf8, 0x11, 0xf0); /* 12 bytes, 8 are left */
	put(0xf0, 0x09, 0);
	config[0xf2] = 2; /* shorter than what tells its length */
	parse();
	cr_assert_eq(caps.n, 1);
	cr_assert(caps.malformed);
}

Test(caps, registers_of_ours_exist_once)
{
	put(0x40, 0x01, 0x50);
	put(0x50, 0x01, 0x60);
	put(0x60, 0x09, 0x70);
	config[0x62] = 8;
	put(0x70, 0x09, 0);
	config[0x72] = 8;
	parse();
	cr_assert_eq(caps.n, 3); /* of vendor-specific ones, as many as there are */
}

Test(caps, no_list_without_its_status_bit_and_no_extended_one_in_256_bytes)
{
	put(0x40, 0x01, 0);
	put_ext(0x100, 0x0003, 0);
	config[6] = 0;
	caps_parse(&caps, config, 256);
	cr_assert_eq(caps.n, 0);
}

Test(caps, an_absent_extended_list_is_none)
{
	store_le32(&config[0x100], UINT32_MAX);
	put(0x40, 0x01, 0);
	parse();
	cr_assert_eq(caps.n, 1);
	cr_assert(!caps.malformed);
}

Test(caps, the_table_names_each_id_once)
{
	unsigned int n;
	const struct caps_rule *table = caps_table(&n);

	for (unsigned int i = 0; i < n; i++) {
		cr_assert_eq(caps_rule(table[i].id, table[i].extended), &table[i]);
		cr_assert(table[i].name);
	}
}
