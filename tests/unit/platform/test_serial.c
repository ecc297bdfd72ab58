/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port: the registers of a 16550A as a driver sees them, and a line that loses
 * nothing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "line.h"

enum { FLOOD = 1 << 20 };

/* As a driver opens the port: FIFOs on, interrupts through OUT2, ready to receive. */
static void line_open(struct line *l, uint8_t fcr)
{
	out8(&l->h, FCR, fcr);
	out8(&l->h, MCR, 0x0b);
}

/* Turn the loop (not threaded) until the receive FIFO has something. */
static void turn_until_received(struct line *l)
{
	while (!(in8(&l->h, LSR) & 1))
		cr_assert_eq(loop_iterate(l->h.loop, true), 0);
}

Test(serial, scratch_and_divisor_read_back_and_dlab_hides_data)
{
	struct line l = {0};

	line_init(&l, false, false);
	out8(&l.h, SCR, 0x5a);
	cr_assert_eq(in8(&l.h, SCR), 0x5a);
	out8(&l.h, LCR, 0x83);
	out8(&l.h, THR, 0x34);
	out8(&l.h, IER, 0x12);
	cr_assert_eq(in8(&l.h, RBR), 0x34);
	cr_assert_eq(in8(&l.h, IER), 0x12);
	out8(&l.h, LCR, 0x03);
	cr_assert_eq(in8(&l.h, IER), 0);
	cr_assert_eq(in8(&l.h, LCR), 0x03);
	line_done(&l);
}

Test(serial, is_recognised_as_a_16550a)
{
	struct line l = {0};

	line_init(&l, false, false);
	cr_assert_eq(in8(&l.h, IIR), 0x01);
	out8(&l.h, FCR, 0x01);
	cr_assert_eq(in8(&l.h, IIR), 0xc1);
	out8(&l.h, FCR, 0x00);
	cr_assert_eq(in8(&l.h, IIR), 0x01);
	/* upper bits of IER do not exist */
	out8(&l.h, IER, 0xff);
	cr_assert_eq(in8(&l.h, IER), 0x0f);
	line_done(&l);
}

Test(serial, loopback_connects_modem_lines_and_data)
{
	struct line l = {0};

	line_init(&l, false, false);
	out8(&l.h, MCR, 0x10 | 0x0a);
	cr_assert_eq(in8(&l.h, MSR) & 0xf0, 0x90, "RTS and OUT2 come back as CTS and DCD");
	out8(&l.h, MCR, 0x10 | 0x05);
	cr_assert_eq(in8(&l.h, MSR) & 0xf0, 0x60);
	out8(&l.h, THR, 'x');
	cr_assert_eq(in8(&l.h, LSR) & 1, 1);
	cr_assert_eq(in8(&l.h, RBR), 'x');
	cr_assert_eq(in8(&l.h, LSR) & 1, 0);
	line_done(&l);
}

Test(serial, loopback_overrun_is_told_once)
{
	struct line l = {0};

	line_init(&l, false, false);
	out8(&l.h, FCR, 0x01);
	out8(&l.h, MCR, 0x10);
	for (int i = 0; i < 17; i++)
		out8(&l.h, THR, (uint8_t)i);
	cr_assert_eq(in8(&l.h, LSR) & 2, 2);
	cr_assert_eq(in8(&l.h, LSR) & 2, 0);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(in8(&l.h, RBR), i);
	cr_assert_eq(in8(&l.h, LSR) & 1, 0);
	line_done(&l);
}

Test(serial, modem_status_deltas_clear_on_reading)
{
	struct line l = {0};

	line_init(&l, false, false);
	cr_assert_eq(in8(&l.h, MSR), 0xb0, "the host's end is there");
	out8(&l.h, IER, 0x08);
	out8(&l.h, MCR, 0x18); /* loopback with OUT2: CTS, DSR fall */
	cr_assert(l.h.level[GSI]);
	cr_assert_eq(in8(&l.h, IIR) & 0xf, 0x00);
	cr_assert_eq(in8(&l.h, MSR) & 0x0f, 0x03);
	cr_assert_eq(in8(&l.h, MSR) & 0x0f, 0);
	cr_assert(!l.h.level[GSI]);
	line_done(&l);
}

