// SPDX-License-Identifier: Apache-2.0
// The packets of gdb's remote serial protocol. See session.h.
#include "gdb/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

enum { ALL_THREADS = GDB_MAX_THREADS };
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5 }; /* gdb's numbers */

/* --- answers --- */

__attribute__((format(printf, 2, 3))) static void say(struct gdb_session *s, const char *fmt, ...)
{
	size_t room = sizeof(s->data) - s->n_data;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(s->data + s->n_data, room, fmt, ap);
	va_end(ap);
	s->n_data += n < 0 ? 0 : MIN((size_t)n, room - 1);
}

static void say_hex(struct gdb_session *s, const uint8_t *bytes, size_t n)
{
	gdb_hex_write(s->data + s->n_data, bytes, n);
	s->n_data += 2 * n;
}

static void say_error(struct gdb_session *s, int rc)
{
	s->n_data = 0;
	say(s, "E%02x", (unsigned int)-rc & 0xff);
}

static void say_result(struct gdb_session *s, int rc)
{
	if (rc < 0)
		say_error(s, rc);
	else
		say(s, "OK");
}

/* What is in `data`, as a packet behind what is still to be sent. */
static void send_data(struct gdb_session *s)
{
	if (s->sent == s->n_out)
		s->sent = s->n_out = 0;
	/* A client that takes nothing, and makes the target stop, gets no second answer. */
	if (sizeof(s->out) - s->n_out < 2 * s->n_data + 4) {
		s->ended = true;
		return;
	}
	s->last = s->n_out;
	s->n_out += gdb_frame_write(s->out + s->n_out, s->data, s->n_data);
	s->n_data = 0;
}

static void send_char(struct gdb_session *s, char c)
{
	if (s->sent == s->n_out)
		s->sent = s->n_out = 0;
	if (s->n_out == sizeof(s->out)) {
		s->ended = true;
		return;
	}
	s->out[s->n_out++] = c;
	s->last = s->n_out;
}

static void say_stop(struct gdb_session *s)
{
	const struct gdb_stop *stop = &s->stop;

	say(s, "T%02xthread:%x;", stop->reason == GDB_INTERRUPTED ? SIGNAL_INT : SIGNAL_TRAP,
	    stop->thread + 1);
	if (stop->reason == GDB_SOFT_BREAK && s->says_soft)
		say(s, "swbreak:;");
	if (stop->reason == GDB_HARD_BREAK && s->says_hard)
		say(s, "hwbreak:;");
	if (stop->reason == GDB_WATCH || stop->reason == GDB_ACCESS)
		say(s, "%s:%llx;", stop->reason == GDB_WATCH ? "watch" : "awatch",
		    (unsigned long long)stop->gva);
}

/* --- reading packets --- */

/* The rest of the packet behind a word; NULL: it begins otherwise. */
static const char *behind(const char *text, const char *word)
{
	size_t n = strlen(word);

	return strncmp(text, word, n) == 0 ? text + n : NULL;
}

/* Is this the next character? Then past it. */
static bool skip(const char **text, char c)
{
	if (**text != c)
		return false;
	(*text)++;
	return true;
}

/* "ADDRESS,NUMBER" */
static bool read_two(const char **text, uint64_t *a, uint64_t *b)
{
	return gdb_hex_number(text, a) && skip(text, ',') && gdb_hex_number(text, b);
}

/* An id: a thread's, or -1 for all, or 0 for any (then `any`). */
static bool read_thread(const struct gdb_session *s, const char **text, unsigned int any,
			unsigned int *ret)
{
	const char *all = behind(*text, "-1");
	uint64_t id;

	if (all) {
		*text = all;
		*ret = ALL_THREADS;
		return true;
	}
	if (!gdb_hex_number(text, &id) || id > s->target->n_threads)
		return false;
	*ret = id ? (unsigned int)id - 1 : any;
	return true;
}

/* --- registers and memory --- */

static void read_registers(struct gdb_session *s, const char *text)
{
	uint8_t regs[DEBUG_REGS_BYTES];
	const struct gdb_target *t = s->target;
	const struct debug_reg *last = &t->regs[t->n_regs - 1];
	int rc = *text ? -EINVAL : t->ops->get_regs(t->opaque, s->thread, regs);

	if (rc)
		say_error(s, rc);
	else
		say_hex(s, regs, last->offset + last->bytes);
}

static void write_registers(struct gdb_session *s, const char *text)
{
	uint8_t regs[DEBUG_REGS_BYTES] = {0};
	const struct gdb_target *t = s->target;
	const struct debug_reg *last = &t->regs[t->n_regs - 1];
	size_t n = last->offset + last->bytes;

	if (strlen(text) != 2 * n || !gdb_hex_read(text, regs, n))
		say_error(s, -EINVAL);
	else
		say_result(s, t->ops->set_regs(t->opaque, s->thread, regs));
}

