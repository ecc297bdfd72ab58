// SPDX-License-Identifier: Apache-2.0
// Flags and files become one JSON document.
#include "document.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const char document_help[] =
	"usage: hospes run [CONFIG.json] [OPTION...]\n"
	"\n"
	"Examples:\n"
	"  hospes run --kernel bzImage --initrd initrd.img --memory 512M \\\n"
	"             --cmdline 'console=ttyS0'\n"
	"  hospes run --kernel vmlinuz --cpus 4,pin=0-3 --memory 4G,prefault=on \\\n"
	"             --disk path=root.img --net tap=tap0,create=on \\\n"
	"             --cmdline 'console=ttyS0 root=/dev/vda rw'\n"
	"\n"
	"The machine (flags add to and override CONFIG.json; docs/configuration.md):\n"
	"  --kernel FILE       bzImage or vmlinux\n"
	"  --initrd FILE       initial RAM disk\n"
	"  --cmdline TEXT      kernel command line\n"
	"  --kaslr MODE        auto, on, off: randomise the kernel's addresses\n"
	"  --kernel-cache on|off|DIR   keep unpacked kernels ($XDG_CACHE_HOME/hospes/kernels)\n"
	"  --firmware FILE     not built yet\n"
	"  --cpus N[,sockets=S,cores=C,threads=T][,pin=0-3]\n"
	"  --memory SIZE[,backing=auto|anonymous|memfd|hugetlb-2M|hugetlb-1G]\n"
	"                [,prefault=on][,numa_node=N]\n"
	"  --disk path=FILE|fd=N[,readonly=on][,cache=writeback|direct|writethrough]\n"
	"                [,queues=N][,id=NAME][,serial=TEXT][,discard=off][,viommu=on][,addr=SLOT]\n"
	"  --net tap=NAME|fd=N|socket=PATH[,create=on][,mac=MAC][,queues=N][,mtu=N]\n"
	"                [,vhost=on][,link=off][,offload=off][,viommu=on][,id=NAME][,addr=SLOT]\n"
	"  --passthrough BDF|PATH|fd=N[,iommufd=M][,ioas=NAME][,strategy=direct|strict][,rom=on]\n"
	"                [,on_error=log|reset|pause|stop][,id=NAME][,addr=SLOT]   a device of the host\n"
	"  --iommu auto|iommufd|type1[,fd=N]   how its memory accesses are translated (auto)\n"
	"  --viommu [on|off][,bypass=off][,transport=exit|loop|poll][,poll_us=N]\n"
	"                an IOMMU of the guest's own, for devices with viommu=on\n"
	"  --console serial|virtio|none[,path=FILE|in=FD,out=FD]   default: serial on the terminal\n"
	"  --rng on|off        random numbers of the host (on)\n"
	"  --root-ports N      spare PCIe root ports (2)\n"
	"  --io-threads N      threads for disks and networks (0: the main thread)\n"
	"  --name TEXT, --uuid UUID, --smbios serial=TEXT[,manufacturer=TEXT,product=TEXT]\n"
	"  --on-reset restart|stop     when the guest resets\n"
	"\n"
	"This command:\n"
	"  --dry-run           print the effective document and do nothing\n"
	"  --verbose, -v       log more; twice: everything\n"
	"  --log FILE          log there instead of on standard error\n"
	"  --json-log          log as JSON lines\n"
	"  --grace SECONDS     after SIGTERM: time for the guest to power off (30)\n"
	"\n"
	"On the terminal, Ctrl-A h lists what Ctrl-A does; Ctrl-A x ends the machine.\n"
	"SIGUSR1 writes status and registers to standard error.\n"
	"Exit status: 0 the guest powered off, 1 failure, 2 usage, 3 the guest crashed.\n";

/* How a flag's argument goes into the document. */
enum flag_kind {
	FLAG_VALUE,  /* text at key, in object `in` if that is set */
	FLAG_OBJECT, /* k=v,... merged into the object at key; a first word without '=' is `first` */
	FLAG_APPEND, /* k=v,... appended to the list at key; likewise */
	FLAG_CACHE,
	FLAG_CONSOLE,
};

struct flag {
	const char *name;
	enum flag_kind kind;
	const char *in;
	const char *key;
	const char *first;
};

