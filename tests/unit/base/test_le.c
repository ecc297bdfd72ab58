/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian values: byte by byte, at any alignment. */
#include <criterion/criterion.h>

#include "base/le.h"

Test(le, store_writes_the_low_byte_first)
{
	unsigned char buf[8];

	store_le16(buf, 0x1122);
	cr_assert_eq(buf[0], 0x22);
	cr_assert_eq(buf[1], 0x11);
	store_le32(buf, 0x11223344);
	cr_assert_eq(buf[0], 0x44);
	cr_assert_eq(buf[3], 0x11);
	store_le64(buf, 0x1122334455667788);
	cr_assert_eq(buf[0], 0x88);
	cr_assert_eq(buf[7], 0x11);
}

Test(le, load_reads_what_store_wrote_at_any_alignment)
{
	unsigned char buf[16];

	for (int at = 0; at < 8; at++) {
		store_le16(buf + at, 0xfedc);
		cr_assert_eq(load_le16(buf + at), 0xfedc);
		store_le32(buf + at, 0xfedcba98);
		cr_assert_eq(load_le32(buf + at), 0xfedcba98);
		store_le64(buf + at, 0xfedcba9876543210);
		cr_assert_eq(load_le64(buf + at), 0xfedcba9876543210);
	}
}

Test(le, store_touches_only_its_bytes)
{
	unsigned char buf[12];

	memset(buf, 0xaa, sizeof(buf));
	store_le64(buf + 2, 0);
	cr_assert_eq(buf[1], 0xaa);
	cr_assert_eq(buf[10], 0xaa);
}

Test(le, fields_convert_both_ways)
{
	le16 a = le16_of(0xbeef);
	le32 b = le32_of(0xdeadbeef);
	le64 c = le64_of(0x0123456789abcdef);

	cr_assert_eq(le16_get(a), 0xbeef);
	cr_assert_eq(le32_get(b), 0xdeadbeef);
	cr_assert_eq(le64_get(c), 0x0123456789abcdef);
	cr_assert_eq(load_le32(&b), 0xdeadbeef);
}

Test(le, types_have_their_size)
{
	cr_assert_eq(sizeof(le16), 2);
	cr_assert_eq(sizeof(le32), 4);
	cr_assert_eq(sizeof(le64), 8);
}
