// SPDX-License-Identifier: Apache-2.0
// hospes_iommu_bench: what mapping costs on this host, by size, backing, batch and threads, and
// which part of it is what. The kernel tells no parts, so the same call is made where a part is
// missing, and the difference taken: a copy of pinned pages pins none, a space without a table
// fills in none, a table that no device uses is not invalidated.
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/num.h"
#include "base/thread.h"
#include "hospes/hospes.h"
#include "machine/api.h"
#include "machine/open_passthrough.h"

enum { PAGE = 4096, MAX_RUNS = 101, MAX_THREADS = 16, RW = IOAS_READ | IOAS_WRITE };
#define IOVA (4 * GiB) /* where everything is mapped: past what is reserved on x86 */

struct bench {
	const struct hospes_bench_options *options;
	struct err *err;
	const char *device;
	enum iommu_kind kind;
	struct iommu *iommu;
	struct iommu_endpoint *endpoint;
	/* The device's; and iommufd's: pinned, to copy from; without a table; with one unused. */
	struct ioas *live, *staging, *loose, *idle;
	char *memory;
	uint64_t bytes;
	unsigned int done, total;
};

static void step(struct bench *b, const char *what)
{
	if (b->options->progress)
		b->options->progress(b->options->opaque, what, b->done, b->total);
	b->done++;
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
struct cost {
	uint64_t map_ns, unmap_ns; /* for all `count` of them */
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
	uint64_t most = b->options->quick ? 15 : MAX_RUNS, least = b->options->quick ? 3 : 5;
	uint64_t runs = 256 * MiB / bytes;

	return (unsigned int)MAX(least, MIN(runs, most));
}

static int measure(struct bench *b, const struct shape *s, struct cost *ret)
{
	uint64_t map_ns[MAX_RUNS], unmap_ns[MAX_RUNS], t0, t1;
	unsigned int runs = runs_of(b, s->count * s->bytes);

	*ret = (struct cost){0};
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
			return err_prefix(b->err, "%s", b->device);
		}
		rc = unmap_all(s);
		if (rc)
			return err_set(b->err, rc, "%s: unmap: %s", b->device, err_name(rc));
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
		ioas_unmap(b->staging, IOVA, b->bytes, &unmapped);
	munmap(b->memory, b->bytes);
	b->memory = NULL;
}

/* -ENOENT: this host has none of that kind. */
static int memory_take(struct bench *b, const struct backing *backing)
{
	struct ioas_memory memory = {.fd = -1, .gpa = UINT64_MAX};
	char *p = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | backing->flags, -1, 0);
	int rc;

	if (p == MAP_FAILED && backing->flags)
		return -ENOENT;
	if (p == MAP_FAILED)
		return err_set(b->err, -errno, "%llu bytes of memory: %s",
			       (unsigned long long)b->bytes, err_name(errno));
	if (!backing->flags && madvise(p, b->bytes, backing->advice) &&
	    backing->advice == MADV_HUGEPAGE) {
		munmap(p, b->bytes);
		return -ENOENT; /* a kernel without them */
	}
	memset(p, 1, b->bytes);
	b->memory = memory.hva = p;
	rc = b->staging ? ioas_map(b->staging, IOVA, b->bytes, &memory, RW) : 0;
	if (!rc)
		return 0;
	ioas_explain(b->staging, rc, IOVA, b->bytes, b->err);
	memory_drop(b);
	return err_prefix(b->err, "%s: memory to copy from", b->device);
}

/* --- by size --- */

static json_int_t minus(uint64_t a, uint64_t b)
{
	return (json_int_t)(a > b ? a - b : 0);
}

static int measure_parts(struct bench *b, uint64_t bytes, const struct cost *full, json_t *row)
{
	struct shape s = {.copy = true, .bytes = bytes, .count = 1};
	struct cost live, loose, idle;
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
	json_object_update_new(
		row, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "copy_ns",
			       (json_int_t)live.map_ns, "copy_unmap_ns", (json_int_t)live.unmap_ns,
			       "pinning_ns", minus(full->map_ns, live.map_ns), "table_ns",
			       minus(live.map_ns, loose.map_ns), "unpinning_ns",
			       minus(full->unmap_ns, live.unmap_ns), "untable_ns",
			       minus(idle.unmap_ns, loose.unmap_ns), "invalidation_ns",
			       minus(live.unmap_ns, idle.unmap_ns)));
	return 0;
}

