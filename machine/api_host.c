// SPDX-License-Identifier: Apache-2.0
// The public interface to the host: preflight and IOMMUs, as documents.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/num.h"
#include "hospes/hospes.h"
#include "iommu/reserved.h"
#include "iommu/strategy/strategy.h"
#include "machine/api.h"
#include "machine/config.h"
#include "host/explain.h"
#include "host/iommu.h"

int api_iommu_kind(const char *name, enum iommu_kind *ret, struct err *err)
{
	*ret = IOMMU_AUTO;
	if (!name || strcmp(name, "auto") == 0)
		return 0;
	if (strcmp(name, "iommufd") == 0)
		*ret = IOMMU_IOMMUFD;
	else if (strcmp(name, "type1") == 0)
		*ret = IOMMU_TYPE1;
	else
		return err_set(err, -EINVAL, "iommu: '%s' is not auto, iommufd or type1", name);
	return 0;
}

/* The document as text, taken over; NULL: jansson had no memory somewhere. */
static int give_json(char **ret, json_t *document, struct err *err)
{
	char *text =
		document ? json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;

	json_decref(document);
	if (!text)
		return err_set(err, -ENOMEM, "no memory for the document");
	*ret = text;
	return 0;
}

static json_t *ids(const struct host_device *d)
{
	return json_sprintf("%04x:%04x", d->vendor, d->device);
}

static json_t *text_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

/* ---- preflight ---- */

static json_t *finding(const struct explain_finding *f)
{
	static const char *const levels[] = {
		[EXPLAIN_OK] = "ok",
		[EXPLAIN_WARNING] = "warning",
		[EXPLAIN_BLOCKER] = "blocker",
	};
	json_t *ret = json_pack("{s:s, s:s, s:s}", "level", levels[f->level], "topic", f->topic,
				"fact", f->fact);

	if (ret && f->remedy[0])
		json_object_set_new(ret, "remedy", json_string(f->remedy));
	return ret;
}

static json_t *explained(const struct host_device *d, const struct explain *explain)
{
	json_t *findings = json_array();

	for (unsigned int i = 0; i < explain->n; i++)
		json_array_append_new(findings, finding(&explain->findings[i]));
	return json_pack("{s:s, s:o, s:o, s:o, s:i, s:b, s:o}", "device", d->bdf, "id", ids(d),
			 "driver", text_or_null(d->driver), "group",
			 d->group < 0 ? json_null() : json_integer(d->group), "msix_vectors",
			 (int)d->msix, "works", explain->worst != EXPLAIN_BLOCKER, "findings",
			 findings);
}

static int backing_of(const char *name, enum gmem_backing *ret, struct err *err)
{
	for (unsigned int i = 0; name && config_backing_names[i]; i++) {
		*ret = (enum gmem_backing)i;
		if (strcmp(name, config_backing_names[i]) == 0)
			return 0;
	}
	*ret = GMEM_AUTO;
	return name ? err_set(err, -EINVAL, "backing: '%s' is none of memory.backing", name) : 0;
}

static int explain(const char *device, const struct hospes_explain_options *options, char **json,
		   struct err *err)
{
	struct explain_request request = {
		.memory_bytes = options->memory_bytes,
		.cdev_fd = options->vfio_fd ? options->vfio_fd : -1,
		.iommufd = options->iommufd ? options->iommufd : -1,
		.other_vectors = options->other_vectors,
	};
	char bdf[HOST_BDF_BYTES];
	struct host_device d;
	struct explain result;
	int rc = api_iommu_kind(options->iommu, &request.kind, err);

	if (!rc)
		rc = backing_of(options->backing, &request.backing, err);
	if (!rc)
		rc = host_find(device, bdf, err);
	if (!rc)
		rc = host_read(&d, bdf, err);
	if (!rc)
		rc = explain_device(&result, bdf, &request, err);
	if (rc)
		return rc;
	rc = give_json(json, explained(&d, &result), err);
	explain_done(&result);
	return rc;
}

