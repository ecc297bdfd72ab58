// SPDX-License-Identifier: Apache-2.0
// The smallest fuzzer, and the example for the others: error texts quote file names, and a file
// name may hold anything. Oracle: the text stays one terminated line, and prefixes go in front.
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "fuzz.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;

	check(err_set(&err, -EINVAL, "disk '%.*s'", (int)size, (const char *)data) == -EINVAL);
	check(memchr(err.text, 0, sizeof(err.text)));
	for (const char *c = err.text; *c; c++)
		check((unsigned char)*c >= ' ' && *c != 0x7f);
	check(err_prefix(&err, "vm") == -EINVAL);
	check(memchr(err.text, 0, sizeof(err.text)));
	check(!strncmp(err.text, "vm: disk '", 10));
	return 0;
}
