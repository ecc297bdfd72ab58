// SPDX-License-Identifier: Apache-2.0
// On x86-64: where the tables are does not depend on the kernel.
#include "firmware/tables.h"

int tables_build(struct gmem *gmem, const struct acpi_config *config, const struct kernel *kernel,
		 struct err *err)
{
	(void)kernel;
	return acpi_build(gmem, config, err);
}
