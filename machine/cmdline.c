// SPDX-License-Identifier: Apache-2.0
// Options of Linux that cannot work here, found before somebody looks for the disk.
#include "machine/cmdline.h"

#include <string.h>

#include "base/num.h"

/* Is there a word `name`? For names that end with '=': one whose values, with commas between, have
 * `value`? */
static bool has(const char *cmdline, const char *name, const char *value)
{
	size_t length = strlen(name);

	for (const char *p = cmdline + strspn(cmdline, " "); *p; p += strspn(p, " ")) {
		size_t word = strcspn(p, " ");
		const char *v = p + length, *end = p + word;
		bool found = word >= length && !strncmp(p, name, length);

		if (found && !value && v == end)
			return true;
		while (found && value && v < end) {
			size_t n = strcspn(v, ", ");

			if (n == strlen(value) && !strncmp(v, value, n))
				return true;
			v += n + (v[n] == ',');
		}
		p = end;
	}
	return false;
}

const char *cmdline_trouble(const char *cmdline)
{
	static const struct {
		const char *name, *value;
		bool unless_msi; /* devices still interrupt by messages, if the kernel lets them */
		const char *text;
	} options[] = {
		{"acpi=", "off", false,
		 "'acpi=off': ACPI describes this machine, and nothing else does: a kernel without "
		 "it finds no devices; leave the option out"},
		{"nolapic", NULL, false,
		 "'nolapic': devices cannot interrupt without local APICs: no driver works; leave "
		 "the option out"},
		{"disableapic", NULL, false,
		 "'disableapic': devices cannot interrupt without local APICs: no driver works; "
		 "leave the option out"},
		{"noapic", NULL, true,
		 "'noapic' with 'pci=nomsi': devices interrupt by messages or through the I/O APIC "
		 "only: no driver works; leave one of them out"},
		{"acpi=", "noirq", true,
		 "'acpi=noirq' with 'pci=nomsi': only ACPI says how devices are wired to the I/O "
		 "APIC: no driver works; leave one of them out"},
		{"pci=", "noacpi", false,
		 "'pci=noacpi': only ACPI says how devices interrupt: no driver works; leave the "
		 "option out"},
	};
	bool no_msi = has(cmdline, "pci=", "nomsi");

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (has(cmdline, options[i].name, options[i].value) &&
		    (no_msi || !options[i].unless_msi))
			return options[i].text;
	}
	return NULL;
}

bool cmdline_forbids_ecam(const char *cmdline)
{
	static const char *const pci[] = {"nommconf", "conf1", "conf2", "bios", "noacpi", "off"};

	for (size_t i = 0; i < ARRAY_SIZE(pci); i++) {
		if (has(cmdline, "pci=", pci[i]))
			return true;
	}
	return has(cmdline, "acpi=", "off");
}
