// SPDX-License-Identifier: Apache-2.0
// The status document's numbers in Prometheus' text format: each row of the table is a family, and
// says where in the document its samples are.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/method.h"

enum {
	LABELS_BYTES = 512,
	HISTOGRAM_BUCKETS = 23, /* up to 2^22 microseconds; what took longer is in the last */
};

/* What has samples: one, or each member of a list or object. */
enum source {
	FROM_MACHINE,      /* the document */
	FROM_VCPUS,        /* each vCPU */
	FROM_EXITS,        /* each reason of each of them */
	FROM_DEVICES,      /* each device */
	FROM_QUEUES,       /* each queue of those that have them */
	FROM_REGIONS,      /* each register region */
	FROM_SPACES,       /* each I/O address space */
	FROM_SPACE_OPS,    /* each kind of operation of each of them */
	FROM_VIOMMU,       /* the virtual IOMMU */
	FROM_REQUESTS,     /* each kind of its requests */
	FROM_ENDPOINTS,    /* each of its endpoints */
	FROM_ENDPOINT_OPS, /* each kind of operation of their I/O address spaces */
};

enum type { GAUGE, COUNTER, HISTOGRAM };

struct family {
	const char *name;
	enum source from;
	enum type type;
	const char *key, *key2; /* of the number, in an object of an object with both */
	double scale;           /* to the unit of the name; 0: 1 */
	const char *help;
};

#define LEDGER(of, from, ops)                                                                         \
	{"hospes_" of "_mapped_bytes", from, GAUGE, "mapped_bytes",                                   \
	 .help = "What devices can reach."},                                                          \
		{"hospes_" of "_requested_bytes", from, GAUGE, "requested_bytes",                     \
		 .help = "What has been asked to be reachable."},                                     \
		{"hospes_" of "_stale_bytes", from, GAUGE, "stale_bytes",                             \
		 .help = "Still reachable after the guest's unmap was acknowledged."},                \
		{"hospes_" of "_pinned_bytes", from, GAUGE, "pinned_bytes",                           \
		 .help = "Memory that the kernel keeps at its place."},                               \
		{"hospes_" of "_mapped_byte_seconds_total", from, COUNTER, "mapped_byte_seconds",     \
		 .help = "Reachable bytes over time."},                                               \
		{"hospes_" of "_requested_byte_seconds_total", from, COUNTER,                         \
		 "requested_byte_seconds", .help = "Requested bytes over time."},                     \
		{"hospes_" of "_stale_byte_seconds_total", from, COUNTER, "stale_byte_seconds",       \
		 .help = "Stale bytes over time."},                                                   \
		{"hospes_" of "_pinned_byte_seconds_total", from, COUNTER, "pinned_byte_seconds",     \
		 .help = "Pinned bytes over time."},                                                  \
		{"hospes_" of "_retained_hits_total",                                                 \
		 from,                                                                                \
		 COUNTER,                                                                             \
		 "retained",                                                                          \
		 "hits",                                                                              \
		 .help = "Mappings that the guest made again while they were still there."},          \
		{"hospes_" of "_retained_evictions_total",   from, COUNTER, "retained", "evicted",    \
		 .help = "Stale mappings that were removed."},                                        \
		{"hospes_" of "_retained_overruns_total",                                             \
		 from,                                                                                \
		 COUNTER,                                                                             \
		 "retained",                                                                          \
		 "overruns",                                                                          \
		 .help = "Mappings that were stale for more than twice what the strategy promises."}, \
		{"hospes_" of "_operations_total", ops, COUNTER, "calls",                             \
		 .help = "Calls of the kernel that change what devices reach."},                      \
		{"hospes_" of "_operations_failed_total", ops, COUNTER, "failed",                     \
		 .help = "Those that failed."},                                                       \
		{"hospes_" of "_operation_bytes_total", ops, COUNTER, "bytes",                        \
		 .help = "Their bytes."},                                                             \
		{"hospes_" of "_operation_seconds_total", ops, COUNTER, "ns", .scale = 1e-9,          \
		 .help = "The time that they took."}

