// SPDX-License-Identifier: Apache-2.0
// The configuration document: what it accepts, what it completes, what it refuses and in which
// words.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "iommu/ioas.h"
#include "machine/kind_console.h"
#include "machine/kind_disk.h"
#include "machine/kind_net.h"
#include "machine/kind_passthrough.h"
#include "machine/kind_rng.h"
#include "virtio/iommu.h"

static int read_text(struct config *config, const char *text, struct err *err)
{
	*err = (struct err)ERR_INIT;
	return config_read(config, text, strlen(text), err);
}

/* The document is refused with this errno, and the message holds all words. */
static void refused(const char *text, int code, const char *words)
{
	struct config config;
	struct err err;
	int rc = read_text(&config, text, &err);

	config_done(&config);
	cr_assert_eq(rc, code, "%s: %d, not %d (%s)", text, rc, code, err.text);
	cr_assert(strstr(err.text, words), "%s: \"%s\" lacks \"%s\"", text, err.text, words);
	cr_assert(!strchr(err.text, '\n'));
}

/* Number i of its kind. */
static struct config_device *nth(const struct config *c, const struct device_kind *kind,
				 unsigned int i)
{
	struct config_device *d = config_next(c, NULL, kind);

	while (d && i--)
		d = config_next(c, d, kind);
	cr_assert(d);
	return d;
}

static struct config_net *net(const struct config *c, unsigned int i)
{
	return container_of(nth(c, &kind_net, i), struct config_net, base);
}

static struct config_passthrough *passthrough(const struct config *c, unsigned int i)
{
	return container_of(nth(c, &kind_passthrough, i), struct config_passthrough, base);
}

#define K "\"kernel\": {\"path\": \"k\"}"

Test(config, defaults_are_filled_in)
{
	struct config c;
	struct err err;

	cr_assert_eq(read_text(&c, "{" K "}", &err), 0, "%s", err.text);
	cr_assert_eq(c.cpus.count, 1);
	cr_assert_eq(c.memory.size_bytes, 256 * MiB);
	cr_assert_eq(c.memory.numa_node, -1);
	cr_assert(c.uuid.set);
	cr_assert(nth(&c, &kind_rng, 0)->addr.set);
	cr_assert_str_eq(c.kernel.cmdline, "console=ttyS0");
	config_done(&c);
}

Test(config, the_effective_document_reads_back_to_itself)
{
	const char *text =
		"{\"name\": \"a\", " K
		", \"cpus\": {\"count\": 4, \"threads\": 2, \"pin\": \"0-1,5+7\"},"
		"\"memory\": {\"size\": \"1G\", \"backing\": \"memfd\", \"prefault\": \"on\"},"
		"\"disks\": [{\"path\": \"d\", \"readonly\": true}, {\"fd\": 7, \"addr\": \"05.0\"}],"
		"\"nets\": [{\"tap\": \"t0\", \"mac\": \"02:00:00:00:00:01\", \"mtu\": 9000}],"
		"\"consoles\": [{\"type\": \"virtio\", \"path\": \"log\"}], \"on_reset\": \"stop\"}";
	struct config c;
	struct err err;
	char *first;
	char *second;

	cr_assert_eq(read_text(&c, text, &err), 0, "%s", err.text);
	cr_assert_eq(c.cpus.cores, 2);
	cr_assert_eq(c.cpus.pin.cpu[3], 7);
	cr_assert_eq(nth(&c, &kind_disk, 1)->addr.addr.slot, 5);
	first = config_write(&c, true);
	config_done(&c);
	cr_assert_eq(read_text(&c, first, &err), 0, "%s", err.text);
	second = config_write(&c, true);
	config_done(&c);
	cr_assert_str_eq(first, second);
	free(first);
	free(second);
}

Test(config, addresses_do_not_depend_on_what_comes_later)
{
	struct config a;
	struct config b;
	struct err err;

	cr_assert_eq(read_text(&a, "{" K ", \"disks\": [{\"path\": \"d\"}]}", &err), 0);
	cr_assert_eq(
		read_text(&b, "{" K ", \"disks\": [{\"path\": \"d\"}, {\"path\": \"e\"}]}", &err),
		0);
	cr_assert_eq(nth(&a, &kind_disk, 0)->addr.addr.slot,
		     nth(&b, &kind_disk, 0)->addr.addr.slot);
	cr_assert_neq(nth(&b, &kind_disk, 0)->addr.addr.slot,
		      nth(&b, &kind_disk, 1)->addr.addr.slot);
	config_done(&a);
	config_done(&b);
}