static int measure_sizes(struct bench *b, const struct backing *backing, json_t *rows)
{
	unsigned int factor = b->options->quick ? 16 : 4;
	int rc = 0;

	for (uint64_t bytes = PAGE; bytes <= b->bytes && !rc; bytes *= factor) {
		struct shape s = {.ioas = b->live, .bytes = bytes, .count = 1};
		struct cost cost;
		json_t *row;

		if (bytes < backing->least_bytes)
			continue;
		step(b, backing->name);
		rc = measure(b, &s, &cost);
		if (rc)
			break;
		row = json_pack("{s:s, s:I, s:I, s:I, s:i}", "backing", backing->name, "bytes",
				(json_int_t)bytes, "map_ns", (json_int_t)cost.map_ns, "unmap_ns",
				(json_int_t)cost.unmap_ns, "runs", (int)runs_of(b, bytes));
		if (b->staging)
			rc = measure_parts(b, bytes, &cost, row);
		json_array_append_new(rows, row);
	}
	return rc;
}

/* --- scattered pages, in batches --- */

static int measure_batches(struct bench *b, json_t *rows)
{
	unsigned int most = (unsigned int)MIN((uint64_t)256, b->bytes / PAGE / 2);
	int rc = 0;

	for (unsigned int n = 1; n <= most && !rc; n *= 4) {
		struct shape s = {.ioas = b->live, .bytes = PAGE, .count = n, .stride = 2 * PAGE};
		struct shape one = {.ioas = b->live, .bytes = (uint64_t)n * PAGE, .count = 1};
		struct cost once, each, together;

		step(b, "batches of pages");
		rc = measure(b, &s, &once);
		s.unmap_each = true;
		if (!rc)
			rc = measure(b, &s, &each);
		if (!rc)
			rc = measure(b, &one, &together);
		if (rc)
			return rc;
		json_array_append_new(
			rows, json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "pages", (int)n,
					"scattered_map_ns", (json_int_t)once.map_ns,
					"scattered_unmap_once_ns", (json_int_t)once.unmap_ns,
					"scattered_unmap_each_ns", (json_int_t)each.unmap_ns,
					"contiguous_map_ns", (json_int_t)together.map_ns,
					"contiguous_unmap_ns", (json_int_t)together.unmap_ns));
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
		w->runs = b->options->quick ? 15 : MAX_RUNS;
		rc = thread_start(&w->thread, THREAD_HELPER, started, work, w);
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
		return err_set(b->err, rc, "%s: %u threads: %s", b->device, n, err_name(rc));
	*median_ns = median(ns, n);
	return 0;
}

static int measure_threads(struct bench *b, json_t *rows)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int most = cpus > 0 ? (unsigned int)MIN(cpus, (long)MAX_THREADS) : 1;
	int rc = 0;

	for (unsigned int n = 1; n <= most && !rc; n *= 2) {
		uint64_t ns;

		if ((uint64_t)n * WORKER_BYTES > b->bytes)
			break;
		step(b, "threads");
		rc = run_workers(b, n, &ns);
		if (!rc)
			json_array_append_new(rows, json_pack("{s:i, s:i, s:I}", "threads", (int)n,
							      "bytes", (int)WORKER_BYTES,
							      "map_unmap_ns", (json_int_t)ns));
	}
	return rc;
}

/* --- a backend --- */

static void bench_close(struct bench *b)
{
	memory_drop(b);
	if (b->endpoint)
		ioas_detach(b->endpoint);
	ioas_destroy(b->idle);
	ioas_destroy(b->loose);
	ioas_destroy(b->staging);
	ioas_destroy(b->live);
	iommu_endpoint_destroy(b->endpoint);
	iommu_destroy(b->iommu);
	b->idle = b->loose = b->staging = b->live = NULL;
	b->endpoint = NULL;
	b->iommu = NULL;
}

static int open_spaces(struct bench *b)
{
	int rc = ioas_create(&b->live, b->iommu, "bench", b->err);

	if (!rc)
		rc = ioas_attach(b->live, b->endpoint, b->err);
	if (rc || b->kind == IOMMU_TYPE1)
		return rc;
	rc = ioas_create(&b->loose, b->iommu, "without a table", b->err);
	if (!rc)
		rc = ioas_create(&b->staging, b->iommu, "to copy from", b->err);
	if (!rc)
		rc = ioas_create(&b->idle, b->iommu, "unused", b->err);
	if (rc)
		return rc;
	rc = ioas_pin(b->staging, b->endpoint);
	if (!rc)
		rc = ioas_pin(b->idle, b->endpoint);
	return rc ? err_set(b->err, rc, "%s: a table of its own: %s", b->device, err_name(rc)) : 0;
}

