// SPDX-License-Identifier: Apache-2.0
// hospes vf: makes, sets, binds and removes SR-IOV virtual functions. The library does the work;
// here are words, tables and exit statuses.
#include <jansson.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"

/* The words of a command line. */
struct vf_options {
	const char *device;
	bool json;
	unsigned int count; /* NO_COUNT: not given */
	const char *driver;
	const char *owner;
	json_t *settings; /* of set; owned */
};

enum { NO_COUNT = 1 << 16 };

static int failed(const struct hospes_error *error)
{
	cli_error("%s", error->text);
	return CLI_FAILED;
}

/* Ctrl-C in the middle of a change would leave half of it. It waits until the change is done, when
 * the command ends by itself. */
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
	char *text;

	if (hospes_vf_list(&text, &error) == 0)
		return answer_load(text);
	failed(&error);
	return NULL;
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
		cli_error("%s: has no SR-IOV and is no VF; 'hospes vf list' shows those that are",
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

static void print_addresses(const json_t *pf)
{
	json_t *vf;
	size_t i;

	json_array_foreach(json_object_get(pf, "vfs"), i, vf)
	{
		puts(text_of(vf, "bdf", ""));
	}
}

static int do_create(const struct vf_options *o)
{
	struct hospes_error error;
	char *text;

	if (o->count == NO_COUNT) {
		cli_error("vf create: --count N is missing; 'hospes vf list' shows how many VFs "
			  "the device can have");
		return CLI_USAGE;
	}
	hold_signals();
	if (hospes_vf_create(o->device, o->count, &text, &error) < 0)
		return failed(&error);
	return answer_print(text, o->json, print_addresses);
}

static int do_set(const struct vf_options *o)
{
	struct hospes_error error;
	char *text;
	int rc;

	if (!json_object_size(o->settings)) {
		cli_error("vf set: a setting is missing; 'hospes vf set --help' lists them");
		return CLI_USAGE;
	}
	text = json_dumps(o->settings, JSON_COMPACT);
	if (!text) {
		cli_error("no memory");
		return CLI_FAILED;
	}
	hold_signals();
	rc = hospes_vf_set(o->device, text, strlen(text), &error);
	free(text);
	if (rc < 0)
		return failed(&error);
	return o->json ? do_list(o) : CLI_OK;
}

/* Of a name or a number. */
static bool find_user(const char *text, uid_t *ret)
{
	struct passwd entry, *user = NULL;
	char buffer[4096], *end;
	unsigned long number = strtoul(text, &end, 10);
	bool is_number = *text >= '0' && *text <= '9' && !*end && number < UINT32_MAX;

	if (getpwnam_r(text, &entry, buffer, sizeof(buffer), &user) != 0)
		user = NULL;
	if (!user && !is_number) {
		cli_error("vf bind --owner %s: there is no such user; give a name or a number",
			  text);
		return false;
	}
	*ret = user ? user->pw_uid : (uid_t)number;
	return true;
}

static int do_bind(const struct vf_options *o)
{
	struct hospes_error error;

	uid_t owner = 0;

	if (o->owner && !find_user(o->owner, &owner))
		return CLI_FAILED;
	hold_signals();
	if (hospes_device_bind(o->device, o->driver, &error) < 0)
		return failed(&error);
	return o->owner && hospes_device_own(o->device, owner, &error) < 0 ? failed(&error)
									   : CLI_OK;
}

static int do_unbind(const struct vf_options *o)
{
	struct hospes_error error;

	hold_signals();
	return hospes_device_unbind(o->device, &error) < 0 ? failed(&error) : CLI_OK;
}

static int do_destroy(const struct vf_options *o)
{
	struct hospes_error error;

	hold_signals();
	return hospes_vf_destroy(o->device, &error) < 0 ? failed(&error) : CLI_OK;
}

/* --- commands --- */

/* A setting goes into the document as it is; the library checks it. option->data: its key. */
static int set_setting(void *at, const struct option *option, const char *value)
{
	json_t **settings = at;

	json_object_set_new(*settings, option->data, json_string(value));
	return CLI_OK;
}

/* "500" or "100:500". */
static int set_rate(void *at, const struct option *option, const char *text)
{
	const char *colon = strchr(text, ':');
	json_t **settings = at;

	(void)option;
	if (colon)
		json_object_set_new(*settings, "min_mbps",
				    json_stringn(text, (size_t)(colon - text)));
	json_object_set_new(*settings, "max_mbps", json_string(colon ? colon + 1 : text));
	return CLI_OK;
}

#define SETTING(key)                                          \
	.kind = OPTION_CALL, .set = set_setting, .data = key, \
	.offset = offsetof(struct vf_options, settings)
#define JSON_OPTION                                           \
	{"json", NULL, "for programs", .kind = OPTION_SWITCH, \
	 .offset = offsetof(struct vf_options, json)}

static const struct option json_options[] = {JSON_OPTION, {0}};
static const struct option create_options[] = {
	{"count", "N", "how many", OPTION_AT(NUMBER, struct vf_options, count),
	 .max = NO_COUNT - 1},
	JSON_OPTION,
	{0},
};
static const struct option bind_options[] = {
	{"driver", "NAME", "another driver than vfio-pci",
	 OPTION_AT(TEXT, struct vf_options, driver)},
	{"owner", "USER", "who may then open it: its nodes in /dev/vfio are given to that user",
	 OPTION_AT(TEXT, struct vf_options, owner)},
	{0},
};
static const struct option set_options[] = {
	{"mac", "MAC", "address of the VF; one of your own begins with 02", SETTING("mac")},
	{"vlan", "N", "tag of all its packets; 0: none", SETTING("vlan")},
	{"qos", "N", "priority in the tag, 0 to 7", SETTING("qos")},
	{"trust", "on|off", "may the guest change its address, or ask for all packets?",
	 SETTING("trust")},
	{"spoofchk", "on|off", "drop packets with another sender than the VF's address",
	 SETTING("spoofchk")},
	{"rate", "[LEAST:]MOST", "Mbit/s of what it sends; 0: no limit", .kind = OPTION_CALL,
	 .set = set_rate, .offset = offsetof(struct vf_options, settings)},
	{"link-state", "auto|enable|disable", "the link that the VF sees: the PF's, always, never",
	 SETTING("link_state")},
	JSON_OPTION,
	{0},
};

static int set_device(void *into, char *device)
{
	struct vf_options *o = into;

	if (o->device) {
		cli_error("vf: unexpected '%s'; one device at a time", device);
		return CLI_USAGE;
	}
	o->device = device;
	return CLI_OK;
}

static int execute(const struct command *command, bool any, int argc, char **argv,
		   int (*run)(const struct vf_options *o))
{
	struct vf_options o = {.count = NO_COUNT, .settings = json_object()};
	int status;

	if (options_parse(command, argc, argv, &o, &status)) {
		if (o.device || any) {
			status = run(&o);
		} else {
			cli_error("%s: the device is missing; 'hospes vf list' shows them",
				  command->name);
			status = CLI_USAGE;
		}
	}
	json_decref(o.settings);
	return status;
}

#define COMMAND(verb, any, ...)                                              \
	static const struct command verb##_command;                          \
	static int run_##verb(int argc, char **argv)                         \
	{                                                                    \
		return execute(&verb##_command, any, argc, argv, do_##verb); \
	}                                                                    \
	static const struct command verb##_command = {                       \
		.name = "vf " #verb, .operand = set_device, .run = run_##verb, __VA_ARGS__}

COMMAND(list, true, .operands = "[DEVICE] [--json]",
	.summary = "cards with SR-IOV (PF) and their virtual functions (VF)",
	.groups = {{"Options", json_options, 0}});
COMMAND(create, false, .operands = "PF --count N [--json]",
	.summary = "make N VFs without a driver; prints their addresses",
	.groups = {{"Options", create_options, 0}},
	.examples = "  hospes vf create 0000:01:00.0 --count 2\n");
COMMAND(set, false, .operands = "VF [OPTION...]",
	.summary = "set what the PF's driver enforces for a VF",
	.groups = {{"Options", set_options, 0}},
	.examples = "  hospes vf set 0000:01:10.0 --mac 02:00:00:00:00:01 --vlan 100\n");
COMMAND(bind, false, .operands = "DEVICE [--driver NAME] [--owner USER]",
	.summary = "bind a device to vfio-pci, and keep it there",
	.groups = {{"Options", bind_options, 0}}, .examples = "  hospes vf bind 0000:01:10.0\n");
COMMAND(unbind, false, .operands = "DEVICE", .summary = "leave a device without a driver",
	.examples = "  hospes vf unbind 0000:01:10.0\n");
COMMAND(destroy, false, .operands = "PF", .summary = "remove all VFs of a PF, unless one is in use",
	.examples = "  hospes vf destroy 0000:01:00.0\n");

const struct command vf_command = {
	.name = "vf",
	.operands = "COMMAND [ARGUMENT...]",
	.summary = "SR-IOV: make, set, bind and remove virtual functions",
	.text = "A device is named by its address (0000:01:10.0 or 01:10.0) or its path in sysfs. A "
		"command\nthat fails changes nothing. All but list need root.\n",
	.commands = (const struct command *const[]){&list_command, &create_command, &set_command,
						    &bind_command, &unbind_command,
						    &destroy_command, NULL},
	.notes = "Exit status: 0 done, 1 failed (nothing was changed), 2 usage.\n",
	.examples = "  hospes vf create 0000:01:00.0 --count 2\n"
		    "  hospes vf set 0000:01:10.0 --mac 02:00:00:00:00:01 --vlan 100\n"
		    "  hospes vf bind 0000:01:10.0\n"
		    "  hospes vf destroy 0000:01:00.0\n",
};
