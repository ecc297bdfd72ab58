// SPDX-License-Identifier: Apache-2.0
// Each system call of a constructor fails once:   denied iommufd|type1 DEVICE
//
// In a child process each, with a filter that returns an errno. What was opened before must be
// closed again, the error must be said, and the device must be free for the next child.
#include <errno.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "deny.h"
#include "real.h"

struct call {
	const char *name;
	uint32_t request; /* 0: open */
	bool harmless;    /* without it all works, only less is known */
};

static const struct call iommufd_calls[] = {
	{"open", 0, false},
	{"IOAS_ALLOC", IOMMU_IOAS_ALLOC, false},
	{"BIND_IOMMUFD", VFIO_DEVICE_BIND_IOMMUFD, false},
	{"ATTACH_IOMMUFD_PT", VFIO_DEVICE_ATTACH_IOMMUFD_PT, false},
	{"IOAS_MAP", IOMMU_IOAS_MAP, false},
	{"GET_HW_INFO", IOMMU_GET_HW_INFO, true},
	{"OPTION", IOMMU_OPTION, true},
	{NULL, 0, false},
};
static const struct call type1_calls[] = {
	{"open", 0, false},
	{"GET_API_VERSION", VFIO_GET_API_VERSION, false},
	{"GROUP_GET_STATUS", VFIO_GROUP_GET_STATUS, false},
	{"GROUP_SET_CONTAINER", VFIO_GROUP_SET_CONTAINER, false},
	{"CHECK_EXTENSION", VFIO_CHECK_EXTENSION, false},
	{"SET_IOMMU", VFIO_SET_IOMMU, false},
	{"GROUP_GET_DEVICE_FD", VFIO_GROUP_GET_DEVICE_FD, false},
	{"MAP_DMA", VFIO_IOMMU_MAP_DMA, false},
	{"IOMMU_GET_INFO", VFIO_IOMMU_GET_INFO, true},
	{NULL, 0, false},
};

static char page[4096] __attribute__((aligned(4096)));

static int map_one(struct ioas *ioas)
{
	struct ioas_memory memory = {.hva = page, .fd = -1, .gpa = UINT64_MAX};
	int ret = ioas_map(ioas, 0x100000, sizeof(page), &memory, IOAS_READ | IOAS_WRITE);

	return ret ? ioas_explain(ioas, ret, 0x100000, sizeof(page), &err) : 0;
}

/* From nothing to a mapped page, and back; the device's fd stays the caller's when it fails. */
static int build(enum iommu_kind kind, const char *bdf, int *fd)
{
	struct iommu_config config = {.kind = kind, .iommufd = -1};
	struct iommu_endpoint_config device = {.name = bdf, .fd = *fd};
	struct iommu_endpoint *endpoint = NULL;
	struct iommu *iommu = NULL;
	struct ioas *ioas = NULL;
	int ret = iommu_create(&iommu, &config, &err);

	if (!ret)
		ret = iommu_endpoint_create(&endpoint, iommu, &device, &err);
	if (endpoint)
		*fd = -1;
	if (!ret)
		ret = ioas_create(&ioas, iommu, "denied", &err);
	if (!ret)
		ret = ioas_attach(ioas, endpoint, &err);
	if (!ret)
		ret = map_one(ioas);
	iommu_endpoint_destroy(endpoint);
	ioas_destroy(ioas);
	iommu_destroy(iommu);
	return ret;
}

/* In the child: 0 when it went as it should. */
static int try_without(enum iommu_kind kind, const char *bdf, const struct call *call)
{
	int fd = open_device(kind, bdf), before, ret;

	need(fd >= 0, "%s can be opened", bdf);
	before = count_fds();
	if (call->name && deny(call->request ? SYS_ioctl : SYS_openat, call->request, EIO))
		return 2;
	ret = build(kind, bdf, &fd);
	before -= fd < 0;
	printf("# %s: %s\n", call->name ? call->name : "nothing", ret ? err.text : "works");
	fflush(stdout);
	if (count_fds() != before)
		return 3;
	if (call->harmless || !call->name)
		return ret ? 4 : 0;
	return ret < 0 && err.text[0] && err.code == ret ? 0 : 5;
}

int main(int argc, char **argv)
{
	const struct call *call;
	enum iommu_kind kind;

	if (argc != 3)
		return 2;
	kind = !strcmp(argv[1], "type1") ? IOMMU_TYPE1 : IOMMU_IOMMUFD;
	call = kind == IOMMU_TYPE1 ? type1_calls : iommufd_calls;
	for (;; call++) {
		int status = 0;
		pid_t child;

		fflush(stdout);
		child = fork();
		if (!child)
			_exit(try_without(kind, argv[2], call));
		waitpid(child, &status, 0);
		check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "without %s (%d)",
		      call->name ? call->name : "nothing: all works", status >> 8);
		if (!call->name)
			break;
	}
	return failures() ? 1 : 0;
}
