// SPDX-License-Identifier: Apache-2.0
// Text for people: columns, wrapping, colours.
#include "table.h"

#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool colours(void)
{
	const char *off = getenv("NO_COLOR");

	return isatty(STDOUT_FILENO) && !(off && *off);
}

void table_cell(const char *text, int width, enum table_colour colour)
{
	static const char *const codes[] = {
		[TABLE_RED] = "\033[1;31m",
		[TABLE_YELLOW] = "\033[33m",
		[TABLE_GREEN] = "\033[32m",
	};

	if (colour == TABLE_PLAIN || !colours())
		printf("%-*s", width, text);
	else
		printf("%s%-*s\033[0m", codes[colour], width, text);
}

/* Columns of the terminal; a file or pipe gets lines that are not cut. */
static unsigned int columns(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
		return size.ws_col;
	return 80;
}

void table_wrap(const char *text, unsigned int from)
{
	unsigned int end = columns(), room = end > from + 20 ? end - from : 0;

	while (room && strlen(text) > room) {
		unsigned int cut = room;

		while (cut && text[cut] != ' ')
			cut--;
		if (!cut)
			break; /* one long word */
		printf("%.*s\n%*s", (int)cut, text, (int)from, "");
		text += cut + 1;
	}
	puts(text);
}

bool table_size_parse(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	*bytes = strtoull(text, &end, 10);
	if (!*end)
		return *bytes > 0;
	suffix = strchr(suffixes, *end);
	if (!suffix || end[1])
		return false;
	return !__builtin_mul_overflow(*bytes, 1ull << 10 * (suffix - suffixes + 1), bytes) &&
	       *bytes > 0;
}

const char *table_size(double bytes, char text[TABLE_SIZE_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned int unit = 0;
	int decimals;

	if (isnan(bytes))
		return "-";
	while (bytes >= 1024 && unit < 6) {
		bytes /= 1024;
		unit++;
	}
	decimals = bytes == floor(bytes) || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2;
	snprintf(text, TABLE_SIZE_TEXT, "%.*f %s", decimals, bytes, units[unit]);
	return text;
}

bool table_unicode(void)
{
	setlocale(LC_CTYPE, "");
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}
