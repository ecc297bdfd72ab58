// SPDX-License-Identifier: Apache-2.0
// What a session answers, and what it asks of its target.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "fake_target.h"

static struct fake_target target;
static struct gdb_session session;

static void set_up(void)
{
	fake_target_init(&target);
	gdb_session_begin(&session, &target.target);
}

TestSuite(session, .init = set_up);

/* What it has to send, which is sent then; the data of the packet in it, or "" where there is
 * none. */
static const char *sent(void)
{
	static struct gdb_reader reader;
	enum gdb_frame frame = GDB_MORE;

	while (session.sent < session.n_out && frame != GDB_PACKET)
		session.sent +=
			gdb_reader_feed(&reader, (const uint8_t *)session.out + session.sent,
					session.n_out - session.sent, &frame);
	return frame == GDB_PACKET ? reader.bytes : "";
}

static const char *ask(const char *packet)
{
	char frame[GDB_FRAME_MAX];
	size_t n = gdb_frame_write(frame, packet, strlen(packet));

	cr_assert_eq(gdb_session_input(&session, (const uint8_t *)frame, n), n);
	return sent();
}

static void stop(unsigned int thread, enum gdb_reason reason)
{
	const struct gdb_stop stop = {.thread = thread, .reason = reason, .gva = 0x1008};

	target.running = false;
	gdb_session_stopped(&session, &stop);
}

Test(session, unknown_packets_have_an_empty_answer)
{
	cr_expect_str_eq(ask("vMustReplyEmpty"), "");
	cr_expect_str_eq(ask("qTStatus"), "");
	cr_expect_str_eq(ask("Y"), "");
	cr_expect_not(session.ended);
}

Test(session, memory_is_read_up_to_where_it_ends)
{
	cr_expect_str_eq(ask("m1004,3"), "040506");
	cr_expect_str_eq(ask("m103e,10"), "3e3f");
	cr_expect_str_eq(ask("m2000,1"), "E0e");
	cr_expect_str_eq(ask("mffffffffffffffff,ffffffffffffffff"), "E0e");
	cr_expect_str_eq(ask("m1000"), "E16");
	cr_expect_str_eq(ask("m1000,1x"), "E16");
}

Test(session, memory_is_written_in_digits_and_in_bytes)
{
	cr_expect_str_eq(ask("M1001,2:abcd"), "OK");
	cr_expect_str_eq(ask("X1003,3:#$}"), "OK");
	cr_expect_arr_eq(target.memory, "\x00\xab\xcd#$}\x06", 7);
	cr_expect_str_eq(ask("X1003,0:"), "OK");
	cr_expect_str_eq(ask("M1001,2:abc"), "E16");
	cr_expect_str_eq(ask("M1001,2:abxx"), "E16");
	cr_expect_str_eq(ask("X1001,4:abc"), "E16");
	cr_expect_str_eq(ask("M103f,2:0000"), "E0e");
}

Test(session, registers_are_those_of_the_chosen_thread)
{
	cr_expect_str_eq(ask("Hg2"), "OK");
	cr_expect_str_eq(ask("P1=11223344"), "OK");
	cr_expect_str_eq(ask("p1"), "11223344");
	cr_expect_str_eq(ask("g"), "00000000000000001122334400000000000000000000000000000000");
	cr_expect_str_eq(ask("Hg1"), "OK");
	cr_expect_str_eq(ask("p1"), "00000000");
	cr_expect_str_eq(ask("p3"), "E16");
	cr_expect_str_eq(ask("P1=1122"), "E16");
	cr_expect_str_eq(ask("G00"), "E16");
	cr_expect_str_eq(ask("Hg4"), "E16");
	cr_expect_str_eq(ask("Hx1"), "E16");
}

Test(session, each_thread_does_what_the_first_action_for_it_says)
{
	cr_expect_str_eq(ask("vCont;s:2;c"), "");
	cr_expect_eq(target.actions[0], GDB_CONTINUE);
	cr_expect_eq(target.actions[1], GDB_STEP);
	cr_expect_eq(target.actions[2], GDB_CONTINUE);
	stop(1, GDB_STEPPED);
	cr_expect_str_eq(sent(), "T05thread:2;");
	ask("vCont;C05:3");
	cr_expect_eq(target.actions[0], GDB_HOLD);
	cr_expect_eq(target.actions[1], GDB_HOLD);
	cr_expect_eq(target.actions[2], GDB_CONTINUE);
	cr_expect_eq(target.resumes, 2u);
}

Test(session, actions_that_let_nobody_run_or_are_none_are_refused)
{
	cr_expect_str_eq(ask("vCont"), "E16");
	cr_expect_str_eq(ask("vCont;"), "E16");
	cr_expect_str_eq(ask("vCont;t:1"), "E16");
	cr_expect_str_eq(ask("vCont;c:9"), "E16");
	cr_expect_str_eq(ask("vCont;c:1:2"), "E16");
	cr_expect_str_eq(ask("c1000"), "E16");
	cr_expect_eq(target.resumes, 0u);
}

