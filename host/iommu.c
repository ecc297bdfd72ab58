// SPDX-License-Identifier: Apache-2.0
// The host's IOMMUs and the isolation of its devices.
#include "host/iommu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "host/parse.h"

#define IOMMUS "/sys/class/iommu"

/* ---- registers ---- */

void host_iommu_vtd(struct host_iommu *ret, uint64_t cap, uint64_t ecap)
{
	/* VT-d specification 4.1, 11.4.2 and 11.4.3. */
	bool scalable = ecap >> 43 & 1;

	ret->kind = "VT-d";
	ret->address_bits = host_parse_vtd_bits(cap);
	ret->page_sizes = 4 * KiB | (cap >> 34 & 1 ? 2 * MiB : 0) | (cap >> 35 & 1 ? GiB : 0);
	/* All three need scalable mode, which the kernel may leave off (intel_iommu=sm_on). */
	ret->dirty = scalable && ecap >> 45 & 1 ? HOST_UNKNOWN : HOST_NO;
	ret->nesting = scalable && ecap >> 26 & 1 ? HOST_UNKNOWN : HOST_NO;
	ret->pasid = scalable && ecap >> 40 & 1 ? HOST_UNKNOWN : HOST_NO;
	ret->pasid_bits = ret->pasid == HOST_NO ? 0 : (unsigned int)(ecap >> 35 & 0x1f) + 1;
}

