// SPDX-License-Identifier: Apache-2.0
// The public interface to SR-IOV: listing as JSON, settings from JSON, and calls into
// passthrough/vf.h.
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "machine/api.h"
#include "machine/schema.h"
#include "host/vf.h"
#include "host/vf_netlink.h"

static const char *const link_states[] = {"auto", "enable", "disable", NULL};

/* "" is null in JSON: what there is none of. */
static json_t *text_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

/* What the PF's driver keeps about it; what it does not tell is null. */
static void add_settings(json_t *vf, const struct vf_settings *s)
{
	bool mac = s->set & VF_SET_MAC, vlan = s->set & VF_SET_VLAN, rate = s->set & VF_SET_RATE;

	json_object_set_new(vf, "mac",
			    mac ? json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", s->mac[0],
					       s->mac[1], s->mac[2], s->mac[3], s->mac[4],
					       s->mac[5])
				: json_null());
	json_object_set_new(vf, "vlan", vlan ? json_integer(s->vlan) : json_null());
	json_object_set_new(vf, "qos", vlan ? json_integer(s->qos) : json_null());
	json_object_set_new(vf, "trust",
			    s->set & VF_SET_TRUST ? json_boolean(s->trust) : json_null());
	json_object_set_new(vf, "spoofchk",
			    s->set & VF_SET_SPOOFCHK ? json_boolean(s->spoofchk) : json_null());
	json_object_set_new(vf, "min_mbps", rate ? json_integer(s->min_mbps) : json_null());
	json_object_set_new(vf, "max_mbps", rate ? json_integer(s->max_mbps) : json_null());
	json_object_set_new(vf, "link_state",
			    s->set & VF_SET_LINK ? json_string(link_states[s->link]) : json_null());
}

static json_t *vf_json(const struct host_device *dev, const struct host_device *pf)
{
	struct vf_settings settings = {0};
	struct vf_user user;
	json_t *vf = json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "bdf", dev->bdf, "index",
			       (int)dev->vf_index, "driver", text_or_null(dev->driver),
			       "driver_override", text_or_null(dev->driver_override), "group",
			       dev->group < 0 ? json_null() : json_integer(dev->group), "netdev",
			       text_or_null(dev->netdev), "cdev",
			       dev->vfio_cdev < 0
				       ? json_null()
				       : json_sprintf("/dev/vfio/devices/vfio%d", dev->vfio_cdev));

	if (!vf)
		return NULL;
	if (!pf->netdev[0] || vf_get(pf->netdev, dev->vf_index, &settings, NULL) < 0)
		settings.set = 0;
	add_settings(vf, &settings);
	vf_user(dev, &user);
	json_object_set_new(vf, "user", text_or_null(user.who));
	return vf;
}

/* "up", "no carrier", "down"; null without an interface. */
static json_t *link_json(const struct host_device *pf)
{
	struct vf_netlink_link link;

	if (!pf->netdev[0] || vf_netlink_link(pf->netdev, &link, NULL) < 0)
		return json_null();
	return json_string(!link.up ? "down" : link.carrier ? "up" : "no carrier");
}

static json_t *pf_json(const struct host_device *pf, const struct host_device *all, unsigned int n)
{
	json_t *vfs = json_array();
	json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:o, s:i, s:i, s:o}", "bdf", pf->bdf, "id",
				 json_sprintf("%04x:%04x", pf->vendor, pf->device), "driver",
				 text_or_null(pf->driver), "netdev", text_or_null(pf->netdev),
				 "link", link_json(pf), "max_vfs", (int)pf->max_vfs, "numa_node",
				 pf->numa_node, "vfs", vfs);

	for (unsigned int i = 0; json && i < n; i++) {
		if (all[i].is_vf && strcmp(all[i].pf, pf->bdf) == 0 &&
		    json_array_append_new(vfs, vf_json(&all[i], pf)) < 0) {
			json_decref(json);
			return NULL;
		}
	}
	return json;
}

/* The PFs as text; only: of this one alone, as an object. */
static int list(const char *only, char **text, struct err *err)
{
	cleanup_free struct host_device *all = NULL;
	json_t *root = only ? NULL : json_array();
	unsigned int n;
	int rc = host_list(&all, &n, err);

	for (unsigned int i = 0; i < n && !rc; i++) {
		json_t *pf;

		if (!all[i].max_vfs || (only && strcmp(all[i].bdf, only) != 0))
			continue;
		pf = pf_json(&all[i], all, n);
		if (only)
			root = pf;
		else if (json_array_append_new(root, pf) < 0)
			rc = -ENOMEM;
	}
	*text = !rc && root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	if (!rc && !*text)
		rc = -ENOMEM;
	return rc == -ENOMEM ? err_set(err, rc, "no memory") : rc;
}

