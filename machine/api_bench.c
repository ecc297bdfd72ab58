// SPDX-License-Identifier: Apache-2.0
// hospes_iommu_bench: opens the device for each backend, has mappings measured, and reports.
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "hospes/hospes.h"
#include "iommu/bench.h"
#include "machine/api.h"
#include "machine/open_passthrough.h"

struct run {
	const struct hospes_bench_options *options;
	const char *device;
	uint64_t max_bytes;
	unsigned int done, total; /* steps */
};

static void progress(void *opaque, const char *what)
{
	struct run *run = opaque;

	if (run->options->progress)
		run->options->progress(run->options->opaque, what, run->done, run->total);
	run->done++;
}

/* --- the document --- */

static json_t *ns(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *size_row(const struct bench_size *s)
{
	json_t *row = json_pack("{s:s, s:o, s:o, s:o, s:i}", "backing", s->backing, "bytes",
				ns(s->bytes), "map_ns", ns(s->whole.map_ns), "unmap_ns",
				ns(s->whole.unmap_ns), "runs", (int)s->runs);

	if (s->has_parts)
		json_object_update_new(
			row, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "copy_ns",
				       ns(s->copy.map_ns), "copy_unmap_ns", ns(s->copy.unmap_ns),
				       "pinning_ns", ns(s->pin_ns), "table_ns", ns(s->fill_ns),
				       "unpinning_ns", ns(s->unpin_ns), "untable_ns",
				       ns(s->clear_ns), "invalidation_ns", ns(s->invalidate_ns)));
	return row;
}

static json_t *batch_row(const struct bench_batch *b)
{
	return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o}", "pages", (int)b->pages,
			 "scattered_map_ns", ns(b->scattered.map_ns), "scattered_unmap_once_ns",
			 ns(b->scattered.unmap_ns), "scattered_unmap_each_ns", ns(b->unmap_each_ns),
			 "contiguous_map_ns", ns(b->whole.map_ns), "contiguous_unmap_ns",
			 ns(b->whole.unmap_ns));
}

static json_t *threads_row(const struct bench_threads *t)
{
	return json_pack("{s:i, s:o, s:o}", "threads", (int)t->threads, "bytes", ns(t->bytes),
			 "map_unmap_ns", ns(t->map_unmap_ns));
}

static json_t *document_of(enum iommu_kind kind, const struct bench_result *r)
{
	json_t *sizes = json_array(), *batches = json_array(), *threads = json_array();

	for (unsigned int i = 0; i < r->n_sizes; i++)
		json_array_append_new(sizes, size_row(&r->sizes[i]));
	for (unsigned int i = 0; i < r->n_batches; i++)
		json_array_append_new(batches, batch_row(&r->batches[i]));
	for (unsigned int i = 0; i < r->n_threads; i++)
		json_array_append_new(threads, threads_row(&r->threads[i]));
	return json_pack("{s:s, s:o, s:o, s:o, s:o}", "backend", iommu_kind_name(kind), "floor_ns",
			 ns(r->floor_ns), "sizes", sizes, "batches", batches, "threads", threads);
}

/* --- a backend --- */

static struct bench_setup setup_of(struct run *run)
{
	return (struct bench_setup){
		.device = run->device,
		.max_bytes = run->max_bytes,
		.quick = run->options->quick,
		.progress = progress,
		.opaque = run,
	};
}

static int open_device(const char *device, enum iommu_kind kind, struct iommu **iommu,
		       struct iommu_endpoint **endpoint, struct err *err)
{
	struct config_passthrough p = {
		.base.id = (char *)device, .device = (char *)device, .fd = -1, .iommufd = -1};
	struct iommu_config config = {.kind = kind, .iommufd = -1};
	struct iommu_endpoint_config e = {.fd = -1};
	struct open_passthrough found;
	int rc = open_passthrough_find(&p, &found, err);

	if (!rc) {
		e.fd = open_passthrough_fd(&p, &found, kind, err);
		rc = MIN(e.fd, 0);
	}
	if (rc)
		return rc;
	e.name = found.bdf;
	rc = iommu_create(iommu, &config, err);
	if (!rc)
		rc = iommu_endpoint_create(endpoint, *iommu, &e, err);
	if (rc) {
		close(e.fd);
		iommu_destroy(*iommu);
		*iommu = NULL;
		return err_prefix(err, "%s", device);
	}
	return 0;
}

static int run_backend(struct run *run, enum iommu_kind kind, json_t *results, struct err *err)
{
	struct bench_setup setup = setup_of(run);
	struct bench_result result;
	int rc = open_device(run->device, kind, &setup.iommu, &setup.endpoint, err);

	if (rc)
		return rc;
	rc = bench_run(&result, &setup, err);
	if (!rc)
		json_array_append_new(results, document_of(kind, &result));
	iommu_endpoint_destroy(setup.endpoint);
	iommu_destroy(setup.iommu);
	return rc;
}

/* --- the call --- */

static uint64_t default_bytes(void)
{
	long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t quarter = pages > 0 ? (uint64_t)pages * (uint64_t)page / 4 : 0;

	return MAX(MIN(quarter, GiB), 4 * MiB);
}

/* Both backends one after the other: the kernel gives a device out once. */
static int run_backends(struct run *run, bool iommufd, bool type1, json_t *results, struct err *err)
{
	struct bench_setup setup = setup_of(run);
	int rc = 0;

	run->total = (iommufd + type1) * bench_steps(&setup);
	if (iommufd)
		rc = run_backend(run, IOMMU_IOMMUFD, results, err);
	if (!rc && type1)
		rc = run_backend(run, IOMMU_TYPE1, results, err);
	return rc;
}

int hospes_iommu_bench(const char *device, const struct hospes_bench_options *given, char **json,
		       struct hospes_error *error)
{
	struct hospes_bench_options options = {.size = sizeof(options)};
	struct err err = ERR_INIT;
	struct run run = {.options = &options, .device = device};
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
	run.max_bytes =
		align_down(options.max_bytes ? options.max_bytes : default_bytes(), 2 * MiB);
	if (!run.max_bytes)
		return give(error, &err,
			    err_set(&err, -EINVAL, "%llu bytes are too few: at least 2 MiB",
				    (unsigned long long)options.max_bytes));
	results = json_array();
	rc = run_backends(&run, strcmp(backend, "type1") != 0, strcmp(backend, "iommufd") != 0,
			  results, &err);
	document = json_pack("{s:s, s:I, s:o}", "device", device, "memory_bytes",
			     (json_int_t)run.max_bytes, "results", results);
	*json = !rc && document ? json_dumps(document, JSON_INDENT(2)) : NULL;
	json_decref(document);
	if (!rc && !*json)
		rc = err_set(&err, -ENOMEM, "no memory for the document");
	return give(error, &err, rc);
}
