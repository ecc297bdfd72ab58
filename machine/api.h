/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that implement <hospes/hospes.h> share. */
#ifndef MACHINE_API_H
#define MACHINE_API_H

#include <stdio.h>

#include "base/err.h"
#include "hospes/hospes.h"
#include "iommu/ioas.h"

/* Hand the internal error out; returns rc. error may be NULL. */
static inline int give(struct hospes_error *error, const struct err *err, int rc)
{
	if (!error)
		return rc;
	error->code = rc < 0 ? rc : 0;
	snprintf(error->text, sizeof(error->text), "%s",
		 rc < 0 ? (err->text[0] ? err->text : err_name(rc)) : "");
	return rc;
}

/* "auto", "iommufd", "type1"; NULL: auto. */
int api_iommu_kind(const char *name, enum iommu_kind *ret, struct err *err);

#endif
