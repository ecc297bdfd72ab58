// SPDX-License-Identifier: Apache-2.0
// What a mapping costs in hospes itself, beside how many there are:   mapcurve STRATEGY…
//
// A virtual IOMMU with one device, on a backend that does nothing, so that neither a kernel nor a
// table of its own is in the figures. COUNT mappings of a page stand; between two of them, chosen
// at random, 16 pages are mapped by 16 requests in a batch and unmapped by one, over and over.
// Output: CURVE STRATEGY COUNT NS, of the CPU time of this thread for one of the 16 and its share
// of the unmap. (On the test host's instruction clock an instruction takes 4 ns.)
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/num.h"
#include "core/loop.h"
#include "iommu/ioas_impl.h"
#include "iommu/viommu.h"
#include "real.h"

enum {
	PAGE = 4096,
	BATCH = 16,
	ROUNDS = 4000,
	MAPPINGS_MAX = 1 << 20,
	DEVICE = 8, /* its id */
};
#define BASE (4 * GiB) /* above the MSI window */

/* --- the backend --- */

static int null_open(struct iommu *i, const struct iommu_config *config, struct err *error)
{
	(void)config;
	(void)error;
	snprintf(i->reason, sizeof(i->reason), "a benchmark");
	return 0;
}

static void null_close(struct iommu *i)
{
	(void)i;
}

static int null_endpoint_open(struct iommu_endpoint *endpoint, int fd, struct err *error)
{
	(void)endpoint;
	(void)fd;
	(void)error;
	return 0;
}

static void null_endpoint(struct iommu_endpoint *endpoint)
{
	(void)endpoint;
}

static int null_space_open(struct ioas *ioas, struct err *error)
{
	(void)error;
	ioas->page_sizes = PAGE;
	return 0;
}

static void null_space_close(struct ioas *ioas)
{
	(void)ioas;
}

static int null_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *error)
{
	(void)ioas;
	(void)endpoint;
	(void)error;
	return 0;
}

static int null_map(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		    const struct ioas_memory *memory, unsigned int access)
{
	(void)ioas;
	(void)iova;
	(void)bytes;
	(void)memory;
	(void)access;
	return 0;
}

static int null_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes)
{
	(void)ioas;
	(void)iova;
	(void)bytes;
	return 0;
}

static const struct ioas_ops null_ops = {
	.kind = IOMMU_IOMMUFD,
	.open = null_open,
	.close = null_close,
	.endpoint_open = null_endpoint_open,
	.endpoint_close = null_endpoint,
	.space_open = null_space_open,
	.space_close = null_space_close,
	.attach = null_attach,
	.detach = null_endpoint,
	.map = null_map,
	.unmap = null_unmap,
};

/* --- a machine's virtual IOMMU --- */

static struct loop *loop; /* ticks are not what is measured: nobody runs it */
static struct gmem *gmem;
static struct iommu *iommu;
static struct iommu_endpoint *device;
static struct hw_domain *all;
static struct viommu *viommu;
static struct viommu_endpoint *endpoint;

static uint32_t id(void *opaque)
{
	(void)opaque;
	return DEVICE;
}

static void add_memory(void)
{
	const struct gmem_region_config ram = {.name = "ram",
					       .size_bytes = 64 * MiB,
					       .backing = GMEM_MEMFD,
					       .numa_node = -1,
					       .fd = -1};

	need(!gmem_create(&gmem, &test_log, &err), "memory: %s", err.text);
	need(!gmem_begin(gmem, &err) && !gmem_add(gmem, &ram, &err) && !gmem_commit(gmem, &err),
	     "memory: %s", err.text);
}

static void open_host(void)
{
	const struct loop_config of_loop = {.log = &test_log, .name = "viommu"};
	const struct iommu_config of_iommu = {.log = &test_log, .iommufd = -1};
	const struct iommu_endpoint_config of_device = {.name = "device", .fd = -1};
	struct hw_domain_config of_all = {
		.name = "all", .strategy = "direct", .log = &test_log, .map_threads = 1};

	add_memory();
	need(!loop_create(&loop, &of_loop, &err), "loop: %s", err.text);
	need(!iommu_create_with(&iommu, &null_ops, &of_iommu, &err), "iommu: %s", err.text);
	need(!iommu_endpoint_create(&device, iommu, &of_device, &err), "device: %s", err.text);
	of_all.iommu = iommu;
	of_all.gmem = gmem;
	need(!hw_domain_create(&all, &of_all, &err), "domain: %s", err.text);
}

