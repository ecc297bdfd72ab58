// SPDX-License-Identifier: Apache-2.0
// bench-exec CMD ARG…: write the time into the file that BENCH_KVMRUN names (kvmrun.c), then become
// CMD with BENCH_PRELOAD preloaded, which this program itself is not.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *path = getenv("BENCH_KVMRUN"), *preload = getenv("BENCH_PRELOAD");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	struct timespec now;

	if (argc < 2 || fd < 0 || !preload || setenv("LD_PRELOAD", preload, 1)) {
		fprintf(stderr, "usage: BENCH_KVMRUN=FILE BENCH_PRELOAD=LIB bench-exec CMD ARG…\n");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	/* The rest of kvmrun.c's struct shared is zero. */
	uint64_t head[7] = {(uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec};

	if (pwrite(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) {
		perror("bench-exec: BENCH_KVMRUN");
		return 1;
	}
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
