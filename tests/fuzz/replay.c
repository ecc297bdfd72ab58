// SPDX-License-Identifier: Apache-2.0
// main() for fuzzers in builds without a fuzzing engine: gives the committed seeds, and a few
// inputs that belong to every corpus, to the harness. Any compiler, any sanitizer; TAP.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	MAX_INPUT_BYTES = 1 << 20,
};

static int count;

/* A failed oracle aborts, so that to come back is to pass. A copy of the exact size lets a
 * sanitizer see a read past the end. */
static void give(const char *name, const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy) {
		printf("Bail out! no memory\n");
		exit(1);
	}
	if (size)
		memcpy(copy, data, size);
	printf("# %s\n", name);
	fflush(stdout);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	printf("ok %d - %s\n", ++count, name);
	fflush(stdout);
}

static void give_pattern(const char *name, int fill, size_t size)
{
	static uint8_t buf[4096];

	for (size_t i = 0; i < size; i++)
		buf[i] = fill < 0 ? (uint8_t)(i * 31 + (i >> 8)) : (uint8_t)fill;
	give(name, buf, size);
}

static int give_file(const char *dir, const char *name, uint8_t *buf)
{
	char path[4096];
	size_t size;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "re");
	if (!f) {
		printf("not ok %d - %s cannot be read\n", ++count, name);
		return 1;
	}
	size = fread(buf, 1, MAX_INPUT_BYTES, f);
	fclose(f);
	give(name, buf, size);
	return 0;
}

int main(int argc, char **argv)
{
	uint8_t *buf = malloc(MAX_INPUT_BYTES);
	int failed = 0;

	if (!buf)
		return 1;
	give_pattern("nothing", 0, 0);
	give_pattern("one zero", 0, 1);
	give_pattern("zeroes", 0, 4096);
	give_pattern("ones", 0xff, 4096);
	give_pattern("a pattern", -1, 4096);
	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);

		for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
			if (e->d_name[0] != '.')
				failed |= give_file(argv[i], e->d_name, buf);
		}
		if (dir)
			closedir(dir);
	}
	free(buf);
	printf("1..%d\n", count);
	return failed;
}
