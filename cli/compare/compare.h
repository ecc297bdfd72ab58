/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `hospes iommu compare`: rows (a strategy, how the guest unmaps, how its requests travel) times
 * cases (a workload of one size and depth), each with some samples of all figures.
 *
 *   compare.c ─► guest.c: one guest per row, a line protocol on its console
 *                   │ parse.c: its answers, and the machine's status before and after
 *                model.c ─► table.c, json.c, svg.c
 *
 * Each strategy or transport adds a row; a new figure is a line in compare_figures[]. Text from a
 * guest is cleaned (compare_clean) before it is stored, because it is printed to terminals and into
 * files. One thread.
 */
#ifndef COMPARE_COMPARE_H
#define COMPARE_COMPARE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum compare_figure {
	COMPARE_RATE,
	COMPARE_BYTES,
	COMPARE_LATENCY,
	COMPARE_P99,
	COMPARE_CPU,
	COMPARE_GUEST,
	COMPARE_VMM,
	COMPARE_KERNEL,
	COMPARE_RETURNS,
	COMPARE_MAP_REQUESTS,
	COMPARE_UNMAP_REQUESTS,
	COMPARE_MAPS,
	COMPARE_UNMAPS,
	COMPARE_HITS,
	COMPARE_MAP_TIME,
	COMPARE_UNMAP_TIME,
	COMPARE_MAPPED,
	COMPARE_REQUESTED,
	COMPARE_STALE,
	COMPARE_PINNED,
	COMPARE_FIGURES,
};
/* Names in JSON, with the unit in them, and what each is. */
struct compare_figure_info {
	const char *key, *what;
};
extern const struct compare_figure_info compare_figures[COMPARE_FIGURES];

enum compare_kind {
	COMPARE_BLOCK,
	COMPARE_STREAM,
	COMPARE_RESPONSE,
};
const char *compare_kind_name(enum compare_kind kind); /* "block", "stream", "response" */

enum {
	COMPARE_ROWS = 48,
	COMPARE_CASES = 16,
	COMPARE_REPEATS = 15,
	COMPARE_TEXT = 96,
};

struct compare_row {
	char strategy[64];  /* with its parameters as the user gave them */
	char guest[8];      /* how the guest unmaps: "strict", "lazy"; "" without a virtual IOMMU */
	char transport[24]; /* how its requests travel; "": as the machine has it by default */
	char label[COMPARE_TEXT];
	const char *promise; /* of the strategy, one line; borrowed, NULL: none */
	char error[256];     /* why there is nothing, or not all, of it; "" */
};

struct compare_case {
	enum compare_kind kind;
	uint64_t bytes;
	unsigned int depth; /* requests in flight */
	char label[COMPARE_TEXT];
};

struct compare_cell {
	unsigned int n;
	double samples[COMPARE_REPEATS][COMPARE_FIGURES]; /* NAN: not known */
};

struct compare {
	char device[COMPARE_TEXT]; /* as the user named it */
	char date[32];
	char host[COMPARE_TEXT];  /* kernel */
	char guest[COMPARE_TEXT]; /* kernel and tool, as the guest said */
	bool emulated;            /* the host itself is a virtual machine */
	unsigned int seconds, repeats;
	struct compare_row rows[COMPARE_ROWS];
	struct compare_case cases[COMPARE_CASES];
	unsigned int n_rows, n_cases;
	struct compare_cell *cells; /* n_rows * n_cases */
};

/* --- model.c --- */

/* All bytes but printable ASCII become '?'. Returns text. */
char *compare_clean(char *text);
/* Room for the cells once rows and cases are there: 0 or -ENOMEM. */
int compare_start(struct compare *c);
void compare_done(struct compare *c);
/* false: no room. guest, transport "": see struct compare_row. */
bool compare_add_row(struct compare *c, const char *strategy, const char *guest,
		     const char *transport, const char *promise);
bool compare_add_case(struct compare *c, enum compare_kind kind, uint64_t bytes,
		      unsigned int depth);
