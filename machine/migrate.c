// SPDX-License-Identifier: Apache-2.0
// Live migration, the source. See migrate.h.
#include "machine/migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "machine/arrival.h"
#include "machine/kind.h"
#include "machine/lacking.h"
#include "machine/stream.h"
#include "machine/vm.h"
#include "migration/dirty.h"
#include "migration/send.h"

/* How long the other side may take. */
#define GREETING_NS (60 * NS_PER_S) /* to make the machine */
#define SILENCE_NS  (30 * NS_PER_S) /* without a byte, while the guest runs */
#define STILL_NS    (30 * NS_PER_S) /* in all, while it stands still */
#define ANSWER_NS   (10 * NS_PER_S) /* to GO */

enum { BATCHES = 4 /* in one iteration */ };

enum stage {
	GREETING,
	ROUNDS,
	LAST,
	LOADING,
	COMMITTED,
	UNDECIDED,
	OVER,
};
static const char *const stage_names[] = {
	"greeting", "rounds", "last round", "loading", "committed", "undecided", "over",
};

struct vm_migration {
	enum stage stage;
	struct vm_stream stream;
	struct send send;
	bool tracks; /* what is written, in vm->dirty */
	struct rounds rounds;
	char *document;
	struct state_buffer state;
	size_t state_sent;
	bool whole_sent;
	bool ran;      /* it was paused for this */
	bool released; /* locks were given up */
	uint64_t begun_ns, round_ns, round_bytes, still_ns, committed_ns;
};

int vm_hold_devices(struct hospes_vm *vm, bool hold, struct err *err)
{
	struct vm_device *d = NULL;
	int rc = 0;

	while (!rc && (d = vm_next_device(vm, d, NULL))) {
		if (d->kind->hold && d->dev)
			rc = d->kind->hold(d, hold, err);
	}
	return rc;
}

/* --- what cannot be migrated --- */

static void add_obstacle(json_t *list, const struct err *err)
{
	json_array_append_new(list, json_string(err->text));
}

json_t *vm_migrate_obstacles(struct hospes_vm *vm)
{
	json_t *list = json_array();
	struct err err = ERR_INIT;
	struct vm_device *d = NULL;

	if (!list)
		return NULL;
	if (snapshot_check(vm, &err))
		add_obstacle(list, &err);
	if (vm->viommu) {
		err_set(&err, -EOPNOTSUPP, "viommu: a virtual IOMMU cannot be moved yet");
		add_obstacle(list, &err);
	}
	while ((d = vm_next_device(vm, d, NULL))) {
		if (d->kind->movable && d->kind->movable(d, &err))
			add_obstacle(list, &err);
	}
	if (vm_debug_attached(vm)) {
		err_set(&err, -EBUSY,
			"a debugger is attached, whose breakpoints are in memory; detach it");
		add_obstacle(list, &err);
	}
	return list;
}

static int check(struct hospes_vm *vm, struct err *err)
{
	json_t *list = vm_migrate_obstacles(vm);
	const char *first = json_string_value(json_array_get(list, 0));
	int rc = 0;

	if (!list)
		rc = err_set(err, -ENOMEM, "migration: no memory");
	else if (first)
		rc = err_set(err, -EOPNOTSUPP, "cannot migrate: %s", first);
	json_decref(list);
	return rc;
}

/* --- begin and end --- */

static void stop_tracking(struct hospes_vm *vm, struct vm_migration *m)
{
	struct err err = ERR_INIT;

	if (!m->tracks)
		return;
	m->tracks = false;
	gmem_set_dirty(vm->gmem, NULL);
	if (arch_vm_dirty_track(vm->arch, false, &err))
		log_warn(&vm->log, "migration", "%s", err.text);
}

static void over(struct hospes_vm *vm, struct vm_migration *m, int rc, const char *text)
{
	m->stage = OVER;
	stream_shut(&m->stream);
	vm_emit(vm, HOSPES_EVENT_MIGRATED, rc, text);
}

