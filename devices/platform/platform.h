/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few platform devices a modern guest needs: RTC, ACPI power management (S5, power button),
 * reset ports, pvpanic, PCIe root ports.
 *
 * The port numbers and GSIs are here because the machine passes them to the ACPI tables
 * (firmware/); nothing else may assume them.
 *
 * Threads: creation and destruction in the machine's thread; register accesses in vCPU threads,
 * under the device's lock. The loop of the RTC and of serial ports must be the machine's own:
 * destroy runs it until nothing of the device is in flight, so destroy must not be called from one
 * of its callbacks. Errors: a negative errno, with err.
 */
#ifndef PLATFORM_PLATFORM_H
#define PLATFORM_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/device.h"
#include "core/pci.h"

enum {
	PLATFORM_SERIAL_PORT = 0x3f8,
	PLATFORM_SERIAL_GSI = 4,
	PLATFORM_RTC_PORT = 0x70,
	PLATFORM_GENERATION_GSI = 5, /* edge: there is another generation ID (asl/dsdt.asl) */
	PLATFORM_RTC_GSI = 8,
	PLATFORM_PM_PORT = 0x600, /* PM1 event (4), control (2); timer at + 8 (4): pm.c */
	PLATFORM_SCI_GSI = 9,
	PLATFORM_CPUS_PORT = 0x640,   /* plug.h; GPE0's block is its beginning */
	PLATFORM_MEMORY_PORT = 0x680, /* and of another GPE1's */
	PLATFORM_PLUG_PORTS = 0x40,
	PLATFORM_PANIC_PORT = 0x505, /* pvpanic */
	PLATFORM_RESET_PORT = 0xcf9,
	PLATFORM_RESET_VALUE = 0x06, /* hard reset */
	PLATFORM_S5_TYPE = 5,        /* SLP_TYP of power off, in PM1 control and in \_S5 */
};

/* A request that the guest made through a register. Called in a vCPU thread under the device's
 * lock: record and post. */
enum platform_event {
	PLATFORM_POWER_OFF, /* S5 */
	PLATFORM_RESET,
	PLATFORM_PANICKED,     /* pvpanic: the guest's kernel panicked */
	PLATFORM_CRASH_LOADED, /* pvpanic: a crash kernel takes over; the guest goes on */
};
struct platform_sink {
	void (*event)(void *opaque, enum platform_event event);
	void *opaque;
};

/* MC146818 clock: host's UTC, alarms and periodic interrupt. */
int rtc_create(struct device **ret, const struct device_env *env, struct err *err);

/* ACPI PM1 registers with fixed power button and S5, and the sleep type that SLP_TYP must have; the
 * PM timer. With sleep_control the firmware's way to turn off is understood too. */
int pm_create(struct device **ret, const struct device_env *env, const struct platform_sink *sink,
	      bool sleep_control, struct err *err);
/* Press the power button. Machine's thread. */
void pm_power_button(struct device *dev);

/* Port 0xcf9, and the ACPI reset register which is the same; for guests that use them, the keyboard
 * controller's reset (port 0x64, command 0xfe) and the fast reset of port 0x92. root forwards
 * 0xcf9; the device is destroyed before it. */
int reset_create(struct device **ret, const struct device_env *env, struct pci_root *root,
		 const struct platform_sink *sink, struct err *err);

int pvpanic_create(struct device **ret, const struct device_env *env,
		   const struct platform_sink *sink, struct err *err);

/* A PCIe root port on bus 0, with one slot below it for what is plugged in later. */
struct root_port_config {
	const char *name;
	const struct pci_addr *addr; /* NULL: next free */
	uint16_t slot_number;        /* unique per chassis */
	uint8_t *page;               /* config space, as pci_device.config; NULL: the port's own */
	/* The guest has turned its slot off (root_port_is_off), empty or not. Called in a
	 * vCPU thread under locks: record and post. May be NULL. */
	void (*turned_off)(void *opaque);
	void *opaque;
};
int root_port_create(struct device **ret, const struct device_env *env, struct pci_root *root,
		     const struct root_port_config *config, struct err *err);
struct pci_bus *root_port_bus(struct device *dev);
/* Report to the slot that a device has been attached below, or is about to leave: presence, link
 * and button change, and a guest with a hot-plug driver gets an interrupt. One that is there at
 * power-on (followed by reset) is no event. This and what follows: machine's thread, not under
 * pci_root_lock. */
void root_port_set_present(struct device *dev, bool present);
/* Press the attention button: the guest is asked to give the device up, and does it in seconds, or
 * never. Without effect while its power indicator blinks: it has begun, and a second press would
 * call it off (6.7.1.5). */
void root_port_press(struct device *dev);
/* Has the guest turned off the slot's power and its power indicator? Then it uses nothing below. */
bool root_port_is_off(struct device *dev);
/* Why it has not: "it ...", for a message about the guest. Static storage. */
const char *root_port_refusal(struct device *dev);

#endif
