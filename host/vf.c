// SPDX-License-Identifier: Apache-2.0
// Creates and destroys VFs. The PF's driver does the work when a number is written to sriov_numvfs;
// this code checks beforehand that it can, and afterwards that it did.
#include "host/vf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "host/vf_impl.h"
#include "host/vf_netlink.h"

/* Many drivers reset their PF when its VFs come and go (igb does); copper takes some 3 s to have
 * its link again, an optical module up to 10 s. */
enum { LINK_BACK_MS = 20000 };

/* A PF, read and checked. */
static int read_pf(const char *text, struct host_device *ret, struct err *err)
{
	char bdf[HOST_BDF_BYTES];
	int rc = host_find(text, bdf, err);

	if (!rc)
		rc = host_read(ret, bdf, err);
	if (rc)
		return rc;
	if (ret->is_vf)
		return err_set(err, -EINVAL, "%s: is a virtual function itself; its PF is %s", bdf,
			       ret->pf);
	if (!ret->max_vfs)
		return err_set(err, -EOPNOTSUPP,
			       "%s: has no SR-IOV, or the firmware switched it off; "
			       "'hospes vf list' shows the devices that have it",
			       bdf);
	return 0;
}

static int check_count(const struct host_device *pf, unsigned int count, struct err *err)
{
	if (pf->vfs)
		return err_set(err, -EBUSY,
			       "%s: has %u VFs already, and their number cannot be changed; "
			       "'hospes vf destroy %s' removes them",
			       pf->bdf, pf->vfs, pf->bdf);
	if (!count)
		return err_set(err, -EINVAL, "%s: no VFs asked for; give --count 1 to %u", pf->bdf,
			       pf->max_vfs);
	if (count > pf->max_vfs)
		return err_set(err, -ERANGE, "%s: %u VFs asked for, %u are the most it has",
			       pf->bdf, count, pf->max_vfs);
	if (!pf->driver[0])
		return err_set(err, -ENODEV,
			       "%s: has no driver, and only the PF's driver can make VFs; "
			       "'hospes vf bind %s --driver NAME' first",
			       pf->bdf, pf->bdf);
	return 0;
}

/* The link of the PF before and after: a VF whose PF is still in reset does not work. */
struct link_back {
	struct vf_netlink_watch watch;
	bool had; /* there was a link, which must come back */
};

static int link_before(struct link_back *l, const struct host_device *pf,
		       struct vf_netlink_link *now, struct err *err)
{
	int rc;

	*l = (struct link_back){.watch.fd = -1};
	*now = (struct vf_netlink_link){.up = true};
	if (!pf->netdev[0])
		return 0;
	rc = vf_netlink_link(pf->netdev, now, err);
	if (!rc && now->carrier)
		rc = vf_netlink_watch_begin(&l->watch, err);
	l->had = now->carrier;
	if (rc)
		err_prefix(err, "%s", pf->bdf);
	return rc;
}

static int link_after(struct link_back *l, const struct host_device *pf, struct err *err)
{
	int rc = 0;

	if (l->had) {
		rc = vf_netlink_watch_carrier(&l->watch, pf->netdev, LINK_BACK_MS, err);
		if (rc)
			err_prefix(err, "%s: after a change of its VFs", pf->bdf);
	}
	vf_netlink_watch_end(&l->watch);
	return rc;
}

/* The kernel's answer to a write, and what to do about it. */
static int refused(const struct host_device *pf, const char *what, int rc, struct err *err)
{
	const char *hint = "";

	if (rc == -EACCES || rc == -EPERM || rc == -EROFS)
		hint = "; run this as root (sudo)";
	else if (rc == -ENOENT)
		hint = "; its driver makes no VFs: bind the one that does with 'hospes vf bind'";
	else if (rc == -ENOMEM || rc == -ENOSPC)
		hint = "; the firmware left no room for them: switch SR-IOV on in its set-up, or "
		       "boot Linux with pci=realloc";
	return err_set(err, rc, "%s: %s (driver: %s): %s%s", pf->bdf, what,
		       pf->driver[0] ? pf->driver : "none", err_name(rc), hint);
}

