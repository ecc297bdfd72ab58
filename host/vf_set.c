// SPDX-License-Identifier: Apache-2.0
// Settings of a VF, by the driver of its PF. Each is applied and read back; when one fails, those
// before it are restored.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "host/vf.h"
#include "host/vf_netlink.h"

/* In the order in which they are applied. */
static const struct {
	enum vf_setting setting;
	const char *what;
} kinds[] = {
	{VF_SET_TRUST, "trust"}, /* first: with it some drivers allow more of the others */
	{VF_SET_MAC, "MAC address"}, {VF_SET_VLAN, "VLAN"},       {VF_SET_SPOOFCHK, "spoof check"},
	{VF_SET_RATE, "rate"},       {VF_SET_LINK, "link state"},
};

int vf_get(const char *netdev, unsigned int index, struct vf_settings *ret, struct err *err)
{
	return vf_netlink_get(netdev, index, ret, err);
}

/* Values that no driver takes. */
static int check(const char *vf, const struct vf_settings *s, struct err *err)
{
	static const uint8_t none[6];

	if (!s->set)
		return err_set(err, -EINVAL, "%s: nothing to set", vf);
	if (s->set & VF_SET_MAC && (s->mac[0] & 1 || memcmp(s->mac, none, sizeof(none)) == 0))
		return err_set(err, -EINVAL,
			       "%s: MAC address %02x:%02x:%02x:%02x:%02x:%02x is %s; one of your "
			       "own begins with 02",
			       vf, s->mac[0], s->mac[1], s->mac[2], s->mac[3], s->mac[4], s->mac[5],
			       s->mac[0] & 1 ? "a group's, not a device's" : "none");
	if (s->set & VF_SET_VLAN && (s->vlan > 4094 || s->qos > 7))
		return err_set(err, -ERANGE,
			       "%s: VLAN %u with priority %u: give a VLAN from 1 to 4094, or 0 for "
			       "none, and a priority (qos) from 0 to 7",
			       vf, s->vlan, s->qos);
	if (s->set & VF_SET_VLAN && s->qos && !s->vlan)
		return err_set(err, -EINVAL,
			       "%s: a priority (qos) is part of a VLAN tag: give --vlan as well",
			       vf);
	if (s->set & VF_SET_RATE && s->max_mbps && s->min_mbps > s->max_mbps)
		return err_set(err, -EINVAL,
			       "%s: rate: the least, %u Mbit/s, is above the most, %u", vf,
			       s->min_mbps, s->max_mbps);
	return 0;
}

/* As a person writes it. */
static void show(enum vf_setting which, const struct vf_settings *s, char *text, size_t bytes)
{
	static const char *const links[] = {"auto", "enable", "disable"};

	switch (which) {
	case VF_SET_MAC:
		snprintf(text, bytes, "%02x:%02x:%02x:%02x:%02x:%02x", s->mac[0], s->mac[1],
			 s->mac[2], s->mac[3], s->mac[4], s->mac[5]);
		return;
	case VF_SET_VLAN:
		snprintf(text, bytes, "%u, priority %u", s->vlan, s->qos);
		return;
	case VF_SET_RATE:
		snprintf(text, bytes, "%u to %u Mbit/s", s->min_mbps, s->max_mbps);
		return;
	case VF_SET_TRUST:
		snprintf(text, bytes, "%s", s->trust ? "on" : "off");
		return;
	case VF_SET_SPOOFCHK:
		snprintf(text, bytes, "%s", s->spoofchk ? "on" : "off");
		return;
	case VF_SET_LINK:
		snprintf(text, bytes, "%s", links[s->link]);
		return;
	}
}

static bool same(enum vf_setting which, const struct vf_settings *a, const struct vf_settings *b)
{
	switch (which) {
	case VF_SET_MAC:
		return memcmp(a->mac, b->mac, sizeof(a->mac)) == 0;
	case VF_SET_VLAN:
		return a->vlan == b->vlan && a->qos == b->qos;
	case VF_SET_RATE:
		return a->min_mbps == b->min_mbps && a->max_mbps == b->max_mbps;
	case VF_SET_TRUST:
		return a->trust == b->trust;
	case VF_SET_SPOOFCHK:
		return a->spoofchk == b->spoofchk;
	case VF_SET_LINK:
		return a->link == b->link;
	}
	return false;
}

