// SPDX-License-Identifier: Apache-2.0
// What bad input gets: one line that names the thing and says what is wrong with it, and nothing
// left behind. How the command shows that line is tests/host/machine/30-input.sh.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "rig.h"
#include "stub_kvm.h"
#include "synth.h"

static struct rig rig;
/* Beside the rig's own files. */
static const char *const extra[] = {"empty", "cut",       "cut-later", "text",
				    "arm64", "unmovable", "big",       "odd"};

static void add_file(const char *name, const void *data, size_t used, size_t bytes)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig.dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, data, used), (ssize_t)used);
	cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static void set_up(void)
{
	cleanup_blob struct blob kernel = synth_bzimage(&(struct synth){.lists = 2}, NULL);
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	char arm64[60] = {0};

	memcpy(&arm64[56], "ARM\x64", 4);
	rig_init(&rig, true);
	add_file("empty", "", 0, 0);
	add_file("cut", kernel.data, 600, 600);
	add_file("cut-later", kernel.data, kernel.len - 1000, kernel.len - 1000);
	add_file("text", "not a kernel\n", 13, 100000);
	add_file("arm64", arm64, sizeof(arm64), 100000);
	add_file("unmovable", elf.data, elf.len, elf.len);
	add_file("big", "", 0, GiB);
	add_file("odd", "", 0, 1000);
}

static void tear_down(void)
{
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(extra); i++) {
		snprintf(path, sizeof(path), "%s/%s", rig.dir, extra[i]);
		unlink(path);
	}
	rig_done(&rig);
}

TestSuite(refusals, .init = set_up, .fini = tear_down);

struct refusal {
	const char *what;
	const char *document; /* its members; memory is 32M unless they say */
	const char *says;     /* a regular expression */
};

static void refused(const struct refusal *r)
{
	unsigned int fds = rig_fds();
	struct hospes_error error;
	struct hospes_vm *vm;
	char document[1024];
	regex_t regex;
	int rc;

	snprintf(document, sizeof(document), "{%s%s}",
		 strstr(r->document, "\"memory\"") ? "" : "\"memory\": {\"size\": \"32M\"}, ",
		 r->document);
	cr_assert_eq(regcomp(&regex, r->says, REG_EXTENDED | REG_NOSUB), 0);
	rc = rig_try(&rig, &vm, document, 0, &error);
	cr_expect_lt(rc, 0, "%s", r->what);
	cr_expect_eq(rc, error.code, "%s", r->what);
	cr_expect_null(vm, "%s", r->what);
	cr_expect_eq(regexec(&regex, error.text, 0, NULL, 0), 0, "%s: '%s'", r->what, error.text);
	cr_expect_null(strchr(error.text, '\n'), "%s: more than a line", r->what);
	cr_expect_eq(rig_fds(), fds, "%s: open files", r->what);
	cr_expect_eq(stub_kvm_totals().vms, 0u, "%s: a VM is left", r->what);
	regfree(&regex);
}

static void all_refused(const struct refusal *r, size_t n)
{
	for (size_t i = 0; i < n; i++)
		refused(&r[i]);
}

#define KERNEL(path) "\"kernel\": {\"path\": \"" path "\", \"cache\": false}"
#define GOOD         KERNEL("{dir}/kernel")

Test(refusals, kernels_that_are_none)
{
	static const struct refusal r[] = {
		{"no kernel at all", "\"name\": \"x\"", "no kernel"},
		{"no such kernel", KERNEL("{dir}/nokernel"), "nokernel': No such file"},
		{"a directory", KERNEL("{dir}"), "is a directory"},
		{"an empty file", KERNEL("{dir}/empty"), "empty'.*is empty|empty': .*empty"},
		{"cut in its header", KERNEL("{dir}/cut"),
		 "cut': .*(short|cut|ends|truncated|Linux kernel)"},
		{"cut in its payload", KERNEL("{dir}/cut-later"),
		 "cut-later': .*(short|cut|ends|truncated|payload)"},
		{"a text", KERNEL("{dir}/text"),
		 "text': not a kernel image: .*give a bzImage or a vmlinux"},
		{"a program", KERNEL("/proc/self/exe"), "is this a Linux kernel"},
		{"for arm64", KERNEL("{dir}/arm64"), "arm64': .*(arm64|aarch64|ARM)"},
		{"no such initrd",
		 "\"kernel\": {\"path\": \"{dir}/kernel\", \"initrd\": \"{dir}/noinitrd\"}",
		 "noinitrd': No such file"},
		{"an initrd larger than memory",
		 "\"kernel\": {\"path\": \"{dir}/kernel\", \"initrd\": \"{dir}/big\", \"cache\": false}",
		 "initrd"},
		{"randomised though it cannot be",
		 "\"kernel\": {\"path\": \"{dir}/unmovable\", \"kaslr\": \"on\", \"cache\": false}",
		 "relocations|nokaslr|randomis"},
	};

	all_refused(r, ARRAY_SIZE(r));
}

