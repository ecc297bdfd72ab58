// SPDX-License-Identifier: Apache-2.0
// Who else on this host uses a disk: /proc and /sys of a host that is made of files.
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/disk_users.h"

static char dir[] = "/tmp/hospes-users-XXXXXX";
static char text[256];

static void enter(void)
{
	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
}

static void leave(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(disk_users, .init = enter, .fini = leave);

/* A file below the root; its folders are made. */
static void put(const char *path, const char *content)
{
	char command[256];
	FILE *f;

	snprintf(command, sizeof(command), "mkdir -p $(dirname './%s')", path);
	cr_assert_eq(system(command), 0);
	snprintf(command, sizeof(command), "./%s", path);
	f = fopen(command, "w");
	cr_assert(f);
	fputs(content, f);
	fclose(f);
}

/* 8:0, with the partitions 8:1 and 8:2. */
static void add_disk(void)
{
	put("sys/devices/sda/dev", "8:0\n");
	put("sys/devices/sda/sda1/dev", "8:1\n");
	put("sys/devices/sda/sda1/partition", "1\n");
	put("sys/devices/sda/sda2/dev", "8:2\n");
	put("sys/devices/sda/sda2/partition", "2\n");
	put("sys/devices/sda/queue/dev", "8:9\n"); /* no partition */
	cr_assert_eq(system("mkdir -p sys/dev/block sys/devices/sda/holders "
			    "sys/devices/sda/sda1/holders sys/devices/sda/sda2/holders && "
			    "ln -s ../../devices/sda sys/dev/block/8:0 && "
			    "ln -s ../../devices/sda/sda1 sys/dev/block/8:1 && "
			    "ln -s ../../devices/sda/sda2 sys/dev/block/8:2"),
		     0);
}

static bool used(unsigned int major, unsigned int minor)
{
	const struct stat st = {.st_mode = S_IFBLK, .st_rdev = makedev(major, minor)};

	text[0] = '\0';
	return disk_users_find(dir, &st, text, sizeof(text));
}

static bool file_used(const char *path)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	text[0] = '\0';
	return disk_users_find(dir, &st, text, sizeof(text));
}

Test(disk_users, a_disk_without_users_has_none)
{
	add_disk();
	put("proc/self/mountinfo", "21 1 9:1 / / rw - ext4 /dev/md1 rw\n");
	put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
	cr_expect_not(used(8, 0), "%s", text);
	cr_expect_not(used(8, 1), "%s", text);
}

Test(disk_users, without_proc_and_sys_nothing_is_known)
{
	cr_expect_not(used(8, 0), "%s", text);
}

Test(disk_users, a_mounted_partition_is_used_and_so_is_its_disk_but_not_its_neighbour)
{
	add_disk();
	put("proc/self/mountinfo",
	    "21 1 0:5 / /proc rw - proc proc rw\n"
	    "22 1 8:1 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
	cr_expect(used(8, 1));
	cr_expect_str_eq(text, "mounted at /mnt/a b");
	cr_expect(used(8, 0));
	cr_expect_str_eq(text, "mounted at /mnt/a b");
	cr_expect_not(used(8, 2), "%s", text);
}

Test(disk_users, a_device_on_top_of_it_is_named)
{
	add_disk();
	put("sys/devices/sda/sda2/holders/dm-3/dm/name", "vg-root\n");
	cr_expect(used(8, 2));
	cr_expect_str_eq(text, "/dev/mapper/vg-root is on it");
	cr_expect(used(8, 0));
	cr_expect_str_eq(text, "/dev/mapper/vg-root is on it");
	cr_expect_not(used(8, 1), "%s", text);
}

Test(disk_users, what_is_on_the_whole_disk_uses_its_partitions)
{
	add_disk();
	put("sys/devices/sda/holders/md0/dev", "9:0\n");
	cr_expect(used(8, 1));
	cr_expect_str_eq(text, "/dev/md0 is on it");
}

Test(disk_users, a_file_below_a_loop_device_is_used)
{
	char path[PATH_MAX];

	put("image", "x");
	put("other", "x");
	snprintf(path, sizeof(path), "%s/image\n", dir);
	put("sys/block/loop7/loop/backing_file", path);
	put("sys/block/loop8/size", "0\n"); /* a loop device without a file */
	cr_expect(file_used("image"));
	cr_expect_str_eq(text, "/dev/loop7 is on it");
	cr_expect_not(file_used("other"), "%s", text);
}

static void export(const char *namespace, const char *path, const char *enabled)
{
	char file[256], line[PATH_MAX];

	snprintf(file, sizeof(file), "%s/enable", namespace);
	put(file, enabled);
	snprintf(file, sizeof(file), "%s/device_path", namespace);
	snprintf(line, sizeof(line), "%s/%s\n", dir, path);
	put(file, line);
}

Test(disk_users, what_an_nvme_target_exports_is_used)
{
	put("image", "x");
	put("other", "x");
	export("sys/kernel/config/nvmet/subsystems/nqn.store/namespaces/1", "image", "1\n");
	export("sys/kernel/config/nvmet/subsystems/nqn.store/namespaces/2", "other", "0\n");
	cr_expect(file_used("image"));
	cr_expect_str_eq(text, "the NVMe target nqn.store exports it");
	cr_expect_not(file_used("other"), "%s", text);
}

Test(disk_users, what_a_usb_gadget_shows_is_used)
{
	char path[PATH_MAX];

	put("image", "x");
	snprintf(path, sizeof(path), "%s/image\n", dir);
	put("sys/kernel/config/usb_gadget/g1/functions/mass_storage.0/lun.0/file", "\n");
	cr_expect_not(file_used("image"), "%s", text);
	put("sys/kernel/config/usb_gadget/g1/functions/mass_storage.0/lun.1/file", path);
	cr_expect(file_used("image"));
	cr_expect_str_eq(text, "the USB gadget g1 exports it");
}

Test(disk_users, what_a_scsi_target_exports_is_used)
{
	char path[PATH_MAX];

	put("image", "x");
	snprintf(path, sizeof(path), "%s/image\n", dir);
	put("sys/kernel/config/target/core/fileio_0/store/enable", "1\n");
	put("sys/kernel/config/target/core/fileio_0/store/udev_path", path);
	cr_expect(file_used("image"));
	cr_expect_str_eq(text, "the SCSI target store exports it");
}

Test(disk_users, a_swap_file_is_used)
{
	char table[PATH_MAX + 128];

	put("swap file", "x");
	snprintf(table, sizeof(table),
		 "Filename Type Size Used Priority\n%s/swap\\040file file 1 0 -2\n", dir);
	put("proc/swaps", table);
	cr_expect(file_used("swap file"));
	cr_expect_str_eq(text, "it is swap");
}
