// SPDX-License-Identifier: Apache-2.0
// hospes iommu list: the host's IOMMUs, which devices they isolate, and the mapping strategies.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"
#include "table.h"

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

	printf("%-7s %s, %lld devices", text_of(iommu, "name", ""), text_of(iommu, "kind", ""),
	       (long long)json_integer_value(json_object_get(iommu, "devices")));
	if (json_is_integer(bits))
		printf(", %lld bits of I/O address", (long long)json_integer_value(bits));
	json_array_foreach(json_object_get(iommu, "page_sizes"), i, page)
	{
		printf("%s%s", i ? ", " : "; pages ",
		       table_size((double)json_integer_value(page), size));
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
	       json_is_integer(memlock) ? table_size((double)json_integer_value(memlock), size)
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
		const char *driver = text_of(device, "driver", "");
		const char *isolation = text_of(device, "isolation", "");
		bool good = strcmp(isolation, "isolated") == 0;

		printf("%5s %s ", i ? "" : label, bracket(i, json_array_size(devices), unicode));
		printf("%-12s  %-9s  %-14s  ", text_of(device, "device", ""),
		       text_of(device, "id", ""), *driver ? driver : "-");
		table_cell(isolation, 16, good ? TABLE_GREEN : TABLE_YELLOW);
		table_wrap(text_of(device, "why", ""), 66);
	}
}

static void print_parameter(const json_t *parameter)
{
	const json_t *value = json_object_get(parameter, "default");

	printf("%-14s  %s=%s (", "", text_of(parameter, "name", ""),
	       text_of(parameter, "takes", ""));
	if (json_is_string(value))
		fputs(json_string_value(value), stdout);
	else
		printf("%lld", (long long)json_integer_value(value));
	fputs("): ", stdout);
	table_wrap(text_of(parameter, "summary", ""), 16);
}

static void print_strategies(const json_t *strategies)
{
	json_t *item, *parameter;
	size_t i, k;

	printf("\n%-14s  %s\n", "STRATEGY", "WHAT THE DEVICE CAN REACH");
	json_array_foreach(strategies, i, item)
	{
		printf("%-14s  ", text_of(item, "name", ""));
		table_wrap(text_of(item, "summary", ""), 16);
		json_array_foreach(json_object_get(item, "parameters"), k, parameter)
		{
			print_parameter(parameter);
		}
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
		puts("No IOMMU translates for the devices of this host, so no guest can have one.\n"
		     "Switch it on in the firmware's setup, and on the kernel's command line "
		     "(intel_iommu=on; AMD's is on by default).");
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
	print_strategies(json_object_get(document, "strategies"));
}

static const struct option list_options[] = {
	{"json", NULL, "for programs", .kind = OPTION_SWITCH},
	{0},
};

static const struct command list_command;

static int execute(int argc, char **argv)
{
	struct hospes_error error;
	bool json = false;
	char *text;
	int status;

	if (!options_parse(&list_command, argc, argv, &json, &status))
		return status;
	if (hospes_iommu_list(&text, &error) == 0)
		return answer_print(text, json, print_text);
	cli_error("%s", error.text);
	return CLI_FAILED;
}

static const struct command list_command = {
	.name = "iommu list",
	.operands = "[--json]",
	.summary = "the host's IOMMUs, groups and limits, and the mapping strategies",
	.text = "Shows the host's IOMMUs, the groups that its devices form, whether each device is "
		"isolated\n(its DMA reaches nothing past the IOMMU, and it can raise its own "
		"interrupts only), the\nlimits, and the strategies by which guest memory is mapped.\n",
	.groups = {{"Options", list_options, 0}},
	.examples = "  hospes iommu list --json | \\\n"
		    "      jq '.groups[].devices[] | select(.isolation==\"isolated\")'\n",
	.run = execute,
};

const struct command iommu_command = {
	.name = "iommu",
	.operands = "COMMAND [ARGUMENT...]",
	.summary = "list, bench, compare: the host's IOMMUs; what mapping costs and exposes",
	.commands = (const struct command *const[]){&list_command, &bench_command, &compare_command,
						    NULL},
};
