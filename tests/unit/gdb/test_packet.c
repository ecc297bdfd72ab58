// SPDX-License-Identifier: Apache-2.0
// Frames of the remote serial protocol.
#include <criterion/criterion.h>
#include <string.h>

#include "gdb/packet.h"

static struct gdb_reader reader;

static enum gdb_frame feed(const char *bytes)
{
	enum gdb_frame frame = GDB_MORE;
	size_t used = gdb_reader_feed(&reader, (const uint8_t *)bytes, strlen(bytes), &frame);

	cr_expect_eq(used, strlen(bytes), "%s", bytes);
	return frame;
}

Test(packet, a_packet_is_taken_whole_however_it_is_divided)
{
	cr_expect_eq(feed("$m1000"), GDB_MORE);
	cr_expect_eq(feed(",4#"), GDB_MORE);
	cr_expect_eq(feed("8"), GDB_MORE);
	cr_expect_eq(feed("e"), GDB_PACKET);
	cr_expect_str_eq(reader.bytes, "m1000,4");
	cr_expect_eq(reader.n, 7u);
}

Test(packet, escaped_bytes_are_taken_as_what_they_stand_for)
{
	cr_expect_eq(feed("$X}\x03}]#b2"), GDB_PACKET);
	cr_expect_eq(reader.n, 3u);
	cr_expect_arr_eq(reader.bytes, "X#}", 3);
}

Test(packet, a_wrong_or_missing_checksum_is_seen)
{
	cr_expect_eq(feed("$g#68"), GDB_BAD_SUM);
	cr_expect_eq(feed("$g#zz"), GDB_BAD_SUM);
	cr_expect_eq(feed("$g#67"), GDB_PACKET);
}

Test(packet, a_packet_that_lost_its_end_does_not_take_the_next_with_it)
{
	cr_expect_eq(feed("$m10$g#67"), GDB_PACKET);
	cr_expect_str_eq(reader.bytes, "g");
}

Test(packet, what_is_between_packets_is_acks_interrupts_and_nothing_else)
{
	cr_expect_eq(feed("+"), GDB_ACK);
	cr_expect_eq(feed("-"), GDB_NAK);
	cr_expect_eq(feed("\3"), GDB_INTERRUPT);
	cr_expect_eq(feed("GET / HTTP/1.1\r\n"), GDB_MORE);
}

Test(packet, a_packet_that_is_too_long_is_dropped_and_the_next_is_taken)
{
	cr_expect_eq(feed("$"), GDB_MORE);
	for (int i = 0; i <= GDB_PACKET_MAX; i++)
		cr_assert_eq(feed("0"), GDB_MORE);
	cr_expect_eq(feed("#30"), GDB_TOO_LONG);
	cr_expect_eq(feed("$g#67"), GDB_PACKET);
}

Test(packet, what_is_written_reads_back)
{
	char data[256], frame[GDB_FRAME_MAX];
	enum gdb_frame result;
	size_t n;

	for (int i = 0; i < 256; i++)
		data[i] = (char)i;
	n = gdb_frame_write(frame, data, sizeof(data));
	cr_expect_eq(gdb_reader_feed(&reader, (const uint8_t *)frame, n, &result), n);
	cr_expect_eq(result, GDB_PACKET);
	cr_expect_eq(reader.n, sizeof(data));
	cr_expect_arr_eq(reader.bytes, data, sizeof(data));
}

Test(packet, numbers_have_one_to_sixteen_digits)
{
	const char *good = "ffffFFFFffffFFFF,", *long_one = "10000000000000000", *none = ",";
	uint64_t value;

	cr_expect(gdb_hex_number(&good, &value));
	cr_expect_eq(value, UINT64_MAX);
	cr_expect_eq(*good, ',');
	cr_expect_not(gdb_hex_number(&long_one, &value));
	cr_expect_not(gdb_hex_number(&none, &value));
}
