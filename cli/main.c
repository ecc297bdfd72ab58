// SPDX-License-Identifier: Apache-2.0
// The hospes command: subcommands and help.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cli.h"
#include "hospes/hospes.h"

static int print_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("hospes %s\n", hospes_version());
	return CLI_OK;
}

static int print_help(int argc, char **argv);

/* argv[0] of each is its own name. */
static const struct command {
	const char *name, *option; /* option: the same, spelt as one, or NULL */
	const char *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"run", NULL, "start a virtual machine and stay with it until it ends", cli_run},
	{"vf", NULL, "SR-IOV: make, set, bind and remove virtual functions", cli_vf},
	{"device", NULL, "explain: will passthrough of a device work here, and if not, why",
	 cli_device},
	{"iommu", NULL,
	 "list, bench, compare: the host's IOMMUs, and what mapping costs and exposes", cli_iommu},
	{"version", "--version", "print the version", print_version},
	{"help", "--help", "print this text", print_help},
};

static void usage(FILE *to)
{
	fputs("usage: hospes COMMAND [ARGUMENT...]\n\n", to);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].what);
	fputs("\n'hospes COMMAND --help' shows its options. Example:\n"
	      "  hospes run --kernel bzImage --initrd initrd.img --disk path=disk.img --memory 1G\n",
	      to);
}

static int print_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	usage(stdout);
	return CLI_OK;
}

void cli_error(const char *fmt, ...)
{
	va_list ap;

	fputs("hospes: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* The limit that a user finds is low for the sake of programs that use select(). A device may have
 * thousands of interrupt vectors, each with a file descriptor. */
static void allow_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	allow_files();
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		const struct command *c = &commands[i];

		if (strcmp(name, c->name) == 0 || (c->option && strcmp(name, c->option) == 0))
			return c->run(argc - 1, argv + 1);
	}
	if (strcmp(name, "-h") == 0)
		return print_help(argc - 1, argv + 1);
	if (!*name)
		usage(stderr);
	else
		cli_error("unknown command '%s'; 'hospes help' lists them", name);
	return CLI_USAGE;
}