static const struct flag flags[] = {
	{"--kernel", FLAG_VALUE, "kernel", "path", NULL},
	{"--initrd", FLAG_VALUE, "kernel", "initrd", NULL},
	{"--cmdline", FLAG_VALUE, "kernel", "cmdline", NULL},
	{"--kaslr", FLAG_VALUE, "kernel", "kaslr", NULL},
	{"--kernel-cache", FLAG_CACHE, "kernel", NULL, NULL},
	{"--firmware", FLAG_VALUE, NULL, "firmware", NULL},
	{"--cpus", FLAG_OBJECT, NULL, "cpus", "count"},
	{"--memory", FLAG_OBJECT, NULL, "memory", "size"},
	{"--disk", FLAG_APPEND, NULL, "disks", "path"},
	{"--net", FLAG_APPEND, NULL, "nets", NULL},
	{"--console", FLAG_CONSOLE, NULL, "consoles", "type"},
	{"--passthrough", FLAG_APPEND, NULL, "passthrough", "device"},
	{"--iommu", FLAG_OBJECT, NULL, "iommu", "backend"},
	{"--viommu", FLAG_OBJECT, NULL, "viommu", "enabled"},
	{"--rng", FLAG_VALUE, "rng", "enabled", NULL},
	{"--root-ports", FLAG_VALUE, "pci", "root_ports", NULL},
	{"--io-threads", FLAG_VALUE, NULL, "io_threads", NULL},
	{"--name", FLAG_VALUE, NULL, "name", NULL},
	{"--uuid", FLAG_VALUE, NULL, "uuid", NULL},
	{"--smbios", FLAG_OBJECT, NULL, "smbios", NULL},
	{"--on-reset", FLAG_VALUE, NULL, "on_reset", NULL},
};

/* The object or list at key, made if it is not there; borrowed. NULL: something else is there. */
static json_t *member(json_t *object, const char *key, json_t *(*make)(void))
{
	json_t *found = json_object_get(object, key);

	if (!found) {
		json_object_set_new(object, key, make());
		found = json_object_get(object, key);
	}
	return found;
}

/* The next "key=value" of *text, with ",," as a comma: false at the end. Cuts *text up. */
static bool next_pair(char **text, char **key, char **value)
{
	char *out = *text;
	char *in = *text;

	if (!in || !*in)
		return false;
	*key = in;
	*value = NULL;
	while (*in) {
		if (*in == ',' && in[1] == ',') {
			in++;
		} else if (*in == ',') {
			in++;
			break;
		} else if (*in == '=' && !*value) {
			*value = out + 1;
			*out++ = '\0';
			in++;
			continue;
		}
		*out++ = *in++;
	}
	/* *in is past the separator, out never beyond it. */
	*text = *in ? in : NULL;
	*out = '\0';
	return true;
}

static int add_pairs(const struct flag *flag, const char *argument, json_t *object)
{
	char *copy = strdup(argument);
	char *rest = copy;
	char *key;
	char *value;
	bool first = true;
	int status = CLI_OK;

	while (status == CLI_OK && next_pair(&rest, &key, &value)) {
		if (!value && first && flag->first) {
			value = key;
			json_object_set_new(object, flag->first, json_string(value));
		} else if (value) {
			json_object_set_new(object, key, json_string(value));
		} else {
			cli_error(
				"%s: '%s' in '%s' is not key=value; 'hospes run --help' shows the keys",
				flag->name, key, argument);
			status = CLI_USAGE;
		}
		first = false;
	}
	if (first && status == CLI_OK) {
		cli_error("%s: needs a value", flag->name);
		status = CLI_USAGE;
	}
	free(copy);
	return status;
}

static int apply_flag(const struct flag *flag, const char *argument, json_t *root)
{
	json_t *object = flag->in ? member(root, flag->in, json_object) : root;
	json_t *item;
	int status;

	switch (flag->kind) {
	case FLAG_VALUE:
		json_object_set_new(object, flag->key, json_string(argument));
		return CLI_OK;
	case FLAG_CACHE:
		if (strcmp(argument, "on") == 0 || strcmp(argument, "off") == 0) {
			json_object_set_new(object, "cache", json_boolean(argument[1] == 'n'));
		} else {
			json_object_set_new(object, "cache", json_true());
			json_object_set_new(object, "cache_dir", json_string(argument));
		}
		return CLI_OK;
	case FLAG_OBJECT:
		return add_pairs(flag, argument, member(root, flag->key, json_object));
	case FLAG_CONSOLE:
		if (strcmp(argument, "none") == 0) {
			json_object_set_new(root, flag->key, json_array());
			return CLI_OK;
		}
		break;
	case FLAG_APPEND:
		break;
	}
	item = json_object();
	status = add_pairs(flag, argument, item);
	json_array_append_new(member(root, flag->key, json_array), item);
	return status;
}

