// SPDX-License-Identifier: Apache-2.0
// Somebody else's program: sees only what is installed.
#include <hospes/hospes.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	static const char misspelt[] = "{\"memroy\": {\"size\": \"256M\"}}";
	struct hospes_error error = {0};

	printf("libhospes %s\n", hospes_version());
	if (hospes_config_check(misspelt, strlen(misspelt), NULL, &error) >= 0)
		return 1;
	printf("%s\n", error.text);
	/* The message names the key and the nearest known one. */
	return strstr(error.text, "memroy") && strstr(error.text, "memory") ? 0 : 1;
}
