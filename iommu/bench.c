// SPDX-License-Identifier: Apache-2.0
#include "iommu/bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/num.h"
#include "base/thread.h"

enum { PAGE = 4096, MAX_RUNS = 101, MAX_THREADS = 16, RW = IOAS_READ | IOAS_WRITE };
#define IOVA (4 * GiB) /* where everything is mapped: past what is reserved on x86 */

struct bench {
	const struct bench_setup *setup;
	struct bench_result *result;
	struct err *err;
	/* The device's; and iommufd's: pinned, to copy from; without a table; with one unused. */
	struct ioas *live, *staging, *loose, *idle;
	char *memory;
};

static void step(const struct bench *b, const char *what)
{
	if (b->setup->progress)
		b->setup->progress(b->setup->opaque, what);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, unsigned int n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

/* --- one measurement --- */

struct shape {
	struct ioas *ioas;
	bool copy; /* from staging */
	uint64_t bytes;
	unsigned int count; /* of such mappings, at neighbouring addresses */
	uint64_t stride;    /* in memory */
	bool unmap_each;    /* instead of all at once */
};

static int map_all(const struct bench *b, const struct shape *s)
{
	int rc = 0;

	for (unsigned int i = 0; i < s->count && !rc; i++) {
		struct ioas_memory memory = {
			.hva = b->memory + i * s->stride, .fd = -1, .gpa = UINT64_MAX};
		uint64_t iova = IOVA + i * s->bytes;

		rc = s->copy ? ioas_copy(s->ioas, iova, s->bytes, b->staging, IOVA + i * s->stride,
					 RW)
			     : ioas_map(s->ioas, iova, s->bytes, &memory, RW);
	}
	return rc;
}

static int unmap_all(const struct shape *s)
{
	uint64_t unmapped;
	int rc = 0;

	if (!s->unmap_each)
		return ioas_unmap(s->ioas, IOVA, s->count * s->bytes, &unmapped);
	for (unsigned int i = 0; i < s->count && !rc; i++)
		rc = ioas_unmap(s->ioas, IOVA + i * s->bytes, s->bytes, &unmapped);
	return rc;
}

static unsigned int runs_of(const struct bench *b, uint64_t bytes)
{
	uint64_t most = b->setup->quick ? 15 : MAX_RUNS, least = b->setup->quick ? 3 : 5;
	uint64_t runs = 256 * MiB / bytes;

	return (unsigned int)MAX(least, MIN(runs, most));
}

static int measure(struct bench *b, const struct shape *s, struct bench_cost *ret)
{
	uint64_t map_ns[MAX_RUNS], unmap_ns[MAX_RUNS], t0, t1;
	unsigned int runs = runs_of(b, s->count * s->bytes);

	*ret = (struct bench_cost){0};
	/* The first is not counted: it allocates what the others find. */
	for (unsigned int i = 0; i <= runs; i++) {
		unsigned int at = i ? i - 1 : 0;
		int rc;

		t0 = clock_ns();
		rc = map_all(b, s);
		t1 = clock_ns();
		if (rc) {
			uint64_t unmapped;

			ioas_explain(s->ioas, rc, IOVA, s->count * s->bytes, b->err);
			ioas_unmap(s->ioas, IOVA, s->count * s->bytes, &unmapped);
			return err_prefix(b->err, "%s", b->setup->device);
		}
		rc = unmap_all(s);
		if (rc)
			return err_set(b->err, rc, "%s: unmap: %s", b->setup->device, err_name(rc));
		map_ns[at] = t1 - t0;
		unmap_ns[at] = clock_ns() - t1;
	}
	ret->map_ns = median(map_ns, runs);
	ret->unmap_ns = median(unmap_ns, runs);
	return 0;
}

static uint64_t measure_floor(const struct bench *b)
{
	enum { CALLS = 100 };
	uint64_t ns[MAX_RUNS];

	for (unsigned int i = 0; i < MAX_RUNS; i++) {
		uint64_t start_ns = clock_ns();

		for (unsigned int k = 0; k < CALLS; k++)
			ioas_call_nothing(b->live);
		ns[i] = (clock_ns() - start_ns) / CALLS;
	}
	return MAX(median(ns, MAX_RUNS), 1u);
}

/* --- memory --- */

struct backing {
	const char *name;
	int flags, advice;
	uint64_t least_bytes; /* smaller mappings look like those of 4 KiB pages */
};
static const struct backing backings[] = {
	{"4 KiB pages", 0, MADV_NOHUGEPAGE, PAGE},
	{"transparent huge pages", 0, MADV_HUGEPAGE, 2 * MiB},
	{"2 MiB pages", MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, 0, 2 * MiB},
};

static void memory_drop(struct bench *b)
{
	uint64_t unmapped;

	if (!b->memory)
		return;
	if (b->staging)
		ioas_unmap(b->staging, IOVA, b->setup->max_bytes, &unmapped);
	munmap(b->memory, b->setup->max_bytes);
	b->memory = NULL;
}

/* -ENOENT: this host has none of that kind. */
static int memory_take(struct bench *b, const struct backing *backing)
{
	struct ioas_memory memory = {.fd = -1, .gpa = UINT64_MAX};
	char *p = mmap(NULL, b->setup->max_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | backing->flags, -1, 0);
	int rc;

	if (p == MAP_FAILED && backing->flags)
		return -ENOENT;
	if (p == MAP_FAILED)
		return err_set(b->err, -errno, "%llu bytes of memory: %s",
			       (unsigned long long)b->setup->max_bytes, err_name(errno));
	if (!backing->flags && madvise(p, b->setup->max_bytes, backing->advice) &&
	    backing->advice == MADV_HUGEPAGE) {
		munmap(p, b->setup->max_bytes);
		return -ENOENT; /* a kernel without them */
	}
	memset(p, 1, b->setup->max_bytes);
	b->memory = memory.hva = p;
	rc = b->staging ? ioas_map(b->staging, IOVA, b->setup->max_bytes, &memory, RW) : 0;
	if (!rc)
		return 0;
	ioas_explain(b->staging, rc, IOVA, b->setup->max_bytes, b->err);
	memory_drop(b);
	return err_prefix(b->err, "%s: memory to copy from", b->setup->device);
}

/* --- by size --- */

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static int measure_parts(struct bench *b, struct bench_size *row)
{
	struct shape s = {.copy = true, .bytes = row->bytes, .count = 1};
	struct bench_cost live, loose, idle;
	int rc;

	s.ioas = b->live;
	rc = measure(b, &s, &live);
	s.ioas = b->loose;
	if (!rc)
		rc = measure(b, &s, &loose);
	s.ioas = b->idle;
	if (!rc)
		rc = measure(b, &s, &idle);
	if (rc)
		return rc;
	row->has_parts = true;
	row->copy = live;
	row->pin_ns = minus(row->whole.map_ns, live.map_ns);
	row->fill_ns = minus(live.map_ns, loose.map_ns);
	row->unpin_ns = minus(row->whole.unmap_ns, live.unmap_ns);
	row->clear_ns = minus(idle.unmap_ns, loose.unmap_ns);
	row->invalidate_ns = minus(live.unmap_ns, idle.unmap_ns);
	return 0;
}

static unsigned int size_factor(const struct bench_setup *setup)
{
	return setup->quick ? 16 : 4;
}

static int measure_sizes(struct bench *b, const struct backing *backing)
{
	struct bench_result *r = b->result;
	int rc = 0;

	for (uint64_t bytes = PAGE;
	     bytes <= b->setup->max_bytes && r->n_sizes < BENCH_MAX_SIZES && !rc;
	     bytes *= size_factor(b->setup)) {
		struct shape s = {.ioas = b->live, .bytes = bytes, .count = 1};
		struct bench_size row = {
			.backing = backing->name, .bytes = bytes, .runs = runs_of(b, bytes)};

		if (bytes < backing->least_bytes)
			continue;
		step(b, backing->name);
		rc = measure(b, &s, &row.whole);
		if (!rc && b->staging)
			rc = measure_parts(b, &row);
		if (!rc)
			r->sizes[r->n_sizes++] = row;
	}
	return rc;
}

/* --- scattered pages, in batches --- */

static int measure_batches(struct bench *b)
{
	unsigned int most = (unsigned int)MIN((uint64_t)256, b->setup->max_bytes / PAGE / 2);
	int rc = 0;

	for (unsigned int n = 1; n <= most && !rc; n *= 4) {
		struct shape s = {.ioas = b->live, .bytes = PAGE, .count = n, .stride = 2 * PAGE};
		struct shape one = {.ioas = b->live, .bytes = (uint64_t)n * PAGE, .count = 1};
		struct bench_batch row = {.pages = n};
		struct bench_cost each;

		step(b, "batches of pages");
		rc = measure(b, &s, &row.scattered);
		s.unmap_each = true;
		if (!rc)
			rc = measure(b, &s, &each);
		if (!rc)
			rc = measure(b, &one, &row.whole);
		if (rc)
			return rc;
		row.unmap_each_ns = each.unmap_ns;
		b->result->batches[b->result->n_batches++] = row;
	}
	return rc;
}

/* --- threads --- */

struct worker {
	pthread_t thread;
	pthread_rwlock_t *start; /* held by whoever starts them, until all are there */
	struct ioas *ioas;
	char *memory;
	uint64_t iova;
	unsigned int runs;
	uint64_t median_ns; /* of a map and an unmap */
	int rc;
};
enum { WORKER_BYTES = 64 * 1024 };

static void *work(void *opaque)
{
	struct worker *w = opaque;
	struct ioas_memory memory = {.hva = w->memory, .fd = -1, .gpa = UINT64_MAX};
	uint64_t ns[MAX_RUNS], unmapped;

	pthread_rwlock_rdlock(w->start);
	pthread_rwlock_unlock(w->start);
	for (unsigned int i = 0; i < w->runs && !w->rc; i++) {
		uint64_t start_ns = clock_ns();

		w->rc = ioas_map(w->ioas, w->iova, WORKER_BYTES, &memory, RW);
		if (!w->rc)
			w->rc = ioas_unmap(w->ioas, w->iova, WORKER_BYTES, &unmapped);
		ns[i] = clock_ns() - start_ns;
	}
	w->median_ns = w->rc || !w->runs ? 0 : median(ns, w->runs);
	return NULL;
}

static int run_workers(struct bench *b, unsigned int n, uint64_t *median_ns)
{
	pthread_rwlock_t start = PTHREAD_RWLOCK_INITIALIZER;
	struct worker workers[MAX_THREADS] = {0};
	unsigned int started = 0;
	uint64_t ns[MAX_THREADS];
	int rc = 0;

	pthread_rwlock_wrlock(&start);
	while (started < n && !rc) {
		struct worker *w = &workers[started];

		w->start = &start;
		w->ioas = b->live;
		w->memory = b->memory + (uint64_t)started * WORKER_BYTES;
		w->iova = IOVA + (uint64_t)started * GiB;
		w->runs = b->setup->quick ? 15 : MAX_RUNS;
		rc = thread_start(&w->thread, THREAD_HELPER, started, NULL, work, w);
		started += !rc;
	}
	for (unsigned int i = 0; rc && i < started; i++)
		workers[i].runs = 0;
	pthread_rwlock_unlock(&start);
	for (unsigned int i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		ns[i] = workers[i].median_ns;
		rc = rc ? rc : workers[i].rc;
	}
	if (rc)
		return err_set(b->err, rc, "%s: %u threads: %s", b->setup->device, n, err_name(rc));
	*median_ns = median(ns, n);
	return 0;
}

static int measure_threads(struct bench *b)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int most = cpus > 0 ? (unsigned int)MIN(cpus, (long)MAX_THREADS) : 1;
	int rc = 0;

	for (unsigned int n = 1; n <= most && !rc; n *= 2) {
		struct bench_threads row = {.threads = n, .bytes = WORKER_BYTES};

		if ((uint64_t)n * WORKER_BYTES > b->setup->max_bytes)
			break;
		step(b, "threads");
		rc = run_workers(b, n, &row.map_unmap_ns);
		if (!rc)
			b->result->threads[b->result->n_threads++] = row;
	}
	return rc;
}

