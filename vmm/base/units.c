// SPDX-License-Identifier: Apache-2.0
// Sizes and times as people write them.
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/num.h"

static const char suffixes[] = "KMGTP";

static const struct {
	const char *name;
	uint64_t ns;
} times[] = {{"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}};

/* The digits at the beginning; *end is behind them. */
static int read_number(const char *text, uint64_t *ret, char **end)
{
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*ret = strtoull(text, end, 10);
	return errno ? -ERANGE : 0;
}

int units_parse_bytes(const char *text, uint64_t *ret)
{
	uint64_t factor = 1;
	char *end;
	int rc = read_number(text, ret, &end);

	if (rc)
		return rc;
	if (*end) {
		const char *s = strchr(suffixes, toupper((unsigned char)*end));

		if (s)
			factor = 1ull << (10 * (s - suffixes + 1));
		else if (toupper((unsigned char)*end) != 'B')
			return -EINVAL;
		end += s != NULL;
		if (strcmp(end, "") != 0 && strcasecmp(end, "iB") != 0 && strcasecmp(end, "B") != 0)
			return -EINVAL;
	}
	return mul_overflows(*ret, factor, ret) ? -ERANGE : 0;
}

int units_parse_ns(const char *text, uint64_t *ret)
{
	char *end;
	int rc = read_number(text, ret, &end);

	for (size_t i = 0; !rc && i < ARRAY_SIZE(times); i++) {
		if (strcmp(end, times[i].name) == 0)
			return mul_overflows(*ret, times[i].ns, ret) ? -ERANGE : 0;
	}
	return rc ? rc : -EINVAL;
}

const char *units_bytes_text(uint64_t bytes, char text[UNITS_TEXT])
{
	unsigned int i = 0;

	for (; bytes && bytes % 1024 == 0 && suffixes[i]; i++)
		bytes /= 1024;
	if (i)
		snprintf(text, UNITS_TEXT, "%" PRIu64 "%c", bytes, suffixes[i - 1]);
	else
		snprintf(text, UNITS_TEXT, "%" PRIu64, bytes);
	return text;
}

const char *units_ns_text(uint64_t ns, char text[UNITS_TEXT])
{
	size_t i = 0;

	while (ns % times[i].ns)
		i++;
	snprintf(text, UNITS_TEXT, "%" PRIu64 "%s", ns / times[i].ns, times[i].name);
	return text;
}
