/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: wrapped to the terminal, coloured where it is one, and sizes in words. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stdint.h>

enum table_colour {
	TABLE_PLAIN,
	TABLE_RED,
	TABLE_YELLOW,
	TABLE_GREEN,
};

/* text in that colour, padded with blanks to width columns. */
void table_cell(const char *text, int width, enum table_colour colour);
/* text from column `from` on, further lines indented to the same; ends the line. */
void table_wrap(const char *text, unsigned int from);

/* "16G", "512M", "1T" and plain bytes; false: not such a size. */
bool table_size_parse(const char *text, uint64_t *bytes);
/* "16 GiB", "1.50 MiB": three digits, in text, which it returns; "-" for NaN. */
#define TABLE_SIZE_TEXT 32
const char *table_size(double bytes, char text[TABLE_SIZE_TEXT]);

/* Lines and corners when the locale has them. */
bool table_unicode(void);

#endif