int hospes_vf_list(char **json, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, list(NULL, json, &err));
}

int hospes_vf_create(const char *pf, unsigned int count, char **json, struct hospes_error *error)
{
	char bdf[HOST_BDF_BYTES];
	struct err err = ERR_INIT;
	int rc;

	if (json)
		*json = NULL;
	rc = host_find(pf, bdf, &err);
	if (!rc)
		rc = vf_create(bdf, count, &err);
	if (!rc && json) {
		rc = list(bdf, json, &err);
		if (rc)
			(void)vf_destroy(bdf, NULL);
	}
	return give(error, &err, rc);
}

int hospes_vf_destroy(const char *pf, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vf_destroy(pf, &err));
}

/* The document of hospes_vf_set. */
struct settings_document {
	struct schema_mac mac;
	uint32_t vlan, qos;
	bool trust, spoofchk;
	uint32_t min_mbps, max_mbps;
	int link_state;
};

#define AT(member) offsetof(struct settings_document, member)
static const struct schema_field settings_fields[] = {
	{"mac", SCHEMA_MAC, AT(mac)},
	{"vlan", SCHEMA_UINT, AT(vlan), .max = 4094},
	{"qos", SCHEMA_UINT, AT(qos), .max = 7},
	{"trust", SCHEMA_BOOL, AT(trust)},
	{"spoofchk", SCHEMA_BOOL, AT(spoofchk)},
	{"min_mbps", SCHEMA_UINT, AT(min_mbps), .max = UINT32_MAX},
	{"max_mbps", SCHEMA_UINT, AT(max_mbps), .max = UINT32_MAX},
	{"link_state", SCHEMA_ENUM, AT(link_state), .names = link_states},
	{0},
};
#undef AT
static const struct schema settings_schema = {
	.what = "VF",
	.fields = settings_fields,
	.bytes = sizeof(struct settings_document),
};

/* Which member of struct vf_settings a key belongs to. */
static const struct {
	const char *key;
	enum vf_setting setting;
} settings_of[] = {
	{"mac", VF_SET_MAC},       {"vlan", VF_SET_VLAN},         {"qos", VF_SET_VLAN},
	{"trust", VF_SET_TRUST},   {"spoofchk", VF_SET_SPOOFCHK}, {"min_mbps", VF_SET_RATE},
	{"max_mbps", VF_SET_RATE}, {"link_state", VF_SET_LINK},
};

static int read_settings(const char *json, size_t length, struct vf_settings *ret, struct err *err)
{
	struct settings_document doc;
	json_error_t where;
	json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &where);
	int rc;

	if (!root)
		return err_set(err, -EINVAL, "settings: line %d: %s", where.line, where.text);
	rc = schema_read(&settings_schema, root, "", &doc, err);
	if (!rc) {
		*ret = (struct vf_settings){
			.vlan = (uint16_t)doc.vlan,
			.qos = (uint8_t)doc.qos,
			.trust = doc.trust,
			.spoofchk = doc.spoofchk,
			.min_mbps = doc.min_mbps,
			.max_mbps = doc.max_mbps,
			.link = (enum vf_link)doc.link_state,
		};
		memcpy(ret->mac, doc.mac.byte, sizeof(ret->mac));
		for (size_t i = 0; i < sizeof(settings_of) / sizeof(settings_of[0]); i++) {
			if (json_object_get(root, settings_of[i].key))
				ret->set |= settings_of[i].setting;
		}
	}
	json_decref(root);
	return rc;
}

int hospes_vf_set(const char *vf, const char *json, size_t length, struct hospes_error *error)
{
	struct vf_settings settings;
	struct err err = ERR_INIT;
	int rc = read_settings(json, length, &settings, &err);

	if (!rc)
		rc = vf_set(vf, &settings, &err);
	return give(error, &err, rc);
}

int hospes_device_bind(const char *device, const char *driver, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vf_bind(device, driver, &err));
}

int hospes_device_own(const char *device, uid_t uid, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vf_own(device, uid, &err));
}

int hospes_device_unbind(const char *device, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vf_unbind(device, &err));
}
