// SPDX-License-Identifier: Apache-2.0
// Opening what a document names: nothing waits for a peer, nothing is written through a link, and
// what the document gives as a number is duplicated.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "machine/kind_console.h"
#include "machine/kind_disk.h"
#include "machine/kind_net.h"
#include "machine/open.h"

static char dir[] = "/tmp/hospes-open-XXXXXX";

static void enter(void)
{
	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	/* Whoever waits for the other end of a pipe is ended by this. */
	alarm(20);
}

static void leave(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(open, .init = enter, .fini = leave);

static void make(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	cr_assert(f);
	fputs(text, f);
	fclose(f);
}

static off_t size_of(const char *path)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	return st.st_size;
}

Test(open, a_kernel_that_is_a_pipe_is_refused_without_waiting)
{
	struct err err = ERR_INIT;

	cr_assert_eq(mkfifo("fifo", 0600), 0);
	cr_assert_eq(open_boot_file("kernel", "fifo", &err), -EINVAL);
	cr_assert(strstr(err.text, "a device or pipe"), "%s", err.text);
}

Test(open, a_readonly_disk_that_is_a_pipe_is_refused_without_waiting)
{
	const struct config_disk disk = {
		.base.id = (char *)"d", .path = (char *)"fifo", .fd = -1, .readonly = true};
	struct err err = ERR_INIT;
	struct open_disk file;

	cr_assert_eq(mkfifo("fifo", 0600), 0);
	cr_assert_eq(open_disk(&disk, true, &file, &err), -EINVAL);
	cr_assert(strstr(err.text, "a device or pipe"), "%s", err.text);
	cr_assert_eq(file.fd, -1);
}

Test(open, reads_of_a_disk_wait_for_it)
{
	const struct config_disk disk = {.base.id = (char *)"d", .path = (char *)"file", .fd = -1};
	struct err err = ERR_INIT;
	struct open_disk file;

	make("file", "");
	cr_assert_eq(truncate("file", 4096), 0);
	cr_assert_eq(open_disk(&disk, true, &file, &err), 0, "%s", err.text);
	cr_assert_eq(fcntl(file.fd, F_GETFL) & O_NONBLOCK, 0);
	close(file.fd);
}

