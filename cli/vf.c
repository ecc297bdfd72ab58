// SPDX-License-Identifier: Apache-2.0
// hospes vf: SR-IOV virtual functions, from nothing to a device that can be handed to a guest, and
// back. All of it is the library's; here are words, tables and exit statuses.
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "hospes/hospes.h"

static const char help[] =
	"usage: hospes vf list [DEVICE] [--json]\n"
	"       hospes vf create PF --count N [--json]\n"
	"       hospes vf set VF [--mac MAC] [--vlan N [--qos N]] [--trust on|off]\n"
	"                        [--spoofchk on|off] [--rate [LEAST:]MOST]\n"
	"                        [--link-state auto|enable|disable] [--json]\n"
	"       hospes vf bind DEVICE [--driver NAME]\n"
	"       hospes vf unbind DEVICE\n"
	"       hospes vf destroy PF\n"
	"\n"
	"  list     cards with SR-IOV (PF) and their virtual functions (VF)\n"
	"  create   make N VFs without a driver; prints their addresses\n"
	"  set      what the PF's driver enforces for a VF; rates in Mbit/s, 0 for no limit\n"
	"  bind     give a device to vfio-pci (or --driver), and keep it there\n"
	"  unbind   take its driver away\n"
	"  destroy  remove all VFs of a PF, unless one is in use\n"
	"\n"
	"A device is named by its address (0000:01:10.0 or 01:10.0) or its path in sysfs. What fails\n"
	"leaves things as they were. All but list need root.\n"
	"\n"
	"Examples:\n"
	"  hospes vf create 0000:01:00.0 --count 2\n"
	"  hospes vf set 0000:01:10.0 --mac 02:00:00:00:00:01 --vlan 100\n"
	"  hospes vf bind 0000:01:10.0\n"
	"  hospes vf destroy 0000:01:00.0\n"
	"\n"
	"Exit status: 0 done, 1 failed (nothing was changed), 2 usage.\n";

/* The words of a command line. */
struct vf_options {
	const char *device;
	bool json;
	unsigned int count;
	const char *driver;
	json_t *settings; /* of set; owned */
};

enum {
	TAKES_DEVICE = 1 << 0, /* must be there */
	MAY_DEVICE = 1 << 1,
	TAKES_JSON = 1 << 2,
	TAKES_COUNT = 1 << 3, /* must be there */
	TAKES_SETTINGS = 1 << 4,
	TAKES_DRIVER = 1 << 5,
	CHANGES = 1 << 6,
};

static int failed(const struct hospes_error *error)
{
	cli_error("%s", error->text);
	return CLI_FAILED;
}

/* Ctrl-C in the middle of a change would leave half of it. It waits until the change is done, when the
 * command ends by itself. */
static void hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The list as JSON; NULL with the message printed. */
static json_t *load_list(void)
{
	struct hospes_error error;
	json_t *list;
	char *text;

	if (hospes_vf_list(&text, &error) < 0) {
		failed(&error);
		return NULL;
	}
	list = json_loads(text, 0, NULL);
	hospes_free(text);
	if (!list)
		cli_error("no memory for the list of devices");
	return list;
}

static const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : otherwise;
}

/* Does the user mean this one? "01:10.0" is "0000:01:10.0"; of a path, its last part. */
static bool is_device(const char *wanted, const json_t *device)
{
	const char *bdf = text_of(device, "bdf", "");
	const char *name = strrchr(wanted, '/') ? strrchr(wanted, '/') + 1 : wanted;

	return strcasecmp(name, bdf) == 0 ||
	       (strlen(bdf) > 5 && strncmp(bdf, "0000:", 5) == 0 && strcasecmp(name, bdf + 5) == 0);
}

static const char *on_off(const json_t *vf, const char *key)
{
	const json_t *value = json_object_get(vf, key);

	return json_is_boolean(value) ? (json_is_true(value) ? "on" : "off") : "-";
}

/* "100", "100 p3", "-". */
static void show_vlan(const json_t *vf, char *text, size_t bytes)
{
	int vlan = (int)json_integer_value(json_object_get(vf, "vlan"));
	int qos = (int)json_integer_value(json_object_get(vf, "qos"));

	if (!vlan)
		snprintf(text, bytes, "-");
	else if (qos)
		snprintf(text, bytes, "%d p%d", vlan, qos);
	else
		snprintf(text, bytes, "%d", vlan);
}

/* "500", "100:500", "-". */
static void show_rate(const json_t *vf, char *text, size_t bytes)
{
	long long least = json_integer_value(json_object_get(vf, "min_mbps"));
	long long most = json_integer_value(json_object_get(vf, "max_mbps"));

	if (least)
		snprintf(text, bytes, "%lld:%lld", least, most);
	else if (most)
		snprintf(text, bytes, "%lld", most);
	else
		snprintf(text, bytes, "-");
}

