// SPDX-License-Identifier: Apache-2.0
// Options of Linux that cannot work on this platform are found, and no others.
#include <criterion/criterion.h>
#include <string.h>

#include "base/num.h"
#include "machine/cmdline.h"

Test(cmdline, options_that_leave_a_guest_without_devices_are_named)
{
	static const struct {
		const char *cmdline, *option;
	} bad[] = {
		{"acpi=off", "'acpi=off'"},
		{"console=ttyS0  acpi=off root=/dev/vda", "'acpi=off'"},
		{"nolapic quiet", "'nolapic'"},
		{"quiet disableapic", "'disableapic'"},
		{"noapic pci=nomsi", "'noapic'"},
		{"pci=noaer,nomsi quiet noapic", "'noapic'"},
		{"acpi=noirq pci=nomsi", "'acpi=noirq'"},
		{"pci=noacpi quiet", "'pci=noacpi'"},
		{"pci=noacpi,nomsi", "'pci=noacpi'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *text = cmdline_trouble(bad[i].cmdline);

		cr_expect(text && strstr(text, bad[i].option), "%s: %s", bad[i].cmdline, text);
	}
}

Test(cmdline, others_are_not)
{
	static const char *const good[] = {
		"",
		"console=ttyS0 quiet",
		"noapic",
		"pci=nomsi",
		"acpi=noirq",
		"acpi=offline nolapic_timer noapictimer pci=nomsi",
		"hospes.acpi=off xnolapic",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		cr_expect_null(cmdline_trouble(good[i]), "%s", good[i]);
}

Test(cmdline, options_that_forbid_the_ecam_are_known)
{
	static const char *const forbid[] = {"pci=nommconf", "quiet pci=noaer,conf1", "acpi=off",
					     "pci=noacpi"};
	static const char *const allow[] = {"", "quiet pci=noaer,nomsi", "nommconf", "pci=conf10"};

	for (size_t i = 0; i < ARRAY_SIZE(forbid); i++)
		cr_expect(cmdline_forbids_ecam(forbid[i]), "%s", forbid[i]);
	for (size_t i = 0; i < ARRAY_SIZE(allow); i++)
		cr_expect(!cmdline_forbids_ecam(allow[i]), "%s", allow[i]);
}
