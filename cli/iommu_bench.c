// SPDX-License-Identifier: Apache-2.0
// hospes iommu bench: what mapping costs on this host, as tables.
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"
#include "table.h"

static long long number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

/* In microseconds; "-" where it was not measured. */
static void cell(const json_t *row, const char *key)
{
	if (json_object_get(row, key))
		printf(" %10.1f", (double)number(row, key) / 1e3);
	else
		printf(" %10s", "-");
}

static void print_sizes(const json_t *result)
{
	static const char *const keys[] = {"map_ns",     "unmap_ns",       "copy_ns",
					   "pinning_ns", "table_ns",       "unpinning_ns",
					   "untable_ns", "invalidation_ns"};
	const char *backing = "";
	json_t *row;
	size_t i;

	printf("\n%-24s %8s%11s%11s%11s%11s%11s%11s%11s%11s\n", "BACKING", "SIZE", "MAP", "UNMAP",
	       "COPY", "pin", "fill", "unpin", "clear", "invalidate");
	json_array_foreach(json_object_get(result, "sizes"), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "backing"));
		char size[TABLE_SIZE_TEXT];

		printf("%-24s %8s", strcmp(name, backing) != 0 ? name : "",
		       table_size((double)number(row, "bytes"), size));
		for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
			cell(row, keys[k]);
		printf("\n");
		backing = name;
	}
}

static void print_batches(const json_t *result)
{
	json_t *row;
	size_t i;

	printf("\n%-24s %8s%11s%11s%11s%11s%11s\n", "PAGES OF 4 KiB", "", "scattered", "unmapped",
	       "unmapped", "contiguous", "unmapped");
	printf("%-24s %8s%11s%11s%11s%11s%11s\n", "", "", "map", "at once", "each", "map",
	       "at once");
	json_array_foreach(json_object_get(result, "batches"), i, row)
	{
		printf("%-24lld %8s", number(row, "pages"), "");
		cell(row, "scattered_map_ns");
		cell(row, "scattered_unmap_once_ns");
		cell(row, "scattered_unmap_each_ns");
		cell(row, "contiguous_map_ns");
		cell(row, "contiguous_unmap_ns");
		printf("\n");
	}
}

static void print_threads(const json_t *result)
{
	json_t *row;
	size_t i;

	printf("\n%-24s %8s%11s\n", "THREADS, 64 KiB EACH", "", "map+unmap");
	json_array_foreach(json_object_get(result, "threads"), i, row)
	{
		printf("%-24lld %8s", number(row, "threads"), "");
		cell(row, "map_unmap_ns");
		printf("\n");
	}
}

static void print_text(const json_t *document)
{
	json_t *result;
	size_t i;

	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		printf("%s%s: microseconds, medians; an empty system call takes %.2f\n",
		       i ? "\n" : "", json_string_value(json_object_get(result, "backend")),
		       (double)number(result, "floor_ns") / 1e3);
		print_sizes(result);
		print_batches(result);
		print_threads(result);
	}
	puts("\npin, fill: parts of MAP (fill is what COPY has too); unpin, clear, invalidate: parts\n"
	     "of UNMAP. They are differences of medians: small ones are noise. An emulated IOMMU shows\n"
	     "neither its real invalidations nor misses.");
}

static void progress(void *opaque, const char *what, unsigned int done, unsigned int total)
{
	(void)opaque;
	fprintf(stderr, "\r\033[K%3u %% %s", total ? done * 100 / total : 0, what);
}

struct bench_arguments {
	struct hospes_bench_options given;
	const char *device; /* NULL: not given */
	bool quick, json;
};

static const struct option bench_options[] = {
	{"device", "BDF", "the device; it must be bound to vfio-pci and in nobody's use",
	 OPTION_AT(TEXT, struct bench_arguments, device)},
	{"backend", "iommufd|type1|both", "the kernel's interface (both)",
	 OPTION_AT(CHOICE, struct bench_arguments, given.backend)},
	{"memory", "SIZE", "the largest mapping (1G, or a quarter of the free memory)",
	 OPTION_AT(SIZE, struct bench_arguments, given.max_bytes)},
	{"quick", NULL, "fewer sizes and repetitions",
	 OPTION_AT(SWITCH, struct bench_arguments, quick)},
	{"json", NULL, "for programs", OPTION_AT(SWITCH, struct bench_arguments, json)},
	{0},
};

static int execute(int argc, char **argv)
{
	bool terminal = isatty(STDERR_FILENO);
	struct bench_arguments a = {
		.given = {.size = sizeof(a.given), .progress = terminal ? progress : NULL}};
	struct hospes_error error;
	char *text;
	int rc, status;

	if (!options_parse(&bench_command, argc, argv, &a, &status))
		return status;
	if (!a.device) {
		cli_error("iommu bench: --device BDF is missing; 'hospes iommu list' shows the "
			  "devices, 'hospes vf bind BDF' binds one to vfio-pci");
		return CLI_USAGE;
	}
	a.given.quick = a.quick;
	rc = hospes_iommu_bench(a.device, &a.given, &text, &error);
	if (terminal)
		fputs("\r\033[K", stderr);
	if (rc == 0)
		return answer_print(text, a.json, print_text);
	cli_error("%s", error.text);
	return CLI_FAILED;
}

const struct command bench_command = {
	.name = "iommu bench",
	.operands = "--device BDF [OPTION...]",
	.summary = "what mapping and unmapping costs on this host",
	.text = "Measures mapping and unmapping by size, backing, batch and threads, and what each "
		"part costs.\nThe device does no DMA meanwhile.\n",
	.groups = {{"Options", bench_options, 0}},
	.examples = "  hospes iommu bench --device 0000:01:10.0 --backend iommufd\n",
	.run = execute,
};
