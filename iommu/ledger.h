/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of an I/O address space: its operations, their cost, and what they exposed.
 *
 * Per kind of operation: calls, failures, bytes, nanoseconds and their histogram. Mapped bytes and
 * the bytes that the guest has requested are integrated over time; their ratio is the
 * over-exposure. Stale bytes, which are reachable after the guest has unmapped them, are integrated
 * too, and what ended them is counted. A ring of recent operations tells the history of an address
 * that faults.
 *
 * Units: bytes, nanoseconds of CLOCK_MONOTONIC, byte-seconds.
 * Threads: its owner's lock guards it (in an ioas, that one's `lock`); ledger_now needs none.
 * Ownership: ledger_create's caller. Errors: -ENOMEM of ledger_create only.
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
	uint64_t at_ns; /* the time of these values */
	struct ledger_kind kind[LEDGER_OPS];
	uint64_t mapped_bytes, mapped_peak_bytes;
	/* Requested by the guest now; equal to mapped_bytes until the first request. */
	uint64_t requested_bytes;
	uint64_t stale_bytes, stale_peak_bytes;
	uint64_t stale_mappings;   /* of the guest */
	uint64_t hits;             /* stale mappings that the guest has mapped again */
	uint64_t evicted;          /* stale mappings that were unmapped */
	uint64_t joined;           /* mappings of the guest that were made as a part of one area */
	uint64_t overruns;         /* stale for more than twice as long as is promised */
	uint64_t stale_longest_ns; /* of those that are no longer stale */
	uint64_t pinned_bytes;     /* without what a copy shares, which counts in its source */
	double mapped_byte_seconds, requested_byte_seconds, stale_byte_seconds;
	double pinned_byte_seconds;
};

int ledger_create(struct ledger **ret, struct err *err);
void ledger_destroy(struct ledger *ledger);

/* The time, for the start and end of an operation. */
uint64_t ledger_now(const struct ledger *ledger);
/* Set another clock before anything is recorded; for tests. */
typedef uint64_t ledger_clock_fn(void *opaque);
void ledger_set_clock(struct ledger *ledger, ledger_clock_fn *clock, void *opaque);

/* An operation on [iova, iova + bytes). */
struct ledger_entry {
	enum ledger_op op;
	uint64_t iova, bytes;
	uint64_t gpa; /* UINT64_MAX: the memory is not the guest's */
	uint64_t start_ns, end_ns;
	int64_t pinned_bytes; /* by which it changed the pinned bytes */
	bool stale;           /* unmap: of what was stale */
	int code;             /* 0 or a negative errno */
};
void ledger_enter(struct ledger *ledger, const struct ledger_entry *entries, unsigned int n);
/* Enter one operation that ends now and pins nothing. */
void ledger_record(struct ledger *ledger, enum ledger_op op, uint64_t iova, uint64_t bytes,
		   uint64_t gpa, uint64_t start_ns, int code);
/* The guest has mapped (on) or unmapped bytes. */
void ledger_request(struct ledger *ledger, uint64_t bytes, bool on);
/* A mapping that the guest has unmapped stays reachable. Returns the time. */
uint64_t ledger_stale(struct ledger *ledger, uint64_t bytes);
/* It no longer is stale. */
struct ledger_stale {
	uint64_t bytes;
	uint64_t since_ns;
	uint64_t promised_ns; /* for how long it may be; UINT64_MAX: no promise */
	bool hit;             /* the guest has mapped it again; else it was unmapped */
};
void ledger_stale_end(struct ledger *ledger, const struct ledger_stale *stale);
/* n mappings of the guest were made as one area. */
void ledger_joined(struct ledger *ledger, unsigned int n);
void ledger_pinned(struct ledger *ledger, int64_t delta_bytes);

/* The totals, integrated up to now. */
void ledger_totals(struct ledger *ledger, struct ledger_totals *ret);
/* The duration, a power of two, that `share` (0 to 1) of the calls of this kind did not reach. */
uint64_t ledger_quantile_ns(const struct ledger_kind *kind, double share);

/* The last operation on the address: "unmapped 3.1 ms ago (request 8812, gpa 0x1c3000)", "mapped
 * 20.0 s ago (request 3)", "stale until it was unmapped 0.2 ms ago (request 7, gpa 0x1c3000)", or
 * "not in the last 4096 operations". Requests are numbered from 1 in each ledger. See also
 * ioas_history. */
void ledger_history(struct ledger *ledger, uint64_t iova, char *text, unsigned int bytes);

#endif
