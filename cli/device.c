// SPDX-License-Identifier: Apache-2.0
// hospes device explain: will passthrough of a device work here, and if not, what to do.
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "hospes/hospes.h"
#include "table.h"

static const char usage[] =
	"usage: hospes device explain DEVICE... [--memory SIZE] [--iommu KIND] [--json]\n"
	"\n"
	"Says whether a PCI device of this host can be given to a guest, and if not, what to do.\n"
	"It looks and changes nothing.\n"
	"\n"
	"  DEVICE         0000:01:10.0, 01:10.0, a path in /sys, or /dev/vfio/devices/vfioN;\n"
	"                 several: all for one guest\n"
	"  --memory SIZE  the guest's memory (2G), for what depends on it\n"
	"  --iommu KIND   auto, iommufd or type1\n"
	"  --json         for programs\n"
	"\n"
	"Examples:\n"
	"  hospes device explain 01:10.0 --memory 4G\n"
	"  hospes device explain 0000:01:10.0 --json | jq '.findings[] | select(.level==\"blocker\")'\n"
	"\n"
	"Exit status: 0 nothing blocks, 1 something does or the device is not there, 2 usage.\n";

struct level {
	const char *name, *shown;
	enum table_colour colour;
};

static const struct level levels[] = {
	{"blocker", "BLOCKER", TABLE_RED},
	{"warning", "warning", TABLE_YELLOW},
	{"ok", "ok", TABLE_GREEN},
};

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static unsigned int print_level(const json_t *findings, const struct level *level)
{
	enum { FACT_AT = 25 };
	unsigned int n = 0;
	json_t *finding;
	size_t i;

	json_array_foreach(findings, i, finding)
	{
		const char *remedy = text_of(finding, "remedy");

		if (strcmp(text_of(finding, "level"), level->name) != 0)
			continue;
		n++;
		fputs("  ", stdout);
		table_cell(level->shown, 9, level->colour);
		table_cell(text_of(finding, "topic"), 14, TABLE_PLAIN);
		table_wrap(text_of(finding, "fact"), FACT_AT);
		if (*remedy) {
			printf("%*s=> ", FACT_AT, "");
			table_wrap(remedy, FACT_AT + 3);
		}
	}
	return n;
}

/* Blockers first: what is to be done comes before what is well. */
static void print_text(const json_t *document)
{
	const json_t *group = json_object_get(document, "group");
	const json_t *findings = json_object_get(document, "findings");
	const char *driver = text_of(document, "driver");
	unsigned int counts[3];

	printf("%s  %s  %s%s", text_of(document, "device"), text_of(document, "id"),
	       *driver ? "driver " : "no driver", driver);
	if (json_is_integer(group))
		printf("  group %lld", (long long)json_integer_value(group));
	puts("\n");
	for (unsigned int i = 0; i < 3; i++)
		counts[i] = print_level(findings, &levels[i]);
	fputs("\n", stdout);
	if (json_is_true(json_object_get(document, "works")))
		table_cell("It can be given to a guest", 0, TABLE_GREEN);
	else
		table_cell("It cannot be given to a guest yet", 0, TABLE_RED);
	printf(": %u blocker%s, %u warning%s.\n", counts[0], counts[0] == 1 ? "" : "s", counts[1],
	       counts[1] == 1 ? "" : "s");
}

/* Adds its vectors to those that the next devices find taken. */
static int explain(const char *device, struct hospes_explain_options *options, bool json)
{
	struct hospes_error error;
	json_t *document;
	char *text;
	bool works;

	if (hospes_device_explain(device, options, &text, &error) < 0) {
		cli_error("%s", error.text);
		return CLI_FAILED;
	}
	document = json_loads(text, 0, NULL);
	works = json_is_true(json_object_get(document, "works"));
	options->other_vectors +=
		(unsigned int)json_integer_value(json_object_get(document, "msix_vectors"));
	if (json)
		puts(text);
	else
		print_text(document);
	json_decref(document);
	hospes_free(text);
	return works ? CLI_OK : CLI_FAILED;
}

int cli_device(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"memory", required_argument, NULL, 'm'},
		{"iommu", required_argument, NULL, 'i'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct hospes_explain_options options = {.size = sizeof(options)};
	int option, status = CLI_OK;
	bool json = false;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return CLI_OK;
		}
		if (option == 'm' && !table_size_parse(optarg, &options.memory_bytes)) {
			cli_error("--memory: '%s' is no size like 512M or 4G", optarg);
			return CLI_USAGE;
		}
		if (option == 'i')
			options.iommu = optarg;
		if (option == 'j')
			json = true;
		if (option == '?') {
			cli_error("'%s': not understood; 'hospes device --help' shows the options",
				  argv[optind - 1]);
			return CLI_USAGE;
		}
	}
	if (options.iommu && strcmp(options.iommu, "auto") != 0 &&
	    strcmp(options.iommu, "iommufd") != 0 && strcmp(options.iommu, "type1") != 0) {
		cli_error("--iommu: '%s' is not auto, iommufd or type1", options.iommu);
		return CLI_USAGE;
	}
	if (argc - optind < 2 || strcmp(argv[optind], "explain") != 0) {
		fputs(usage, stderr);
		return CLI_USAGE;
	}
	for (int i = optind + 1; i < argc; i++) {
		if (i > optind + 1 && !json)
			puts("");
		if (explain(argv[i], &options, json) != CLI_OK)
			status = CLI_FAILED;
	}
	return status;
}