/* --- all of it --- */

static int open_spaces(struct bench *b)
{
	struct iommu *iommu = b->setup->iommu;
	int rc = ioas_create(&b->live, iommu, "bench", b->err);

	if (!rc)
		rc = ioas_attach(b->live, b->setup->endpoint, b->err);
	if (rc || iommu_kind_of(iommu) == IOMMU_TYPE1)
		return rc;
	rc = ioas_create(&b->loose, iommu, "without a table", b->err);
	if (!rc)
		rc = ioas_create(&b->staging, iommu, "to copy from", b->err);
	if (!rc)
		rc = ioas_create(&b->idle, iommu, "unused", b->err);
	if (rc)
		return rc;
	rc = ioas_pin(b->staging, b->setup->endpoint);
	if (!rc)
		rc = ioas_pin(b->idle, b->setup->endpoint);
	return rc ? err_set(b->err, rc, "%s: a table of its own: %s", b->setup->device,
			    err_name(rc))
		  : 0;
}

static void close_spaces(struct bench *b)
{
	memory_drop(b);
	ioas_detach(b->setup->endpoint);
	ioas_destroy(b->idle);
	ioas_destroy(b->loose);
	ioas_destroy(b->staging);
	ioas_destroy(b->live);
}

int bench_run(struct bench_result *ret, const struct bench_setup *setup, struct err *err)
{
	struct bench b = {.setup = setup, .result = ret, .err = err};
	int rc = open_spaces(&b);

	*ret = (struct bench_result){0};
	if (!rc)
		ret->floor_ns = measure_floor(&b);
	for (unsigned int i = 0; i < ARRAY_SIZE(backings) && !rc; i++) {
		rc = memory_take(&b, &backings[i]);
		if (rc == -ENOENT) {
			rc = 0;
			continue;
		}
		if (!rc)
			rc = measure_sizes(&b, &backings[i]);
		if (!rc && !i)
			rc = measure_batches(&b);
		if (!rc && !i)
			rc = measure_threads(&b);
		memory_drop(&b);
	}
	close_spaces(&b);
	return rc;
}

unsigned int bench_steps(const struct bench_setup *setup)
{
	unsigned int sizes = 0;

	for (uint64_t bytes = PAGE; bytes <= setup->max_bytes; bytes *= size_factor(setup))
		sizes++;
	return 2 * sizes + BENCH_MAX_BATCHES + BENCH_MAX_THREAD_ROWS;
}
