// SPDX-License-Identifier: Apache-2.0
// What every ACPI table begins with.
#include <string.h>

#include "base/le.h"
#include "firmware/acpi_impl.h"

void acpi_header(uint8_t h[static ACPI_HEADER_BYTES], const char signature[static 4],
		 uint8_t revision)
{
	memset(h, 0, ACPI_HEADER_BYTES);
	memcpy(h, signature, 4);
	h[8] = revision;
	memcpy(h + 10, "HOSPES", 6);
	memcpy(h + 16, "HOSPES\0\0", 8);
	store_le32(h + 24, 1);
	memcpy(h + 28, "HOSP", 4);
	store_le32(h + 32, 1);
}