static void read_register(struct gdb_session *s, const char *text)
{
	uint8_t regs[DEBUG_REGS_BYTES];
	const struct gdb_target *t = s->target;
	uint64_t number;
	int rc = -EINVAL;

	if (gdb_hex_number(&text, &number) && !*text && number < t->n_regs)
		rc = t->ops->get_regs(t->opaque, s->thread, regs);
	if (rc)
		say_error(s, rc);
	else
		say_hex(s, regs + t->regs[number].offset, t->regs[number].bytes);
}

static void write_register(struct gdb_session *s, const char *text)
{
	uint8_t regs[DEBUG_REGS_BYTES], value[16];
	const struct gdb_target *t = s->target;
	const struct debug_reg *reg;
	uint64_t number;
	int rc;

	if (!gdb_hex_number(&text, &number) || !skip(&text, '=') || number >= t->n_regs) {
		say_error(s, -EINVAL);
		return;
	}
	reg = &t->regs[number];
	if (strlen(text) != 2u * reg->bytes || !gdb_hex_read(text, value, reg->bytes)) {
		say_error(s, -EINVAL);
		return;
	}
	rc = t->ops->get_regs(t->opaque, s->thread, regs);
	if (!rc) {
		memcpy(regs + reg->offset, value, reg->bytes);
		rc = t->ops->set_regs(t->opaque, s->thread, regs);
	}
	say_result(s, rc);
}

static void read_memory(struct gdb_session *s, const char *text)
{
	uint8_t bytes[GDB_PACKET_MAX / 2];
	const struct gdb_target *t = s->target;
	uint64_t gva, n;
	int rc;

	if (!read_two(&text, &gva, &n) || *text) {
		say_error(s, -EINVAL);
		return;
	}
	rc = t->ops->read(t->opaque, s->thread, gva, bytes, MIN(n, sizeof(bytes)));
	if (rc < 0)
		say_error(s, rc);
	else
		say_hex(s, bytes, (size_t)rc);
}

/* M: digits; X: the bytes themselves. */
static void write_memory(struct gdb_session *s, const char *text)
{
	uint8_t bytes[GDB_PACKET_MAX / 2];
	const struct gdb_target *t = s->target;
	bool binary = *text++ == 'X';
	const void *from = bytes;
	uint64_t gva, n;
	size_t given;

	if (!read_two(&text, &gva, &n) || !skip(&text, ':')) {
		say_error(s, -EINVAL);
		return;
	}
	given = s->reader.n - (size_t)(text - s->reader.bytes);
	if (binary)
		from = text;
	if (binary ? n != given
		   : n > sizeof(bytes) || given != 2 * n || !gdb_hex_read(text, bytes, n))
		say_error(s, -EINVAL);
	else
		say_result(s, n ? t->ops->write(t->opaque, s->thread, gva, from, n) : 0);
}

/* --- breakpoints --- */

/* "Z0,ADDRESS,KIND", z to remove it. */
static void change_breakpoint(struct gdb_session *s, const char *text)
{
	const struct gdb_target *t = s->target;
	bool insert = *text++ == 'Z';
	struct debug_point point;
	uint64_t kind, gva, bytes;
	int rc;

	if (!gdb_hex_number(&text, &kind) || !skip(&text, ',') || !read_two(&text, &gva, &bytes) ||
	    *text || bytes > 8) {
		say_error(s, -EINVAL);
		return;
	}
	if (kind > DEBUG_BREAK_ACCESS)
		return; /* an empty answer: unknown */
	point = (struct debug_point){
		.kind = (enum debug_break)kind,
		.gva = gva,
		.bytes = kind <= DEBUG_BREAK_EXECUTE ? 1 : (unsigned int)bytes,
	};
	if (!is_power_of_two(point.bytes) || !is_aligned(gva, point.bytes)) {
		say_error(s, -EINVAL);
		return;
	}
	rc = insert ? t->ops->insert(t->opaque, s->thread, &point)
		    : t->ops->remove(t->opaque, &point);
	if (rc != -EOPNOTSUPP)
		say_result(s, rc);
}

/* --- going on --- */

static void go(struct gdb_session *s, const enum gdb_action *actions)
{
	int rc;

	/* The target may stop again before the call returns. */
	s->running = s->waits = true;
	rc = s->target->ops->resume(s->target->opaque, actions);
	if (rc) {
		s->running = s->waits = false;
		say_error(s, rc);
	}
}