Test(serial, empty_transmitter_interrupts_when_enabled_and_iir_clears_it)
{
	struct line l = {0};

	line_init(&l, false, true);
	line_open(&l, 0x01);
	cr_assert(!l.h.level[GSI]);
	out8(&l.h, IER, 0x02);
	cr_assert(l.h.level[GSI]);
	cr_assert_eq(in8(&l.h, IIR) & 0xf, 0x02);
	cr_assert(!l.h.level[GSI]);
	cr_assert_eq(in8(&l.h, IIR) & 0xf, 0x01);
	/* A written byte leaves at once: the register is empty anew. */
	out8(&l.h, THR, 'a');
	cr_assert(l.h.level[GSI]);
	/* Off and on again interrupts again (what drivers probe for). */
	in8(&l.h, IIR);
	out8(&l.h, IER, 0);
	out8(&l.h, IER, 0x02);
	cr_assert(l.h.level[GSI]);
	line_done(&l);
}

Test(serial, out2_gates_the_interrupt)
{
	struct line l = {0};

	line_init(&l, false, false);
	out8(&l.h, IER, 0x02);
	cr_assert(!l.h.level[GSI]);
	cr_assert_eq(l.h.edges[GSI], 0);
	out8(&l.h, MCR, 0x08);
	cr_assert(l.h.level[GSI]);
	line_done(&l);
}

Test(serial, input_below_the_trigger_is_a_timeout_and_at_it_is_data)
{
	struct line l = {0};

	line_init(&l, true, false);
	line_open(&l, 0xc1); /* 14 bytes */
	out8(&l.h, IER, 0x01);
	cr_assert_eq(write(l.in[1], "abc", 3), 3);
	turn_until_received(&l);
	cr_assert(l.h.level[GSI]);
	cr_assert_eq(in8(&l.h, IIR), 0xcc);
	cr_assert_eq(in8(&l.h, RBR), 'a');
	cr_assert_eq(in8(&l.h, RBR), 'b');
	cr_assert_eq(in8(&l.h, RBR), 'c');
	cr_assert(!l.h.level[GSI]);
	cr_assert_eq(write(l.in[1], "0123456789abcdefghij", 20), 20);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, IIR), 0xc4);
	line_done(&l);
}

Test(serial, input_waits_until_the_guest_raises_rts)
{
	struct line l = {0};

	line_init(&l, true, false);
	cr_assert_eq(write(l.in[1], "hello", 5), 5);
	for (int i = 0; i < 3; i++)
		loop_iterate(l.h.loop, false);
	cr_assert_eq(in8(&l.h, LSR) & 1, 0);
	/* The driver clears the FIFOs and reads RBR while it starts: nothing is lost by that. */
	out8(&l.h, FCR, 0x07);
	in8(&l.h, RBR);
	line_open(&l, 0x01);
	turn_until_received(&l);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(in8(&l.h, RBR), "hello"[i]);
	line_done(&l);
}

Test(serial, without_fifos_one_byte_at_a_time)
{
	struct line l = {0};

	line_init(&l, true, false);
	line_open(&l, 0x00);
	out8(&l.h, IER, 0x01);
	cr_assert_eq(write(l.in[1], "xy", 2), 2);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, IIR), 0x04);
	cr_assert_eq(in8(&l.h, RBR), 'x');
	cr_assert_eq(in8(&l.h, IIR), 0x04);
	cr_assert_eq(in8(&l.h, RBR), 'y');
	cr_assert_eq(in8(&l.h, IIR), 0x01);
	line_done(&l);
}

Test(serial, quiesced_port_keeps_input_for_later)
{
	struct line l = {0};

	line_init(&l, true, false);
	line_open(&l, 0x01);
	l.dev->ops->quiesce(l.dev, 0);
	l.dev->ops->quiesce(l.dev, 1);
	cr_assert_eq(write(l.in[1], "z", 1), 1);
	for (int i = 0; i < 5; i++)
		loop_iterate(l.h.loop, false);
	cr_assert_eq(in8(&l.h, LSR) & 1, 0);
	l.dev->ops->resume(l.dev);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 'z');
	line_done(&l);
}

Test(serial, end_of_input_is_not_an_error)
{
	struct line l = {0};

	line_init(&l, true, false);
	line_open(&l, 0x01);
	cr_assert_eq(write(l.in[1], "q", 1), 1);
	fd_close(&l.in[1]);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 'q');
	for (int i = 0; i < 5; i++)
		loop_iterate(l.h.loop, false);
	cr_assert_eq(in8(&l.h, LSR) & 1, 0);
	line_done(&l);
}

