/* SPDX-License-Identifier: Apache-2.0 */
/* The inventory of the machine that runs this test, compared with what other ways tell of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "iommu/reserved.h"
#include "host/device.h"
#include "host/parse.h"

static unsigned int inventory(struct host_device **devices)
{
	struct err err = ERR_INIT;
	unsigned int n;

	if (access("/sys/bus/pci/devices", F_OK) < 0)
		cr_skip_test("no PCI here");
	cr_assert_eq(host_list(devices, &n, &err), 0, "%s", err.text);
	return n;
}

Test(host, every_function_is_listed_once_and_in_order)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);
	glob_t found;

	if (glob("/sys/bus/pci/devices/*", 0, NULL, &found) == 0) {
		cr_assert_eq(n, found.gl_pathc);
		globfree(&found);
	} else {
		cr_assert_eq(n, 0);
	}
	for (unsigned int i = 1; i < n; i++)
		cr_expect_lt(host_parse_compare(devices[i - 1].bdf, devices[i].bdf), 0);
	free(devices);
}

Test(host, ids_are_those_of_modalias)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);

	for (unsigned int i = 0; i < n; i++) {
		struct host_device *d = &devices[i];
		char alias[128], want[128];

		cr_assert_gt(host_attribute(d->bdf, "modalias", alias, sizeof(alias)), 0);
		snprintf(want, sizeof(want), "pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X",
			 d->vendor, d->device, d->subsystem_vendor, d->subsystem,
			 d->class_code >> 16, d->class_code >> 8 & 0xff, d->class_code & 0xff);
		cr_expect_str_eq(alias, want);
	}
	free(devices);
}

Test(host, a_group_holds_the_device_that_names_it)
{
	struct host_device *devices, *members;
	unsigned int n = inventory(&devices), m;
	struct err err = ERR_INIT;

	for (unsigned int i = 0; i < n; i++) {
		bool inside = false;

		if (devices[i].group < 0)
			continue;
		cr_assert_eq(host_group(devices[i].group, &members, &m, &err), 0, "%s", err.text);
		for (unsigned int k = 0; k < m; k++)
			inside = inside || !strcmp(members[k].bdf, devices[i].bdf);
		cr_expect(inside, "%s", devices[i].bdf);
		cr_expect(devices[i].group_type[0]);
		cr_expect_geq(iommu_reserved_read(devices[i].bdf, NULL, 0), 0, "%s",
			      devices[i].bdf);
		free(members);
	}
	free(devices);
}

Test(host, bars_are_as_large_as_their_files)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);

	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int bar = 0; bar < 6; bar++) {
			char path[PATH_MAX];
			glob_t found;
			int fd;

			snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%u",
				 devices[i].bdf, bar);
			if (glob(path, 0, NULL, &found) != 0)
				continue; /* none, or not assigned */
			fd = open(path, O_RDONLY | O_CLOEXEC);
			globfree(&found);
			if (fd < 0)
				continue; /* for root only */
			cr_expect_eq((uint64_t)lseek(fd, 0, SEEK_END),
				     devices[i].bars[bar].size_bytes, "%s", path);
			close(fd);
		}
	}
	free(devices);
}

Test(host, an_address_is_found_in_each_of_its_forms)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);
	char path[64], bdf[HOST_BDF_BYTES];
	struct err err = ERR_INIT;

	for (unsigned int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", devices[i].bdf);
		cr_assert_eq(host_find(path, bdf, &err), 0, "%s", err.text);
		cr_expect_str_eq(bdf, devices[i].bdf);
		cr_assert_eq(host_find(devices[i].bdf, bdf, &err), 0, "%s", err.text);
		cr_expect_str_eq(bdf, devices[i].bdf);
		if (strncmp(devices[i].bdf, "0000:", 5) != 0)
			continue;
		cr_assert_eq(host_find(devices[i].bdf + 5, bdf, &err), 0, "%s", err.text);
		cr_expect_str_eq(bdf, devices[i].bdf);
	}
	free(devices);
}

Test(host, what_is_not_there_says_what_is)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);
	char bdf[HOST_BDF_BYTES], absent[HOST_BDF_BYTES] = "fffe:fe:1e.6";
	struct host_device ignored;
	struct err err = ERR_INIT;

	cr_assert_eq(host_find(absent, bdf, &err), -ENODEV);
	cr_assert(strstr(err.text, absent), "%s", err.text);
	cr_assert_eq(host_read(&ignored, absent, &err), -ENODEV);
	if (n) {
		/* On the bus of the first one, where nobody is. */
		strcpy(absent, devices[0].bdf);
		strcpy(absent + strlen(absent) - 4, "1e.6");
		cr_assert_eq(host_find(absent, bdf, &err), -ENODEV);
		cr_assert(strstr(err.text, "there is "), "%s", err.text);
	}
	free(devices);
}

Test(host, what_is_no_device_shows_the_forms)
{
	char bdf[HOST_BDF_BYTES];
	struct err err = ERR_INIT;

	cr_assert_eq(host_find("eth0", bdf, &err), -EINVAL);
	cr_assert(strstr(err.text, "0000:01:10.0"), "%s", err.text);
	cr_assert_eq(host_find("/dev/null", bdf, &err), -EINVAL);
	cr_assert(strstr(err.text, "/dev/vfio/devices/"), "%s", err.text);
	cr_assert_eq(host_find("/nowhere/at/all", bdf, &err), -ENOENT);
}

Test(host, attributes_of_nothing_but_devices_are_touched)
{
	struct err err = ERR_INIT;
	char text[64];

	cr_assert_eq(host_attribute("../../..", "uevent", text, sizeof(text)), -EINVAL);
	cr_assert_eq(host_attribute("00:00.0", "vendor", text, sizeof(text)), -EINVAL);
	cr_assert_eq(host_set_attribute("../0000:00:00.0", "enable", "1", &err), -EINVAL);
	cr_assert_eq(host_attribute("fffe:fe:1e.6", "vendor", text, sizeof(text)), -ENOENT);
	cr_assert_str_eq(text, "");
}

Test(host, a_refused_write_says_file_and_value)
{
	struct host_device *devices;
	unsigned int n = inventory(&devices);
	struct err err = ERR_INIT;

	if (!n)
		cr_skip_test("no PCI device here");
	cr_assert_lt(host_set_attribute(devices[0].bdf, "numa_node", "none-such", &err), 0);
	cr_assert(strstr(err.text, "numa_node"), "%s", err.text);
	free(devices);
}

Test(host, who_has_a_file_open_is_named)
{
	char path[] = "/tmp/hospes-host-XXXXXX", text[128], want[64];
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	snprintf(want, sizeof(want), "(pid %d)", (int)getpid());
	host_user_of(path, NULL, text, sizeof(text));
	cr_assert(strstr(text, want), "'%s'", text);
	close(fd);
	host_user_of(path, NULL, text, sizeof(text));
	cr_assert_str_eq(text, "");
	unlink(path);
	host_user_of(path, NULL, text, sizeof(text));
	cr_assert_str_eq(text, "");
}
