// SPDX-License-Identifier: Apache-2.0
// Common to all backends: the choice of one, devices, spaces, attach and detach. Mappings are in
// ioas_map.c, explanations of failures in ioas_explain.c.
#include "iommu/ioas.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"

static const struct ioas_ops *const backends[] = {
	[IOMMU_AUTO] = NULL,
	[IOMMU_IOMMUFD] = &ioas_iommufd_ops,
	[IOMMU_TYPE1] = &ioas_type1_ops,
};

const char *iommu_kind_name(enum iommu_kind kind)
{
	static const char *const names[] = {
		[IOMMU_AUTO] = "auto",
		[IOMMU_IOMMUFD] = "iommufd",
		[IOMMU_TYPE1] = "type1",
	};

	static_assert(ARRAY_SIZE(names) == ARRAY_SIZE(backends), "a name per backend");
	return (unsigned int)kind < ARRAY_SIZE(names) ? names[kind] : "?";
}

/* --- the choice of a backend --- */

/* Does this device have a VFIO group but no character device? Then the kernel was built without
 * CONFIG_VFIO_DEVICE_CDEV. Nothing follows from a device that is not bound to vfio-pci. */
static bool lacks_cdev(const char *device)
{
	char pattern[160];
	glob_t found = {0};
	bool bound, cdev;

	if (!device || strchr(device, '/'))
		return false;
	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/vfio-dev/vfio*", device);
	bound = glob(pattern, 0, NULL, &found) == 0;
	globfree(&found);
	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/vfio-dev/vfio*/dev", device);
	cdev = glob(pattern, 0, NULL, &found) == 0;
	globfree(&found);
	return bound && !cdev;
}

/* iommufd where it can be used, else type1; `reason` says why. */
static int choose(char *reason, size_t bytes, const struct iommu_config *config,
		  enum iommu_kind *kind, struct err *err)
{
	int iommufd, container;

	*kind = IOMMU_IOMMUFD;
	if (config->iommufd >= 0) {
		snprintf(reason, bytes, "iommufd: the caller has opened it");
		return 0;
	}
	iommufd = fd_try_open("/dev/iommu");
	if (!iommufd && !lacks_cdev(config->device)) {
		snprintf(reason, bytes, "iommufd: this host has /dev/iommu");
		return 0;
	}
	*kind = IOMMU_TYPE1;
	container = fd_try_open("/dev/vfio/vfio");
	if (!container && !iommufd)
		snprintf(reason, bytes,
			 "type1: %s has no /dev/vfio/devices node (the kernel lacks "
			 "VFIO_DEVICE_CDEV)",
			 config->device);
	else if (!container)
		snprintf(reason, bytes, "type1: /dev/iommu: %s", err_name(iommufd));
	if (!container)
		return 0;
	if (!iommufd)
		return err_set(err, container,
			       "%s has no /dev/vfio/devices node (the kernel lacks "
			       "VFIO_DEVICE_CDEV), and /dev/vfio/vfio: %s",
			       config->device, err_name(container));
	if (iommufd == -EACCES || container == -EACCES)
		return err_set(err, -EACCES,
			       "no permission for %s; let this user open it (a udev rule, or "
			       "'setfacl -m u:USER:rw'), or pass an open one",
			       iommufd == -EACCES ? "/dev/iommu" : "/dev/vfio/vfio");
	return err_set(err, -ENOENT,
		       "neither /dev/iommu (%s) nor /dev/vfio/vfio (%s) can be opened; load the "
		       "modules with 'modprobe -a iommufd vfio-pci', and see that the IOMMU is on "
		       "in the firmware and on the kernel's command line",
		       err_name(iommufd), err_name(container));
}

int iommu_create_with(struct iommu **ret, const struct ioas_ops *ops,
		      const struct iommu_config *config, struct err *err)
{
	struct iommu *iommu;
	int code;

	if (!mem_new(iommu))
		return err_set(err, -ENOMEM, "iommu: out of memory");
	iommu->ops = ops;
	iommu->log = config->log;
	iommu->no_huge_pages = config->no_huge_pages;
	iommu->fd = -1;
	list_init(&iommu->groups);
	list_init(&iommu->spaces);
	pthread_rwlock_init(&iommu->lock, NULL);
	snprintf(iommu->reason, sizeof(iommu->reason), "%s: it was asked for",
		 iommu_kind_name(ops->kind));
	code = ops->open(iommu, config, err);
	if (code) {
		iommu_destroy(iommu);
		return code;
	}
	*ret = iommu;
	return 0;
}