Test(serial, destroy_writes_out_what_is_left)
{
	struct line l = {0};
	char buf[64] = "";

	line_init(&l, false, true);
	line_open(&l, 0x01);
	for (const char *p = "the last words"; *p; p++)
		out8(&l.h, THR, (uint8_t)*p);
	l.dev->ops->destroy(l.dev);
	l.dev = NULL;
	cr_assert_eq(read(l.out[0], buf, sizeof(buf) - 1), 14);
	cr_assert_str_eq(buf, "the last words");
	line_done(&l);
}

Test(serial, reset_gives_power_on_registers_and_keeps_the_line)
{
	struct line l = {0};

	line_init(&l, true, true);
	line_open(&l, 0x01);
	out8(&l.h, IER, 0x0f);
	out8(&l.h, THR, 'o');
	cr_assert(l.h.level[GSI]);
	l.dev->ops->reset(l.dev);
	cr_assert(!l.h.level[GSI]);
	cr_assert_eq(in8(&l.h, IER), 0);
	cr_assert_eq(in8(&l.h, MCR), 0);
	cr_assert_eq(in8(&l.h, IIR), 1);
	cr_assert_eq(in8(&l.h, LSR), 0x60);
	line_done(&l);
}

Test(serial, full_output_clears_thre_until_half_has_drained)
{
	struct line l = {0};
	unsigned int sent = 0;
	char buf[4096];
	ssize_t got;

	line_init(&l, false, true);
	fcntl(l.out[1], F_SETPIPE_SZ, 4096);
	line_open(&l, 0x01);
	out8(&l.h, IER, 0x02);
	in8(&l.h, IIR);
	/* Nobody reads and the loop does not run: the ring fills. */
	while (in8(&l.h, LSR) & 0x20) {
		out8(&l.h, THR, (uint8_t)sent++);
		cr_assert_lt(sent, 1u << 20);
	}
	in8(&l.h, IIR);
	cr_assert(!l.h.level[GSI]);
	/* Drain: the transmitter interrupts when there is room again. */
	harness_run(&l.h);
	unsigned int seen = 0;
	while (seen < sent) {
		got = read(l.out[0], buf, sizeof(buf));
		cr_assert_gt(got, 0);
		for (ssize_t i = 0; i < got; i++)
			cr_assert_eq((uint8_t)buf[i], (uint8_t)seen++);
	}
	while (!l.h.level[GSI])
		sched_yield();
	cr_assert(in8(&l.h, LSR) & 0x20);
	line_done(&l);
}

Test(serial, reader_that_went_away_does_not_stop_the_guest, .timeout = 20)
{
	struct line l = {0};

	line_init(&l, false, true);
	line_open(&l, 0x01);
	signal(SIGPIPE, SIG_IGN); /* the embedder's business */
	fd_close(&l.out[0]);
	harness_run(&l.h);
	for (unsigned int i = 0; i < 100000; i++) {
		while (!(in8(&l.h, LSR) & 0x20))
			sched_yield();
		out8(&l.h, THR, (uint8_t)i);
	}
	line_done(&l);
}

static void count_line(void *opaque, enum log_level level, const char *component, const char *text)
{
	unsigned int *lines = opaque;

	(void)level;
	(void)component;
	*lines += strstr(text, "No space left") != NULL;
}

Test(serial, output_to_a_full_disk_goes_on_when_there_is_room, .timeout = 20)
{
	struct line l = {0};
	int pipe_end, full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	unsigned int lines = 0;
	char c;

	line_init(&l, false, true);
	l.h.log = (struct log){.fn = count_line, .opaque = &lines, .level = LOG_WARN};
	line_open(&l, 0x01);
	pipe_end = fcntl(l.out[1], F_DUPFD_CLOEXEC, 3);
	cr_assert_eq(dup2(full, l.out[1]), l.out[1]);
	out8(&l.h, THR, 'a');
	while (!lines)
		cr_assert_eq(loop_iterate(l.h.loop, true), 0);
	cr_assert_eq(dup2(pipe_end, l.out[1]), l.out[1]);
	out8(&l.h, THR, 'b');
	fcntl(l.out[0], F_SETFL, O_NONBLOCK);
	while (read(l.out[0], &c, 1) < 0)
		cr_assert_eq(loop_iterate(l.h.loop, true), 0);
	cr_expect_eq(c, 'b');
	close(pipe_end);
	close(full);
	line_done(&l);
}