static void print_vf(const json_t *vf)
{
	const json_t *group = json_object_get(vf, "group");
	char number[24] = "-", vlan[24], rate[48];

	if (json_is_integer(group))
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(group));
	show_vlan(vf, vlan, sizeof(vlan));
	show_rate(vf, rate, sizeof(rate));
	printf("  %-12s  %-8s  %-5s  %-17s  %-7s  %-5s  %-5s  %-8s  %-7s  %s\n",
	       text_of(vf, "bdf", "-"), text_of(vf, "driver", "-"), number, text_of(vf, "mac", "-"),
	       vlan, on_off(vf, "trust"), on_off(vf, "spoofchk"), rate,
	       text_of(vf, "link_state", "-"), text_of(vf, "user", "-"));
}

static void print_pf(const json_t *pf, const char *only)
{
	const json_t *vfs = json_object_get(pf, "vfs"), *vf;
	bool whole = !only || is_device(only, pf);
	size_t i;

	printf("%-12s  %s  driver %s, interface %s, link %s, %zu of %lld VFs\n",
	       text_of(pf, "bdf", "-"), text_of(pf, "id", "-"), text_of(pf, "driver", "none"),
	       text_of(pf, "netdev", "none"), text_of(pf, "link", "none"), json_array_size(vfs),
	       (long long)json_integer_value(json_object_get(pf, "max_vfs")));
	if (json_array_size(vfs))
		printf("  %-12s  %-8s  %-5s  %-17s  %-7s  %-5s  %-5s  %-8s  %-7s  %s\n", "VF",
		       "DRIVER", "GROUP", "MAC", "VLAN", "TRUST", "SPOOF", "RATE", "LINK",
		       "USED BY");
	json_array_foreach((json_t *)vfs, i, vf)
	{
		if (!only || whole || is_device(only, vf))
			print_vf(vf);
	}
}

/* The device in the list, PF or VF; NULL. *of: its PF. */
static json_t *find_device(const json_t *list, const char *wanted, const json_t **of)
{
	json_t *pf, *vf;
	size_t i, j;

	json_array_foreach((json_t *)list, i, pf)
	{
		*of = pf;
		if (is_device(wanted, pf))
			return pf;
		json_array_foreach(json_object_get(pf, "vfs"), j, vf)
		{
			if (is_device(wanted, vf))
				return vf;
		}
	}
	return NULL;
}

static int print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	putchar('\n');
	return CLI_OK;
}

static int do_list(const struct vf_options *o)
{
	json_t *list = load_list(), *pf;
	const json_t *of = NULL, *found = NULL;
	int status = CLI_OK;
	size_t i;

	if (!list)
		return CLI_FAILED;
	if (o->device)
		found = find_device(list, o->device, &of);
	if (o->device && !found) {
		cli_error("%s: is no device with SR-IOV, nor a VF; 'hospes vf list' shows those "
			  "there are",
			  o->device);
		status = CLI_FAILED;
	} else if (o->json) {
		print_json(o->device ? found : list);
	} else if (o->device) {
		print_pf(of, o->device);
	} else {
		json_array_foreach(list, i, pf)
		{
			print_pf(pf, NULL);
		}
		if (!json_array_size(list))
			fputs("no device here has SR-IOV (it may be off in the firmware)\n",
			      stderr);
	}
	json_decref(list);
	return status;
}

static int do_create(const struct vf_options *o)
{
	struct hospes_error error;
	json_t *pf, *vf;
	char *text;
	size_t i;

	if (hospes_vf_create(o->device, o->count, &text, &error) < 0)
		return failed(&error);
	pf = json_loads(text, 0, NULL);
	if (o->json)
		puts(text);
	else
		json_array_foreach(json_object_get(pf, "vfs"), i, vf)
		{
			puts(text_of(vf, "bdf", ""));
		}
	json_decref(pf);
	hospes_free(text);
	return CLI_OK;
}

static int do_set(const struct vf_options *o)
{
	char *text = json_dumps(o->settings, JSON_COMPACT);
	struct hospes_error error;
	int rc;

	if (!text) {
		cli_error("no memory");
		return CLI_FAILED;
	}
	rc = hospes_vf_set(o->device, text, strlen(text), &error);
	free(text);
	if (rc < 0)
		return failed(&error);
	return o->json ? do_list(o) : CLI_OK;
}

static int do_bind(const struct vf_options *o)
{
	struct hospes_error error;

	return hospes_device_bind(o->device, o->driver, &error) < 0 ? failed(&error) : CLI_OK;
}

static int do_unbind(const struct vf_options *o)
{
	struct hospes_error error;

	return hospes_device_unbind(o->device, &error) < 0 ? failed(&error) : CLI_OK;
}

static int do_destroy(const struct vf_options *o)
{
	struct hospes_error error;

	return hospes_vf_destroy(o->device, &error) < 0 ? failed(&error) : CLI_OK;
}