int iommu_create(struct iommu **ret, const struct iommu_config *config, struct err *err)
{
	enum iommu_kind kind = config->kind;
	char reason[sizeof((*ret)->reason)] = "";
	int code = 0;

	assert((unsigned int)kind < ARRAY_SIZE(backends));
	if (kind == IOMMU_AUTO)
		code = choose(reason, sizeof(reason), config, &kind, err);
	if (!code)
		code = iommu_create_with(ret, backends[kind], config, err);
	if (!code && *reason)
		snprintf((*ret)->reason, sizeof((*ret)->reason), "%s", reason);
	return code;
}

void iommu_destroy(struct iommu *iommu)
{
	if (!iommu)
		return;
	assert(list_empty(&iommu->spaces) && !iommu->endpoint_count);
	if (iommu->ops)
		iommu->ops->close(iommu);
	pthread_rwlock_destroy(&iommu->lock);
	free(iommu);
}

enum iommu_kind iommu_kind_of(const struct iommu *iommu)
{
	return iommu->ops->kind;
}

const char *iommu_reason(const struct iommu *iommu)
{
	return iommu->reason;
}

int iommu_fd(const struct iommu *iommu)
{
	return iommu->fd;
}

enum iommu_accounting iommu_accounting_of(const struct iommu *iommu)
{
	return iommu->accounting;
}

/* --- devices --- */

int iommu_endpoint_create(struct iommu_endpoint **ret, struct iommu *iommu,
			  const struct iommu_endpoint_config *config, struct err *err)
{
	struct iommu_endpoint *endpoint;
	int code;

	if (!mem_new(endpoint) || !(endpoint->name = strdup(config->name))) {
		free(endpoint);
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	}
	endpoint->iommu = iommu;
	endpoint->device_fd = -1;
	list_init(&endpoint->link);
	code = iommu->ops->endpoint_open(endpoint, config->fd, err);
	if (code) {
		free(endpoint->name);
		free(endpoint);
		err_prefix(err, "%s", config->name);
		return code;
	}
	iommu->endpoint_count++;
	*ret = endpoint;
	return 0;
}

void iommu_endpoint_destroy(struct iommu_endpoint *endpoint)
{
	if (!endpoint)
		return;
	ioas_detach(endpoint);
	endpoint->iommu->ops->endpoint_close(endpoint);
	endpoint->iommu->endpoint_count--;
	free(endpoint->name);
	free(endpoint);
}

int iommu_endpoint_device_fd(const struct iommu_endpoint *endpoint)
{
	return endpoint->device_fd;
}

struct ioas *iommu_endpoint_ioas(const struct iommu_endpoint *endpoint)
{
	return endpoint->ioas;
}

/* --- address spaces --- */

int ioas_create(struct ioas **ret, struct iommu *iommu, const char *name, struct err *err)
{
	struct ioas *ioas;
	int code = -ENOMEM;

	if (!mem_new(ioas))
		return err_set(err, -ENOMEM, "address space '%s': out of memory", name);
	ioas->iommu = iommu;
	ioas->container = -1;
	ioas->page_sizes = IOAS_PAGE_BYTES;
	list_init(&ioas->link);
	list_init(&ioas->endpoints);
	pthread_mutex_init(&ioas->devices, NULL);
	pthread_mutex_init(&ioas->lock, NULL);
	mappings_init(&ioas->mappings);
	ioas->name = strdup(name);
	if (!ioas->name) {
		err_set(err, code, "out of memory");
		goto fail;
	}
	code = ledger_create(&ioas->ledger, err);
	if (code)
		goto fail;
	code = iommu->ops->space_open(ioas, err);
	if (code)
		goto fail;
	pthread_rwlock_wrlock(&iommu->lock);
	list_append(&iommu->spaces, &ioas->link);
	pthread_rwlock_unlock(&iommu->lock);
	*ret = ioas;
	return 0;
fail:
	ledger_destroy(ioas->ledger);
	free(ioas->name);
	pthread_mutex_destroy(&ioas->lock);
	pthread_mutex_destroy(&ioas->devices);
	free(ioas);
	err_prefix(err, "address space '%s'", name);
	return code;
}