/* "c", "s", "C05", "S05": the signal is none that a vCPU could take. */
static void go_on(struct gdb_session *s, const char *text)
{
	enum gdb_action actions[GDB_MAX_THREADS];
	bool step = *text == 's' || *text == 'S';
	bool signal = *text == 'C' || *text == 'S';
	unsigned int only = step && s->step_thread == ALL_THREADS ? s->thread : s->step_thread;
	uint64_t number;

	text++;
	if ((signal && !gdb_hex_number(&text, &number)) || *text) {
		say_error(s, -EINVAL);
		return;
	}
	for (unsigned int i = 0; i < s->target->n_threads; i++)
		actions[i] = i == only && step ? GDB_STEP : GDB_CONTINUE;
	go(s, actions);
}

/* ";ACTION[:THREAD]...": of several for one thread the first counts; without one, it is held. */
static bool read_actions(const struct gdb_session *s, const char *text, enum gdb_action *actions)
{
	bool decided[GDB_MAX_THREADS] = {false};
	uint64_t signal;

	while (*text) {
		unsigned int thread = ALL_THREADS;
		enum gdb_action action;
		char letter;

		if (*text++ != ';')
			return false;
		letter = *text;
		if (!letter || !strchr("cCsS", letter))
			return false;
		action = letter == 'c' || letter == 'C' ? GDB_CONTINUE : GDB_STEP;
		text++;
		if ((letter == 'C' || letter == 'S') && !gdb_hex_number(&text, &signal))
			return false;
		if (skip(&text, ':') && !read_thread(s, &text, s->thread, &thread))
			return false;
		for (unsigned int i = 0; i < s->target->n_threads; i++) {
			if (decided[i] || (thread != ALL_THREADS && thread != i))
				continue;
			actions[i] = action;
			decided[i] = true;
		}
	}
	return true;
}

static void go_on_each(struct gdb_session *s, const char *text)
{
	enum gdb_action actions[GDB_MAX_THREADS] = {GDB_HOLD};
	bool some = false;

	if (!read_actions(s, text, actions)) {
		say_error(s, -EINVAL);
		return;
	}
	for (unsigned int i = 0; i < s->target->n_threads; i++)
		some |= actions[i] != GDB_HOLD;
	if (some)
		go(s, actions);
	else
		say_error(s, -EINVAL);
}

/* --- threads, and what each side can --- */

static void choose_thread(struct gdb_session *s, const char *text)
{
	bool steps = *text == 'c';
	unsigned int thread;

	if (*text != 'c' && *text != 'g') {
		say_error(s, -EINVAL);
		return;
	}
	text++;
	if (!read_thread(s, &text, steps ? ALL_THREADS : s->thread, &thread) || *text) {
		say_error(s, -EINVAL);
		return;
	}
	if (steps)
		s->step_thread = thread;
	else if (thread != ALL_THREADS)
		s->thread = thread;
	say(s, "OK");
}

static void is_alive(struct gdb_session *s, const char *text)
{
	unsigned int thread;
	bool known = read_thread(s, &text, ALL_THREADS, &thread) && !*text && thread != ALL_THREADS;

	say_result(s, known ? 0 : -ESRCH);
}

static void list_threads(struct gdb_session *s)
{
	for (unsigned int i = 0; i < s->target->n_threads; i++)
		say(s, "%c%x", i ? ',' : 'm', i + 1);
}

static void describe_thread(struct gdb_session *s, const char *text)
{
	unsigned int thread;
	char line[80];

	if (!read_thread(s, &text, s->thread, &thread) || *text || thread == ALL_THREADS) {
		say_error(s, -EINVAL);
		return;
	}
	s->target->ops->describe(s->target->opaque, thread, line, sizeof(line));
	say_hex(s, (const uint8_t *)line, strlen(line));
}

static void agree(struct gdb_session *s, const char *features)
{
	s->says_soft = strstr(features, "swbreak+");
	s->says_hard = strstr(features, "hwbreak+");
	say(s,
	    "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;"
	    "hwbreak+",
	    GDB_PACKET_MAX);
}

/* "target.xml:OFFSET,LENGTH" */
static void read_description(struct gdb_session *s, const char *text)
{
	const char *all = s->target->description;
	uint64_t offset, length, left;

	text = behind(text, "target.xml:");
	if (!text || !read_two(&text, &offset, &length) || *text || offset > strlen(all)) {
		say_error(s, -EINVAL);
		return;
	}
	left = strlen(all) - offset;
	/* In a packet's data, bytes that need it are escaped: half the room is enough for all. */
	length = MIN(length, (uint64_t)GDB_PACKET_MAX / 2);
	say(s, "%c%.*s", length < left ? 'm' : 'l', (int)MIN(length, left), all + offset);
}