static int write_count(const struct host_device *pf, unsigned int count, struct err *err)
{
	char text[16];
	int rc;

	snprintf(text, sizeof(text), "%u", count);
	rc = host_set_attribute(pf->bdf, "sriov_numvfs", text, NULL);
	snprintf(text, sizeof(text), "%u VFs", count);
	return rc ? refused(pf, text, rc, err) : 0;
}

/* With the host's drivers kept away: they would take the VFs while the PF is in reset, and fail. */
static int make(const struct host_device *pf, unsigned int count, bool *made, struct err *err)
{
	static const char autoprobe[] = "sriov_drivers_autoprobe";
	struct err restored = ERR_INIT;
	char before[8] = "";
	bool off;
	int rc;

	if (host_attribute(pf->bdf, autoprobe, before, sizeof(before)) < 0)
		before[0] = '\0'; /* kernels before 4.12 have no such switch */
	off = before[0] == '1';
	if (off) {
		rc = host_set_attribute(pf->bdf, autoprobe, "0", NULL);
		if (rc)
			return refused(pf, autoprobe, rc, err);
	}
	rc = write_count(pf, count, err);
	*made = !rc;
	if (off && host_set_attribute(pf->bdf, autoprobe, "1", &restored) < 0 && !rc)
		rc = err_set(err, restored.code, "%s", restored.text);
	return rc;
}

static int check_made(const struct host_device *pf, unsigned int count, struct err *err)
{
	struct host_device now;
	int rc = host_read(&now, pf->bdf, err);

	if (!rc && now.vfs != count)
		rc = err_set(err, -EIO, "%s (%s): %u VFs asked for, %u are there", pf->bdf,
			     pf->driver, count, now.vfs);
	return rc;
}

/* Write the number and wait until the VFs can be used; undone on failure. */
static int create(const struct host_device *pf, unsigned int count, struct err *err)
{
	struct vf_netlink_link link;
	struct link_back back;
	bool made = false;
	int rc = link_before(&back, pf, &link, err);

	if (!rc && !link.up)
		rc = err_set(err, -ENETDOWN,
			     "%s: its interface %s is down, and VFs of such a PF stay in reset; "
			     "'ip link set %s up' first",
			     pf->bdf, pf->netdev, pf->netdev);
	if (!rc)
		rc = make(pf, count, &made, err);
	if (!rc)
		rc = check_made(pf, count, err);
	if (!rc)
		rc = link_after(&back, pf, err);
	if (rc && made)
		(void)host_set_attribute(pf->bdf, "sriov_numvfs", "0", NULL);
	vf_netlink_watch_end(&back.watch);
	return rc;
}

int vf_create(const char *name, unsigned int count, struct err *err)
{
	cleanup_fd int lock = -1;
	struct host_device pf;
	int rc = read_pf(name, &pf, err);

	if (rc)
		return rc;
	lock = vf_lock(pf.bdf);
	rc = read_pf(pf.bdf, &pf, err); /* as it is now that nobody else changes it */
	if (!rc)
		rc = check_count(&pf, count, err);
	return rc ? rc : create(&pf, count, err);
}

/* -EBUSY when somebody uses a VF of it. */
static int check_unused(const struct host_device *pf, struct err *err)
{
	struct host_device *all;
	unsigned int n;
	int rc = host_list(&all, &n, err);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < n && !rc; i++) {
		struct vf_user user;

		if (!all[i].is_vf || strcmp(all[i].pf, pf->bdf) != 0)
			continue;
		vf_user(&all[i], &user);
		if (user.who[0])
			rc = err_set(err, -EBUSY, "%s: its VF %s is in use by %s; %s", pf->bdf,
				     all[i].bdf, user.who, user.remedy);
	}
	free(all);
	return rc;
}

int vf_destroy(const char *name, struct err *err)
{
	struct vf_netlink_link link;
	struct link_back back;
	struct host_device pf;
	cleanup_fd int lock = -1;
	int rc = read_pf(name, &pf, err);

	if (rc)
		return rc;
	lock = vf_lock(pf.bdf);
	rc = read_pf(pf.bdf, &pf, err);
	if (rc || !pf.vfs)
		return rc;
	rc = check_unused(&pf, err);
	if (!rc)
		rc = link_before(&back, &pf, &link, err);
	if (rc)
		return rc;
	rc = write_count(&pf, 0, err);
	if (!rc)
		rc = link_after(&back, &pf, err);
	vf_netlink_watch_end(&back.watch);
	return rc;
}