static const struct verb {
	const char *name;
	unsigned int takes;
	int (*run)(const struct vf_options *o);
} verbs[] = {
	{"list", MAY_DEVICE | TAKES_JSON, do_list},
	{"create", TAKES_DEVICE | TAKES_COUNT | TAKES_JSON | CHANGES, do_create},
	{"set", TAKES_DEVICE | TAKES_SETTINGS | TAKES_JSON | CHANGES, do_set},
	{"bind", TAKES_DEVICE | TAKES_DRIVER | CHANGES, do_bind},
	{"unbind", TAKES_DEVICE | CHANGES, do_unbind},
	{"destroy", TAKES_DEVICE | CHANGES, do_destroy},
};

/* Options whose value goes into the document of settings as it is; the library checks it. */
static const struct {
	const char *option, *key;
} setting_options[] = {
	{"--mac", "mac"},     {"--vlan", "vlan"},         {"--qos", "qos"},
	{"--trust", "trust"}, {"--spoofchk", "spoofchk"}, {"--link-state", "link_state"},
};

static int read_count(const char *text, unsigned int *ret)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n > 65535) {
		cli_error("--count '%s': is not a number of VFs", text);
		return CLI_USAGE;
	}
	*ret = (unsigned int)n;
	return CLI_OK;
}

/* "500" or "100:500". */
static void read_rate(const char *text, json_t *settings)
{
	const char *colon = strchr(text, ':');

	if (colon)
		json_object_set_new(settings, "min_mbps",
				    json_stringn(text, (size_t)(colon - text)));
	json_object_set_new(settings, "max_mbps", json_string(colon ? colon + 1 : text));
}

/* An option that has a value; CLI_OK, or CLI_USAGE with the message printed. */
static int read_option(const struct verb *verb, const char *option, const char *value,
		       struct vf_options *o)
{
	bool count = verb->takes & TAKES_COUNT && strcmp(option, "--count") == 0;
	bool driver = verb->takes & TAKES_DRIVER && strcmp(option, "--driver") == 0;
	bool rate = verb->takes & TAKES_SETTINGS && strcmp(option, "--rate") == 0;
	const char *key = NULL;

	for (size_t i = 0; i < sizeof(setting_options) / sizeof(setting_options[0]); i++) {
		if (verb->takes & TAKES_SETTINGS && strcmp(option, setting_options[i].option) == 0)
			key = setting_options[i].key;
	}
	if (!count && !driver && !rate && !key) {
		cli_error("vf %s: unknown option '%s'; see 'hospes vf --help'", verb->name, option);
		return CLI_USAGE;
	}
	if (!value) {
		cli_error("vf %s: %s needs a value", verb->name, option);
		return CLI_USAGE;
	}
	if (count)
		return read_count(value, &o->count);
	if (driver)
		o->driver = value;
	else if (rate)
		read_rate(value, o->settings);
	else
		json_object_set_new(o->settings, key, json_string(value));
	return CLI_OK;
}

/* argv[0] is the verb. */
static int read_words(const struct verb *verb, int argc, char **argv, struct vf_options *o)
{
	bool counted = false;

	for (int i = 1; i < argc; i++) {
		int status;

		if (argv[i][0] != '-') {
			if (o->device || !(verb->takes & (TAKES_DEVICE | MAY_DEVICE))) {
				cli_error("vf %s: one word too many: '%s'", verb->name, argv[i]);
				return CLI_USAGE;
			}
			o->device = argv[i];
			continue;
		}
		if (verb->takes & TAKES_JSON && strcmp(argv[i], "--json") == 0) {
			o->json = true;
			continue;
		}
		status = read_option(verb, argv[i], i + 1 < argc ? argv[i + 1] : NULL, o);
		if (status)
			return status;
		counted |= strcmp(argv[i], "--count") == 0;
		i++;
	}
	if (verb->takes & TAKES_DEVICE && !o->device) {
		cli_error("vf %s: which device? 'hospes vf list' shows them", verb->name);
		return CLI_USAGE;
	}
	if (verb->takes & TAKES_COUNT && !counted) {
		cli_error("vf %s: how many? give --count N", verb->name);
		return CLI_USAGE;
	}
	if (verb->takes & TAKES_SETTINGS && !json_object_size(o->settings)) {
		cli_error("vf %s: what? see 'hospes vf --help'", verb->name);
		return CLI_USAGE;
	}
	return CLI_OK;
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	}
	return argc > 1 && strcmp(argv[1], "help") == 0;
}

int cli_vf(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (wants_help(argc, argv)) {
		fputs(help, stdout);
		return CLI_OK;
	}
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		struct vf_options o = {0};
		int status;

		if (strcmp(name, verbs[i].name) != 0)
			continue;
		o.settings = json_object();
		status = read_words(&verbs[i], argc - 1, argv + 1, &o);
		if (!status && verbs[i].takes & CHANGES)
			hold_signals();
		if (!status)
			status = verbs[i].run(&o);
		json_decref(o.settings);
		return status;
	}
	if (*name)
		cli_error("vf: unknown verb '%s'; one of list, create, set, bind, unbind, destroy",
			  name);
	else
		fputs(help, stderr);
	return CLI_USAGE;
}
