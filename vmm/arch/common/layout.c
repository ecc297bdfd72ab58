// SPDX-License-Identifier: Apache-2.0
// Where things are in guest-physical address space, as far as it is the same on every architecture.
#include "common/common.h"

#define WINDOW_MAX (4 * TiB)

uint64_t arch_window_bytes(const struct arch_layout *layout, uint64_t end, uint64_t top)
{
	uint64_t window = MIN(top / 4, WINDOW_MAX);

	/* Twice what must go in leaves room for alignment and for spare bridge windows. */
	if (layout->mmio64_bytes && layout->mmio64_bytes <= top / 4)
		window = MAX(window, power_of_two_up(2 * layout->mmio64_bytes));
	while (window >= ARCH_WINDOW_MIN && top - window < end)
		window /= 2;
	return window >= ARCH_WINDOW_MIN && end <= top ? window : 0;
}