Test(config, a_mac_is_stable_per_name)
{
	const char *text =
		"{\"name\": \"web\", " K ", \"nets\": [{\"tap\": \"t\"}, {\"tap\": \"u\"}]}";
	struct config a;
	struct config b;
	struct err err;

	cr_assert_eq(read_text(&a, text, &err), 0);
	cr_assert_eq(read_text(&b, text, &err), 0);
	cr_assert_arr_eq(net(&a, 0)->mac.byte, net(&b, 0)->mac.byte, 6);
	cr_assert_neq(memcmp(net(&a, 0)->mac.byte, net(&a, 1)->mac.byte, 6), 0);
	cr_assert_eq(net(&a, 0)->mac.byte[0] & 3, 2, "locally administered, not multicast");
	config_done(&a);
	config_done(&b);
}

Test(config, syntax_errors_name_line_and_column)
{
	refused("{\n \"memory\": {\"size\": 1,},\n}", -EINVAL, "line 2, column 23");
	refused("", -EINVAL, "line 1");
	refused("{" K ", " K "}", -EINVAL, "duplicate");
}

Test(config, unknown_keys_name_the_nearest)
{
	refused("{\"memroy\": {}}", -EINVAL, "did you mean 'memory'");
	refused("{" K ", \"disks\": [{\"pth\": \"x\"}]}", -EINVAL,
		"disks[0]: unknown key 'pth'; did you mean 'path'?");
	refused("{" K ", \"cpus\": {\"flavour\": 1}}", -EINVAL, "has: count, max, sockets");
}

Test(config, cpus_that_may_come_are_part_of_the_shape)
{
	struct config c;
	struct err err;

	cr_assert_eq(read_text(&c, "{" K ", \"cpus\": {\"count\": 3}}", &err), 0);
	cr_expect_eq(c.cpus.max, 3u, "none by default");
	config_done(&c);
	cr_assert_eq(read_text(&c,
			       "{" K ", \"cpus\": {\"count\": 3, \"max\": 12, \"threads\": 2,"
			       " \"sockets\": 2, \"pin\": \"0-11\"}}",
			       &err),
		     0, "%s", err.text);
	cr_expect_eq(c.cpus.count, 3u);
	cr_expect_eq(c.cpus.max, 12u);
	cr_expect_eq(c.cpus.cores, 3u);
	config_done(&c);
	refused("{" K ", \"cpus\": {\"count\": 3, \"max\": 2}}", -EINVAL, "less than count 3");
	refused("{" K ", \"cpus\": {\"max\": 256}}", -ERANGE, "cpus.max: 256");
	refused("{" K ", \"cpus\": {\"max\": 4, \"sockets\": 3}}", -EINVAL, "not max 4");
	refused("{" K ", \"cpus\": {\"max\": 4, \"pin\": \"0\"}}", -EINVAL, "for 4 vCPUs");
}

Test(config, memory_that_may_come_is_in_whole_units)
{
	struct config c;
	struct err err;

	cr_assert_eq(read_text(&c, "{" K ", \"memory\": {\"size\": \"96M\"}}", &err), 0);
	cr_expect_eq(c.memory.max_bytes, 96 * MiB, "none by default");
	config_done(&c);
	cr_assert_eq(
		read_text(&c, "{" K ", \"memory\": {\"size\": \"96M\", \"max\": \"224M\"}}", &err),
		0, "%s", err.text);
	cr_expect_eq(c.memory.max_bytes, 224 * MiB);
	cr_expect_eq(config_memory_unit(&c.memory), 128 * MiB);
	config_done(&c);
	refused("{" K ", \"memory\": {\"size\": \"96M\", \"max\": \"64M\"}}", -EINVAL,
		"memory.max: 64M is less than size 96M; give at least that");
	refused("{" K ", \"memory\": {\"size\": \"96M\", \"max\": \"225M\"}}", -EINVAL,
		"in units of 128M; the nearest are 224M and 352M");
	refused("{" K ", \"memory\": {\"size\": \"96M\", \"max\": \"2097248M\"}}", -ENOMEM,
		"memory.max: 2097248M, but this host has");
	refused("{" K ", \"memory\": {\"size\": \"96M\", \"max\": \"224M\","
		" \"backing\": \"hugetlb-2M\"}}",
		-EINVAL, "memory.backing is hugetlb-2M: this host reserves such pages");
}