static void query(struct gdb_session *s, const char *text)
{
	const char *rest;

	if ((rest = behind(text, "qSupported")))
		agree(s, rest);
	else if ((rest = behind(text, "qXfer:features:read:")))
		read_description(s, rest);
	else if ((rest = behind(text, "qThreadExtraInfo,")))
		describe_thread(s, rest);
	else if (strcmp(text, "qfThreadInfo") == 0)
		list_threads(s);
	else if (strcmp(text, "qsThreadInfo") == 0)
		say(s, "l");
	else if (strcmp(text, "qC") == 0)
		say(s, "QC%x", s->thread + 1);
	else if (behind(text, "qAttached"))
		say(s, "1"); /* so that gdb's `quit` detaches */
	else if (strcmp(text, "qSymbol::") == 0)
		say(s, "OK");
	else if (strcmp(text, "QStartNoAckMode") == 0) {
		s->no_acks = true;
		say(s, "OK");
	}
}

static void verbose(struct gdb_session *s, const char *text)
{
	const char *rest;

	if (strcmp(text, "vCont?") == 0)
		say(s, "vCont;c;C;s;S");
	else if ((rest = behind(text, "vCont")))
		go_on_each(s, rest);
}

static void end(struct gdb_session *s, void (*how)(void *opaque))
{
	how(s->target->opaque);
	say(s, "OK");
	send_data(s);
	s->ended = true;
}

/* An unknown packet has an empty answer. False: the answer is given, or comes with a stop. */
static bool answer(struct gdb_session *s, const char *text)
{
	switch (*text) {
	case '?':
		say_stop(s);
		break;
	case 'g':
		read_registers(s, text + 1);
		break;
	case 'G':
		write_registers(s, text + 1);
		break;
	case 'p':
		read_register(s, text + 1);
		break;
	case 'P':
		write_register(s, text + 1);
		break;
	case 'm':
		read_memory(s, text + 1);
		break;
	case 'M':
	case 'X':
		write_memory(s, text);
		break;
	case 'Z':
	case 'z':
		change_breakpoint(s, text);
		break;
	case 'c':
	case 'C':
	case 's':
	case 'S':
		go_on(s, text);
		break;
	case 'H':
		choose_thread(s, text + 1);
		break;
	case 'T':
		is_alive(s, text + 1);
		break;
	case 'q':
	case 'Q':
		query(s, text);
		break;
	case 'v':
		verbose(s, text);
		break;
	case 'D':
		end(s, s->target->ops->detach);
		break;
	case 'k':
		end(s, s->target->ops->kill);
		break;
	default:
		break;
	}
	return !s->ended && !s->waits;
}

static void take_packet(struct gdb_session *s)
{
	bool acks = !s->no_acks;

	if (acks)
		send_char(s, '+');
	s->n_data = 0;
	s->waits = false;
	/* The target answers nobody while it runs. */
	if (s->running) {
		say_error(s, -EBUSY);
		send_data(s);
	} else if (answer(s, s->reader.bytes)) {
		send_data(s);
	}
}

void gdb_session_begin(struct gdb_session *s, const struct gdb_target *target)
{
	memset(s, 0, sizeof(*s));
	s->target = target;
	s->stop.reason = GDB_STEPPED;
	s->step_thread = ALL_THREADS;
}

size_t gdb_session_input(struct gdb_session *s, const uint8_t *bytes, size_t n)
{
	enum gdb_frame frame;
	size_t used;

	if (s->ended)
		return n;
	used = gdb_reader_feed(&s->reader, bytes, n, &frame);
	switch (frame) {
	case GDB_PACKET:
		take_packet(s);
		break;
	case GDB_TOO_LONG:
		if (!s->no_acks)
			send_char(s, '+');
		say_error(s, -EMSGSIZE);
		send_data(s);
		break;
	case GDB_BAD_SUM:
		if (!s->no_acks)
			send_char(s, '-');
		break;
	case GDB_NAK:
		if (s->last < s->n_out && !s->no_acks)
			s->sent = s->last;
		break;
	case GDB_INTERRUPT:
		if (s->running)
			s->target->ops->interrupt(s->target->opaque);
		break;
	case GDB_ACK:
	case GDB_MORE:
		break;
	}
	return used;
}

void gdb_session_stopped(struct gdb_session *s, const struct gdb_stop *stop)
{
	if (s->ended || !s->running)
		return;
	s->running = false;
	s->stop = *stop;
	s->thread = stop->thread;
	s->n_data = 0;
	say_stop(s);
	send_data(s);
}

void gdb_session_exited(struct gdb_session *s, uint8_t status)
{
	if (s->ended)
		return;
	s->n_data = 0;
	say(s, "W%02x", status);
	send_data(s);
	s->ended = true;
}
