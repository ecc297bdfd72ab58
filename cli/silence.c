// SPDX-License-Identifier: Apache-2.0
// The hint for a console that shows nothing.
#include "silence.h"

#include <string.h>

#include "answer.h"
#include "output.h"

/* As Linux names the console. */
static const char *name_of(const json_t *console)
{
	return strcmp(text_of(console, "type", ""), "virtio") == 0 ? "console=hvc0"
								   : "console=ttyS0";
}

bool silence_is_likely(const json_t *document)
{
	const json_t *consoles = json_object_get(document, "consoles"), *console;
	const char *cmdline = text_of(json_object_get(document, "kernel"), "cmdline", "");
	size_t i;

	json_array_foreach(consoles, i, console)
	{
		if (json_object_get(document, "firmware")
			    ? strcmp(name_of(console), "console=ttyS0") == 0
			    : strstr(cmdline, name_of(console)) != NULL)
			return false;
	}
	return json_array_size(consoles) > 0;
}

static json_int_t output_bytes(const json_t *status)
{
	const json_t *device;
	json_int_t sum = 0;
	size_t i;

	json_array_foreach(json_object_get(status, "devices"), i, device) sum +=
		json_integer_value(json_object_get(device, "output_bytes"));
	return sum;
}

bool silence_explain(const json_t *document, char *status)
{
	json_t *answer = answer_load(status);
	bool silent = answer && output_bytes(answer) == 0;

	json_decref(answer);
	if (silent && json_object_get(document, "firmware"))
		cli_error("the guest has written nothing to its console; firmware writes to a "
			  "serial one: --console serial");
	else if (silent)
		cli_error("the guest has written nothing to its console; --cmdline '%s' shows a "
			  "Linux kernel's messages there",
			  name_of(json_array_get(json_object_get(document, "consoles"), 0)));
	return silent;
}