static const struct family families[] = {
	{"hospes_memory_bytes", FROM_MACHINE, GAUGE, "memory_bytes",
	 .help = "Memory of the guest."},
	{"hospes_memory_max_bytes", FROM_MACHINE, GAUGE, "memory", "max_bytes",
	 .help = "How much there can be while it runs."},
	{"hospes_cpus", FROM_MACHINE, GAUGE, "cpus", "count", .help = "vCPUs in the machine."},
	{"hospes_cpus_max", FROM_MACHINE, GAUGE, "cpus", "max",
	 .help = "How many there can be while it runs."},
	{"hospes_resets_total", FROM_MACHINE, COUNTER, "resets", .help = "Resets of the machine."},
	{"hospes_exits_total", FROM_EXITS, COUNTER, "calls",
	 .help = "Returns of KVM_RUN to hospes."},
	{"hospes_exit_seconds_total", FROM_EXITS, COUNTER, "ns", .scale = 1e-9,
	 .help = "What hospes took for them."},
	{"hospes_vcpu_cpu_seconds_total", FROM_VCPUS, COUNTER, "cpu_ns", .scale = 1e-9,
	 .help = "CPU time of the vCPU's thread: the guest, KVM and hospes."},
	{"hospes_vcpu_steal_seconds_total", FROM_VCPUS, COUNTER, "steal_ns", .scale = 1e-9,
	 .help = "Time in which it could run and waited for a CPU of the host."},
	{"hospes_region_accesses_total", FROM_REGIONS, COUNTER, "traps",
	 .help = "Accesses of the guest to a register region that hospes served."},
	{"hospes_device_output_bytes_total", FROM_DEVICES, COUNTER, "output_bytes",
	 .help = "What the guest wrote to a console."},
	{"hospes_device_vectors", FROM_DEVICES, GAUGE, "vectors",
	 .help = "Interrupt vectors that a passed-through device uses."},
	{"hospes_device_trapped_accesses_total", FROM_DEVICES, COUNTER, "trapped",
	 .help = "Accesses to a passed-through device that hospes served."},
	{"hospes_device_requests_total", FROM_QUEUES, COUNTER, "requests",
	 .help = "Requests of the guest to a disk, packets of a network."},
	{"hospes_device_bytes_total", FROM_QUEUES, COUNTER, "bytes",
	 .help = "Their bytes, headers included."},
	{"hospes_device_kicks_total", FROM_QUEUES, COUNTER, "kicks",
	 .help = "Times that the guest's notification was heard."},
	{"hospes_device_interrupts_total", FROM_QUEUES, COUNTER, "interrupts",
	 .help = "Interrupts of the guest."},
	{"hospes_device_suppressed_interrupts_total", FROM_QUEUES, COUNTER, "suppressed",
	 .help = "Times that the guest wanted none."},
	{"hospes_device_delay_seconds", FROM_QUEUES, GAUGE, "delay_us", .scale = 1e-6,
	 .help = "How long a network's queue that streams waits for more."},
	{"hospes_device_delayed_total", FROM_QUEUES, COUNTER, "delayed",
	 .help = "Times that it did."},
	{"hospes_device_request_seconds", FROM_DEVICES, HISTOGRAM, "latency", .scale = 1e-6,
	 .help = "From when a disk's request is taken to its answer; one of 16 is measured."},
	{"hospes_balloon_target_bytes", FROM_DEVICES, GAUGE, "target_bytes",
	 .help = "What the balloon is to hold of the guest's memory."},
	{"hospes_balloon_actual_bytes", FROM_DEVICES, GAUGE, "actual_bytes",
	 .help = "What it holds, as the guest says."},
	{"hospes_balloon_out_bytes", FROM_DEVICES, GAUGE, "out_bytes",
	 .help = "What the host has back of that."},
	{"hospes_balloon_reported_bytes_total", FROM_DEVICES, COUNTER, "reported_bytes",
	 .help = "Free memory that the guest reported and the host took back."},
	{"hospes_balloon_guest_free_bytes", FROM_DEVICES, GAUGE, "stats", "free_bytes",
	 .help = "Free memory of the guest."},
	{"hospes_balloon_guest_available_bytes", FROM_DEVICES, GAUGE, "stats", "available_bytes",
	 .help = "Memory that the guest could use without swapping."},
	{"hospes_balloon_guest_cache_bytes", FROM_DEVICES, GAUGE, "stats", "cache_bytes",
	 .help = "Memory of the guest's disk caches."},
	{"hospes_balloon_guest_major_faults_total", FROM_DEVICES, COUNTER, "stats", "major_faults",
	 .help = "Major page faults of the guest."},
	{"hospes_device_dma_faults_total", FROM_DEVICES, COUNTER, "faults",
	 .help = "DMA of a passed-through device that the IOMMU refused."},
	LEDGER("space", FROM_SPACES, FROM_SPACE_OPS),
	{"hospes_viommu_mappings", FROM_VIOMMU, GAUGE, "mappings",
	 .help = "Mappings of the guest in its virtual IOMMU."},
	{"hospes_viommu_mapped_bytes", FROM_VIOMMU, GAUGE, "mapped_bytes",
	 .help = "What the guest has mapped in its virtual IOMMU."},
	{"hospes_viommu_domains", FROM_VIOMMU, GAUGE, "domains", .help = "Domains of the guest."},
	{"hospes_viommu_faults_total", FROM_VIOMMU, COUNTER, "faults",
	 .help = "Accesses of emulated devices that the virtual IOMMU refused."},
	{"hospes_viommu_requests_total", FROM_REQUESTS, COUNTER, "calls",
	 .help = "Requests of the guest to its virtual IOMMU."},
	{"hospes_viommu_requests_failed_total", FROM_REQUESTS, COUNTER, "failed",
	 .help = "Those that were refused."},
	LEDGER("endpoint", FROM_ENDPOINTS, FROM_ENDPOINT_OPS),
};

