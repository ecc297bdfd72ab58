// SPDX-License-Identifier: Apache-2.0
// A backend for tests: it answers as IOMMUFD does, from its own table of areas.
#include "fake_iommu.h"

#include <assert.h>
#include <errno.h>

#include "base/num.h"
#include "iommu/ioas_impl.h"

enum { SPACES = 64 };

struct fake_iommu fake;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below */
static struct mappings spaces[SPACES];
static bool used[SPACES];

static int fake_open(struct iommu *iommu, const struct iommu_config *config, struct err *err)
{
	(void)config;
	(void)err;
	iommu->accounting = IOMMU_ACCOUNT_PROCESS;
	return 0;
}

static void fake_close(struct iommu *iommu)
{
	(void)iommu;
}

static int fake_endpoint_open(struct iommu_endpoint *endpoint, int fd, struct err *err)
{
	(void)endpoint;
	(void)fd;
	(void)err;
	return 0;
}

static void fake_endpoint_close(struct iommu_endpoint *endpoint)
{
	(void)endpoint;
}

static int fake_space_open(struct ioas *ioas, struct err *err)
{
	(void)err;
	pthread_mutex_lock(&lock);
	ioas->id = 0;
	while (used[ioas->id])
		ioas->id++;
	assert(ioas->id < SPACES);
	used[ioas->id] = true;
	mappings_init(&spaces[ioas->id]);
	pthread_mutex_unlock(&lock);
	return 0;
}

static void fake_space_close(struct ioas *ioas)
{
	pthread_mutex_lock(&lock);
	mappings_done(&spaces[ioas->id]);
	used[ioas->id] = false;
	pthread_mutex_unlock(&lock);
}

static int fake_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err)
{
	(void)ioas;
	(void)endpoint;
	if (!fake.attach_fails)
		return 0;
	if (fake.attach_after) {
		fake.attach_after--;
		return 0;
	}
	fake.attach_fails--;
	return err_set(err, -ENOMEM, "the kernel refuses it");
}

static void fake_detach(struct iommu_endpoint *endpoint)
{
	(void)endpoint;
}

static bool is_full(void)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < SPACES; i++)
		n += used[i] ? spaces[i].count : 0;
	return fake.areas && n >= fake.areas;
}

static int insert(struct ioas *ioas, uint64_t iova, uint64_t bytes, char *hva, unsigned int access)
{
	struct mapping *area;
	int ret = is_full() ? -ENOSPC
			    : mappings_insert(&spaces[ioas->id], iova, iova + (bytes - 1), &area);

	if (ret)
		return ret;
	area->hva = hva;
	area->access = access;
	return 0;
}

static int fake_map(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		    const struct ioas_memory *memory, unsigned int access)
{
	int ret;

	if (fake.on_map)
		fake.on_map();
	pthread_mutex_lock(&lock);
	ret = insert(ioas, iova, bytes, memory->hva, access);
	pthread_mutex_unlock(&lock);
	return ret;
}

/* Unmap areas in ascending order; those before one that is refused are unmapped. */
static int fake_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes)
{
	struct mappings *areas = &spaces[ioas->id];
	uint64_t last = iova + (bytes - 1);
	struct mapping *area;
	int ret = -ENOENT;

	pthread_mutex_lock(&lock);
	while ((area = mappings_find(areas, iova, last))) {
		ret = area->iova < iova || area->last > last ? -ENOENT : 0;
		if (fake.refuse_iova &&
		    range_inside(fake.refuse_iova, 1, area->iova, area->last - area->iova + 1))
			ret = -EBUSY;
		if (ret)
			break;
		mappings_remove(areas, area);
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int copy_locked(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
		       uint64_t from_iova, unsigned int access)
{
	uint64_t done = 0, part;
	int ret = 0;

	for (; done < bytes && !ret; done += part) {
		const struct mapping *area =
			mappings_find(&spaces[from->id], from_iova + done, from_iova + done);

		part = area ? MIN(area->last - (from_iova + done) + 1, bytes - done) : 0;
		ret = area ? insert(ioas, iova + done, part,
				    area->hva + (from_iova + done - area->iova), access)
			   : -ENOENT;
	}
	return ret;
}

static int fake_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
		     uint64_t from_iova, unsigned int access)
{
	int ret;

	pthread_mutex_lock(&lock);
	ret = copy_locked(ioas, iova, bytes, from, from_iova, access);
	pthread_mutex_unlock(&lock);
	return ret;
}

static int fake_pin(struct ioas *ioas, const struct iommu_endpoint *endpoint)
{
	(void)ioas;
	assert(endpoint);
	return 0;
}

static const struct ioas_ops fake_ops = {
	.kind = IOMMU_IOMMUFD,
	.open = fake_open,
	.close = fake_close,
	.endpoint_open = fake_endpoint_open,
	.endpoint_close = fake_endpoint_close,
	.space_open = fake_space_open,
	.space_close = fake_space_close,
	.attach = fake_attach,
	.detach = fake_detach,
	.map = fake_map,
	.unmap = fake_unmap,
	.copy = fake_copy,
	.pin = fake_pin,
};

int fake_iommu_create(struct iommu **ret, const struct log *log, struct err *err)
{
	const struct iommu_config config = {.log = log, .iommufd = -1};

	return iommu_create_with(ret, &fake_ops, &config, err);
}

int fake_translate(const struct ioas *ioas, uint64_t iova, unsigned int access, void **hva,
		   uint64_t *contiguous)
{
	const struct mapping *area;
	int ret = -EFAULT;

	pthread_mutex_lock(&lock);
	area = mappings_find(&spaces[ioas->id], iova, iova);
	if (area && (area->access & access) == access) {
		*hva = area->hva + (iova - area->iova);
		*contiguous = area->last - iova + 1;
		ret = 0;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}