/* Nobody knows whether the target runs: this side does not, and says so. */
static void stand_undecided(struct hospes_vm *vm, struct vm_migration *m, const char *why)
{
	char text[512];

	m->stage = UNDECIDED;
	stop_tracking(vm, m);
	stream_shut(&m->stream);
	snprintf(text, sizeof(text),
		 "the target was to go on, and has not confirmed it (%s): this side stands still; "
		 "if the machine runs there, stop this one, else, and only then, resume it",
		 why);
	log_error(&vm->log, "migration", "%s", text);
	vm_emit(vm, HOSPES_EVENT_MIGRATED, -EINPROGRESS, text);
}

/* The machine stays here. */
static void fail(struct hospes_vm *vm, struct vm_migration *m, int rc, const char *text)
{
	bool resume = m->ran && atomic_load(&vm->state) == HOSPES_PAUSED;
	struct err err = ERR_INIT;
	char why[400];

	snprintf(why, sizeof(why), "%s", text);
	if (m->released && vm_hold_devices(vm, true, &err)) {
		stand_undecided(vm, m, err.text);
		return;
	}
	m->released = false;
	if (m->stage < COMMITTED && send_is_empty(&m->send))
		stream_say(&m->stream, WIRE_CANCEL, why);
	stop_tracking(vm, m);
	m->stage = OVER; /* before the resume, which asks */
	if (resume && vm_do_resume(vm, NULL, &err))
		log_error(&vm->log, "migration", "%s", err.text);
	log_warn(&vm->log, "migration", "%s; the machine stays here", why);
	over(vm, m, rc, why);
}

static int begin(struct hospes_vm *vm, struct vm_migration *m,
		 const struct vm_migrate_request *request, struct err *err)
{
	int rc = stream_open(&m->stream, vm->loop, request->fd, err);

	if (rc)
		return rc;
	m->rounds.downtime_ns = request->downtime_ns;
	m->begun_ns = clock_ns();
	send_init(&m->send, vm->gmem, NULL);
	m->document = snapshot_document(vm);
	if (!m->document || strlen(m->document) > WIRE_PAYLOAD_MAX)
		return err_set(err, -E2BIG, "migration: the document cannot be sent");
	send_frame(&m->send, WIRE_HELLO, WIRE_MAGIC, NULL, WIRE_FORMAT);
	send_frame(&m->send, WIRE_DOCUMENT, 0, m->document, strlen(m->document));
	stream_again(&m->stream);
	return 0;
}

int vm_do_migrate(struct hospes_vm *vm, void *arg, struct err *err)
{
	int state = atomic_load(&vm->state), rc = lacking_refuse(ARCH_STATE, "migration", err);
	struct vm_migration *m;

	if (!rc)
		rc = vm_migrate_refuses(vm, "migrate", err);
	if (!rc && state != HOSPES_RUNNING && state != HOSPES_PAUSED)
		rc = vm_wrong_state(vm, "migrate", err);
	if (!rc && vm->dump)
		rc = err_set(err, -EBUSY, "cannot migrate: a snapshot or a dump is being written");
	if (!rc)
		rc = check(vm, err);
	if (rc)
		return rc;
	vm_migrate_destroy(vm); /* one that is over */
	if (!mem_new(m))
		return err_set(err, -ENOMEM, "migration: no memory");
	m->stream.fd = -1;
	rc = begin(vm, m, arg, err);
	vm->migration = m;
	if (!rc)
		return 0;
	m->stage = OVER;
	vm_migrate_destroy(vm);
	return rc;
}

int vm_do_migrate_cancel(struct hospes_vm *vm, void *arg, struct err *err)
{
	struct vm_migration *m = vm->migration;

	(void)arg;
	if (!m || m->stage == OVER)
		return err_set(err, -ENOENT, "no migration is under way");
	if (m->stage >= COMMITTED)
		return err_set(err, -EBUSY,
			       "the target was asked to go on: this migration cannot be cancelled "
			       "any more; look there");
	fail(vm, m, -ECANCELED, "cancelled");
	return 0;
}

/* --- rounds --- */

static uint64_t real_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int collect(struct hospes_vm *vm, struct vm_migration *m, uint64_t *pages, struct err *err)
{
	int rc = arch_vm_dirty_take(vm->arch, dirty_tracker(vm->dirty), err);

	*pages = dirty_collect(vm->dirty);
	m->round_ns = clock_ns();
	m->round_bytes = m->send.bytes;
	return rc;
}