/* --- labels --- */

/* Append name="value", as the format quotes it. A label that does not fit is left out whole. */
static void add_label(char labels[LABELS_BYTES], const char *name, const char *value)
{
	size_t start = strlen(labels), n = start;

	n += (size_t)snprintf(labels + n, LABELS_BYTES - n, "%s%s=\"", start ? "," : "", name);
	for (; *value && n < LABELS_BYTES - 4; value++) {
		if (*value == '"' || *value == '\\' || *value == '\n')
			labels[n++] = '\\';
		labels[n++] = *value;
		if (*value == '\n')
			labels[n - 1] = 'n';
	}
	if (*value || n >= LABELS_BYTES - 4) {
		labels[start] = '\0';
		return;
	}
	labels[n++] = '"';
	labels[n] = '\0';
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* --- samples --- */

struct output {
	FILE *to;
	const struct family *family;
	bool begun; /* its HELP and TYPE were written */
};

static void begin_family(struct output *out)
{
	static const char *const types[] = {
		[GAUGE] = "gauge", [COUNTER] = "counter", [HISTOGRAM] = "histogram"};
	const struct family *f = out->family;

	if (!out->begun)
		fprintf(out->to, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name,
			types[f->type]);
	out->begun = true;
}

static void sample(struct output *out, const char *labels, const json_t *value)
{
	const struct family *f = out->family;

	if (!json_is_number(value))
		return;
	begin_family(out);
	fprintf(out->to, "%s%s%s%s ", f->name, *labels ? "{" : "", labels, *labels ? "}" : "");
	if (f->scale != 0)
		fprintf(out->to, "%.9g\n", json_number_value(value) * f->scale);
	else if (json_is_integer(value))
		fprintf(out->to, "%lld\n", (long long)json_integer_value(value));
	else
		fprintf(out->to, "%.9g\n", json_number_value(value));
}

/* Buckets are cumulative. Those between the document's are there too: a series does not begin
 * late. */
static void histogram(struct output *out, const char *labels, const json_t *latency)
{
	const struct family *f = out->family;
	json_t *us = json_object_get(latency, "us");
	long long n = json_integer_value(json_object_get(latency, "measured")), so_far = 0;
	double ns = json_number_value(json_object_get(latency, "ns"));

	if (!us)
		return;
	begin_family(out);
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", 1u << i);
		so_far += json_integer_value(json_object_get(us, key));
		fprintf(out->to, "%s_bucket{%s,le=\"%g\"} %lld\n", f->name, labels,
			(double)(1u << i) * f->scale, so_far);
	}
	fprintf(out->to, "%s_bucket{%s,le=\"+Inf\"} %lld\n", f->name, labels, n);
	fprintf(out->to, "%s_sum{%s} %.9g\n%s_count{%s} %lld\n", f->name, labels, ns * 1e-9,
		f->name, labels, n);
}

static void sample_of(struct output *out, const char *labels, const json_t *object)
{
	const json_t *value = json_object_get(object, out->family->key);

	if (out->family->type == HISTOGRAM) {
		histogram(out, labels, value);
		return;
	}
	if (out->family->key2)
		value = json_object_get(value, out->family->key2);
	sample(out, labels, value);
}

/* Of each member of an object that has such numbers by kind. */
static void each_kind(struct output *out, const json_t *kinds, const char *before,
		      const char *label)
{
	const char *kind;
	json_t *item;

	json_object_foreach((json_t *)kinds, kind, item)
	{
		char labels[LABELS_BYTES];

		snprintf(labels, sizeof(labels), "%s", before);
		add_label(labels, label, kind);
		sample_of(out, labels, item);
	}
}

/* Of each member of a list, or of its operations; its key `name`, or its place, tells it from the
 * others. */
