// SPDX-License-Identifier: Apache-2.0
// Settings of VFs by rtnetlink. One request per setting, so that the driver's refusal is about one
// thing; replies without the counters of each VF, which would not fit a message for 200 of them.
#include "host/vf_netlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

/* An exchange with the kernel: one request, its answer, its acknowledgement. */
struct exchange {
	struct nl_sock *sock;
	void (*answer)(struct nlattr **attrs, const struct ifinfomsg *info, void *to);
	void *to;
	int error;      /* errno of the kernel, negative */
	char text[160]; /* its words, "" */
};

/* The kernel's words are an attribute after the acknowledgement (and after the request, when it was
 * echoed): NETLINK_EXT_ACK. */
static void keep_words(struct exchange *x, const struct nlmsgerr *e)
{
	const struct nlmsghdr *head =
		(const struct nlmsghdr *)(const void *)((const char *)e - NLMSG_HDRLEN);
	size_t used = NLMSG_HDRLEN + sizeof(*e);
	struct nlattr *words;

	if (!(head->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(head->nlmsg_flags & NLM_F_CAPPED))
		used += NLMSG_ALIGN(e->msg.nlmsg_len) - NLMSG_HDRLEN;
	if (used >= head->nlmsg_len)
		return;
	words = nla_find((const struct nlattr *)(const void *)((const char *)head + used),
			 (int)(head->nlmsg_len - used), NLMSGERR_ATTR_MSG);
	if (words)
		nla_strlcpy(x->text, words, sizeof(x->text));
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *opaque)
{
	struct exchange *x = opaque;

	(void)from;
	x->error = e->error;
	keep_words(x, e);
	return NL_STOP;
}

static int on_answer(struct nl_msg *msg, void *opaque)
{
	struct exchange *x = opaque;
	struct nlattr *attrs[IFLA_MAX + 1];

	if (nlmsg_hdr(msg)->nlmsg_type == RTM_NEWLINK && x->answer &&
	    nlmsg_parse(nlmsg_hdr(msg), sizeof(struct ifinfomsg), attrs, IFLA_MAX, NULL) == 0)
		x->answer(attrs, nlmsg_data(nlmsg_hdr(msg)), x->to);
	return NL_OK;
}

/* Takes msg over. */
static int exchange(struct exchange *x, struct nl_msg *msg, struct err *err)
{
	int one = 1;
	int rc;

	x->sock = nl_socket_alloc();
	if (!x->sock || !msg) {
		rc = err_set(err, -ENOMEM, "no memory");
		goto out;
	}
	rc = nl_connect(x->sock, NETLINK_ROUTE);
	if (rc) {
		rc = err_set(err, -EIO, "cannot open an rtnetlink socket: %s", nl_geterror(rc));
		goto out;
	}
	/* Kernels before 4.12 have no words: nothing is lost. */
	(void)setsockopt(nl_socket_get_fd(x->sock), SOL_NETLINK, NETLINK_EXT_ACK, &one,
			 sizeof(one));
	nl_socket_modify_cb(x->sock, NL_CB_VALID, NL_CB_CUSTOM, on_answer, x);
	nl_socket_modify_err_cb(x->sock, NL_CB_CUSTOM, on_error, x);
	rc = nl_send_auto(x->sock, msg);
	if (rc >= 0)
		rc = nl_wait_for_ack(x->sock);
	if (x->error)
		rc = err_set(err, x->error, "%s%s%s", err_name(x->error), x->text[0] ? ": " : "",
			     x->text);
	else if (rc < 0)
		rc = err_set(err, -EIO, "rtnetlink: %s", nl_geterror(rc));
	else
		rc = 0;
out:
	nlmsg_free(msg);
	nl_socket_free(x->sock);
	return rc;
}

/* A request about the interface; NULL, with *rc and the text set. */
static struct nl_msg *request(const char *netdev, int type, int *rc, struct err *err)
{
	struct ifinfomsg info = {.ifi_index = (int)if_nametoindex(netdev)};
	struct nl_msg *msg;

	if (!info.ifi_index) {
		*rc = err_set(err, -ENODEV,
			      "no interface '%s' here; is it in another network namespace?",
			      netdev);
		return NULL;
	}
	msg = nlmsg_alloc_simple(type, 0);
	if (!msg || nlmsg_append(msg, &info, sizeof(info), NLMSG_ALIGNTO)) {
		nlmsg_free(msg);
		*rc = err_set(err, -ENOMEM, "no memory");
		return NULL;
	}
	return msg;
}

static void take_link(struct nlattr **attrs, const struct ifinfomsg *info, void *to)
{
	struct vf_netlink_link *link = to;

	link->up = info->ifi_flags & IFF_UP;
	link->carrier = attrs[IFLA_CARRIER] && nla_get_u8(attrs[IFLA_CARRIER]);
}

int vf_netlink_link(const char *netdev, struct vf_netlink_link *ret, struct err *err)
{
	struct exchange x = {.answer = take_link, .to = ret};
	int rc = 0;
	struct nl_msg *msg = request(netdev, RTM_GETLINK, &rc, err);

	*ret = (struct vf_netlink_link){0};
	return msg ? exchange(&x, msg, err) : rc;
}

struct wanted_vf {
	unsigned int index;
	bool told, found; /* the driver reports VFs; this one */
	struct vf_settings settings;
};

/* The payload of one attribute as a struct of linux/if_link.h, or NULL. */
static const void *payload(struct nlattr **attrs, int type, size_t bytes)
{
	return attrs[type] && (size_t)nla_len(attrs[type]) >= bytes ? nla_data(attrs[type]) : NULL;
}

static void take_vf(struct vf_settings *s, struct nlattr **attrs)
{
	const struct ifla_vf_mac *mac = payload(attrs, IFLA_VF_MAC, sizeof(*mac));
	const struct ifla_vf_vlan *vlan = payload(attrs, IFLA_VF_VLAN, sizeof(*vlan));
	const struct ifla_vf_rate *rate = payload(attrs, IFLA_VF_RATE, sizeof(*rate));
	const struct ifla_vf_spoofchk *spoof = payload(attrs, IFLA_VF_SPOOFCHK, sizeof(*spoof));
	const struct ifla_vf_trust *trust = payload(attrs, IFLA_VF_TRUST, sizeof(*trust));
	const struct ifla_vf_link_state *link = payload(attrs, IFLA_VF_LINK_STATE, sizeof(*link));

	s->set = 0;
	if (mac) {
		memcpy(s->mac, mac->mac, sizeof(s->mac));
		s->set |= VF_SET_MAC;
	}
	if (vlan) {
		s->vlan = (uint16_t)vlan->vlan;
		s->qos = (uint8_t)vlan->qos;
		s->set |= VF_SET_VLAN;
	}
	if (rate) {
		s->min_mbps = rate->min_tx_rate;
		s->max_mbps = rate->max_tx_rate;
		s->set |= VF_SET_RATE;
	}
	/* All ones: this driver has no such setting. */
	if (spoof && spoof->setting != UINT32_MAX) {
		s->spoofchk = spoof->setting;
		s->set |= VF_SET_SPOOFCHK;
	}
	if (trust && trust->setting != UINT32_MAX) {
		s->trust = trust->setting;
		s->set |= VF_SET_TRUST;
	}
	if (link && link->link_state <= IFLA_VF_LINK_STATE_DISABLE) {
		s->link = (enum vf_link)link->link_state;
		s->set |= VF_SET_LINK;
	}
}

static void find_vf(struct nlattr **attrs, const struct ifinfomsg *info, void *to)
{
	struct wanted_vf *wanted = to;
	struct nlattr *one;
	int left;

	(void)info;
	if (!attrs[IFLA_VFINFO_LIST])
		return;
	nla_for_each_nested(one, attrs[IFLA_VFINFO_LIST], left)
	{
		struct nlattr *of[IFLA_VF_MAX + 1];
		const struct ifla_vf_mac *mac;

		wanted->told = true;
		if (nla_parse_nested(of, IFLA_VF_MAX, one, NULL) < 0)
			continue;
		mac = payload(of, IFLA_VF_MAC, sizeof(*mac));
		if (!mac || mac->vf != wanted->index)
			continue;
		wanted->found = true;
		take_vf(&wanted->settings, of);
	}
}

int vf_netlink_get(const char *netdev, unsigned int index, struct vf_settings *ret, struct err *err)
{
	struct wanted_vf wanted = {.index = index};
	struct exchange x = {.answer = find_vf, .to = &wanted};
	int rc = 0;
	struct nl_msg *msg = request(netdev, RTM_GETLINK, &rc, err);

	if (!msg)
		return rc;
	if (nla_put_u32(msg, IFLA_EXT_MASK, RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS)) {
		nlmsg_free(msg);
		return err_set(err, -ENOMEM, "no memory");
	}
	rc = exchange(&x, msg, err);
	if (rc)
		return rc;
	*ret = wanted.settings;
	if (wanted.found)
		return 0;
	return wanted.told ? err_set(err, -ENODEV, "%s has no VF %u", netdev, index)
			   : err_set(err, -EOPNOTSUPP,
				     "the driver of %s reports nothing about its VFs", netdev);
}

static int put_setting(struct nl_msg *msg, unsigned int index, enum vf_setting which,
		       const struct vf_settings *s)
{
	struct ifla_vf_mac mac = {.vf = index};
	struct ifla_vf_vlan vlan = {.vf = index, .vlan = s->vlan, .qos = s->qos};
	struct ifla_vf_rate rate = {
		.vf = index, .min_tx_rate = s->min_mbps, .max_tx_rate = s->max_mbps};
	struct ifla_vf_spoofchk spoof = {.vf = index, .setting = s->spoofchk};
	struct ifla_vf_trust trust = {.vf = index, .setting = s->trust};
	struct ifla_vf_link_state link = {.vf = index, .link_state = s->link};

	switch (which) {
	case VF_SET_MAC:
		memcpy(mac.mac, s->mac, sizeof(s->mac));
		return nla_put(msg, IFLA_VF_MAC, sizeof(mac), &mac);
	case VF_SET_VLAN:
		return nla_put(msg, IFLA_VF_VLAN, sizeof(vlan), &vlan);
	case VF_SET_RATE:
		return nla_put(msg, IFLA_VF_RATE, sizeof(rate), &rate);
	case VF_SET_SPOOFCHK:
		return nla_put(msg, IFLA_VF_SPOOFCHK, sizeof(spoof), &spoof);
	case VF_SET_TRUST:
		return nla_put(msg, IFLA_VF_TRUST, sizeof(trust), &trust);
	case VF_SET_LINK:
		return nla_put(msg, IFLA_VF_LINK_STATE, sizeof(link), &link);
	}
	return -EINVAL;
}

int vf_netlink_set(const char *netdev, unsigned int index, enum vf_setting which,
		   const struct vf_settings *settings, struct err *err)
{
	struct exchange x = {0};
	int rc = 0;
	struct nl_msg *msg = request(netdev, RTM_SETLINK, &rc, err);
	struct nlattr *list, *one;

	if (!msg)
		return rc;
	list = nla_nest_start(msg, IFLA_VFINFO_LIST);
	one = list ? nla_nest_start(msg, IFLA_VF_INFO) : NULL;
	if (!one || put_setting(msg, index, which, settings)) {
		nlmsg_free(msg);
		return err_set(err, -ENOMEM, "no memory");
	}
	nla_nest_end(msg, one);
	nla_nest_end(msg, list);
	return exchange(&x, msg, err);
}

int vf_netlink_watch_begin(struct vf_netlink_watch *watch, struct err *err)
{
	struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	int rc;

	watch->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (watch->fd >= 0 && bind(watch->fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return 0;
	rc = -errno;
	vf_netlink_watch_end(watch);
	return err_set(err, rc, "cannot open an rtnetlink socket: %s", err_name(rc));
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Events are only a hint to look again: which they were, or that some were lost, does not
 * matter. */
static void drain(int fd)
{
	char event[1];

	while (recv(fd, event, sizeof(event), MSG_TRUNC) >= 0 || errno == ENOBUFS)
		;
}

int vf_netlink_watch_carrier(struct vf_netlink_watch *watch, const char *netdev, int timeout_ms,
			     struct err *err)
{
	int64_t end = now_ms() + timeout_ms;

	for (;;) {
		struct pollfd p = {.fd = watch->fd, .events = POLLIN};
		struct vf_netlink_link link;
		int64_t left;
		int rc;

		drain(watch->fd);
		rc = vf_netlink_link(netdev, &link, err);
		if (rc || link.carrier)
			return rc;
		left = end - now_ms();
		if (left <= 0)
			return err_set(err, -ETIMEDOUT, "the link of %s did not come up in %d s",
				       netdev, timeout_ms / 1000);
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", err_name(errno));
	}
}

void vf_netlink_watch_end(struct vf_netlink_watch *watch)
{
	fd_close(&watch->fd);
}