int hospes_device_explain(const char *device, const struct hospes_explain_options *options,
			  char **json, struct hospes_error *error)
{
	struct hospes_explain_options all = {.size = sizeof(all)};
	struct err err = ERR_INIT;

	if (options)
		memcpy(&all, options, MIN(options->size, sizeof(all)));
	return give(error, &err, explain(device, &all, json, &err));
}

/* ---- IOMMUs ---- */

static json_t *known(enum host_known k)
{
	return k == HOST_UNKNOWN ? json_string("not known until bound")
				 : json_boolean(k == HOST_YES);
}

static json_t *page_sizes(uint64_t sizes)
{
	json_t *ret = json_array();

	for (unsigned int bit = 0; bit < 63; bit++) {
		if (sizes >> bit & 1)
			json_array_append_new(ret, json_integer((json_int_t)1 << bit));
	}
	return ret;
}

static json_t *iommu_object(const struct host_iommu *i)
{
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i}", "name", i->name, "kind",
			 i->kind, "address_bits",
			 i->address_bits ? json_integer(i->address_bits) : json_null(),
			 "page_sizes", page_sizes(i->page_sizes), "dirty_tracking", known(i->dirty),
			 "nesting", known(i->nesting), "pasid", known(i->pasid), "pasid_bits",
			 i->pasid_bits ? json_integer(i->pasid_bits) : json_null(), "devices",
			 (int)i->devices);
}

static json_t *iommus_array(struct err *err)
{
	struct host_iommu *iommus;
	unsigned int n;
	json_t *ret;

	if (host_iommu_list(&iommus, &n, err) < 0)
		return NULL;
	ret = json_array();
	for (unsigned int i = 0; i < n; i++)
		json_array_append_new(ret, iommu_object(&iommus[i]));
	free(iommus);
	return ret;
}

static json_t *device_object(const struct host_device *d, bool remapped)
{
	static const char *const verdicts[] = {
		[HOST_ISOLATED] = "isolated",
		[HOST_SHARED] = "shared",
		[HOST_NOT_TRANSLATED] = "not translated",
	};
	enum host_isolation verdict;
	char why[160];

	verdict = host_isolation_of(d, why, sizeof(why));
	/* Alone, but free to raise any interrupt of the host. */
	if (verdict == HOST_ISOLATED && !remapped) {
		size_t used = strlen(why);

		snprintf(why + used, sizeof(why) - used, ", but interrupts are not remapped");
	}
	return json_pack("{s:s, s:o, s:o, s:s, s:b, s:s}", "device", d->bdf, "id", ids(d), "driver",
			 text_or_null(d->driver), "isolation",
			 verdict == HOST_ISOLATED && !remapped ? "interrupts only"
							       : verdicts[verdict],
			 "vf", d->is_vf, "why", why);
}

static json_t *reserved_array(const char *bdf)
{
	struct iommu_reserved ranges[IOMMU_RESERVED_MAX];
	int n = iommu_reserved_read(bdf, ranges, ARRAY_SIZE(ranges));
	json_t *ret = json_array();

	for (int i = 0; i < MIN(n, (int)ARRAY_SIZE(ranges)); i++)
		json_array_append_new(
			ret, json_pack("{s:o, s:o, s:s}", "first",
				       json_sprintf("0x%llx", (unsigned long long)ranges[i].first),
				       "last",
				       json_sprintf("0x%llx", (unsigned long long)ranges[i].last),
				       "type", ranges[i].type));
	return ret;
}