/* The VF, and the PF whose driver sets it. */
struct target {
	struct host_device vf, pf;
};

/* The kernel's answer, and what to do about it. */
static int refused(const struct target *t, enum vf_setting which, const char *what,
		   const struct vf_settings *s, struct err *why, struct err *err)
{
	const char *hint = "";
	char value[48];

	show(which, s, value, sizeof(value));
	if (why->code == -EOPNOTSUPP)
		return err_set(err, -EOPNOTSUPP,
			       "%s: the driver %s has no %s of VFs; leave that setting out",
			       t->vf.bdf, t->pf.driver, what);
	if (why->code == -EPERM || why->code == -EACCES)
		hint = "; run this as root, or with CAP_NET_ADMIN";
	else if (which == VF_SET_RATE && why->code == -EINVAL)
		hint = "; at most the speed of the PF's link, while it has one, and many drivers "
		       "have no least rate";
	else if (why->code == -ENETDOWN || why->code == -EBUSY || why->code == -EAGAIN)
		hint = "; is the PF's interface up, and out of reset?";
	return err_set(err, why->code, "%s: the driver %s does not take %s %s: %s%s", t->vf.bdf,
		       t->pf.driver, what, value, why->text, hint);
}

static int find_target(const char *text, struct target *t, struct err *err)
{
	char bdf[HOST_BDF_BYTES];
	int rc = host_find(text, bdf, err);

	if (!rc)
		rc = host_read(&t->vf, bdf, err);
	if (rc)
		return rc;
	if (!t->vf.is_vf)
		return err_set(err, -EINVAL,
			       "%s: is no virtual function; 'hospes vf list' shows those", bdf);
	rc = host_read(&t->pf, t->vf.pf, err);
	if (!rc && !t->pf.netdev[0])
		rc = err_set(err, -EOPNOTSUPP,
			     "%s: its PF %s has no network interface here, so there is nothing to "
			     "set (driver: %s)",
			     bdf, t->pf.bdf, t->pf.driver[0] ? t->pf.driver : "none");
	return rc;
}

/* One setting, read back. */
static int apply(const struct target *t, unsigned int kind, const struct vf_settings *s,
		 struct err *err)
{
	enum vf_setting which = kinds[kind].setting;
	struct vf_settings now;
	struct err why = ERR_INIT;
	char wanted[48], got[48];

	if (vf_netlink_set(t->pf.netdev, t->vf.vf_index, which, s, &why))
		return refused(t, which, kinds[kind].what, s, &why, err);
	if (vf_netlink_get(t->pf.netdev, t->vf.vf_index, &now, &why))
		return err_set(err, why.code, "%s: %s", t->vf.bdf, why.text);
	if (!(now.set & which) || same(which, &now, s))
		return 0;
	show(which, s, wanted, sizeof(wanted));
	show(which, &now, got, sizeof(got));
	return err_set(err, -EIO,
		       "%s: the driver %s took %s %s, and has %s; it may need the VF's driver "
		       "unbound",
		       t->vf.bdf, t->pf.driver, kinds[kind].what, wanted, got);
}

int vf_set(const char *vf, const struct vf_settings *settings, struct err *err)
{
	struct vf_settings before;
	struct err why = ERR_INIT;
	struct target t;
	unsigned int i;
	int rc = find_target(vf, &t, err);

	if (!rc)
		rc = check(t.vf.bdf, settings, err);
	if (rc)
		return rc;
	rc = vf_netlink_get(t.pf.netdev, t.vf.vf_index, &before, &why);
	if (rc)
		return err_set(err, rc, "%s: %s", t.vf.bdf, why.text);
	for (i = 0; i < ARRAY_SIZE(kinds) && !rc; i++) {
		if (settings->set & kinds[i].setting)
			rc = apply(&t, i, settings, err);
	}
	/* The one that failed may have been half done, so it is restored too. */
	while (rc && i-- > 0) {
		if (settings->set & before.set & kinds[i].setting)
			(void)vf_netlink_set(t.pf.netdev, t.vf.vf_index, kinds[i].setting, &before,
					     NULL);
	}
	return rc;
}
