// SPDX-License-Identifier: Apache-2.0
// hospes device explain: will passthrough of a device work here, and if not, what to do.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"
#include "table.h"

struct level {
	const char *name, *shown;
	enum table_colour colour;
};

static const struct level levels[] = {
	{"blocker", "BLOCKER", TABLE_RED},
	{"warning", "warning", TABLE_YELLOW},
	{"ok", "ok", TABLE_GREEN},
};

static unsigned int print_level(const json_t *findings, const struct level *level)
{
	enum { FACT_AT = 25 };
	unsigned int n = 0;
	json_t *finding;
	size_t i;

	json_array_foreach(findings, i, finding)
	{
		const char *remedy = text_of(finding, "remedy", "");

		if (strcmp(text_of(finding, "level", ""), level->name) != 0)
			continue;
		n++;
		fputs("  ", stdout);
		table_cell(level->shown, 9, level->colour);
		table_cell(text_of(finding, "topic", ""), 14, TABLE_PLAIN);
		table_wrap(text_of(finding, "fact", ""), FACT_AT);
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
	const char *driver = text_of(document, "driver", "");
	unsigned int counts[3];

	printf("%s  %s  %s%s", text_of(document, "device", ""), text_of(document, "id", ""),
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

struct explain_arguments {
	struct hospes_explain_options given;
	char *devices[64];
	unsigned int n;
	bool json;
};

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
	if (json)
		puts(text);
	document = answer_load(text);
	works = json_is_true(json_object_get(document, "works"));
	options->other_vectors +=
		(unsigned int)json_integer_value(json_object_get(document, "msix_vectors"));
	if (!json)
		print_text(document);
	json_decref(document);
	return works ? CLI_OK : CLI_FAILED;
}

static const struct option explain_options[] = {
	{"memory", "SIZE", "the guest's memory (2G): limits are checked against it",
	 OPTION_AT(SIZE, struct explain_arguments, given.memory_bytes)},
	{"backing", "auto|anonymous|memfd|hugetlb-2M|hugetlb-1G",
	 "how that memory is backed (auto: anonymous)",
	 OPTION_AT(CHOICE, struct explain_arguments, given.backing)},
	{"iommu", "auto|iommufd|type1", "the kernel's interface (auto)",
	 OPTION_AT(CHOICE, struct explain_arguments, given.iommu)},
	{"json", NULL, "for programs", OPTION_AT(SWITCH, struct explain_arguments, json)},
	{0},
};

static int add_device(void *into, char *device)
{
	struct explain_arguments *a = into;

	if (a->n == sizeof(a->devices) / sizeof(a->devices[0])) {
		cli_error("device explain: '%s': 64 devices at most", device);
		return CLI_USAGE;
	}
	a->devices[a->n++] = device;
	return CLI_OK;
}

static const struct command explain_command;

static int execute(int argc, char **argv)
{
	struct explain_arguments a = {.given = {.size = sizeof(a.given)}};
	int status;

	if (!options_parse(&explain_command, argc, argv, &a, &status))
		return status;
	for (unsigned int i = 0; i < a.n; i++) {
		if (i && !a.json)
			puts("");
		if (explain(a.devices[i], &a.given, a.json) != CLI_OK)
			status = CLI_FAILED;
	}
	if (a.n)
		return status;
	cli_error("device explain: DEVICE is missing; 'hospes iommu list' shows them");
	return CLI_USAGE;
}

static const struct command explain_command = {
	.name = "device explain",
	.operands = "DEVICE... [OPTION...]",
	.summary = "will passthrough of a device work here, and if not, what to do",
	.text = "Says whether a PCI device of this host can be given to a guest, and if not, what to "
		"do.\nIt changes nothing.\n"
		"DEVICE is 0000:01:10.0, 01:10.0, a path in /sys, or /dev/vfio/devices/vfioN. Several "
		"are\nlooked at as devices of one guest.\n",
	.groups = {{"Options", explain_options, 0}},
	.operand = add_device,
	.notes = "Exit status: 0 nothing blocks, 1 something does or the device is not there, 2 "
		 "usage.\n",
	.examples = "  hospes device explain 01:10.0 --memory 4G\n"
		    "  hospes device explain 0000:01:10.0 --json | \\\n"
		    "      jq '.findings[] | select(.level==\"blocker\")'\n",
	.run = execute,
};

const struct command device_command = {
	.name = "device",
	.operands = "COMMAND [ARGUMENT...]",
	.summary = "explain: will passthrough of a device work here, and if not, why",
	.commands = (const struct command *const[]){&explain_command, NULL},
};