Test(serial, reader_that_takes_nothing_does_not_stop_the_guest_and_gets_what_comes_later,
     .timeout = 20)
{
	struct line l = {.patience_ns = 20000000};
	char buf[4096];
	size_t bs = 0;

	line_init(&l, false, true);
	fcntl(l.out[1], F_SETPIPE_SZ, 4096);
	line_open(&l, 0x01);
	harness_run(&l.h);
	for (unsigned int i = 0; i < 100000; i++) {
		while (!(in8(&l.h, LSR) & 0x20))
			sched_yield();
		out8(&l.h, THR, 'a');
	}
	/* Its reader is back: what it gets began before the loss and goes on after it. */
	for (ssize_t got; bs < 100;) {
		got = read(l.out[0], buf, sizeof(buf));
		cr_assert_gt(got, 0);
		for (ssize_t i = 0; i < got; i++)
			bs += buf[i] == 'b';
		if (in8(&l.h, LSR) & 0x20)
			out8(&l.h, THR, 'b');
		for (int i = 0; i < 200 && in8(&l.h, LSR) & 0x20; i++)
			out8(&l.h, THR, 'b');
	}
	line_done(&l);
}

/* A pattern in which a lost, doubled or swapped byte shows. */
static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 251 + i / 65521);
}

static char ended[] = "the line ended", wrong[] = "a byte is wrong";

static void *slow_consumer(void *opaque)
{
	struct line *l = opaque;
	uint8_t buf[97];
	size_t n = 0;

	while (n < FLOOD) {
		ssize_t got = read(l->out[0], buf, sizeof(buf));

		if (got <= 0)
			return ended;
		for (ssize_t i = 0; i < got; i++)
			if (buf[i] != pattern(n++))
				return wrong;
		sched_yield();
	}
	return NULL;
}

static void *producer(void *opaque)
{
	struct line *l = opaque;
	uint8_t buf[1000];

	for (size_t n = 0; n < FLOOD;) {
		size_t len = FLOOD - n < sizeof(buf) ? FLOOD - n : sizeof(buf);

		for (size_t i = 0; i < len; i++)
			buf[i] = pattern(n + i);
		if (fd_write_full(l->in[1], buf, len, -1))
			return ended;
		n += len;
	}
	return NULL;
}

static void flood_out(struct line *l, bool non_blocking)
{
	pthread_t thread;
	void *complaint;

	fcntl(l->out[1], F_SETPIPE_SZ, 4096);
	if (non_blocking)
		fcntl(l->out[1], F_SETFL, fcntl(l->out[1], F_GETFL) | O_NONBLOCK);
	line_open(l, 0x01);
	harness_run(&l->h);
	pthread_create(&thread, NULL, slow_consumer, l);
	/* As an interrupt handler fills it: a FIFO's worth for each sight of THRE. */
	for (size_t n = 0; n < FLOOD;) {
		while (!(in8(&l->h, LSR) & 0x20))
			sched_yield();
		for (int i = 0; i < 16; i++)
			out8(&l->h, THR, pattern(n++));
	}
	pthread_join(thread, &complaint);
	cr_assert_null(complaint, "%s", (char *)complaint);
}

Test(serial, flood_of_output_to_a_slow_consumer_loses_nothing, .timeout = 60)
{
	struct line l = {0};

	line_init(&l, false, true);
	flood_out(&l, false);
	line_done(&l);
}

Test(serial, flood_of_output_to_a_non_blocking_fd_loses_nothing, .timeout = 60)
{
	struct line l = {0};

	line_init(&l, false, true);
	flood_out(&l, true);
	line_done(&l);
}

Test(serial, flood_of_input_loses_nothing, .timeout = 60)
{
	struct line l = {0};
	pthread_t thread;
	void *complaint;

	line_init(&l, true, false);
	line_open(&l, 0x81);
	harness_run(&l.h);
	pthread_create(&thread, NULL, producer, &l);
	for (size_t n = 0; n < FLOOD;) {
		uint8_t lsr = in8(&l.h, LSR);

		cr_assert_eq(lsr & 0x02, 0, "overrun after %zu bytes", n);
		if (!(lsr & 1))
			sched_yield();
		else
			cr_assert_eq(in8(&l.h, RBR), pattern(n++));
	}
	pthread_join(thread, &complaint);
	cr_assert_null(complaint, "%s", (char *)complaint);
	line_done(&l);
}

