// SPDX-License-Identifier: Apache-2.0
// Live migration, the target. See arrival.h.
#include "machine/arrival.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "machine/kind.h"
#include "machine/migrate.h"
#include "machine/stream.h"
#include "machine/vm.h"
#include "migration/receive.h"

#define SILENCE_NS (60 * NS_PER_S) /* of a source whose machine is not here yet */

enum {
	WORK_BYTES = 8 << 20, /* of pages, in one iteration */
	FRAME_COST = 4096,    /* of one without any */
};

enum stage {
	COMING,
	LOADED,
	STRANDED,
	ARRIVED,
	ENDED,
};
static const char *const stage_names[] = {"coming", "loaded", "stranded", "arrived", "ended"};

struct vm_arrival {
	enum stage stage;
	bool begun;
	struct vm_stream stream;
	struct receive receive;
	uint64_t still_ns; /* when the source stood still, by our clock */
};

int vm_arrival_create(struct hospes_vm *vm, struct err *err)
{
	struct vm_arrival *a;
	int rc;

	if (vm->config.incoming.fd < 0)
		return 0;
	if (vm->snapshot.present)
		return err_set(err, -EINVAL,
			       "incoming: a machine comes from a snapshot (restore) or from "
			       "another host, not from both");
	if (!mem_new(a))
		return err_set(err, -ENOMEM, "incoming: no memory");
	rc = stream_open(&a->stream, vm->loop, vm->config.incoming.fd, err);
	if (rc) {
		free(a);
		return rc;
	}
	receive_init(&a->receive, vm->gmem);
	vm->arrival = a;
	return 0;
}

void vm_arrival_begin(struct hospes_vm *vm)
{
	struct vm_arrival *a = vm->arrival;

	a->begun = true;
	a->stream.moved_ns = clock_ns();
	stream_say(&a->stream, WIRE_ACCEPT, NULL);
	stream_again(&a->stream);
}

/* Nothing is lost: the source has the machine. */
static void fail(struct hospes_vm *vm, struct vm_arrival *a, int rc, const char *text)
{
	a->stage = ENDED;
	stream_say(&a->stream, WIRE_FAILED, text);
	stream_shut(&a->stream);
	log_error(&vm->log, "migration", "%s", text);
	vm_emit(vm, HOSPES_EVENT_MIGRATED, rc, text);
	vm_end(vm, HOSPES_OUTCOME_KILLED, text);
}

static void strand(struct hospes_vm *vm, struct vm_arrival *a, const char *why)
{
	char text[512];

	a->stage = STRANDED;
	stream_shut(&a->stream);
	snprintf(text, sizeof(text),
		 "the machine is here as a whole, but the source has not said that it gives it up "
		 "(%s): this side stands still; if the machine runs at the source, stop this one, "
		 "else, and only then, resume it",
		 why);
	log_error(&vm->log, "migration", "%s", text);
	vm_emit(vm, HOSPES_EVENT_MIGRATED, -EINPROGRESS, text);
}

static int load(struct hospes_vm *vm, struct vm_arrival *a, struct err *err)
{
	int rc;

	vm->snapshot.bytes = a->receive.state.bytes;
	vm->snapshot.len = a->receive.state.len;
	a->receive.state = (struct state_buffer){0};
	vm->snapshot.least_ns = clock_ns() - a->still_ns;
	rc = snapshot_load(vm, err);
	if (rc)
		return rc;
	receive_loaded(&a->receive);
	a->stage = LOADED;
	stream_say(&a->stream, WIRE_LOADED, NULL);
	return 0;
}

static void announce(struct hospes_vm *vm)
{
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL))) {
		if (d->kind->arrived && d->dev)
			d->kind->arrived(d);
	}
}

/* The source has given it up: from here on it is this machine that runs, or nothing. */
static void go_on(struct hospes_vm *vm, struct vm_arrival *a)
{
	struct err err = ERR_INIT;
	int rc = vm_hold_devices(vm, true, &err);

	if (rc) {
		fail(vm, a, rc, err.text);
		return;
	}
	a->stage = ARRIVED;
	if (a->receive.run && vm_do_resume(vm, NULL, &err)) {
		log_error(&vm->log, "migration", "%s", err.text);
		a->receive.run = false;
	}
	stream_say(&a->stream, WIRE_RUNNING, NULL);
	stream_shut(&a->stream);
	announce(vm);
	log_info(&vm->log, "migration", "the machine has arrived%s",
		 a->receive.run ? "" : ", and stands still");
	vm_emit(vm, HOSPES_EVENT_MIGRATED, 0, "");
}