Test(config, units_of_memory_are_few_and_such_as_the_guest_takes)
{
	static const struct {
		uint64_t size, max, unit;
	} shapes[] = {
		{256 * MiB, 2 * GiB, 128 * MiB}, {256 * MiB, 4352 * MiB, 128 * MiB},
		{GiB, 65 * GiB, 2 * GiB},        {64 * GiB, 66 * GiB, 2 * GiB},
		{64 * GiB, 64 * TiB, 2 * TiB},   {32 * MiB, 32 * MiB, 128 * MiB},
	};

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct config_memory memory = {.size_bytes = shapes[i].size,
						     .max_bytes = shapes[i].max};
		uint64_t unit = config_memory_unit(&memory);

		cr_expect_eq(unit, shapes[i].unit, "%zu: %llu M", i,
			     (unsigned long long)(unit / MiB));
		cr_expect_leq((shapes[i].max - shapes[i].size + unit - 1) / unit,
			      CONFIG_MEMORY_UNITS);
	}
}

Test(config, cpus_out_of_bounds_are_refused)
{
	refused("{" K ", \"cpus\": {\"count\": 0}}", -ERANGE, "cpus.count: 0");
	refused("{" K ", \"cpus\": {\"count\": 256}}", -ERANGE, "1 to 255");
	refused("{" K ", \"cpus\": {\"count\": \"many\"}}", -EINVAL, "many");
	refused("{" K ", \"cpus\": {\"count\": 4, \"sockets\": 3}}", -EINVAL, "3 sockets");
	refused("{" K ", \"cpus\": {\"count\": 2, \"pin\": \"0\"}}", -EINVAL, "2 vCPUs");
	refused("{" K ", \"cpus\": {\"count\": 2, \"pin\": \"0-x\"}}", -EINVAL, "\"0-3\"");
	refused("{" K ", \"cpus\": {\"count\": 2, \"pin\": \"0-4000000000\"}}", -ERANGE,
		"cpus.pin");
}

Test(config, memory_out_of_bounds_is_refused)
{
	refused("{" K ", \"memory\": {\"size\": 0}}", -EINVAL, "32M");
	refused("{" K ", \"memory\": {\"size\": 67108865}}", -EINVAL, "multiple of 2M, e.g. 66M");
	refused("{" K ", \"memory\": {\"size\": \"32T\"}}", -ENOMEM, "this host has");
	refused("{" K ", \"memory\": {\"size\": \"12 parsecs\"}}", -EINVAL, "12 parsecs");
	refused("{" K ", \"memory\": {\"size\": \"99999999999999999999G\"}}", -ERANGE,
		"memory.size");
	refused("{" K ", \"memory\": {\"size\": \"64M\", \"backing\": \"paper\"}}", -EINVAL,
		"auto, anonymous, memfd");
	refused("{" K ", \"memory\": {\"size\": \"64M\", \"backing\": \"hugetlb-2M\"},"
		" \"balloon\": {\"enabled\": true}}",
		-EINVAL, "hugetlb-2M: this host reserves such pages");
	refused("{" K ", \"balloon\": {\"enabled\": true, \"granule\": \"768K\"}}", -EINVAL,
		"granule 786432 is not a power of two; 256K, 512K, 1M or 2M");
	refused("{" K ", \"balloon\": {\"enabled\": true, \"granule\": \"128K\"}}", -ERANGE,
		"balloon.granule");
	refused("{" K ", \"memory\": {\"size\": \"1536M\", \"backing\": \"hugetlb-1G\"}}", -EINVAL,
		"1G");
}

Test(config, two_devices_cannot_share_id_or_address)
{
	refused("{" K ", \"disks\": [{\"id\": \"a\", \"path\": \"x\"}], \"nets\": [{\"id\": \"a\", "
		"\"tap\": \"t\"}]}",
		-EEXIST, "two devices have the id 'a'");
	refused("{" K
		", \"disks\": [{\"path\": \"x\", \"addr\": \"3.0\"}, {\"path\": \"y\", \"addr\": "
		"\"03.0\"}]}",
		-EEXIST, "taken by 'disk0'");
	refused("{" K ", \"disks\": [{\"path\": \"x\", \"addr\": \"0.3\"}]}", -EINVAL,
		"host bridge's alone");
	refused("{" K ", \"disks\": [{\"path\": \"x\", \"addr\": \"0.0\"}]}", -EEXIST,
		"host bridge");
	refused("{" K ", \"disks\": [{\"path\": \"x\", \"addr\": \"3.1\"}]}", -EINVAL,
		"function 0");
	refused("{" K
		", \"nets\": [{\"tap\": \"t\", \"mac\": \"02:00:00:00:00:01\"}, {\"tap\": \"u\", "
		"\"mac\": \"02:00:00:00:00:01\"}]}",
		-EEXIST, "same mac");
}

