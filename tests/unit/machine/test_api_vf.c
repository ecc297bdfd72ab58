// SPDX-License-Identifier: Apache-2.0
// The documents of the public SR-IOV interface.
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "hospes/hospes.h"

/* What hospes_vf_set says of settings for a device that there is not: they are read first. */
static int set(const char *json, struct hospes_error *error)
{
	return hospes_vf_set("ffff:ff:1f.7", json, strlen(json), error);
}

Test(api_vf, settings_are_checked)
{
	static const struct {
		const char *json, *words;
	} bad[] = {
		{"{\"mca\": \"02:00:00:00:00:01\"}", "did you mean 'mac'"},
		{"{\"mac\": \"01:00:00:00:00:01\"}", "multicast"},
		{"{\"vlan\": 4095}", "vlan: 4095 is not within 0 to 4094"},
		{"{\"vlan\": \"ten\"}", "'ten' is not a whole number"},
		{"{\"qos\": 8}", "qos: 8"},
		{"{\"trust\": 3}", "trust: must be true or false"},
		{"{\"min_mbps\": -1}", "min_mbps: -1"},
		{"{\"link_state\": \"up\"}", "auto, enable, disable"},
		{"{\"vlan\": 1, \"vlan\": 2}", "duplicate"},
		{"[1]", "must be an object"},
		{"{\"vlan\": 1", "line 1"},
		{"", "settings"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct hospes_error error;
		int rc = set(bad[i].json, &error);

		cr_assert(rc == -EINVAL || rc == -ERANGE, "%s: %d", bad[i].json, rc);
		cr_assert(strstr(error.text, bad[i].words), "%s: %s", bad[i].json, error.text);
		cr_assert_eq(error.code, rc);
	}
}

Test(api_vf, good_settings_reach_the_device)
{
	struct hospes_error error;

	cr_assert_eq(set("{\"mac\": \"02:00:00:00:00:01\", \"vlan\": \"100\", \"qos\": 3,"
			 " \"trust\": \"on\", \"spoofchk\": false, \"min_mbps\": 0,"
			 " \"max_mbps\": \"500\", \"link_state\": \"auto\"}",
			 &error),
		     -ENODEV);
	cr_assert(strstr(error.text, "ffff:ff:1f.7"), "%s", error.text);
}

Test(api_vf, list_is_an_array)
{
	struct hospes_error error;
	json_t *list;
	char *text;

	if (access("/sys/bus/pci/devices", F_OK) < 0)
		cr_skip_test("no PCI here");
	cr_assert_eq(hospes_vf_list(&text, &error), 0, "%s", error.text);
	list = json_loads(text, 0, NULL);
	cr_assert(json_is_array(list));
	json_decref(list);
	hospes_free(text);
}

Test(api_vf, failed_create_gives_no_text)
{
	struct hospes_error error;
	char *text = (char *)&error;

	cr_assert_eq(hospes_vf_create("ffff:ff:1f.7", 1, &text, &error), -ENODEV);
	cr_assert_null(text);
}