static int take(struct hospes_vm *vm, struct vm_arrival *a, const struct wire_frame *frame,
		struct err *err)
{
	enum receive_stage before = a->receive.stage;
	int rc = receive_frame(&a->receive, frame, err);

	if (rc || a->receive.stage == before)
		return rc;
	if (a->receive.stage == RECEIVE_LAST)
		a->still_ns = clock_ns();
	else if (a->receive.stage == RECEIVE_WHOLE)
		return load(vm, a, err);
	else if (a->receive.stage == RECEIVE_GONE_ON)
		go_on(vm, a);
	return 0;
}

static int take_all(struct hospes_vm *vm, struct vm_arrival *a, struct err *err)
{
	struct wire_frame frame;
	uint64_t cost = 0;
	int rc = 1;

	while (a->stage < STRANDED && cost < WORK_BYTES) {
		bool pages;

		rc = stream_read(&a->stream, &frame, err);
		if (rc <= 0)
			return rc;
		pages = frame.kind == WIRE_PAGES || frame.kind == WIRE_ZERO;
		cost += FRAME_COST + (pages ? frame.bytes : 0);
		rc = take(vm, a, &frame, err);
		if (rc)
			return rc;
	}
	stream_again(&a->stream);
	return 0;
}

void vm_arrival_act(struct hospes_vm *vm)
{
	struct vm_arrival *a = vm->arrival;
	struct err err = ERR_INIT;
	int rc;

	if (!a || !a->begun || a->stage >= STRANDED || atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	rc = take_all(vm, a, &err);
	if (!rc && a->stage == COMING && stream_still_ns(&a->stream) > SILENCE_NS)
		rc = err_set(&err, -ETIMEDOUT, "the source has sent nothing for %d s",
			     (int)(SILENCE_NS / NS_PER_S));
	if (!rc || a->stage >= STRANDED)
		return;
	/* One that gives up has it; one that is gone may have said so too late. */
	if (a->stage == LOADED && rc != -ECANCELED)
		strand(vm, a, err.text);
	else
		fail(vm, a, rc, err.text);
}

void vm_arrival_ended(struct hospes_vm *vm)
{
	struct vm_arrival *a = vm->arrival;

	if (!a || a->stage >= ARRIVED)
		return;
	if (a->stage < STRANDED)
		stream_say(&a->stream, WIRE_FAILED, "the machine was ended at the target");
	a->stage = ENDED;
	stream_shut(&a->stream);
}

void vm_arrival_destroy(struct hospes_vm *vm)
{
	struct vm_arrival *a = vm->arrival;

	if (!a)
		return;
	vm->arrival = NULL;
	stream_close(&a->stream, true);
	receive_done(&a->receive);
	free(a);
}

bool vm_arrival_waits(const struct hospes_vm *vm)
{
	return vm->arrival && vm->arrival->stage < ARRIVED;
}

int vm_arrival_may_resume(struct hospes_vm *vm, struct err *err)
{
	struct vm_arrival *a = vm->arrival;
	int rc;

	if (!a || a->stage >= ARRIVED)
		return 0;
	if (a->stage != STRANDED)
		return err_set(err, -EBUSY, "cannot resume: the machine is still to arrive");
	rc = vm_hold_devices(vm, true, err);
	if (rc)
		return rc;
	a->stage = ARRIVED;
	announce(vm);
	log_warn(&vm->log, "migration", "it was decided that the machine goes on here");
	return 0;
}

json_t *vm_arrival_status(const struct hospes_vm *vm)
{
	const struct vm_arrival *a = vm->arrival;

	if (!a)
		return NULL;
	return json_pack("{s:s, s:s, s:i, s:I, s:I}", "side", "target", "stage",
			 stage_names[a->stage], "rounds", (int)a->receive.rounds, "pages",
			 (json_int_t)a->receive.pages, "zero_pages", (json_int_t)a->receive.zeroes);
}
