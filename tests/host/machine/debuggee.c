// SPDX-License-Identifier: Apache-2.0
// A program for a guest, which a debugger of the machine stops in `tick`; it ends when that has
// made the counter large.
#include <stdio.h>
#include <unistd.h>

enum { PAUSE_US = 20000, ENOUGH = 100000 };

extern volatile int counter;
extern void tick(int n);

volatile int counter;

__attribute__((noinline)) void tick(int n)
{
	counter += n;
}

int main(void)
{
	while (counter < ENOUGH) {
		tick(7);
		usleep(PAUSE_US);
	}
	printf("counted to %d\n", counter);
	return 0;
}