static void each_of_list(struct output *out, const json_t *list, const char *label,
			 const char *name)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		char labels[LABELS_BYTES] = "", index[24];

		snprintf(index, sizeof(index), "%zu", i);
		add_label(labels, label, name ? text_of(item, name) : index);
		if (out->family->from == FROM_REGIONS) {
			add_label(labels, "bus", text_of(item, "bus"));
			add_label(labels, "base", text_of(item, "base"));
		}
		if (out->family->from == FROM_SPACE_OPS || out->family->from == FROM_ENDPOINT_OPS)
			each_kind(out, json_object_get(item, "operations"), labels, "operation");
		else if (out->family->from == FROM_EXITS)
			each_kind(out, json_object_get(item, "exits"), labels, "reason");
		else
			sample_of(out, labels, item);
	}
}

static void each_queue(struct output *out, const json_t *devices)
{
	const json_t *device, *queue;
	size_t i, number;

	json_array_foreach(devices, i, device)
	{
		json_array_foreach(json_object_get(device, "queues"), number, queue)
		{
			char labels[LABELS_BYTES] = "", text[24];

			snprintf(text, sizeof(text), "%zu", number);
			add_label(labels, "device", text_of(device, "id"));
			add_label(labels, "queue", text);
			sample_of(out, labels, queue);
		}
	}
}

static void write_family(struct output *out, const json_t *status)
{
	const json_t *viommu = json_object_get(status, "viommu");
	const json_t *spaces = json_object_get(json_object_get(status, "iommu"), "spaces");
	const json_t *endpoints = json_object_get(viommu, "endpoints");

	switch (out->family->from) {
	case FROM_MACHINE:
		sample_of(out, "", status);
		break;
	case FROM_VCPUS:
	case FROM_EXITS:
		each_of_list(out, json_object_get(status, "vcpus"), "vcpu", NULL);
		break;
	case FROM_DEVICES:
		each_of_list(out, json_object_get(status, "devices"), "device", "id");
		break;
	case FROM_QUEUES:
		each_queue(out, json_object_get(status, "devices"));
		break;
	case FROM_REGIONS:
		each_of_list(out, json_object_get(status, "regions"), "region", "name");
		break;
	case FROM_SPACES:
	case FROM_SPACE_OPS:
		each_of_list(out, spaces, "space", "name");
		break;
	case FROM_VIOMMU:
		sample_of(out, "", viommu);
		break;
	case FROM_REQUESTS:
		each_kind(out, json_object_get(viommu, "requests"), "", "request");
		break;
	case FROM_ENDPOINTS:
	case FROM_ENDPOINT_OPS:
		each_of_list(out, endpoints, "endpoint", "id");
		break;
	}
}

/* What is not a number: the value is 1, and the labels say it. */
static void write_info(FILE *to, const json_t *status)
{
	const json_t *devices = json_object_get(status, "devices"), *device;
	char labels[LABELS_BYTES] = "";
	size_t i;

	add_label(labels, "name", text_of(status, "name"));
	add_label(labels, "version", hospes_version());
	fprintf(to,
		"# HELP hospes_info The machine.\n# TYPE hospes_info gauge\nhospes_info{%s} 1\n",
		labels);
	fprintf(to, "# HELP hospes_state 1 for the state that the machine is in.\n"
		    "# TYPE hospes_state gauge\n");
	for (int state = HOSPES_CREATED; state <= HOSPES_STOPPED; state++) {
		const char *name = events_state_name((enum hospes_state)state);

		fprintf(to, "hospes_state{state=\"%s\"} %d\n", name,
			strcmp(name, text_of(status, "state")) == 0);
	}
	if (json_array_size(devices))
		fprintf(to, "# HELP hospes_device_info A device.\n"
			    "# TYPE hospes_device_info gauge\n");
	json_array_foreach(devices, i, device)
	{
		labels[0] = '\0';
		add_label(labels, "device", text_of(device, "id"));
		add_label(labels, "kind", text_of(device, "kind"));
		add_label(labels, "type", text_of(device, "type"));
		fprintf(to, "hospes_device_info{%s} 1\n", labels);
	}
}

char *metrics_text(const char *status)
{
	json_t *document = json_loads(status, 0, NULL);
	char *text = NULL;
	bool failed;
	size_t n;
	FILE *to;

	if (!document)
		return NULL;
	to = open_memstream(&text, &n);
	if (!to) {
		json_decref(document);
		return NULL;
	}
	write_info(to, document);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		struct output out = {.to = to, .family = &families[i]};

		write_family(&out, document);
	}
	json_decref(document);
	failed = ferror(to) != 0;
	if (fclose(to) == 0 && !failed)
		return text;
	free(text);
	return NULL;
}
