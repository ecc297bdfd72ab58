// SPDX-License-Identifier: Apache-2.0
// The library's answers.
#include "answer.h"

#include <stdio.h>

#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"

const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : otherwise;
}

json_t *answer_load(char *text)
{
	json_t *document = json_loads(text, 0, NULL);

	hospes_free(text);
	if (!document)
		cli_error("no memory for the library's answer");
	return document;
}

int answer_print(char *text, bool json, void (*print)(const json_t *document))
{
	json_t *document;

	if (json) {
		puts(text);
		hospes_free(text);
		return CLI_OK;
	}
	document = answer_load(text);
	if (!document)
		return CLI_FAILED;
	print(document);
	json_decref(document);
	return CLI_OK;
}
