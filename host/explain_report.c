// SPDX-License-Identifier: Apache-2.0
// Preflight: how findings are collected and worded. Below the parts, which add them.
#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "host/explain_impl.h"

void explain_done(struct explain *explain)
{
	free(explain->findings);
	memset(explain, 0, sizeof(*explain));
}

void explain_add(struct explain_ctx *x, enum explain_level level, const char *topic,
		 const char *fmt, ...)
{
	struct explain *out = x->out;
	struct explain_finding *more =
		reallocarray(out->findings, out->n + 1, sizeof(*out->findings));
	va_list ap;

	if (!more) {
		x->no_memory = true;
		return;
	}
	out->findings = more;
	more += out->n++;
	*more = (struct explain_finding){.level = level, .topic = topic};
	va_start(ap, fmt);
	vsnprintf(more->fact, sizeof(more->fact), fmt, ap);
	va_end(ap);
	out->worst = MAX(out->worst, level);
}

void explain_remedy(struct explain_ctx *x, const char *fmt, ...)
{
	struct explain_finding *last;
	va_list ap;

	if (x->no_memory)
		return;
	last = &x->out->findings[x->out->n - 1];
	assert(last->level != EXPLAIN_OK);
	va_start(ap, fmt);
	vsnprintf(last->remedy, sizeof(last->remedy), fmt, ap);
	va_end(ap);
}

const char *explain_size(uint64_t bytes, char text[EXPLAIN_SIZE_TEXT])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned int unit = 0;
	uint64_t whole = bytes, tenths = 0;

	while (whole >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		tenths = whole % 1024 * 10 / 1024;
		whole /= 1024;
		unit++;
	}
	if (tenths)
		snprintf(text, EXPLAIN_SIZE_TEXT, "%llu.%llu %s", (unsigned long long)whole,
			 (unsigned long long)tenths, units[unit]);
	else
		snprintf(text, EXPLAIN_SIZE_TEXT, "%llu %s", (unsigned long long)whole,
			 units[unit]);
	return text;
}

void explain_line(const char *path, char *text, unsigned int bytes)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, bytes - 1);

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

bool explain_vfio_driver(const char *driver)
{
	/* vfio-pci, and variants for one device: mlx5_vfio_pci, nvgrace-gpu-vfio-pci, … */
	return strstr(driver, "vfio-pci") || strstr(driver, "vfio_pci");
}
