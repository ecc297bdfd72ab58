// SPDX-License-Identifier: Apache-2.0
// A passed-through device's strategy and its parameters: from the command line and each form that
// the document has for it, into one text. The strategy is a test's: tests/unit/iommu/keeper.c.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "document.h"
#include "iommu/strategy/strategy.h"
#include "machine/kind_passthrough.h"
#include "options.h"

#define MACHINE \
	"{\"kernel\": {\"path\": \"k\"}, \"viommu\": {\"enabled\": true}, \"passthrough\": ["

static struct err err;

static int read_text(struct config *config, const char *text)
{
	err = (struct err)ERR_INIT;
	return config_read(config, text, strlen(text), &err);
}

static const char *strategy_of(const struct config *c, const struct config_device *after)
{
	const struct config_device *d = config_next(c, after, &kind_passthrough);

	return container_of(d, struct config_passthrough, base)->strategy;
}

/* The device with these members has the strategy in its text form. */
static void gives(const char *members, const char *strategy)
{
	struct config c, again;
	char *text, *effective;

	cr_assert(asprintf(&text, MACHINE "{\"device\": \"a\", %s}]}", members) > 0);
	cr_assert_eq(read_text(&c, text), 0, "%s: %s", text, err.text);
	cr_assert_str_eq(strategy_of(&c, NULL), strategy);
	effective = config_write(&c, true);
	cr_assert_eq(read_text(&again, effective), 0, "%s: %s", effective, err.text);
	cr_assert_str_eq(strategy_of(&again, NULL), strategy, "the effective document keeps it");
	config_done(&c);
	config_done(&again);
	free(effective);
	free(text);
}

static void refuses(const char *members, const char *words)
{
	struct config c;
	char *text;

	cr_assert(asprintf(&text, MACHINE "{\"device\": \"a\", %s}]}", members) > 0);
	cr_assert_eq(read_text(&c, text), -EINVAL, "%s", text);
	cr_assert(strstr(err.text, words), "%s: \"%s\" lacks \"%s\"", text, err.text, words);
	config_done(&c);
	free(text);
}

Test(strategy, text_and_object_mean_the_same)
{
	gives("\"strategy\": \"strict\"", "strict");
	gives("\"strategy\": {\"name\": \"strict\"}", "strict");
	gives("\"strategy\": \"keeper\"", "keeper,entries=2,time=never,room=64M");
	gives("\"strategy\": \"keeper,entries=256\"", "keeper,entries=256,time=never,room=64M");
	gives("\"strategy\": {\"name\": \"keeper\", \"entries\": 256}",
	      "keeper,entries=256,time=never,room=64M");
	gives("\"strategy\": {\"name\": \"keeper\", \"time\": \"3ms\", \"entries\": 256}",
	      "keeper,entries=256,time=3ms,room=64M");
	gives("\"strategy\": {\"entries\": \"256\", \"name\": \"keeper\"}",
	      "keeper,entries=256,time=never,room=64M");
}

Test(strategy, sizes_times_and_never_are_written_with_their_units)
{
	gives("\"strategy\": \"keeper,time=2000ms,room=1024K\"",
	      "keeper,entries=2,time=2s,room=1M");
	gives("\"strategy\": {\"name\": \"keeper\", \"room\": 8192}",
	      "keeper,entries=2,time=never,room=8K");
	gives("\"strategy\": \"keeper,time=1ms\", \"room\": \"4097\"",
	      "keeper,entries=2,time=1ms,room=4097");
	gives("\"strategy\": {\"name\": \"keeper\", \"time\": \"never\"}",
	      "keeper,entries=2,time=never,room=64M");
	gives("\"strategy\": \"keeper,time=60s,room=1T\"", "keeper,entries=2,time=60s,room=1T");
}

Test(strategy, values_outside_of_their_bounds_or_without_their_unit_are_refused)
{
	static const char *const bad[] = {
		"time=999us", "time=60001ms", "time=5",      "time=Never",    "time=1m",
		"time=0s",    "room=4095",    "room=1025G",  "room=never",    "entries=never",
		"entries=2K", "room=5ms",     "time=5K",     "room=",         "time=never,",
		"time=",      "room=-4K",     "room=16384P", "time=neverend", "entries=0x2",
	};
	char *members;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cr_assert(asprintf(&members, "\"strategy\": \"keeper,%s\"", bad[i]) > 0);
		refuses(members, "room=4K to 1T");
		free(members);
	}
}

Test(strategy, its_parameters_may_stand_beside_it)
{
	gives("\"entries\": 256, \"strategy\": \"keeper\", \"rom\": true",
	      "keeper,entries=256,time=never,room=64M");
	gives("\"strategy\": {\"name\": \"keeper\"}, \"entries\": \"256\"",
	      "keeper,entries=256,time=never,room=64M");
}