Test(serial, flood_of_input_by_interrupts_loses_none, .timeout = 60)
{
	struct line l = {0};
	pthread_t thread;
	void *complaint;

	line_init(&l, true, false);
	line_open(&l, 0xc1);
	out8(&l.h, IER, 0x01);
	harness_run(&l.h);
	pthread_create(&thread, NULL, producer, &l);
	/* Look at the port only while the line is up, as an interrupt handler does. */
	for (size_t n = 0; n < FLOOD;) {
		if (!l.h.level[GSI]) {
			sched_yield();
			continue;
		}
		while (!(in8(&l.h, IIR) & 1))
			while (in8(&l.h, LSR) & 1)
				cr_assert_eq(in8(&l.h, RBR), pattern(n++));
	}
	pthread_join(thread, &complaint);
	cr_assert_null(complaint, "%s", (char *)complaint);
	line_done(&l);
}

/* --- a viewer --- */

static int view(struct line *l, bool take)
{
	struct err err = ERR_INIT;
	int ends[2], rc;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	rc = serial_view(l->dev, ends[0], take, &err);
	close(ends[0]);
	if (rc == 0)
		return ends[1];
	close(ends[1]);
	return rc;
}

static void say(struct line *l, const char *text)
{
	for (; *text; text++)
		out8(&l->h, THR, (uint8_t)*text);
}

/* It comes here, and nothing else. */
static void hears(struct line *l, int fd, const char *text)
{
	char got[64];
	size_t n = 0;

	while (n < strlen(text)) {
		struct pollfd in = {.fd = fd, .events = POLLIN};

		cr_assert_eq(loop_iterate(l->h.loop, !poll(&in, 1, 0)), 0);
		if (poll(&in, 1, 0) > 0)
			n += (size_t)read(fd, got + n, sizeof(got) - n);
	}
	got[n] = '\0';
	cr_assert_str_eq(got, text);
}

Test(serial, a_viewer_reads_what_the_guest_writes_beside_the_output, .timeout = 60)
{
	struct line l = {0};
	int viewer;

	line_init(&l, false, true);
	line_open(&l, 0x01);
	say(&l, "before");
	hears(&l, l.out[0], "before");
	viewer = view(&l, false);
	cr_assert(viewer >= 0 && serial_is_viewed(l.dev));
	say(&l, "for both");
	hears(&l, viewer, "for both");
	hears(&l, l.out[0], "for both");
	out8(&l.h, MCR, 0x1b); /* loopback: nobody's */
	say(&l, "x");
	out8(&l.h, MCR, 0x0b);
	close(viewer);
	cr_assert_not(serial_is_viewed(l.dev));
	say(&l, "after");
	hears(&l, l.out[0], "after");
	line_done(&l);
}

Test(serial, a_viewer_reads_it_also_where_nobody_else_does, .timeout = 60)
{
	struct line l = {.patience_ns = 1000000};
	int viewer;

	line_init(&l, false, false);
	line_open(&l, 0x01);
	viewer = view(&l, false);
	say(&l, "hello");
	hears(&l, viewer, "hello");
	close(viewer);
	line_done(&l);
}

Test(serial, a_viewer_types_and_what_the_input_has_waits_for_him_to_leave, .timeout = 60)
{
	struct line l = {0};
	int viewer;

	line_init(&l, true, true);
	line_open(&l, 0x01);
	loop_iterate(l.h.loop, false); /* it reads */
	viewer = view(&l, false);
	cr_assert_eq(write(l.in[1], "m", 1), 1);
	cr_assert_eq(write(viewer, "v", 1), 1);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 'v');
	for (unsigned int i = 0; i < 20; i++)
		loop_iterate(l.h.loop, false);
	cr_assert_eq(in8(&l.h, LSR) & 1, 0, "the other one waits");
	cr_assert_eq(write(viewer, "w", 1), 1);
	close(viewer);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 'w', "typed before he left");
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 'm');
	line_done(&l);
}

Test(serial, one_viewer_at_a_time_unless_another_takes_his_place, .timeout = 60)
{
	struct line l = {0};
	int first, second;

	line_init(&l, true, true);
	line_open(&l, 0x01);
	first = view(&l, false);
	cr_assert_eq(view(&l, false), -EBUSY);
	say(&l, "still");
	hears(&l, first, "still");
	second = view(&l, true);
	cr_assert_geq(second, 0);
	hears(&l, first, "\r\n[hospes: somebody else has taken this console]\r\n");
	cr_assert_eq(recv(first, (char[1]){0}, 1, MSG_DONTWAIT), 0, "closed");
	close(first);
	cr_assert_eq(write(second, "s", 1), 1);
	turn_until_received(&l);
	cr_assert_eq(in8(&l.h, RBR), 's');
	say(&l, "mine");
	hears(&l, second, "mine");
	line_done(&l);
	close(second);
}