static int start_rounds(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	uint64_t pages;
	int rc = vm->dirty ? 0 : dirty_create(&vm->dirty, vm->gmem, err);

	if (rc)
		return rc;
	m->send.dirty = vm->dirty;
	m->tracks = true;
	/* First what marks, then what is marked anyway: what is written in between is in both. */
	gmem_set_dirty(vm->gmem, dirty_tracker(vm->dirty));
	rc = arch_vm_dirty_track(vm->arch, true, err);
	if (rc)
		return rc;
	dirty_mark_used(vm->dirty);
	m->stage = ROUNDS;
	return collect(vm, m, &pages, err);
}

static void say_progress(struct hospes_vm *vm, const struct vm_migration *m)
{
	const struct rounds *r = &m->rounds;
	char text[160];

	snprintf(text, sizeof(text),
		 "round %u: %.1f MiB sent, %.1f MiB left, %.1f MiB/s, a pause of %llu ms expected",
		 r->n, (double)m->send.bytes / MiB, (double)r->left_bytes / MiB,
		 (double)r->rate / MiB,
		 (unsigned long long)MIN(r->pause_ns / NS_PER_MS, 999999ull));
	vm_emit(vm, HOSPES_EVENT_MIGRATING, (int)r->n, text);
}

/* 1: the guest asked for something first (a reset), so that it goes on. */
static int stand_still(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	uint64_t pages;
	int rc;

	m->ran = atomic_load(&vm->state) == HOSPES_RUNNING;
	m->still_ns = clock_ns();
	rc = vm_do_pause(vm, NULL, err);
	if (!rc && m->ran && atomic_load(&vm->request)) {
		rc = vm_do_resume(vm, NULL, err);
		m->ran = false;
		return rc ? rc : 1;
	}
	if (!rc)
		rc = snapshot_save(vm, &m->state, err);
	if (!rc)
		rc = collect(vm, m, &pages, err);
	if (rc)
		return rc;
	m->stage = LAST;
	send_frame(&m->send, WIRE_STILL, real_ns(), NULL, 0);
	return 0;
}

/* What a pause takes beside memory: the state on its way, and loading it. */
static uint64_t fixed_ns(const struct hospes_vm *vm, const struct rounds *r)
{
	enum { VCPU_BYTES = 64 << 10, DEVICES_BYTES = 128 << 10, CALLS_MS = 2 };
	uint64_t bytes = (uint64_t)vm->config.cpus.max * VCPU_BYTES + DEVICES_BYTES;
	uint64_t ns = CALLS_MS * NS_PER_MS + (r->rate ? bytes * NS_PER_S / r->rate : 0);

	return MIN(ns, r->downtime_ns / 2);
}

static int end_round(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	uint64_t bytes = m->send.bytes - m->round_bytes, pages;
	uint64_t ns = clock_ns() - m->round_ns;
	enum round_next next;
	int rc = collect(vm, m, &pages, err);

	if (rc)
		return rc;
	next = rounds_end(&m->rounds, bytes, ns, pages * WIRE_PAGE_BYTES, fixed_ns(vm, &m->rounds));
	say_progress(vm, m);
	m->send.first_round = false;
	send_frame(&m->send, WIRE_ROUND, m->rounds.n, NULL, pages * WIRE_PAGE_BYTES);
	if (next == ROUND_NEVER)
		return err_set(err, -ETIME,
			       "the guest writes memory faster than the stream takes it (%.1f "
			       "MiB/s, a pause of %llu ms expected); give it more --downtime, a "
			       "faster network, or the guest less to do",
			       (double)m->rounds.rate / MiB,
			       (unsigned long long)(m->rounds.pause_ns / NS_PER_MS));
	if (next == ROUND_LAST)
		rc = stand_still(vm, m, err);
	return rc < 0 ? rc : 0;
}

/* State, and that it was all. */
static void queue_state(struct vm_migration *m)
{
	size_t n = MIN(m->state.len - m->state_sent, (size_t)WIRE_PAYLOAD_MAX);

	if (n) {
		send_frame(&m->send, WIRE_STATE, 0, m->state.bytes + m->state_sent, n);
		m->state_sent += n;
		return;
	}
	send_frame(&m->send, WIRE_WHOLE, m->state.len, NULL, 0);
	m->whole_sent = true;
	m->stage = LOADING;
}