void ioas_destroy(struct ioas *ioas)
{
	if (!ioas)
		return;
	assert(list_empty(&ioas->endpoints));
	pthread_rwlock_wrlock(&ioas->iommu->lock);
	list_remove(&ioas->link);
	pthread_rwlock_unlock(&ioas->iommu->lock);
	ioas->iommu->ops->space_close(ioas);
	mappings_done(&ioas->mappings);
	ledger_destroy(ioas->ledger);
	pthread_mutex_destroy(&ioas->lock);
	pthread_mutex_destroy(&ioas->devices);
	free(ioas->name);
	free(ioas);
}

const char *ioas_name(const struct ioas *ioas)
{
	return ioas->name;
}

struct iommu *ioas_iommu(const struct ioas *ioas)
{
	return ioas->iommu;
}

void ioas_totals(struct ioas *ioas, struct ledger_totals *ret)
{
	pthread_mutex_lock(&ioas->lock);
	ledger_totals(ioas->ledger, ret);
	pthread_mutex_unlock(&ioas->lock);
}

void ioas_requested(struct ioas *ioas, uint64_t bytes, bool on)
{
	pthread_mutex_lock(&ioas->lock);
	ledger_request(ioas->ledger, bytes, on);
	pthread_mutex_unlock(&ioas->lock);
}

uint64_t ioas_stale(struct ioas *ioas, uint64_t bytes)
{
	uint64_t now_ns;

	pthread_mutex_lock(&ioas->lock);
	now_ns = ledger_stale(ioas->ledger, bytes);
	pthread_mutex_unlock(&ioas->lock);
	return now_ns;
}

void ioas_stale_end(struct ioas *ioas, const struct ledger_stale *stale)
{
	pthread_mutex_lock(&ioas->lock);
	ledger_stale_end(ioas->ledger, stale);
	pthread_mutex_unlock(&ioas->lock);
}

void ioas_joined(struct ioas *ioas, unsigned int n)
{
	pthread_mutex_lock(&ioas->lock);
	ledger_joined(ioas->ledger, n);
	pthread_mutex_unlock(&ioas->lock);
}

uint64_t ioas_now(const struct ioas *ioas)
{
	return ledger_now(ioas->ledger);
}

uint64_t ioas_page_sizes(const struct ioas *ioas)
{
	return ioas->page_sizes;
}

unsigned int ioas_usable(const struct ioas *ioas, struct ioas_range *ranges, unsigned int max)
{
	if (ioas->iommu->ops->usable)
		return ioas->iommu->ops->usable(ioas, ranges, max);
	if (max)
		ranges[0] = (struct ioas_range){.first = 0, .last = UINT64_MAX};
	return 1;
}

int ioas_allow(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n, struct err *err)
{
	uint64_t at;
	int ret;

	for (unsigned int i = 0; i < n; i++) {
		if (ioas_unusable_in(ioas, ranges[i].first, ranges[i].last, &at))
			return ioas_explain(ioas, -ENOSPC, ranges[i].first,
					    ranges[i].last - ranges[i].first + 1, err);
	}
	ret = ioas->iommu->ops->allow ? ioas->iommu->ops->allow(ioas, ranges, n) : 0;
	return ret ? err_set(err, ret, "the kernel does not keep its memory's addresses free: %s",
			     err_name(ret))
		   : 0;
}

uint64_t ioas_mappings_left(const struct ioas *ioas)
{
	return ioas->iommu->ops->mappings_left ? ioas->iommu->ops->mappings_left(ioas) : UINT64_MAX;
}

/* --- attach, detach --- */

/* The first device comes: all mappings are pinned. The last one leaves: none is. */
static void set_pinning(struct ioas *ioas, bool on)
{
	if (ioas->pinning == on)
		return;
	pthread_mutex_lock(&ioas->lock);
	ioas->pinning = on;
	ledger_pinned(ioas->ledger, on ? (int64_t)ioas->own_bytes : -(int64_t)ioas->own_bytes);
	pthread_mutex_unlock(&ioas->lock);
}

