// SPDX-License-Identifier: Apache-2.0
// hospes vf: what it asks of the library, what it prints, and its exit statuses.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "fake_hospes.h"

static int vf(int argc, char **argv)
{
	return command_run(&vf_command, argc, argv);
}
#define VF(...) fake_run(vf, (const char *const[]){"vf", __VA_ARGS__, NULL})

static const char list[] =
	"[{\"bdf\": \"0000:01:00.0\", \"id\": \"8086:10c9\", \"driver\": \"igb\", \"max_vfs\": 7,"
	"\"vfs\": [{\"bdf\": \"0000:01:10.0\", \"group\": 21, \"mac\": \"02:00:00:00:00:01\","
	"\"vlan\": 100, \"qos\": 3, \"trust\": true, \"min_mbps\": 50, \"max_mbps\": 100},"
	"{\"bdf\": \"0000:01:10.2\", \"driver\": \"igbvf\", \"spoofchk\": false}]}]";

Test(vf, the_list_has_a_line_per_function)
{
	fake = (struct fake){.vf_list = list};
	cr_assert_eq(VF("list"), CLI_OK);
	cr_assert(strstr(fake_out,
			 "0000:01:00.0  8086:10c9  driver igb, interface none, link none, "
			 "2 of 7 VFs\n"),
		  "%s", fake_out);
	cr_assert(strstr(fake_out, "0000:01:10.0  -         21     02:00:00:00:00:01  100 p3   on "
				   "    -      50:100 "),
		  "%s", fake_out);
	cr_assert(strstr(fake_out, "0000:01:10.2  igbvf "), "%s", fake_out);
}

Test(vf, one_device_is_listed_by_its_short_address_or_path)
{
	fake = (struct fake){.vf_list = list};
	cr_assert_eq(VF("list", "01:10.2"), CLI_OK);
	cr_assert(strstr(fake_out, "0000:01:10.2") && !strstr(fake_out, "0000:01:10.0"));
	cr_assert_eq(VF("list", "--json", "/sys/bus/pci/devices/0000:01:10.0"), CLI_OK);
	cr_assert(strstr(fake_out, "\"group\": 21") && !strstr(fake_out, "igbvf"));
	cr_assert_eq(VF("list", "02:00.0"), CLI_FAILED);
	cr_assert(strstr(fake_err, "02:00.0: has no SR-IOV"), "%s", fake_err);
}

Test(vf, a_host_without_such_cards_is_said)
{
	fake = (struct fake){.vf_list = "[]"};
	cr_assert_eq(VF("list"), CLI_OK);
	cr_assert(strstr(fake_err, "no device here has SR-IOV"));
	cr_assert_str_eq(fake_out, "");
}

Test(vf, create_prints_the_addresses)
{
	fake = (struct fake){0};
	cr_assert_eq(VF("create", "01:00.0", "--count=2"), CLI_OK);
	cr_assert_str_eq(fake.calls, "vf_create(01:00.0, 2) ");
	cr_assert_str_eq(fake_out, "0000:01:10.0\n0000:01:10.2\n");
}

Test(vf, settings_become_one_document)
{
	fake = (struct fake){0};
	cr_assert_eq(VF("set", "01:10.0", "--vlan", "7", "--rate=50:100", "--link-state", "auto"),
		     CLI_OK);
	cr_assert_str_eq(fake.calls,
			 "vf_set(01:10.0, {\"vlan\":\"7\",\"min_mbps\":\"50\",\"max_mbps\":\"100\","
			 "\"link_state\":\"auto\"}) ");
	cr_assert_eq(VF("set", "01:10.0", "--rate", "9"), CLI_OK);
	cr_assert_str_eq(fake.calls, "vf_set(01:10.0, {\"max_mbps\":\"9\"}) ");
}

