// SPDX-License-Identifier: Apache-2.0
// The soft backend: the table of mappings is the translation, so there is nothing to do here. For
// emulated devices behind a virtual IOMMU, and for tests of what lies above.
#include <errno.h>

#include "iommu/ioas_impl.h"

static int soft_open(struct iommu *iommu, const struct iommu_config *config, struct err *err)
{
	(void)config;
	(void)err;
	iommu->accounting = IOMMU_ACCOUNT_PROCESS;
	return 0;
}

static void soft_close(struct iommu *iommu)
{
	(void)iommu;
}

static int soft_endpoint_open(struct iommu_endpoint *endpoint, int fd, struct err *err)
{
	(void)endpoint;
	if (fd != -1)
		return err_set(err, -EINVAL, "a soft address space takes no real device");
	return 0;
}

static void soft_endpoint_close(struct iommu_endpoint *endpoint)
{
	(void)endpoint;
}

static int soft_space_open(struct ioas *ioas, struct err *err)
{
	(void)ioas;
	(void)err;
	return 0;
}

static void soft_space_close(struct ioas *ioas)
{
	(void)ioas;
}

static int soft_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err)
{
	(void)ioas;
	(void)endpoint;
	(void)err;
	return 0;
}

static void soft_detach(struct iommu_endpoint *endpoint)
{
	(void)endpoint;
}

static int soft_map(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		    const struct ioas_memory *memory, unsigned int access)
{
	(void)ioas;
	(void)iova;
	(void)bytes;
	(void)access;
	return memory->hva ? 0 : -EFAULT;
}

static int soft_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes)
{
	(void)ioas;
	(void)iova;
	(void)bytes;
	return 0;
}

static int soft_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
		     uint64_t from_iova, unsigned int access)
{
	(void)ioas;
	(void)iova;
	(void)bytes;
	(void)from;
	(void)from_iova;
	(void)access;
	return 0;
}

const struct ioas_ops ioas_soft_ops = {
	.kind = IOMMU_SOFT,
	.open = soft_open,
	.close = soft_close,
	.endpoint_open = soft_endpoint_open,
	.endpoint_close = soft_endpoint_close,
	.space_open = soft_space_open,
	.space_close = soft_space_close,
	.attach = soft_attach,
	.detach = soft_detach,
	.map = soft_map,
	.unmap = soft_unmap,
	.copy = soft_copy,
};