/* Record a call that ends now and pins nothing. */
static void record(struct ioas *ioas, enum ledger_op op, uint64_t start_ns, int code)
{
	pthread_mutex_lock(&ioas->lock);
	ledger_record(ioas->ledger, op, 0, 0, UINT64_MAX, start_ns, code);
	pthread_mutex_unlock(&ioas->lock);
}

/* type1 has removed all mappings with the last device of a space. */
static void forget_mappings(struct ioas *ioas)
{
	uint64_t start_ns = ledger_now(ioas->ledger);
	uint64_t bytes = ioas->mappings.bytes;

	if (!bytes)
		return;
	pthread_mutex_lock(&ioas->lock);
	mappings_clear(&ioas->mappings);
	ioas->own_bytes = 0;
	ledger_record(ioas->ledger, LEDGER_UNMAP, 0, bytes, UINT64_MAX, start_ns, 0);
	pthread_mutex_unlock(&ioas->lock);
}

static void leave(struct iommu_endpoint *endpoint)
{
	struct ioas *ioas = endpoint->ioas;

	list_remove(&endpoint->link);
	endpoint->ioas = NULL;
	if (!list_empty(&ioas->endpoints))
		return;
	set_pinning(ioas, false);
	if (ioas->iommu->ops->kind == IOMMU_TYPE1)
		forget_mappings(ioas);
}

int ioas_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err)
{
	uint64_t start_ns = ledger_now(ioas->ledger);
	int code;

	assert(ioas->iommu == endpoint->iommu);
	if (endpoint->ioas == ioas)
		return 0;
	pthread_mutex_lock(&ioas->devices);
	code = ioas->iommu->ops->attach(ioas, endpoint, err);
	record(ioas, LEDGER_ATTACH, start_ns, code);
	if (!code) {
		if (endpoint->ioas)
			leave(endpoint);
		endpoint->ioas = ioas;
		list_append(&ioas->endpoints, &endpoint->link);
		set_pinning(ioas, true);
	}
	pthread_mutex_unlock(&ioas->devices);
	if (code)
		err_prefix(err, "%s: address space '%s'", endpoint->name, ioas->name);
	return code;
}

void ioas_call_nothing(const struct ioas *ioas)
{
	if (ioas->iommu->ops->nothing)
		ioas->iommu->ops->nothing(ioas);
}

int ioas_pin(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	int ret = ioas->iommu->ops->pin ? 0 : -EOPNOTSUPP;

	assert(list_empty(&ioas->endpoints) && !ioas->mappings.count);
	if (!ret)
		ret = ioas->iommu->ops->pin(ioas, endpoint);
	if (!ret)
		set_pinning(ioas, true);
	return ret;
}

void ioas_detach(struct iommu_endpoint *endpoint)
{
	struct ioas *ioas = endpoint->ioas;
	uint64_t start_ns;

	if (!ioas)
		return;
	start_ns = ledger_now(ioas->ledger);
	pthread_mutex_lock(&ioas->devices);
	ioas->iommu->ops->detach(endpoint);
	leave(endpoint);
	pthread_mutex_unlock(&ioas->devices);
	record(ioas, LEDGER_DETACH, start_ns, 0);
}

struct iommu_endpoint *ioas_first_endpoint(const struct ioas *ioas)
{
	return list_empty(&ioas->endpoints)
		       ? NULL
		       : container_of(ioas->endpoints.next, struct iommu_endpoint, link);
}

/* --- dirty tracking --- */

int ioas_dirty_set(struct ioas *ioas, bool on)
{
	int ret;

	if (!ioas->iommu->ops->dirty_set)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&ioas->devices);
	ret = ioas->iommu->ops->dirty_set(ioas, on);
	pthread_mutex_unlock(&ioas->devices);
	return ret;
}

int ioas_dirty_read(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
		    uint64_t *bitmap)
{
	int ret;

	if (!ioas->iommu->ops->dirty_read)
		return -EOPNOTSUPP;
	if (!is_power_of_two(page_bytes) || !bytes || !is_aligned(iova | bytes, page_bytes))
		return -EINVAL;
	pthread_mutex_lock(&ioas->devices);
	ret = ioas->iommu->ops->dirty_read(ioas, iova, bytes, page_bytes, bitmap);
	pthread_mutex_unlock(&ioas->devices);
	return ret;
}