/* A file of `bytes` with these at offset (negative: from the end). */
static void make_image(const char *path, const char *signature, size_t n, long offset, long bytes)
{
	FILE *f = fopen(path, "w");

	cr_assert(f);
	cr_assert_eq(ftruncate(fileno(f), bytes), 0);
	cr_assert_eq(fseek(f, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
	cr_assert_eq(fwrite(signature, 1, n, f), n);
	fclose(f);
}

static int open_image(const char *path, bool readonly, int format, struct err *err)
{
	const struct config_disk disk = {
		.path = (char *)path, .fd = -1, .readonly = readonly, .format = format};
	struct open_disk file;
	int rc;

	*err = (struct err)ERR_INIT;
	rc = open_disk(&disk, true, &file, err);
	if (!rc)
		close(file.fd);
	return rc;
}

Test(open, an_image_that_is_not_raw_is_refused_with_the_line_that_converts_it)
{
	static const struct {
		const char *signature;
		size_t n;
		long offset;
		long bytes;
		const char *says, *line;
	} images[] = {
		{"QFI\xfb\0\0\0\3", 8, 0, 196624, "qcow2", "qemu-img convert -O raw 'i' disk.raw"},
		{"QED\0", 4, 0, 65536, "QED", "qemu-img convert"},
		{"KDMV\1\0\0\0", 8, 0, 65536, "VMDK", "qemu-img convert"},
		{"COWD", 4, 0, 65536, "VMDK", "qemu-img convert"},
		{"# Disk DescriptorFile\n", 22, 0, 350, "VMDK", "qemu-img convert"},
		{"\x7f\x10\xda\xbe", 4, 0x40, 2097152, "VDI", "qemu-img convert"},
		{"vhdxfile", 8, 0, 4194304, "VHDX", "qemu-img convert"},
		{"conectix", 8, 0, 2048, "VHD", "qemu-img convert"},
		{"conectix", 8, -512, 1048576 + 512, "VHD", "qemu-img convert -f vpc -O raw"},
		{"WithoutFreeSpace", 16, 0, 65536, "Parallels", "qemu-img convert"},
		{"WithouFreSpacExt", 16, 0, 65536, "Parallels", "qemu-img convert"},
		{"koly\0\0\0\4", 8, -512, 70000, "DMG", "qemu-img convert"},
		{"\x3a\xff\x26\xed", 4, 0, 65536, "Android", "simg2img 'i' disk.raw"},
		{"\xfd\x37zXZ\0", 6, 0, 3001, "xz", "xz -dc 'i' >disk.raw"},
		{"\x1f\x8b\x08\x08", 4, 0, 3001, "gzip", "gzip -dc 'i' >disk.raw"},
		{"\x28\xb5\x2f\xfd", 4, 0, 3001, "zstd", "zstd -dc 'i' >disk.raw"},
		{"\x04\x22\x4d\x18", 4, 0, 3001, "lz4", "lz4 -dc 'i' >disk.raw"},
		{"BZh91AY&SY", 10, 0, 3001, "bzip2", "bzip2 -dc 'i' >disk.raw"},
		{"PK\3\4", 4, 0, 3001, "zip", "unzip -p 'i' >disk.raw"},
		{"7z\xbc\xaf\x27\x1c", 6, 0, 3001, "7z", "7z e -so 'i' >disk.raw"},
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
		make_image("i", images[i].signature, images[i].n, images[i].offset,
			   images[i].bytes);
		for (int readonly = 0; readonly < 2; readonly++) {
			cr_expect_eq(open_image("i", readonly, CONFIG_FORMAT_AUTO, &err), -EINVAL,
				     "%s", images[i].says);
			cr_expect(strstr(err.text, images[i].says) &&
					  strstr(err.text, images[i].line),
				  "%s: %s", images[i].says, err.text);
		}
		unlink("i");
	}
}

Test(open, an_image_that_is_not_raw_is_taken_with_format_raw)
{
	struct err err;

	make_image("i", "QFI\xfb", 4, 0, 196608);
	cr_expect_eq(open_image("i", false, CONFIG_FORMAT_RAW, &err), 0, "%s", err.text);
}

Test(open, what_raw_disks_begin_with_is_raw)
{
	struct err err;

	make_image("mbr", "\x55\xaa", 2, 510, 65536);
	make_image("luks", "LUKS\xba\xbe", 6, 0, 65536);
	make_image("short", "QF", 2, 0, 512);
	cr_expect_eq(open_image("mbr", false, CONFIG_FORMAT_AUTO, &err), 0, "%s", err.text);
	cr_expect_eq(open_image("luks", false, CONFIG_FORMAT_AUTO, &err), 0, "%s", err.text);
	cr_expect_eq(open_image("short", false, CONFIG_FORMAT_AUTO, &err), 0, "%s", err.text);
}

static const struct config_net a_tap = {
	.base.id = (char *)"n", .tap = (char *)"tap0", .create = true, .fd = -1, .queues = 1};

Test(open, a_tap_that_is_made_has_the_nets_mtu)
{
	struct config_net net = a_tap;
	struct err err = ERR_INIT;
	char name[IFNAMSIZ];
	int fds[CONFIG_NET_QUEUES], again[CONFIG_NET_QUEUES];

	if (unshare(CLONE_NEWNET) || access("/dev/net/tun", R_OK | W_OK))
		cr_skip_test("no network namespace of its own, or no /dev/net/tun");
	net.mtu = 9000;
	net.queues = 2;
	cr_assert_eq(open_net(&net, fds, &err), 0, "%s", err.text);
	cr_expect_eq(open_tap_mtu(fds[0], name), 9000u);
	cr_expect_str_eq(name, "tap0");
	/* One that is there is not changed. */
	net.mtu = 1400;
	net.queues = 2;
	cr_assert_eq(open_net(&net, again, &err), 0, "%s", err.text);
	cr_expect_eq(open_tap_mtu(fds[0], name), 9000u);
	for (int i = 0; i < 2; i++) {
		close(fds[i]);
		close(again[i]);
	}
	net.mtu = 65535;
	cr_expect_lt(open_net(&net, fds, &err), 0);
	cr_expect(strstr(err.text, "mtu of 65535"), "%s", err.text);
}

Test(open, a_tap_that_was_made_with_other_queues_is_explained)
{
	struct config_net one = a_tap, two = a_tap;
	int fds[CONFIG_NET_QUEUES], other[CONFIG_NET_QUEUES];
	struct err err = ERR_INIT;

	if (unshare(CLONE_NEWNET) || access("/dev/net/tun", R_OK | W_OK))
		cr_skip_test("no network namespace of its own, or no /dev/net/tun");
	two.queues = 2;
	two.tap = (char *)"tap1";
	cr_assert_eq(open_net(&one, fds, &err), 0, "%s", err.text);
	close(fds[0]);
	cr_assert_eq(open_net(&two, fds, &err), 0, "%s", err.text);
	one.tap = two.tap;
	cr_expect_eq(open_net(&one, other, &err), -EINVAL);
	cr_expect(strstr(err.text, "made with multi_queue") && strstr(err.text, "queues=1"), "%s",
		  err.text);
	close(fds[0]);
	close(fds[1]);
	one.tap = a_tap.tap;
	cr_assert_eq(open_net(&one, fds, &err), 0, "%s", err.text);
	two.tap = a_tap.tap;
	cr_expect_eq(open_net(&two, other, &err), -EINVAL);
	cr_expect(strstr(err.text, "made without multi_queue") && strstr(err.text, "queues=2"),
		  "%s", err.text);
	close(fds[0]);
}

Test(open, the_mtu_of_a_tap_in_another_namespace_is_not_known)
{
	struct err err = ERR_INIT;
	char name[IFNAMSIZ];
	int fds[CONFIG_NET_QUEUES], other[CONFIG_NET_QUEUES];

	if (unshare(CLONE_NEWNET) || access("/dev/net/tun", R_OK | W_OK))
		cr_skip_test("no network namespace of its own, or no /dev/net/tun");
	cr_assert_eq(open_net(&a_tap, fds, &err), 0, "%s", err.text);
	cr_assert_eq(unshare(CLONE_NEWNET), 0);
	cr_expect_eq(open_tap_mtu(fds[0], name), 0u);
	cr_assert_eq(open_net(&a_tap, other, &err), 0, "%s", err.text);
	cr_expect_eq(open_tap_mtu(fds[0], name), 0u, "another one of that name");
}

Test(open, a_net_by_number_is_a_tap_or_a_socket_that_is_connected)
{
	struct config_net net = {.base.id = (char *)"n", .fd = -1, .queues = 1};
	struct err err = ERR_INIT;
	int pair[2], alone = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	net.fd = pair[0];
	cr_assert_eq(open_net(&net, &fd, &err), 0, "%s", err.text);
	cr_expect(open_net_is_socket(fd));
	close(fd);
	net.fd = alone;
	cr_expect_eq(open_net(&net, &fd, &err), -EINVAL);
	cr_expect(strstr(err.text, "no stream that is connected to passt"), "%s", err.text);
	net.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	cr_expect_eq(open_net(&net, &fd, &err), -EINVAL);
	cr_expect(strstr(err.text, "is no tap, and no socket"), "%s", err.text);
	close(net.fd);
	close(alone);
	close(pair[0]);
	close(pair[1]);
}

Test(open, output_is_not_written_through_a_link)
{
	struct err err = ERR_INIT;

	make("precious", "text");
	cr_assert_eq(symlink("precious", "symbolic"), 0);
	cr_assert_eq(open_output("console", "c", "symbolic", &err), -ELOOP);
	cr_assert(strstr(err.text, "symbolic link"), "%s", err.text);
	cr_assert_eq(link("precious", "hard"), 0);
	cr_assert_eq(open_output("console", "c", "hard", &err), -EMLINK);
	cr_assert_eq(size_of("precious"), 4);
}

Test(open, output_goes_to_a_file_of_this_user_alone)
{
	struct err err = ERR_INIT;
	struct stat st;
	int fd;

	umask(0);
	fd = open_output("console", "c", "new", &err);
	cr_assert_geq(fd, 0, "%s", err.text);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	close(fd);
}

Test(open, output_begins_with_an_empty_file)
{
	struct err err = ERR_INIT;
	int fd;

	make("old", "text");
	fd = open_output("console", "c", "old", &err);
	cr_assert_geq(fd, 0, "%s", err.text);
	cr_assert_eq(size_of("old"), 0);
	close(fd);
}

Test(open, output_to_a_pipe_without_a_reader_is_refused_without_waiting)
{
	struct err err = ERR_INIT;

	cr_assert_eq(mkfifo("fifo", 0600), 0);
	cr_assert_eq(open_output("console", "c", "fifo", &err), -ENXIO);
	cr_assert(strstr(err.text, "nobody reads"), "%s", err.text);
}

static unsigned int open_fds(void)
{
	DIR *fds = opendir("/proc/self/fd");
	unsigned int n = 0;

	cr_assert(fds);
	while (readdir(fds))
		n++;
	closedir(fds);
	return n;
}

Test(open, a_console_has_duplicates_of_the_documents_fds)
{
	struct vm_device *d = calloc(1, kind_console.bytes);
	struct config_console config = {.base.id = (char *)"c", .in = 0, .out = 1};
	struct err err = ERR_INIT;
	unsigned int before = open_fds();

	cr_assert(d);
	d->kind = &kind_console;
	d->config = &config.base;
	cr_assert_eq(kind_console.open(d, &err), 0, "%s", err.text);
	cr_assert_eq(open_fds(), before + 2);
	kind_console.close(d);
	cr_assert_eq(open_fds(), before);
	config.in = 1000;
	cr_assert_eq(kind_console.open(d, &err), -EBADF);
	cr_assert(strstr(err.text, "in: fd 1000"), "%s", err.text);
	kind_console.close(d);
	free(d);
}