Test(config, values_of_the_wrong_form_show_the_right_one)
{
	refused("{}", -EINVAL, "--kernel");
	refused("[]", -EINVAL, "must be an object");
	refused("{" K ", \"firmware\": \"f\"}", -EINVAL, "firmware 'f' and kernel.path: ");
	refused("{\"firmware\": \"f\", \"kernel\": {\"initrd\": \"i\"}}", -EINVAL,
		"and kernel.initrd: ");
	refused("{\"firmware\": \"f\", \"kernel\": {\"cmdline\": \"quiet\"}}", -EINVAL,
		"the kernel's options that are there");
	refused("{\"firmware\": \"f\", \"kernel\": {\"kaslr\": \"on\"}}", -EINVAL,
		"kernel.kaslr=on");
	refused("{\"firmware\": \"f\", \"pci\": {\"config_ports\": \"off\"}}", -EINVAL,
		"pci.config_ports=off takes away");
	refused("{\"firmware\": \"\"}", -EINVAL, "firmware: is empty");
	refused("{" K ", \"uuid\": \"1234\"}", -EINVAL, "UUID like");
	refused("{" K ", \"nets\": [{\"tap\": \"t\", \"mac\": \"01:00:00:00:00:01\"}]}", -EINVAL,
		"multicast");
	refused("{" K ", \"nets\": [{\"tap\": \"t\", \"mac\": \"2:0:0:0:0:1\"}]}", -EINVAL,
		"52:54:00:12:34:56");
	refused("{" K ", \"nets\": [{\"tap\": \"a-name-that-is-too-long\"}]}", -EINVAL,
		"interface name");
	refused("{" K ", \"nets\": [{}]}", -EINVAL, "one of tap, fd, socket");
	refused("{" K ", \"disks\": [{}]}", -EINVAL, "either path or fd");
	refused("{" K ", \"disks\": [{\"path\": \"x\", \"queue_size\": 100}]}", -EINVAL,
		"power of two");
	refused("{" K ", \"disks\": {}}", -EINVAL, "list of objects");
	refused("{" K ", \"consoles\": [{\"type\": \"serial\"}, {\"type\": \"serial\"}]}", -EINVAL,
		"type virtio");
	refused("{" K ", \"rng\": {\"enabled\": 1}}", -EINVAL, "true or false");
}

#define DAEMON "\"vhost_user\": \"/run/d.sock\""