static void serve(struct viommu_request *requests, unsigned int n)
{
	viommu_run(viommu, requests, n);
	for (unsigned int i = 0; i < n; i++)
		need(requests[i].status == VIOMMU_OK, "request %u: status %d", i,
		     (int)requests[i].status);
}

static void begin(const char *strategy)
{
	const struct viommu_config config = {
		.log = &test_log,
		.gmem = gmem,
		.loop = loop,
		.limits = {.page_sizes = PAGE,
			   .last = TiB - 1,
			   .domain_last = 8,
			   .mappings = 2 * MAPPINGS_MAX,
			   .mapped_bytes = TiB,
			   .tables = 2 * MAPPINGS_MAX},
	};
	const struct viommu_hardware hardware = {
		.name = "device", .strategy = strategy, .device = device, .all = all};
	struct viommu_request attach = {.op = VIOMMU_ATTACH, .domain = 1, .endpoint = DEVICE};

	need(!viommu_create(&viommu, &config, &err), "viommu: %s", err.text);
	need(!viommu_add_hardware(&endpoint, viommu, &hardware, &err), "%s", err.text);
	viommu_set_id(endpoint, id, NULL);
	serve(&attach, 1);
}

static void end(void)
{
	viommu_remove(endpoint);
	viommu_destroy(viommu);
}

/* --- what is measured --- */

static struct viommu_request map_of(uint64_t page)
{
	return (struct viommu_request){.op = VIOMMU_MAP,
				       .domain = 1,
				       .first = BASE + page * PAGE,
				       .last = BASE + page * PAGE + PAGE - 1,
				       .gpa = page % 16384 * PAGE,
				       .flags = VIOMMU_F_READ | VIOMMU_F_WRITE};
}

/* One, and room for a batch, and one … */
static void stand(unsigned int count)
{
	struct viommu_request batch[BATCH];

	for (unsigned int i = 0, n; i < count; i += n) {
		for (n = 0; n < BATCH && i + n < count; n++)
			batch[n] = map_of((uint64_t)(i + n) * (BATCH + 1));
		serve(batch, n);
	}
}

static void come_and_go(uint64_t place)
{
	uint64_t page = place * (BATCH + 1) + 1;
	struct viommu_request unmap = {.op = VIOMMU_UNMAP,
				       .domain = 1,
				       .first = BASE + page * PAGE,
				       .last = BASE + (page + BATCH) * PAGE - 1};
	struct viommu_request batch[BATCH];

	for (unsigned int i = 0; i < BATCH; i++) {
		batch[i] = map_of(page + i);
		batch[i].gpa = (place + 2 * i) % 16384 * PAGE;
	}
	serve(batch, BATCH);
	serve(&unmap, 1);
}

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(const char *strategy, unsigned int count)
{
	double start_ns;

	srandom(1);
	begin(strategy);
	stand(count);
	for (unsigned int i = 0; i < ROUNDS / 4; i++)
		come_and_go((uint64_t)random() % MAX(count, 1u));
	start_ns = cpu_ns();
	for (unsigned int i = 0; i < ROUNDS; i++)
		come_and_go((uint64_t)random() % MAX(count, 1u));
	printf("CURVE %s %u %.0f\n", strategy, count,
	       (cpu_ns() - start_ns) / (double)ROUNDS / (double)BATCH);
	fflush(stdout);
	end();
}

int main(int argc, char **argv)
{
	static const unsigned int counts[] = {0, 1000, 10000, 100000, 1000000};

	open_host();
	for (int arg = 1; arg < argc; arg++) {
		for (unsigned int i = 0; i < ARRAY_SIZE(counts); i++)
			measure(argv[arg], counts[i]);
	}
	hw_domain_destroy(all);
	iommu_endpoint_destroy(device);
	iommu_destroy(iommu);
	loop_destroy(loop);
	gmem_destroy(gmem);
	return argc > 1 ? 0 : 2;
}
