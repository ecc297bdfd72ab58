/* SPDX-License-Identifier: Apache-2.0 */
/* The library's answers, JSON as text: printed as they are, or for people. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include <jansson.h>
#include <stdbool.h>

/* The string at key; `otherwise` if there is none. */
const char *text_of(const json_t *object, const char *key, const char *otherwise);

/* Parse text and free it. NULL: the message was printed. */
json_t *answer_load(char *text);

/* With json, print text; otherwise pass it, parsed, to print. text is freed. The exit status. */
int answer_print(char *text, bool json, void (*print)(const json_t *document));

#endif