static int bench_open(struct bench *b)
{
	struct config_passthrough p = {
		.base.id = (char *)b->device, .device = (char *)b->device, .fd = -1, .iommufd = -1};
	struct iommu_config config = {.kind = b->kind, .iommufd = -1};
	struct iommu_endpoint_config e = {.fd = -1};
	struct open_passthrough found;
	int rc = open_passthrough_find(&p, &found, b->err);

	if (!rc) {
		e.fd = open_passthrough_fd(&p, &found, b->kind, b->err);
		rc = MIN(e.fd, 0);
	}
	if (rc)
		return rc;
	e.name = found.bdf;
	rc = iommu_create(&b->iommu, &config, b->err);
	if (!rc)
		rc = iommu_endpoint_create(&b->endpoint, b->iommu, &e, b->err);
	if (rc) {
		close(e.fd);
		return err_prefix(b->err, "%s", b->device);
	}
	return open_spaces(b);
}

static int bench_backend(struct bench *b, json_t *results)
{
	json_t *sizes = json_array(), *batches = json_array(), *threads = json_array();
	uint64_t floor_ns = 0;
	int rc = bench_open(b);

	if (!rc)
		floor_ns = measure_floor(b);
	for (unsigned int i = 0; i < ARRAY_SIZE(backings) && !rc; i++) {
		rc = memory_take(b, &backings[i]);
		if (rc == -ENOENT) {
			rc = 0;
			continue;
		}
		if (!rc)
			rc = measure_sizes(b, &backings[i], sizes);
		if (!rc && !i)
			rc = measure_batches(b, batches);
		if (!rc && !i)
			rc = measure_threads(b, threads);
		memory_drop(b);
	}
	bench_close(b);
	json_array_append_new(results,
			      json_pack("{s:s, s:I, s:o, s:o, s:o}", "backend",
					iommu_kind_name(b->kind), "floor_ns", (json_int_t)floor_ns,
					"sizes", sizes, "batches", batches, "threads", threads));
	return rc;
}

/* --- the call --- */

static uint64_t default_bytes(void)
{
	long pages = sysconf(_SC_AVPHYS_PAGES);
	uint64_t quarter = pages > 0 ? (uint64_t)pages * PAGE / 4 : 0;

	return MAX(MIN(quarter, GiB), 4 * MiB);
}

/* Both backends one after the other: the kernel gives a device out once. */
static int run_backends(struct bench *b, bool iommufd, bool type1, json_t *results)
{
	unsigned int sizes = 0;
	int rc = 0;

	for (uint64_t bytes = PAGE; bytes <= b->bytes; bytes *= b->options->quick ? 16 : 4)
		sizes++;
	/* At most: what a host lacks is passed over. */
	b->total = (iommufd + type1) * (2 * sizes + 5 + 2);
	b->kind = IOMMU_IOMMUFD;
	if (iommufd)
		rc = bench_backend(b, results);
	b->kind = IOMMU_TYPE1;
	if (!rc && type1)
		rc = bench_backend(b, results);
	return rc;
}

int hospes_iommu_bench(const char *device, const struct hospes_bench_options *given, char **json,
		       struct hospes_error *error)
{
	struct hospes_bench_options options = {.size = sizeof(options)};
	struct err err = ERR_INIT;
	struct bench b = {.options = &options, .err = &err, .device = device};
	json_t *results, *document;
	const char *backend;
	int rc;

	if (given)
		memcpy(&options, given, MIN(given->size, sizeof(options)));
	backend = options.backend ? options.backend : "both";
	if (strcmp(backend, "both") != 0 && strcmp(backend, "iommufd") != 0 &&
	    strcmp(backend, "type1") != 0)
		return give(error, &err,
			    err_set(&err, -EINVAL, "backend '%s' is not iommufd, type1 or both",
				    backend));
	b.bytes = align_down(options.max_bytes ? options.max_bytes : default_bytes(), 2 * MiB);
	if (!b.bytes)
		return give(error, &err,
			    err_set(&err, -EINVAL, "%llu bytes are too few: at least 2 MiB",
				    (unsigned long long)options.max_bytes));
	results = json_array();
	rc = run_backends(&b, strcmp(backend, "type1") != 0, strcmp(backend, "iommufd") != 0,
			  results);
	document = json_pack("{s:s, s:I, s:o}", "device", device, "memory_bytes",
			     (json_int_t)b.bytes, "results", results);
	*json = !rc && document ? json_dumps(document, JSON_INDENT(2)) : NULL;
	json_decref(document);
	if (!rc && !*json)
		rc = err_set(&err, -ENOMEM, "no memory for the document");
	return give(error, &err, rc);
}