Test(config, a_daemon_decides_what_is_its_own)
{
	struct config c;
	struct err err = ERR_INIT;
	const char *good = "{" K ", \"disks\": [{" DAEMON ", \"queues\": 2, \"readonly\": true}], "
			   "\"nets\": [{\"vhost_user_fd\": 7, \"keeper_fd\": 8}], "
			   "\"shares\": [{" DAEMON ", \"tag\": \"src\"}, "
			   "{\"path\": \"/src\", \"readonly\": true, \"tag\": \"more\"}]}";

	cr_assert_eq(config_read(&c, good, strlen(good), &err), 0, "%s", err.text);
	cr_assert(config_shares_memory(&c));
	config_done(&c);
	refused("{" K ", \"disks\": [{" DAEMON ", \"path\": \"x\"}]}", -EINVAL, "path and fd");
	refused("{" K ", \"disks\": [{" DAEMON ", \"cache\": \"direct\"}]}", -EINVAL,
		"leave out cache");
	refused("{" K ", \"disks\": [{" DAEMON ", \"serial\": \"x\"}]}", -EINVAL,
		"leave out serial");
	refused("{" K ", \"disks\": [{" DAEMON ", \"ops_per_s\": 9}]}", -EINVAL, "vhost_user");
	refused("{" K ", \"disks\": [{" DAEMON ", \"vhost_user_fd\": 5}]}", -EINVAL, "either");
	refused("{" K ", \"nets\": [{" DAEMON ", \"tap\": \"t\"}]}", -EINVAL, "one of tap");
	refused("{" K ", \"nets\": [{" DAEMON ", \"queues\": 2}]}", -EINVAL, "leave out queues");
	refused("{" K ", \"shares\": [{\"tag\": \"a\"}]}", -EINVAL, "virtiofsd");
	refused("{" K ", \"shares\": [{" DAEMON ", \"tag\": \"a\", \"path\": \"/src\"}]}", -EINVAL,
		"leave out path");
	refused("{" K ", \"shares\": [{" DAEMON ", \"tag\": \"a\", \"readonly\": true}]}", -EINVAL,
		"leave out readonly");
	refused("{" K ", \"disks\": [{" DAEMON ", \"keeper_fd\": 5}]}", -EINVAL, "vhost_user_fd");
	refused("{" K ", \"disks\": [{" DAEMON ", \"format\": \"qcow2\"}]}", -EINVAL,
		"leave out format");
	refused("{" K ", \"disks\": [{\"path\": \"x\", \"format\": \"raw\", \"backing\": \"y\"}]}",
		-EINVAL, "qcow2 image");
	refused("{" K ", \"shares\": [{" DAEMON "}]}", -EINVAL, "mount -t");
	refused("{" K ", \"shares\": [{" DAEMON
		", \"tag\": \"0123456789012345678901234567890123456\"}]}",
		-EINVAL, "36 bytes");
	refused("{" K ", \"shares\": [{" DAEMON ", \"tag\": \"a\"}, {" DAEMON ", \"tag\": \"a\"}]}",
		-EEXIST, "same tag");
	refused("{" K ", \"viommu\": {\"enabled\": true}, \"disks\": [{" DAEMON
		", \"viommu\": true}]}",
		-EINVAL, "ACCESS_PLATFORM");
	refused("{" K ", \"memory\": {\"backing\": \"anonymous\"}, \"disks\": [{" DAEMON "}]}",
		-EINVAL, "shares guest memory");
}

Test(config, a_passed_through_device_has_a_root_port_of_its_own)
{
	const char *text = "{" K ", \"disks\": [{\"path\": \"d\"}], \"passthrough\": ["
			   "{\"device\": \"0000:01:10.0\"},"
			   "{\"device\": \"01:10.2\", \"addr\": \"04.0\", \"on_error\": \"stop\"},"
			   "{\"fd\": 7, \"iommufd\": 8, \"ioas\": \"both\", \"port\": \"9.0\"}]}";
	struct config c;
	struct err err;

	cr_assert_eq(read_text(&c, text, &err), 0, "%s", err.text);
	cr_assert(!passthrough(&c, 0)->base.addr.set);
	cr_assert(passthrough(&c, 0)->port.set);
	cr_assert_neq(passthrough(&c, 0)->port.addr.slot, nth(&c, &kind_disk, 0)->addr.addr.slot);
	cr_assert_str_eq(passthrough(&c, 0)->strategy, "direct");
	cr_assert_str_eq(passthrough(&c, 0)->base.id, "passthrough0");
	cr_assert(!passthrough(&c, 1)->port.set);
	cr_assert_eq(passthrough(&c, 1)->on_error, VFIO_ON_ERROR_STOP);
	cr_assert_eq(passthrough(&c, 2)->port.addr.slot, 9);
	cr_assert_eq(c.iommu.fd, 8, "one iommufd serves the machine");
	cr_assert_eq(c.iommu.backend, IOMMU_AUTO);
	config_done(&c);
}

Test(config, the_effective_document_keeps_devices_where_they_are)
{
	const char *text = "{" K ", \"passthrough\": [{\"fd\": 7, \"iommufd\": 8},"
			   "{\"device\": \"01:10.2\"}], \"iommu\": {\"backend\": \"iommufd\"}}";
	struct config c, again;
	struct err err;
	char *first, *second;

	cr_assert_eq(read_text(&c, text, &err), 0, "%s", err.text);
	first = config_write(&c, true);
	cr_assert_eq(read_text(&again, first, &err), 0, "%s", err.text);
	second = config_write(&again, true);
	cr_assert_str_eq(first, second);
	cr_assert(!passthrough(&again, 1)->base.addr.set && passthrough(&again, 1)->port.set);
	cr_assert_eq(again.iommu.fd, 8);
	free(first);
	free(second);
	config_done(&c);
	config_done(&again);
}