/* The next of what there is to send. */
static int queue_next(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	int rc = 0;

	if (m->stage == ROUNDS) {
		if (!send_pages(&m->send, &rc) && !rc)
			rc = end_round(vm, m, err);
	} else if (m->stage == LAST && !m->state_sent) {
		if (!send_pages(&m->send, &rc) && !rc)
			queue_state(m);
	} else if (m->stage == LAST) {
		queue_state(m);
	}
	return rc == -EFAULT ? err_set(err, rc, "memory has left the machine") : rc;
}

static int pump(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	for (unsigned int i = 0; i < BATCHES; i++) {
		int rc = stream_write(&m->stream, &m->send);

		if (rc < 0)
			return err_set(err, rc, "the stream broke: %s", err_name(rc));
		if (!rc || (m->stage != ROUNDS && m->stage != LAST))
			return 0;
		rc = queue_next(vm, m, err);
		if (rc)
			return rc;
	}
	stream_again(&m->stream);
	return 0;
}

/* --- answers --- */

/* Once a byte of GO has left, this side does not run, unless the target says that it does not. */
static int commit(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	int rc;

	m->released = true;
	rc = vm_hold_devices(vm, false, err);
	if (rc)
		return rc;
	send_frame(&m->send, WIRE_GO, m->ran, NULL, 0);
	m->committed_ns = clock_ns();
	rc = stream_write(&m->stream, &m->send);
	if (rc == 1 || m->send.iov[0].iov_len != WIRE_HEAD_BYTES) {
		m->stage = COMMITTED;
		return 0;
	}
	return err_set(err, rc ? rc : -EPIPE, "the target could not hear that it goes on: %s",
		       rc ? err_name(rc) : "its socket takes nothing");
}

static void arrived(struct hospes_vm *vm, struct vm_migration *m)
{
	uint64_t now = clock_ns();
	char text[200];

	snprintf(text, sizeof(text),
		 "%u rounds, %.1f MiB in %.2f s, %llu pages of which %llu were zero, stood still "
		 "for %.1f ms",
		 m->rounds.n, (double)m->send.bytes / MiB, (double)(now - m->begun_ns) / NS_PER_S,
		 (unsigned long long)m->send.pages, (unsigned long long)m->send.zeroes,
		 (double)(now - m->still_ns) / NS_PER_MS);
	log_info(&vm->log, "migration", "%s", text);
	vm_emit(vm, HOSPES_EVENT_MIGRATING, (int)m->rounds.n, text);
	stop_tracking(vm, m);
	over(vm, m, 0, "");
	vm_end(vm, HOSPES_OUTCOME_MIGRATED, "migrated");
}

static int take_answer(struct hospes_vm *vm, struct vm_migration *m, const struct wire_frame *frame,
		       struct err *err)
{
	char text[WIRE_TEXT_MAX + 1];

	if (frame->kind == WIRE_FAILED) {
		snprintf(err->text, sizeof(err->text), "the target: %s", wire_text(frame, text));
		fail(vm, m, -EREMOTEIO, err->text);
		return 0;
	}
	if (frame->kind == WIRE_ACCEPT && m->stage == GREETING)
		return start_rounds(vm, m, err);
	if (frame->kind == WIRE_LOADED && m->stage == LOADING && send_is_empty(&m->send))
		return commit(vm, m, err);
	if (frame->kind == WIRE_RUNNING && m->stage == COMMITTED) {
		arrived(vm, m);
		return 0;
	}
	return err_set(err, -EPROTO, "the target sent '%s' in the stage '%s'",
		       wire_name(frame->kind), stage_names[m->stage]);
}

static int take_answers(struct hospes_vm *vm, struct vm_migration *m, struct err *err)
{
	struct wire_frame frame;
	int rc = 0;

	while (!rc && m->stage < UNDECIDED) {
		rc = stream_read(&m->stream, &frame, err);
		if (rc <= 0)
			return rc;
		rc = take_answer(vm, m, &frame, err);
	}
	return rc;
}