Test(strategy, what_it_does_not_take_is_refused_with_what_it_takes)
{
	const char *takes = "it takes entries=1 to 4096, time=1ms to 60s or never, "
			    "room=4K to 1T";

	refuses("\"strategy\": {\"name\": \"keeper\", \"entrys\": 5}", "'entrys=5'");
	refuses("\"strategy\": {\"name\": \"keeper\", \"entrys\": 5}", takes);
	refuses("\"strategy\": \"keeper,entries=0\"", "'entries=0'");
	refuses("\"strategy\": \"keeper,entries=0\"", takes);
	refuses("\"strategy\": {\"name\": \"keeper\", \"entries\": 4097}", takes);
	refuses("\"strategy\": {\"name\": \"keeper\", \"entries\": -1}", "'entries=-1'");
	refuses("\"strategy\": \"keeper,entries=99999999999999999999\"", takes);
	refuses("\"strategy\": \"keeper,entries=1x\"", takes);
	refuses("\"strategy\": \"keeper,entries=\"", takes);
	refuses("\"strategy\": \"keeper,entries\"", takes);
	refuses("\"strategy\": \"keeper,\"", takes);
	refuses("\"strategy\": \"keeper\", \"on_eror\": \"stop\"", "'on_eror=stop'");
	refuses("\"strategy\": \"strict,entries=1\"", "it takes no parameters");
	refuses("\"strategy\": \"keeper,entries=1,entries=1\"", "twice");
	refuses("\"strategy\": \"keeper,entries=1\", \"entries\": 1", "twice");
}

Test(strategy, what_is_no_choice_at_all_is_refused)
{
	refuses("\"strategy\": {\"entries\": 5}", "passthrough[0].strategy: lacks its \"name\"");
	refuses("\"strategy\": {\"name\": 5}", "passthrough[0].strategy: must be text");
	refuses("\"strategy\": [\"keeper\"]", "passthrough[0].strategy: must be text");
	refuses("\"strategy\": {\"name\": \"keeper,entries=1\"}", "'keeper,entries=1' is not one");
	refuses("\"strategy\": {\"name\": \"keeper\", \"entries\": [5]}", "'entries' must be one");
	refuses("\"strategy\": {\"name\": \"keeper\", \"entries\": \"5,rom=on\"}", "must be one");
	refuses("\"strategy\": {\"name\": \"keeper\", \"entries=5,a\": 5}", "must be one");
	refuses("\"strategy\": {\"name\": \"deeper\"}", "direct, strict, keeper");
	refuses("\"entries\": 5", "unknown key 'entries'");
}

/* --- the command line --- */

static const struct command command = {
	.name = "run",
	.groups = {{"The machine", document_options, 0}, {"Its devices", device_options, 0}}};

static int run_args(struct config *c, const char *passthrough)
{
	char *argv[] = {(char *)"run",         (char *)"--kernel",      (char *)"k",
			(char *)"--viommu=on", (char *)"--passthrough", (char *)passthrough};
	json_t *document = NULL;
	char *text;
	int status;

	cr_assert(options_parse(&command, 6, argv, &document, &status));
	text = json_dumps(document, 0);
	status = read_text(c, text);
	free(text);
	json_decref(document);
	return status;
}

Test(strategy, the_command_line_takes_its_parameters_among_the_keys_of_the_device)
{
	static const char *const lines[] = {
		"0000:01:10.2,strategy=keeper,entries=256,on_error=stop",
		"0000:01:10.2,entries=256,on_error=stop,strategy=keeper",
		"0000:01:10.2,strategy=keeper,,entries=256,on_error=stop",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		const struct config_passthrough *p;
		struct config c;

		cr_assert_eq(run_args(&c, lines[i]), 0, "%s: %s", lines[i], err.text);
		p = container_of(config_next(&c, NULL, &kind_passthrough),
				 struct config_passthrough, base);
		cr_assert_str_eq(p->strategy, "keeper,entries=256,time=never,room=64M");
		cr_assert_eq(p->on_error, VFIO_ON_ERROR_STOP);
		config_done(&c);
	}
}

Test(strategy, the_command_line_says_what_a_strategy_takes)
{
	struct config c;

	cr_assert_eq(run_args(&c, "0000:01:10.2,strategy=keeper,entires=256"), -EINVAL);
	cr_assert(strstr(err.text, "'entires=256'") && strstr(err.text, "entries=1 to 4096"), "%s",
		  err.text);
	config_done(&c);
	cr_assert_eq(run_args(&c, "0000:01:10.2,entries=256"), -EINVAL);
	cr_assert(strstr(err.text, "unknown key 'entries'"), "%s", err.text);
	config_done(&c);
}