Test(session, a_stop_says_its_reason_as_far_as_the_client_understands_it)
{
	ask("c");
	stop(2, GDB_SOFT_BREAK);
	cr_expect_str_eq(sent(), "T05thread:3;");
	cr_expect_not_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "vContSupported+"));
	ask("c");
	stop(0, GDB_SOFT_BREAK);
	cr_expect_str_eq(sent(), "T05thread:1;swbreak:;");
	ask("c");
	stop(0, GDB_WATCH);
	cr_expect_str_eq(sent(), "T05thread:1;watch:1008;");
	ask("c");
	stop(0, GDB_INTERRUPTED);
	cr_expect_str_eq(sent(), "T02thread:1;");
	cr_expect_str_eq(ask("?"), "T02thread:1;");
}

Test(session, nothing_but_an_interrupt_reaches_a_target_that_runs)
{
	ask("c");
	cr_expect_str_eq(ask("g"), "E10");
	cr_expect_str_eq(ask("m1000,1"), "E10");
	cr_expect_str_eq(ask("D"), "E10");
	cr_expect_str_eq(ask("c"), "E10");
	cr_expect_eq(target.while_running, 0u);
	cr_expect_eq(target.resumes, 1u);
	gdb_session_input(&session, (const uint8_t *)"\3", 1);
	cr_expect_eq(target.interrupts, 1u);
}

Test(session, an_interrupt_of_a_target_that_stands_still_does_nothing)
{
	gdb_session_input(&session, (const uint8_t *)"\3", 1);
	cr_expect_eq(target.interrupts, 0u);
	cr_expect_eq(session.n_out, 0u);
}

Test(session, breakpoints_are_checked_and_kinds_that_are_not_there_said_to_be)
{
	cr_expect_str_eq(ask("Z0,1000,1"), "OK");
	cr_expect_str_eq(ask("Z2,1008,8"), "OK");
	cr_expect_str_eq(ask("Z3,1000,1"), "");
	cr_expect_str_eq(ask("Z5,1000,1"), "");
	cr_expect_str_eq(ask("Z2,1008,3"), "E16");
	cr_expect_str_eq(ask("Z2,1001,2"), "E16");
	cr_expect_str_eq(ask("Z2,1000,100000001"), "E16");
	cr_expect_str_eq(ask("Z0,1000,1;X1,00"), "E16");
	cr_expect_eq(target.n_points, 2u);
	cr_expect_str_eq(ask("z0,1000,1"), "OK");
	cr_expect_eq(target.n_points, 1u);
}

Test(session, the_description_comes_in_parts)
{
	cr_expect_str_eq(ask("qXfer:features:read:target.xml:0,5"), "m<targ");
	cr_expect_str_eq(ask("qXfer:features:read:target.xml:5,100"), "let>*}#$</target>");
	cr_expect_str_eq(ask("qXfer:features:read:target.xml:15,100"), "l");
	cr_expect_str_eq(ask("qXfer:features:read:target.xml:16,1"), "E16");
	cr_expect_str_eq(ask("qXfer:features:read:other.xml:0,1"), "E16");
}

Test(session, threads_are_listed_and_described)
{
	cr_expect_str_eq(ask("qfThreadInfo"), "m1,2,3");
	cr_expect_str_eq(ask("qsThreadInfo"), "l");
	cr_expect_str_eq(ask("qThreadExtraInfo,2"), "7468726561642031");
	cr_expect_str_eq(ask("T3"), "OK");
	cr_expect_str_eq(ask("T4"), "E03");
}

Test(session, a_damaged_answer_is_sent_again_until_acks_are_off)
{
	cr_expect_str_eq(ask("qC"), "QC1");
	gdb_session_input(&session, (const uint8_t *)"-", 1);
	cr_expect_str_eq(sent(), "QC1");
	cr_expect_str_eq(ask("QStartNoAckMode"), "OK");
	gdb_session_input(&session, (const uint8_t *)"-", 1);
	cr_expect_str_eq(sent(), "");
	ask("qC");
	cr_expect_eq(session.out[0], '$');
}

Test(session, detaching_ends_the_session_and_so_does_the_targets_end)
{
	cr_expect_str_eq(ask("D"), "OK");
	cr_expect(session.ended);
	cr_expect_eq(target.detaches, 1u);
	set_up();
	ask("c");
	gdb_session_exited(&session, 1);
	cr_expect_str_eq(sent(), "W01");
	cr_expect(session.ended);
}

Test(session, a_packet_that_is_too_long_is_refused)
{
	gdb_session_input(&session, (const uint8_t *)"$", 1);
	for (int i = 0; i <= GDB_PACKET_MAX; i++)
		gdb_session_input(&session, (const uint8_t *)"0", 1);
	gdb_session_input(&session, (const uint8_t *)"#30", 3);
	cr_expect_str_eq(sent(), "E5a");
}