static int load_file(const char *path, json_t **ret)
{
	json_error_t at;

	*ret = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
	if (!*ret && at.line < 0) {
		cli_error("'%s': %s", path, at.text);
		return CLI_FAILED;
	}
	if (!*ret) {
		cli_error("'%s', line %d, column %d: %s", path, at.line, at.column, at.text);
		return CLI_FAILED;
	}
	if (!json_is_object(*ret)) {
		cli_error("'%s': must hold an object { ... }", path);
		json_decref(*ret);
		*ret = NULL;
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int usage_number(const char *flag, const char *text, unsigned int *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value > 86400) {
		cli_error("%s: '%s' is not a number of seconds up to 86400", flag, text);
		return CLI_USAGE;
	}
	*ret = (unsigned int)value;
	return CLI_OK;
}

static const struct flag *find_flag(const char *name)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (strcmp(flags[i].name, name) == 0)
			return &flags[i];
	}
	return NULL;
}

static bool takes_value(const char *name)
{
	return find_flag(name) || strcmp(name, "--log") == 0 || strcmp(name, "--grace") == 0;
}

static bool takes_none(const char *name)
{
	static const char *const names[] = {"--help",    "-h", "--dry-run",
					    "--verbose", "-v", "--json-log"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], name) == 0)
			return true;
	}
	return false;
}

/* A flag that is known; value is NULL for flags that take none. */
static int one_flag(const char *name, const char *value, json_t *root, struct run_options *options)
{
	const struct flag *flag = find_flag(name);

	if (!value) /* by those that take none it is not looked at */
		value = "";
	if (flag)
		return apply_flag(flag, value, root);
	if (strcmp(name, "--log") == 0)
		options->log_path = value;
	else if (strcmp(name, "--grace") == 0)
		return usage_number(name, value, &options->grace_s);
	else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		options->help = true;
	else if (strcmp(name, "--dry-run") == 0)
		options->dry_run = true;
	else if (strcmp(name, "--verbose") == 0 || strcmp(name, "-v") == 0)
		options->verbose++;
	else
		options->json_log = true;
	return CLI_OK;
}

/* The argument at *i as a flag and its value ("--flag value" or "--flag=value"); moves *i past it.
 * name has room for the longest flag. */
static int split_flag(int argc, char **argv, int *i, char *name, size_t room, const char **value)
{
	const char *text = argv[*i];
	const char *equals = strchr(text, '=');

	snprintf(name, room, "%.*s", equals ? (int)(equals - text) : (int)strlen(text), text);
	*value = NULL;
	if (!takes_value(name) && !takes_none(name)) {
		cli_error("unknown option '%s'; 'hospes run --help' lists them", name);
		return CLI_USAGE;
	}
	if (takes_none(name)) {
		if (equals)
			cli_error("%s takes no value; 'hospes run --help' shows its options", name);
		return equals ? CLI_USAGE : CLI_OK;
	}
	if (!equals && strcmp(name, "--viommu") == 0 && (*i + 1 == argc || argv[*i + 1][0] == '-'))
		*value = "on";
	else
		*value = equals ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
	if (*value)
		return CLI_OK;
	cli_error("%s: needs a value; 'hospes run --help' shows it", name);
	return CLI_USAGE;
}

/* One pass over the arguments: the file (flags add to it, so it is read first), then the flags. */
static int scan(int argc, char **argv, bool want_file, json_t **root, struct run_options *options)
{
	int status = CLI_OK;

	for (int i = 1; i < argc && status == CLI_OK; i++) {
		const char *value;
		char name[32];

		if (argv[i][0] == '-') {
			status = split_flag(argc, argv, &i, name, sizeof(name), &value);
			if (status == CLI_OK && !want_file)
				status = one_flag(name, value, *root, options);
		} else if (want_file && *root) {
			cli_error(
				"one CONFIG.json is enough: '%s'; 'hospes run --help' shows the usage",
				argv[i]);
			status = CLI_USAGE;
		} else if (want_file) {
			status = load_file(argv[i], root);
		}
	}
	return status;
}

int document_read(int argc, char **argv, json_t **ret, struct run_options *options)
{
	json_t *root = NULL;
	int status;

	*options = (struct run_options){.grace_s = 30};
	status = scan(argc, argv, true, &root, options);
	if (status == CLI_OK && !root)
		root = json_object();
	if (status == CLI_OK)
		status = scan(argc, argv, false, &root, options);
	if (status == CLI_OK)
		*ret = root;
	else
		json_decref(root);
	return status;
}
