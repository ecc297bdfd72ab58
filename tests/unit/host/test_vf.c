// SPDX-License-Identifier: Apache-2.0
// SR-IOV without a card: what is refused before anything is touched, and netlink on interfaces that
// every machine has. The life cycle itself is tests/host/vf.
#include <criterion/criterion.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "deny.h"
#include "base/num.h"
#include "host/vf.h"
#include "host/vf_netlink.h"

/* A network of our own, in which lo is down; skips where that is not allowed. */
static void own_network(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) && unshare(CLONE_NEWNET))
		cr_skip_test("no network namespace here");
}

static void set_up(const char *netdev, bool up)
{
	struct ifreq request = {.ifr_flags = up ? IFF_UP : 0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(request.ifr_name, netdev);
	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	close(fd);
}

Test(vf, link_of_an_interface_is_told)
{
	struct vf_netlink_link link;
	struct err err = ERR_INIT;

	own_network();
	cr_assert_eq(vf_netlink_link("lo", &link, &err), 0, "%s", err.text);
	cr_assert(!link.up);
	set_up("lo", true);
	cr_assert_eq(vf_netlink_link("lo", &link, &err), 0, "%s", err.text);
	cr_assert(link.up);
	cr_assert(link.carrier);
}

Test(vf, interface_that_is_not_there_is_named)
{
	struct vf_netlink_link link;
	struct vf_settings settings = {.set = VF_SET_VLAN};
	struct err err = ERR_INIT;

	cr_assert_eq(vf_netlink_link("nosuch0", &link, &err), -ENODEV);
	cr_assert(strstr(err.text, "'nosuch0'"), "%s", err.text);
	cr_assert_eq(vf_get("nosuch0", 0, &settings, &err), -ENODEV);
	cr_assert_eq(vf_netlink_set("nosuch0", 0, VF_SET_VLAN, &settings, &err), -ENODEV);
}

Test(vf, interface_without_vfs_tells_nothing)
{
	struct vf_settings settings;
	struct err err = ERR_INIT;

	cr_assert_eq(vf_get("lo", 0, &settings, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.text, "lo"), "%s", err.text);
}

Test(vf, settings_of_an_interface_without_vfs_are_refused_by_the_kernel)
{
	static const enum vf_setting each[] = {VF_SET_MAC,      VF_SET_VLAN, VF_SET_TRUST,
					       VF_SET_SPOOFCHK, VF_SET_RATE, VF_SET_LINK};
	struct vf_settings settings = {.mac = {2}};

	own_network();
	for (size_t i = 0; i < ARRAY_SIZE(each); i++) {
		struct err err = ERR_INIT;
		int rc = vf_netlink_set("lo", 0, each[i], &settings, &err);

		cr_assert_lt(rc, 0, "setting %zu", i);
		cr_assert(err.text[0]);
	}
}

Test(vf, carrier_that_is_there_needs_no_wait)
{
	struct vf_netlink_watch watch;
	struct err err = ERR_INIT;

	own_network();
	set_up("lo", true);
	cr_assert_eq(vf_netlink_watch_begin(&watch, &err), 0, "%s", err.text);
	cr_assert_eq(vf_netlink_watch_carrier(&watch, "lo", 0, &err), 0, "%s", err.text);
	vf_netlink_watch_end(&watch);
	cr_assert_eq(watch.fd, -1);
}

Test(vf, system_calls_that_fail_leave_nothing_behind)
{
	struct vf_netlink_watch watch;
	struct vf_netlink_link link;
	struct err err = ERR_INIT;
	int before = count_fds();

	if (deny(SYS_bind, 0, EMFILE))
		cr_skip_test("no seccomp here");
	cr_assert_eq(vf_netlink_watch_begin(&watch, &err), -EMFILE);
	cr_assert_eq(watch.fd, -1);
	cr_assert_lt(vf_netlink_link("lo", &link, &err), 0);
	cr_assert_eq(count_fds(), before);
	cr_assert_eq(deny(SYS_socket, 0, EMFILE), 0);
	cr_assert_eq(vf_netlink_watch_begin(&watch, &err), -EMFILE);
	cr_assert_lt(vf_netlink_link("lo", &link, &err), 0);
	cr_assert_eq(count_fds(), before);
}

Test(vf, devices_that_are_none_are_refused)
{
	struct vf_settings settings = {.set = VF_SET_VLAN, .vlan = 5};
	struct err err = ERR_INIT;

	cr_assert_eq(vf_create("eth0", 1, &err), -EINVAL);
	cr_assert_eq(vf_destroy("ffff:ff:1f.7", &err), -ENODEV);
	cr_assert_eq(vf_set("ffff:ff:1f.7", &settings, &err), -ENODEV);
	cr_assert_eq(vf_bind("ffff:ff:1f.7", NULL, &err), -ENODEV);
	cr_assert_eq(vf_own("ffff:ff:1f.7", 0, &err), -ENODEV);
	cr_assert_eq(vf_unbind("ffff:ff:1f.7", &err), -ENODEV);
	cr_assert(strstr(err.text, "ffff:ff:1f.7"), "%s", err.text);
}