Test(config, a_disk_brings_an_io_thread_unless_the_document_says_otherwise)
{
	static const struct {
		const char *text;
		uint32_t threads;
	} cases[] = {
		{"{" K "}", 0},
		{"{" K ", \"disks\": [{\"path\": \"d\"}]}", 1},
		{"{" K ", \"io_threads\": 0, \"disks\": [{\"path\": \"d\"}]}", 0},
		{"{" K ", \"io_threads\": 3, \"disks\": [{\"path\": \"d\"}]}", 3},
	};
	struct config c;
	struct err err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(read_text(&c, cases[i].text, &err), 0, "%s", err.text);
		cr_expect_eq(c.io_threads, cases[i].threads, "case %zu: %u", i, c.io_threads);
		config_done(&c);
	}
}

Test(config, what_is_behind_the_guests_iommu)
{
	const char *text = "{" K ", \"viommu\": {\"enabled\": true}, \"disks\": ["
			   "{\"path\": \"d\"}, {\"path\": \"e\", \"viommu\": true}],"
			   "\"passthrough\": [{\"device\": \"a\"},"
			   "{\"device\": \"b\", \"viommu\": true},"
			   "{\"device\": \"c\", \"strategy\": \"strict\"},"
			   "{\"device\": \"d\", \"viommu\": true, \"strategy\": \"direct\"}]}";
	struct config c;
	struct err err;

	cr_assert_eq(read_text(&c, text, &err), 0, "%s", err.text);
	cr_assert_str_eq(passthrough(&c, 3)->strategy, "direct", "each has its own");
	cr_assert(c.viommu.bypass && c.viommu.addr.set);
	cr_assert_eq(c.viommu.transport, VIRTIO_IOMMU_EXIT);
	cr_assert_eq(c.viommu.poll_us, CONFIG_VIOMMU_POLL_US);
	cr_assert(!nth(&c, &kind_disk, 0)->viommu && nth(&c, &kind_disk, 1)->viommu);
	cr_assert_eq(c.io_threads, 1, "its queues are not the machine's thread's");
	cr_assert(!passthrough(&c, 0)->base.viommu);
	cr_assert_str_eq(passthrough(&c, 0)->strategy, "direct");
	cr_assert_str_eq(passthrough(&c, 1)->strategy, "strict");
	cr_assert(passthrough(&c, 2)->base.viommu);
	config_done(&c);
}

Test(config, what_cannot_be_behind_the_guests_iommu_is_refused)
{
#define V(text) "{" K ", \"viommu\": {\"enabled\": true}, " text "}"
	refused("{" K ", \"disks\": [{\"path\": \"d\", \"viommu\": true}]}", -EINVAL,
		"--viommu on");
	refused("{" K ", \"passthrough\": [{\"device\": \"a\", \"strategy\": \"strict\"}]}",
		-EINVAL, "--viommu on");
	refused(V("\"nets\": [{\"tap\": \"t\", \"vhost\": true, \"viommu\": true}]"), -EINVAL,
		"vhost");
	refused(V("\"nets\": [{\"fd\": 5, \"vhost_fd\": 6}]"), -EINVAL, "vhost=on");
	refused(V("\"nets\": [{\"tap\": \"t\", \"queues\": 2, \"vhost\": true, \"vhost_fd\": 6}]"),
		-EINVAL, "one queue");
	refused(V("\"passthrough\": [{\"device\": \"a\", \"viommu\": true, \"ioas\": \"x\"}]"),
		-EINVAL, "ioas");
	refused(V("\"iommu\": {\"backend\": \"type1\"}, "
		  "\"passthrough\": [{\"device\": \"a\", \"viommu\": true}]"),
		-EINVAL, "type1");
#undef V
}

Test(config, passthrough_that_cannot_be_is_refused)
{
#define P(text) "{" K ", \"passthrough\": [" text "]}"
	refused(P("{}"), -EINVAL, "device");
	refused(P("{\"device\": \"\"}"), -EINVAL, "empty");
	refused(P("{\"device\": \"a\", \"strategy\": \"dircet\"}"), -EINVAL, "direct");
	refused(P("{\"device\": \"a\", \"on_error\": \"panic\"}"), -EINVAL, "on_error");
	refused(P("{\"device\": \"a\", \"addr\": \"4.0\", \"port\": \"5.0\"}"), -EINVAL, "addr");
	refused(P("{\"device\": \"a\"}, {\"device\": \"a\"}"), -EEXIST, "both a");
	refused(P("{\"fd\": 5, \"iommufd\": 6}, {\"fd\": 7, \"iommufd\": 8}"), -EINVAL,
		"one serves all");
	refused(P("{\"device\": \"a\", \"devcie\": \"a\"}"), -EINVAL, "device");
	refused("{" K ", \"iommu\": {\"backend\": \"type1\", \"fd\": 4}}", -EINVAL, "type1");
	refused("{" K ", \"iommu\": {\"backend\": \"vfio\"}}", -EINVAL, "iommufd");
#undef P
}