static int check_time(const struct vm_migration *m, struct err *err)
{
	uint64_t now = clock_ns();

	if (m->stage == COMMITTED ? now - m->committed_ns > ANSWER_NS
	    : m->stage >= LAST    ? now - m->still_ns > STILL_NS
	    : m->stage == ROUNDS  ? stream_still_ns(&m->stream) > SILENCE_NS
				  : now - m->begun_ns > GREETING_NS)
		return err_set(err, -ETIMEDOUT, "the target does not answer (stage '%s')",
			       stage_names[m->stage]);
	return 0;
}

void vm_migrate_act(struct hospes_vm *vm)
{
	struct vm_migration *m = vm->migration;
	struct err err = ERR_INIT;
	int rc;

	if (!m || m->stage >= UNDECIDED || atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	rc = take_answers(vm, m, &err);
	if (!rc && m->stage < UNDECIDED)
		rc = pump(vm, m, &err);
	if (!rc && m->stage < UNDECIDED)
		rc = check_time(m, &err);
	if (!rc || m->stage >= UNDECIDED)
		return;
	if (m->stage == COMMITTED)
		stand_undecided(vm, m, err.text);
	else
		fail(vm, m, rc, err.text);
}

/* --- what others ask --- */

void vm_migrate_reset(struct hospes_vm *vm)
{
	if (vm->migration && vm->migration->tracks)
		dirty_mark_ram(vm->dirty);
}

void vm_migrate_ended(struct hospes_vm *vm)
{
	struct vm_migration *m = vm->migration;

	if (!m || m->stage == OVER)
		return;
	if (m->stage < COMMITTED && send_is_empty(&m->send))
		stream_say(&m->stream, WIRE_CANCEL, "the machine has stopped");
	stop_tracking(vm, m);
	over(vm, m, -ECANCELED, "the machine has stopped");
}

void vm_migrate_destroy(struct hospes_vm *vm)
{
	struct vm_migration *m = vm->migration;

	if (!m)
		return;
	vm->migration = NULL;
	stop_tracking(vm, m);
	stream_close(&m->stream, true);
	free(m->document);
	free(m->state.bytes);
	free(m);
}

int vm_migrate_refuses(struct hospes_vm *vm, const char *verb, struct err *err)
{
	const struct vm_migration *m = vm->migration;

	if (vm_arrival_waits(vm))
		return err_set(err, -EBUSY, "cannot %s: the machine is still to arrive", verb);
	if (m && m->stage == UNDECIDED)
		return err_set(err, -EBUSY,
			       "cannot %s: it is not decided whether the machine runs at the "
			       "target; look there, and then stop or resume this one",
			       verb);
	if (m && m->stage != OVER)
		return err_set(err, -EBUSY,
			       "cannot %s: a migration is under way ('hospes ctl NAME migrate "
			       "cancel' ends it)",
			       verb);
	return 0;
}

int vm_migrate_may_resume(struct hospes_vm *vm, struct err *err)
{
	struct vm_migration *m = vm->migration;
	int rc;

	if (!m || m->stage < LAST || m->stage == OVER)
		return vm_arrival_may_resume(vm, err);
	if (m->stage != UNDECIDED)
		return vm_migrate_refuses(vm, "resume", err);
	rc = vm_hold_devices(vm, true, err);
	if (rc)
		return rc;
	m->stage = OVER;
	log_warn(&vm->log, "migration", "it was decided that the machine goes on here");
	return 0;
}

json_t *vm_migrate_status(const struct hospes_vm *vm)
{
	const struct vm_migration *m = vm->migration;

	if (!m)
		return vm_arrival_status(vm);
	return json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "side", "source", "stage",
			 stage_names[m->stage], "rounds", (int)m->rounds.n, "sent_bytes",
			 (json_int_t)m->send.bytes, "left_bytes", (json_int_t)m->rounds.left_bytes,
			 "bytes_per_s", (json_int_t)m->rounds.rate, "zero_pages",
			 (json_int_t)m->send.zeroes, "pause_expected_us",
			 (json_int_t)MIN(m->rounds.pause_ns / 1000, (uint64_t)INT64_MAX),
			 "downtime_limit_us", (json_int_t)(m->rounds.downtime_ns / 1000));
}