Test(vf, bind_unbind_and_destroy_name_the_device)
{
	fake = (struct fake){0};
	cr_assert_eq(VF("bind", "01:10.0"), CLI_OK);
	cr_assert_str_eq(fake.calls, "bind(01:10.0, NULL) ");
	cr_assert_eq(VF("bind", "--driver=igbvf", "01:10.0"), CLI_OK);
	cr_assert_str_eq(fake.calls, "bind(01:10.0, igbvf) ");
	cr_assert_eq(VF("unbind", "01:10.0"), CLI_OK);
	cr_assert_str_eq(fake.calls, "unbind(01:10.0) ");
	cr_assert_eq(VF("destroy", "01:00.0"), CLI_OK);
	cr_assert_str_eq(fake.calls, "vf_destroy(01:00.0) ");
}

Test(vf, a_device_is_given_to_a_user_once_it_is_bound)
{
	fake = (struct fake){0};
	cr_assert_eq(VF("bind", "01:10.0", "--owner", "root"), CLI_OK);
	cr_assert_str_eq(fake.calls, "bind(01:10.0, NULL) own(01:10.0, 0) ");
	cr_assert_eq(VF("bind", "01:10.0", "--owner=4711"), CLI_OK);
	cr_assert_str_eq(fake.calls, "bind(01:10.0, NULL) own(01:10.0, 4711) ");
	cr_assert_eq(VF("bind", "01:10.0", "--owner", "nobody-of-this-name"), CLI_FAILED);
	cr_assert_str_eq(fake.calls, "", "nothing is bound for nobody");
	cr_assert(strstr(fake_err, "nobody-of-this-name"), "%s", fake_err);
	cr_assert_eq(VF("bind", "01:10.0", "--owner=4294967295"), CLI_FAILED);
	fake = (struct fake){.fails = "bind"};
	cr_assert_eq(VF("bind", "01:10.0", "--owner", "root"), CLI_FAILED);
	cr_assert_str_eq(fake.calls, "bind(01:10.0, NULL) ");
}

Test(vf, a_refusal_of_the_library_is_one_line_and_status_1)
{
	static const struct {
		const char *fails;
		const char *words[5];
	} cases[] = {
		{"vf_list", {"vf", "list", NULL}},
		{"vf_create", {"vf", "create", "x", "--count=1", NULL}},
		{"vf_set", {"vf", "set", "x", "--vlan=1", NULL}},
		{"bind", {"vf", "bind", "x", NULL}},
		{"own", {"vf", "bind", "x", "--owner=0", NULL}},
		{"unbind", {"vf", "unbind", "x", NULL}},
		{"vf_destroy", {"vf", "destroy", "x", NULL}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char wanted[64];

		fake = (struct fake){.fails = cases[i].fails};
		cr_assert_eq(fake_run(vf, cases[i].words), CLI_FAILED, "%s", cases[i].fails);
		snprintf(wanted, sizeof(wanted), "hospes: %s: refused\n", cases[i].fails);
		cr_assert_str_eq(fake_err, wanted);
		cr_assert_str_eq(fake_out, "");
	}
}

Test(vf, usage_errors_ask_nothing_of_the_library)
{
	fake = (struct fake){.vf_list = list};
	cr_assert_eq(VF("create", "01:00.0"), CLI_USAGE);
	cr_assert(strstr(fake_err, "--count N is missing"));
	cr_assert_eq(VF("create", "--count", "2"), CLI_USAGE);
	cr_assert_eq(VF("create", "01:00.0", "--count", "two"), CLI_USAGE);
	cr_assert_eq(VF("set", "01:10.0"), CLI_USAGE);
	cr_assert_eq(VF("set", "01:10.0", "--mtu", "9000"), CLI_USAGE);
	cr_assert_eq(VF("bind"), CLI_USAGE);
	cr_assert_eq(VF("bind", "a", "b"), CLI_USAGE);
	cr_assert_eq(VF("lsit"), CLI_USAGE);
	cr_assert_str_eq(fake.calls, "");
}
