/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a Linux command line that cannot work on this platform. It is described by ACPI, and
 * its devices interrupt by messages or through the I/O APIC: there is no MP table, and no routing
 * to the 8259.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_CMDLINE_H
#define MACHINE_CMDLINE_H

#include <stdbool.h>

/* What a guest with this command line lacks, and the option to leave out; NULL: nothing is known
 * against it. Constant text. */
const char *cmdline_trouble(const char *cmdline);

/* Does it keep the kernel from the ECAM, so that it needs the ports for PCI config space? */
bool cmdline_forbids_ecam(const char *cmdline);

#endif