/* One object per group, in order of numbers; what is in none comes last, with group null. */
static json_t *groups_array(struct err *err)
{
	bool remapped = host_interrupts_remapped();
	struct host_device *devices;
	json_t *ret, *none;
	unsigned int n;
	int last = -1;

	if (host_list(&devices, &n, err) < 0)
		return NULL;
	for (unsigned int i = 0; i < n; i++)
		last = MAX(last, devices[i].group);
	ret = json_array();
	for (int group = 0; group <= last; group++) {
		json_t *members = json_array();
		const char *type = "", *one = "";

		for (unsigned int i = 0; i < n; i++) {
			if (devices[i].group != group)
				continue;
			type = devices[i].group_type;
			one = devices[i].bdf;
			json_array_append_new(members, device_object(&devices[i], remapped));
		}
		if (json_array_size(members))
			json_array_append_new(ret,
					      json_pack("{s:i, s:s, s:o, s:o}", "group", group,
							"type", type, "reserved",
							reserved_array(one), "devices", members));
		else
			json_decref(members);
	}
	none = json_array();
	for (unsigned int i = 0; i < n; i++) {
		if (devices[i].group < 0)
			json_array_append_new(none, device_object(&devices[i], remapped));
	}
	if (json_array_size(none))
		json_array_append_new(ret, json_pack("{s:n, s:o}", "group", "devices", none));
	else
		json_decref(none);
	free(devices);
	return ret;
}

static json_t *limits_object(void)
{
	static const char parameter[] = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
	FILE *f = fopen(parameter, "re");
	struct rlimit memlock = {RLIM_INFINITY, RLIM_INFINITY};
	long long entries = 0;

	if (f) {
		if (fscanf(f, "%lld", &entries) != 1)
			entries = 0;
		fclose(f);
	}
	getrlimit(RLIMIT_MEMLOCK, &memlock);
	return json_pack("{s:o, s:o}", "type1_mappings",
			 entries ? json_integer(entries) : json_null(), "memlock_bytes",
			 memlock.rlim_cur == RLIM_INFINITY
				 ? json_null()
				 : json_integer((json_int_t)memlock.rlim_cur));
}

/* As a document may have it. */
static json_t *parameter_value(const struct strategy_param *p, uint64_t value)
{
	char text[UNITS_TEXT];

	if (p->unit == STRATEGY_NUMBER && value != STRATEGY_NEVER)
		return json_integer((json_int_t)value);
	return json_string(strategy_value_text(p, value, text));
}

static json_t *parameters_array(const struct strategy_param *p)
{
	static const char *const units[] = {[STRATEGY_NUMBER] = "number",
					    [STRATEGY_BYTES] = "bytes",
					    [STRATEGY_NS] = "time",
					    [STRATEGY_PERCENT] = "percent"};
	json_t *ret = json_array();
	char range[STRATEGY_RANGE_TEXT];

	for (; p && p->name; p++)
		json_array_append_new(ret, json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:o}",
						     "name", p->name, "summary", p->summary, "unit",
						     units[p->unit], "takes",
						     strategy_range_text(p, range), "never",
						     p->never, "min", parameter_value(p, p->min),
						     "max", parameter_value(p, p->max), "default",
						     parameter_value(p, p->value)));
	return ret;
}

static json_t *strategies_array(void)
{
	json_t *ret = json_array();

	for (const struct strategy_ops *const *s = strategies; *s; s++)
		json_array_append_new(ret, json_pack("{s:s, s:s, s:b, s:o}", "name", (*s)->name,
						     "summary", (*s)->summary, "viommu",
						     (*s)->needs_viommu, "parameters",
						     parameters_array((*s)->params)));
	return ret;
}

int hospes_iommu_list(char **json, struct hospes_error *error)
{
	struct err err = ERR_INIT;
	json_t *iommus = iommus_array(&err), *groups = iommus ? groups_array(&err) : NULL;
	json_t *document;

	if (!groups) {
		json_decref(iommus);
		return give(error, &err, err.code ? err.code : -ENOMEM);
	}
	document = json_pack("{s:o, s:b, s:b, s:b, s:o, s:o, s:o}", "iommus", iommus,
			     "interrupts_remapped", host_interrupts_remapped(), "iommufd",
			     access("/dev/iommu", F_OK) == 0, "type1",
			     access("/dev/vfio/vfio", F_OK) == 0, "limits", limits_object(),
			     "strategies", strategies_array(), "groups", groups);
	return give(error, &err, give_json(json, document, &err));
}