struct compare_cell *compare_cell(const struct compare *c, unsigned int row, unsigned int at);

struct compare_value {
	double median, low, high; /* NAN: not known */
};
struct compare_value compare_value(const struct compare *c, unsigned int row, unsigned int at,
				   enum compare_figure figure);
/* Of the same figure of `direct` without a virtual IOMMU; NAN. */
double compare_relative(const struct compare *c, unsigned int row, unsigned int at,
			enum compare_figure figure);
/* Mapped by what the guest asked for; a guest that asks for nothing is held to what one under
 * `strict` asks for in the same case (*borrowed). NAN. */
double compare_over_exposure(const struct compare *c, unsigned int row, unsigned int at,
			     bool *borrowed);
/* Is no other row of this case both cheaper (CPU) and less exposed (reachable), or one of these and
 * as good in the other? Rows of which one of both is not known are not on the front. */
bool compare_is_on_front(const struct compare *c, unsigned int row, unsigned int at);
/* Requests to map that made no call of their own, by all; NAN. */
double compare_hit_rate(const struct compare *c, unsigned int row, unsigned int at);
/* Microseconds of CPU, of guest and host, that an operation takes beyond direct's, by map
 * requests. */
double compare_pair_us(const struct compare *c, unsigned int row, unsigned int at);

/* --- parse.c --- */

/* The line that fio --output-format=terse --terse-version=3 prints. -EINVAL: it is not one. */
struct compare_answer {
	double operations, seconds, latency_us, p99_us;
};
int compare_parse_fio(const char *line, uint64_t block_bytes, struct compare_answer *ret);
/* iperf3 --json in one line, of a client that sent messages of so many bytes. */
int compare_parse_iperf(const char *line, uint64_t message_bytes, struct compare_answer *ret);
/* The last two lines of ping -q, joined: so many answers in so many seconds. */
int compare_parse_ping(const char *line, double seconds, struct compare_answer *ret);

/* Counters of a moment. */
struct compare_snapshot {
	double time_s;                    /* of the ledger */
	double guest_s, user_s, kernel_s; /* user_s has the guest's in it */
	double returns;
	double map_requests, unmap_requests;
	double maps, map_ns, unmaps, unmap_ns, hits;
	double mapped, requested, stale, pinned; /* byte-seconds */
};
/* From the machine's status; behind: the device is behind the virtual IOMMU. -ENOENT: the
 * status has no address space of such a device. */
int compare_parse_status(const json_t *status, const char *device, bool behind,
			 struct compare_snapshot *ret);
/* What went on between two moments, per operation where that is meant. */
void compare_figures_of(const struct compare_snapshot *from, const struct compare_snapshot *to,
			const struct compare_answer *answer, uint64_t bytes, bool behind,
			double figures[COMPARE_FIGURES]);

/* --- the ways to tell it --- */

void compare_print_table(FILE *to, const struct compare *c);
json_t *compare_json(const struct compare *c);
/* Take over the samples of rows and cases that such a document has too, up to c->repeats of each;
 * after compare_start. false: it is none, or of another device, host, or length of runs; `why` then
 * says so. */
bool compare_resume(struct compare *c, const json_t *document, char *why, size_t bytes);
/* One picture for light and dark: a panel per case, cost against exposure, with the Pareto front;
 * the size of a mark is pinned memory. */
void compare_print_svg(FILE *to, const struct compare *c);
/* "1.5 MiB", "812", "0.034": three digits, in text, which it returns; "-" for NAN. */
const char *compare_number(double value, char text[COMPARE_TEXT]);

/* Figures of others, marked as theirs. */
struct compare_theirs {
	const char *source, *what;
	bool block, net;
	uint64_t min_bytes, max_bytes;
	unsigned int depth; /* 0: any */
};
extern const struct compare_theirs compare_theirs[];
extern const unsigned int n_compare_theirs;
bool compare_theirs_fits(const struct compare_theirs *t, const struct compare_case *at);

#endif