void host_iommu_amd(struct host_iommu *ret, uint64_t features)
{
	/* AMD I/O Virtualization Technology 3.08, MMIO offset 30h. */
	ret->kind = "AMD-Vi";
	ret->address_bits = host_parse_amd_bits(features);
	ret->page_sizes = 4 * KiB | 2 * MiB | GiB;
	ret->dirty = features >> 52 & 1 ? HOST_UNKNOWN : HOST_NO;
	ret->nesting = features >> 4 & 1 ? HOST_UNKNOWN : HOST_NO;
	ret->pasid = ret->nesting;
	ret->pasid_bits = ret->pasid == HOST_NO ? 0 : (unsigned int)(features >> 32 & 0x1f) + 1;
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool host_config_acs(const uint8_t *config, unsigned int bytes, bool *on)
{
	enum { ACS = 0x0d };
	/* PCI Express Base 6.0, 7.7.11: source validation, request and completion redirect,
	 * upstream forwarding: what Linux asks for to tell groups apart. */
	const uint32_t wanted = 0x1d;
	unsigned int at = 0x100;

	*on = false;
	for (unsigned int steps = 0; at >= 0x100 && steps < (4096 - 0x100) / 8; steps++) {
		uint32_t header;

		if (at + 8 > MIN(bytes, 4096u))
			return false;
		header = get32(config + at);
		if (header == 0 || header == UINT32_MAX)
			return false;
		if ((header & 0xffff) == ACS) {
			uint32_t can = get32(config + at + 4) & 0xffff;
			uint32_t does = get32(config + at + 4) >> 16;

			/* A control that the port lacks is not needed; one that it has must be
			 * on. */
			*on = (can & wanted) && (does & can & wanted) == (can & wanted);
			return true;
		}
		at = header >> 20 & ~3u;
	}
	return false;
}

/* ---- sysfs ---- */

static bool read_hex(const char *iommu, const char *name, uint64_t *ret)
{
	char path[PATH_MAX], text[64];
	cleanup_fd int fd = -1;
	const char *word;
	ssize_t n;

	snprintf(path, sizeof(path), IOMMUS "/%s/%s", iommu, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	word = strrchr(text, ':'); /* AMD's newer kernels show a second register first */
	*ret = strtoull(word ? word + 1 : text, NULL, 16);
	return true;
}

static unsigned int entries(const char *path)
{
	struct dirent *entry;
	unsigned int n = 0;
	DIR *dir = opendir(path);

	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

static void read_iommu(struct host_iommu *ret, const char *name)
{
	char path[PATH_MAX];
	uint64_t cap, ecap;

	*ret = (struct host_iommu){
		.kind = "other",
		.dirty = HOST_UNKNOWN,
		.nesting = HOST_UNKNOWN,
		.pasid = HOST_UNKNOWN,
	};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	if (read_hex(name, "intel-iommu/cap", &cap) && read_hex(name, "intel-iommu/ecap", &ecap))
		host_iommu_vtd(ret, cap, ecap);
	else if (read_hex(name, "amd-iommu/features", &cap))
		host_iommu_amd(ret, cap);
	snprintf(path, sizeof(path), IOMMUS "/%s/devices", name);
	ret->devices = entries(path);
}

static int by_name(const void *a, const void *b)
{
	const struct host_iommu *x = a, *y = b;

	return strverscmp(x->name, y->name);
}

int host_iommu_list(struct host_iommu **ret, unsigned int *n, struct err *err)
{
	unsigned int room = entries(IOMMUS), count = 0;
	struct host_iommu *iommus;
	struct dirent *entry;
	DIR *dir;

	*n = 0;
	*ret = iommus = calloc(room + 1, sizeof(*iommus));
	if (!iommus)
		return err_set(err, -ENOMEM, "no memory to list the IOMMUs");
	dir = opendir(IOMMUS);
	if (!dir)
		return 0; /* a kernel without */
	while (count < room && (entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			read_iommu(&iommus[count++], entry->d_name);
	}
	closedir(dir);
	qsort(iommus, count, sizeof(*iommus), by_name);
	*n = count;
	return 0;
}

/* A kernel that remaps names its interrupt chips IR-…; no other place shows it to every user. On
 * arm64 an ITS translates a device's messages by a table of that device's own. */
bool host_interrupts_remapped(void)
{
	FILE *f = fopen("/proc/interrupts", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &room, f) >= 0)
		found = strstr(line, " IR-") || strstr(line, " ITS-");
	free(line);
	fclose(f);
	return found;
}

/* ---- isolation ---- */

/* The bridge or port right above it; false: it sits on a root bus. */
static bool port_above(const char *bdf, char port[HOST_BDF_BYTES])
{
	char path[PATH_MAX], resolved[PATH_MAX], *slash;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", bdf);
	if (!realpath(path, resolved) || !(slash = strrchr(resolved, '/')))
		return false;
	*slash = '\0';
	slash = strrchr(resolved, '/');
	return slash && host_parse_bdf(slash + 1, port);
}

enum acs {
	ACS_ABSENT,
	ACS_OFF,
	ACS_ON,
	ACS_HIDDEN, /* from an ordinary user */
};

static enum acs acs_of(const char *bdf)
{
	uint8_t config[4096];
	char path[PATH_MAX];
	cleanup_fd int fd = -1;
	ssize_t n;
	bool on;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : pread(fd, config, sizeof(config), 0);
	if (n <= 64)
		return ACS_HIDDEN;
	if (!host_config_acs(config, (unsigned int)n, &on))
		return ACS_ABSENT;
	return on ? ACS_ON : ACS_OFF;
}

/* Functions of one slot differ only in their last digit. */
static bool same_slot(const char *a, const char *b)
{
	return strlen(a) == strlen(b) && strncmp(a, b, strlen(a) - 1) == 0;
}

static void why_shared(const struct host_device *d, const struct host_device *other, char *why,
		       unsigned int bytes)
{
	static const char *const states[] = {
		[ACS_ABSENT] = "has no ACS",
		[ACS_OFF] = "has its ACS off",
		[ACS_ON] = "has ACS on, but a port above it has not",
		[ACS_HIDDEN] = "may have no ACS (root sees more)",
	};
	char port[HOST_BDF_BYTES];

	if (same_slot(d->bdf, other->bdf))
		snprintf(why, bytes, "shares group %d with %s: functions of one slot, which %s",
			 d->group, other->bdf, states[acs_of(d->bdf)]);
	else if (port_above(d->bdf, port))
		snprintf(why, bytes, "shares group %d with %s: the port %s above it %s", d->group,
			 other->bdf, port, states[acs_of(port)]);
	else
		snprintf(why, bytes, "shares group %d with %s", d->group, other->bdf);
}

enum host_isolation host_isolation_of(const struct host_device *d, char *why, unsigned int bytes)
{
	enum host_isolation verdict = HOST_ISOLATED;
	struct host_device *members;
	unsigned int n;

	if (d->group < 0) {
		snprintf(why, bytes, "no IOMMU translates for it");
		return HOST_NOT_TRANSLATED;
	}
	snprintf(why, bytes, "alone in group %d", d->group);
	if (host_group(d->group, &members, &n, NULL) < 0)
		return verdict;
	for (unsigned int i = 0; i < n && verdict == HOST_ISOLATED; i++) {
		if (strcmp(members[i].bdf, d->bdf) == 0)
			continue;
		verdict = HOST_SHARED;
		why_shared(d, &members[i], why, bytes);
	}
	free(members);
	return verdict;
}
