// SPDX-License-Identifier: Apache-2.0
// hospes iommu list: the host's IOMMUs, and which devices they keep apart.
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "compare/compare.h"
#include "hospes/hospes.h"
#include "iommu_bench.h"
#include "table.h"

static const char usage[] =
	"usage: hospes iommu list [--json]\n"
	"       hospes iommu bench --device BDF [--backend iommufd|type1|both] [--memory SIZE]\n"
	"                          [--quick] [--json]\n"
	"       hospes iommu compare --passthrough BDF --kernel FILE --disk FILE [OPTION...]\n"
	"\n"
	"list:\n"
	"Shows the host's IOMMUs, the groups that its devices form, whether each device is isolated\n"
	"(nothing it does reaches past the IOMMU, and it raises no interrupts but its own), and limits.\n"
	"\n"
	"bench: what mapping and unmapping costs here, by size, backing, batch and threads, and which\n"
	"part of it is what; with a device that is bound to vfio-pci and that nobody uses.\n"
	"\n"
	"  --device BDF   the device\n"
	"  --backend B    iommufd, type1 or both (the default)\n"
	"  --memory SIZE  the largest mapping; 1G, or a quarter of the free memory\n"
	"  --quick        fewer sizes and repetitions\n"
	"  --json         for programs\n"
	"\n"
	"compare: what each mapping strategy costs and exposes with a workload; 'hospes iommu compare --help'.\n"
	"\n"
	"Examples:\n"
	"  hospes iommu list\n"
	"  hospes iommu list --json | jq '.groups[].devices[] | select(.isolation==\"isolated\")'\n"
	"  hospes iommu bench --device 0000:01:10.0 --backend iommufd\n";

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* "yes", "no", "not known until bound" */
static const char *known(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_string(value) ? json_string_value(value)
	       : json_is_true(value) ? "yes"
				     : "no";
}

static void print_iommu(const json_t *iommu)
{
	const json_t *bits = json_object_get(iommu, "address_bits");
	char size[TABLE_SIZE_TEXT];
	json_t *page;
	size_t i;

	printf("%-7s %s, %lld devices", text_of(iommu, "name"), text_of(iommu, "kind"),
	       (long long)json_integer_value(json_object_get(iommu, "devices")));
	if (json_is_integer(bits))
		printf(", %lld bits of I/O address", (long long)json_integer_value(bits));
	json_array_foreach(json_object_get(iommu, "page_sizes"), i, page)
	{
		printf("%s%s", i ? ", " : "; pages ",
		       table_size((uint64_t)json_integer_value(page), size));
	}
	printf("\n        dirty tracking: %s; nesting: %s; PASID: %s\n",
	       known(iommu, "dirty_tracking"), known(iommu, "nesting"), known(iommu, "pasid"));
}

static void print_limits(const json_t *document)
{
	const json_t *limits = json_object_get(document, "limits");
	const json_t *memlock = json_object_get(limits, "memlock_bytes");
	const json_t *mappings = json_object_get(limits, "type1_mappings");
	char size[TABLE_SIZE_TEXT];

	printf("\nInterrupts are %s.\n",
	       json_is_true(json_object_get(document, "interrupts_remapped"))
		       ? "remapped: a device raises its own only"
		       : "not remapped: a device could raise any interrupt of the host");
	printf("iommufd: %s; type1: %s",
	       json_is_true(json_object_get(document, "iommufd")) ? "/dev/iommu" : "no",
	       json_is_true(json_object_get(document, "type1")) ? "/dev/vfio/vfio" : "no");
	if (json_is_integer(mappings))
		printf(", at most %lld mappings", (long long)json_integer_value(mappings));
	printf("; RLIMIT_MEMLOCK: %s\n\n",
	       json_is_integer(memlock) ? table_size((uint64_t)json_integer_value(memlock), size)
					: "unlimited");
}

/* A bracket around the members of a group. */
static const char *bracket(size_t i, size_t n, bool unicode)
{
	static const char *const drawn[2][4] = {
		{"-", ".", "|", "'"},
		{"─", "┌", "│", "└"},
	};
	size_t which = n == 1 ? 0 : i == 0 ? 1 : i + 1 == n ? 3 : 2;

	return drawn[unicode][which];
}