Test(refusals, disks_and_networks_that_cannot_be)
{
	static const struct refusal r[] = {
		{"no such disk", GOOD ", \"disks\": [{\"path\": \"{dir}/nodisk\"}]",
		 "'disk0'.*nodisk.*No such file"},
		{"a directory", GOOD ", \"disks\": [{\"path\": \"{dir}\"}]", "directory"},
		{"an odd size", GOOD ", \"disks\": [{\"path\": \"{dir}/odd\"}]",
		 "not a multiple of 512"},
		{"empty", GOOD ", \"disks\": [{\"path\": \"{dir}/empty\"}]", "is empty"},
		{"twice",
		 GOOD ", \"disks\": [{\"path\": \"{dir}/disk\"}, {\"path\": \"{dir}/disk\"}]",
		 "in use"},
		{"one id twice",
		 GOOD ", \"disks\": [{\"path\": \"{dir}/disk\", \"id\": \"a\"}],"
		      " \"nets\": [{\"socket\": \"{dir}/passt.sock\", \"id\": \"a\"}]",
		 "two devices have the id"},
		{"one address twice",
		 GOOD ", \"disks\": [{\"path\": \"{dir}/disk\", \"addr\": \"5.0\"}],"
		      " \"nets\": [{\"socket\": \"{dir}/passt.sock\", \"addr\": \"5.0\"}]",
		 "taken by"},
		{"no such socket", GOOD ", \"nets\": [{\"socket\": \"{dir}/nosocket\"}]", "passt"},
		{"a closed descriptor", GOOD ", \"disks\": [{\"fd\": 1000}]", "1000"},
		{"a network that is none", GOOD ", \"nets\": [{\"fd\": 0}]", "fd 0"},
		{"a keeper that is none",
		 GOOD ", \"disks\": [{\"vhost_user_fd\": 0, \"keeper_fd\": 0}]",
		 "keeper_fd 0 is no UNIX socket"},
		/* What the command does for those who use it. */
		{"a folder", GOOD ", \"shares\": [{\"path\": \"{dir}\", \"tag\": \"t\"}]",
		 "start virtiofsd and give vhost_user"},
		{"an image",
		 GOOD ", \"disks\": [{\"path\": \"{dir}/disk\", \"format\": \"qcow2\"}]",
		 "start qemu-storage-daemon and give vhost_user"},
		{"a seed", GOOD ", \"cloud_init\": {\"user\": \"ann\"}", "give a disk"},
	};

	all_refused(r, ARRAY_SIZE(r));
}

Test(refusals, a_number_that_a_file_of_the_librarys_would_get)
{
	int next = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	char document[256];
	const struct refusal r = {"a console", document, "consoles.0..in: fd .* is not open"};

	cr_assert_geq(next, 3);
	close(next);
	snprintf(document, sizeof(document),
		 GOOD ", \"consoles\": [{\"type\": \"serial\", \"in\": %d}]", next);
	refused(&r);
}

Test(refusals, shapes_that_no_host_has)
{
	static const struct refusal r[] = {
		{"no CPUs", GOOD ", \"cpus\": {\"count\": 0}", "0 is not within"},
		{"too many CPUs", GOOD ", \"cpus\": {\"count\": 256}", "256 is not within"},
		{"CPUs in words", GOOD ", \"cpus\": {\"count\": \"many\"}", "not a whole number"},
		{"a pin to a CPU that is not there",
		 GOOD ", \"cpus\": {\"count\": 1, \"pin\": [1000]}", "CPU 1000|1000 is not"},
		{"a topology that does not multiply",
		 GOOD ", \"cpus\": {\"count\": 4, \"sockets\": 3, \"cores\": 1, \"threads\": 1}",
		 "4"},
		{"a NUMA node that is not there",
		 "\"memory\": {\"size\": \"32M\", \"numa_node\": 1000}, " GOOD, "1000"},
		{"no memory", "\"memory\": {\"size\": 0}, " GOOD, "32M"},
		{"an odd size", "\"memory\": {\"size\": 67108865}, " GOOD, "multiple of 2M"},
		{"more than there is", "\"memory\": {\"size\": \"16T\"}, " GOOD, "this host|fit"},
	};

	all_refused(r, ARRAY_SIZE(r));
}
