/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of an I/O address space: what was done to it, what it cost, and what it exposed.
 *
 * Per kind of operation: calls, failures, bytes, nanoseconds and a histogram of them. Mapped bytes
 * and, where a guest asks buffer by buffer, requested bytes are integrated over time: their ratio
 * is the over-exposure. Bytes that stay reachable after the guest took them back are stale, and
 * integrated likewise. A ring of recent operations lets a fault say what its address was last.
 *
 * Threads: the lock of its owner guards it (ioas.h: its own); ledger_now needs none.
 */
#ifndef IOMMU_LEDGER_H
#define IOMMU_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct ledger;

enum ledger_op {
	LEDGER_MAP,
	LEDGER_UNMAP,
	LEDGER_COPY,
	LEDGER_ATTACH,
	LEDGER_DETACH,
	LEDGER_OPS,
};
const char *ledger_op_name(enum ledger_op op);

/* Latencies by powers of two: bucket b counts durations in [2^b, 2^(b+1)) ns. */
enum { LEDGER_BUCKETS = 40, LEDGER_RECENT = 4096 };

struct ledger_kind {
	uint64_t calls, failed, bytes, ns, max_ns;
	uint64_t histogram[LEDGER_BUCKETS];
};
struct ledger_totals {
	uint64_t at_ns; /* CLOCK_MONOTONIC, when these were so */
	struct ledger_kind kind[LEDGER_OPS];
	uint64_t mapped_bytes, mapped_peak_bytes;
	/* By the guest, now; what is mapped, where nobody has asked buffer by buffer yet. */
	uint64_t requested_bytes;
	uint64_t stale_bytes;
	uint64_t pinned_bytes; /* what a copy shares counts where it was pinned first */
	double mapped_byte_seconds, requested_byte_seconds, stale_byte_seconds;
	double pinned_byte_seconds;
};

int ledger_create(struct ledger **ret, struct err *err);
void ledger_destroy(struct ledger *ledger);

/* CLOCK_MONOTONIC in ns, for the two ends of a call. */
uint64_t ledger_now(const struct ledger *ledger);
/* Another clock, for tests: before anything is recorded. */
typedef uint64_t ledger_clock_fn(void *opaque);
void ledger_set_clock(struct ledger *ledger, ledger_clock_fn *clock, void *opaque);

/* An operation on [iova, iova + bytes). Those of one batch have one end, so that
 * the clock is read once. */
struct ledger_entry {
	enum ledger_op op;
	uint64_t iova, bytes;
	uint64_t gpa; /* what it means to the guest, or UINT64_MAX */
	uint64_t start_ns, end_ns;
	int64_t pinned_bytes; /* what it pinned, or, below 0, gave back */
	int code;             /* 0 or a negative errno */
};
void ledger_enter(struct ledger *ledger, const struct ledger_entry *entries, unsigned int n);
/* The same of one that ends now and pins nothing. */
void ledger_record(struct ledger *ledger, enum ledger_op op, uint64_t iova, uint64_t bytes,
		   uint64_t gpa, uint64_t start_ns, int code);
/* The guest asked for (on) or took back [bytes]; and: what it took back is still mapped. */
void ledger_request(struct ledger *ledger, uint64_t bytes, bool on);
void ledger_stale(struct ledger *ledger, uint64_t bytes, bool on);
void ledger_pinned(struct ledger *ledger, int64_t delta_bytes);

/* Integrals run up to now. */
void ledger_totals(struct ledger *ledger, struct ledger_totals *ret);
/* The duration below which `share` (0 to 1) of the calls of this kind stayed, to a power of two. */
uint64_t ledger_quantile_ns(const struct ledger_kind *kind, double share);

/* What was done to the address last, as a phrase: "unmapped 3.1 ms ago (request 8812, gpa
 * 0x1c3000)", "mapped 20.0 s ago (request 3)", or that the ring has nothing of it. Requests are
 * numbered from 1 per ledger. ioas_history() also knows what is mapped now, and how. */
void ledger_history(struct ledger *ledger, uint64_t iova, char *text, unsigned int bytes);

#endif