static void print_group(const json_t *group, bool unicode)
{
	const json_t *devices = json_object_get(group, "devices");
	const json_t *number = json_object_get(group, "group");
	char label[24] = "none";
	json_t *device;
	size_t i;

	if (json_is_integer(number))
		snprintf(label, sizeof(label), "%lld", (long long)json_integer_value(number));
	json_array_foreach(devices, i, device)
	{
		const char *driver = text_of(device, "driver");
		const char *isolation = text_of(device, "isolation");
		bool good = strcmp(isolation, "isolated") == 0;

		printf("%5s %s ", i ? "" : label, bracket(i, json_array_size(devices), unicode));
		printf("%-12s  %-9s  %-14s  ", text_of(device, "device"), text_of(device, "id"),
		       *driver ? driver : "-");
		table_cell(isolation, 16, good ? TABLE_GREEN : TABLE_YELLOW);
		table_wrap(text_of(device, "why"), 66);
	}
}

static void print_text(const json_t *document)
{
	const json_t *iommus = json_object_get(document, "iommus");
	const json_t *groups = json_object_get(document, "groups");
	bool unicode = table_unicode();
	json_t *item;
	size_t i;

	if (!json_array_size(iommus))
		puts("No IOMMU: nothing translates what devices address, so none can be given to a "
		     "guest.\nSwitch it on in the firmware's setup, and on the kernel's command line "
		     "(intel_iommu=on; AMD's is on by itself).");
	json_array_foreach(iommus, i, item)
	{
		print_iommu(item);
	}
	print_limits(document);
	printf("%5s   %-12s  %-9s  %-14s  %-16s%s\n", "GROUP", "DEVICE", "ID", "DRIVER",
	       "ISOLATION", "WHY");
	json_array_foreach(groups, i, item)
	{
		print_group(item, unicode);
	}
}

static int list(bool json)
{
	struct hospes_error error;
	json_t *document;
	char *text;

	if (hospes_iommu_list(&text, &error) < 0) {
		cli_error("%s", error.text);
		return CLI_FAILED;
	}
	if (json) {
		puts(text);
	} else {
		document = json_loads(text, 0, NULL);
		print_text(document);
		json_decref(document);
	}
	hospes_free(text);
	return CLI_OK;
}

int cli_iommu(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"json", no_argument, NULL, 'j'},
		{"device", required_argument, NULL, 'd'},
		{"backend", required_argument, NULL, 'b'},
		{"memory", required_argument, NULL, 'm'},
		{"quick", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct iommu_bench_arguments bench = {0};
	bool json = false;
	int option;

	if (argc > 1 && strcmp(argv[1], "compare") == 0)
		return cli_iommu_compare(argc - 1, argv + 1);
	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		switch (option) {
		case 'h':
			fputs(usage, stdout);
			return CLI_OK;
		case 'j':
			json = true;
			break;
		case 'd':
			bench.device = optarg;
			break;
		case 'b':
			bench.backend = optarg;
			break;
		case 'q':
			bench.quick = true;
			break;
		case 'm':
			if (table_size_parse(optarg, &bench.max_bytes))
				break;
			cli_error("--memory '%s': not a size; such as 512M", optarg);
			return CLI_USAGE;
		default:
			cli_error("'%s': not understood; 'hospes iommu --help' shows the options",
				  argv[optind - 1]);
			return CLI_USAGE;
		}
	}
	bench.json = json;
	if (argc - optind == 1 && strcmp(argv[optind], "bench") == 0)
		return cli_iommu_bench(&bench);
	if (argc - optind != 1 || strcmp(argv[optind], "list") != 0) {
		fputs(usage, stderr);
		return CLI_USAGE;
	}
	if (bench.device || bench.backend || bench.max_bytes || bench.quick) {
		cli_error("hospes iommu list: takes --json only");
		return CLI_USAGE;
	}
	return list(json);
}