/* --- one device, against those that are there --- */

static struct config_device *one(const struct device_kind *kind, const char *text)
{
	struct config_device *device;
	struct err err = ERR_INIT;
	json_t *json = json_loads(text, 0, NULL);

	cr_assert_eq(config_device_read(kind, json, "device", &device, &err), 0, "%s", err.text);
	json_decref(json);
	return device;
}

/* The document of a machine that has these disks. */
static void with_disks(struct config *c, const char *disks)
{
	char text[300];
	struct err err;

	snprintf(text, sizeof(text), "{" K ", \"disks\": [%s]}", disks);
	cr_assert_eq(read_text(c, text, &err), 0, "%s", err.text);
}

static void cannot_add(struct config *c, struct config_device *device, int code, const char *words)
{
	char *before = config_write(c, true), *after;
	struct err err = ERR_INIT;
	int rc = config_device_add(c, device, false, &err);

	cr_assert_eq(rc, code, "%d: %s", rc, err.text);
	cr_assert(strstr(err.text, words), "%s", err.text);
	after = config_write(c, true);
	cr_assert_str_eq(before, after);
	config_device_free(device);
	free(before);
	free(after);
}

Test(config, an_added_device_gets_an_id_and_an_address_that_are_free)
{
	struct config_device *device = one(&kind_disk, "{\"path\": \"z\"}");
	struct err err = ERR_INIT;
	struct config c;

	with_disks(&c, "{\"path\": \"x\", \"id\": \"disk1\"}");
	cr_assert_eq(config_device_add(&c, device, false, &err), 0, "%s", err.text);
	cr_assert_str_eq(device->id, "disk2");
	cr_assert_eq(device->addr.addr.slot, 3, "after the disk and the rng");
	cr_assert_eq(nth(&c, &kind_disk, 1), device);
	config_device_remove(device);
	cr_assert_eq(config_next(&c, nth(&c, &kind_disk, 0), &kind_disk), NULL);
	config_done(&c);
}

Test(config, an_added_device_is_checked_against_those_that_are_there)
{
	struct config c;

	with_disks(&c, "{\"path\": \"x\", \"id\": \"a\", \"addr\": \"7.0\"}");
	cannot_add(&c, one(&kind_disk, "{\"path\": \"y\", \"id\": \"a\"}"), -EEXIST, "id 'a'");
	cannot_add(&c, one(&kind_disk, "{\"path\": \"y\", \"addr\": \"7.0\"}"), -EEXIST,
		   "taken by 'a'");
	cannot_add(&c, one(&kind_disk, "{}"), -EINVAL, "path or fd");
	cannot_add(&c, one(&kind_disk, "{\"path\": \"y\", \"viommu\": true}"), -EINVAL,
		   "--viommu on");
	cannot_add(&c, one(&kind_rng, "{}"), -ENOSPC, "rng");
	config_done(&c);
}

Test(config, a_device_of_a_machine_with_one_at_most_comes_and_goes)
{
	struct err err = ERR_INIT;
	struct config c, again;
	char *text;

	with_disks(&c, "");
	config_device_remove(nth(&c, &kind_rng, 0));
	cr_assert_null(config_next(&c, NULL, &kind_rng));
	text = config_write(&c, true);
	cr_assert_eq(read_text(&again, text, &err), 0, "%s", err.text);
	cr_assert_null(config_next(&again, NULL, &kind_rng), "what was removed stays away");
	config_done(&again);
	free(text);
	cr_assert_eq(config_device_add(&c, one(&kind_rng, "{}"), false, &err), 0, "%s", err.text);
	text = config_write(&c, true);
	cr_assert_eq(read_text(&again, text, &err), 0, "%s", err.text);
	cr_assert(config_next(&again, NULL, &kind_rng));
	config_done(&again);
	config_done(&c);
	free(text);
}
