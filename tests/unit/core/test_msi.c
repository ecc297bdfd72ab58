// SPDX-License-Identifier: Apache-2.0
// MSI: what the capability shows, which vectors have a route, and what a careless guest can write.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "core/msi.h"
#include "core/state.h"
#include "deny.h"
#include "irq_rig.h"

enum {
	GSIS = 40,
	CAP = 0x40,
	ADDRESS = CAP + 4,
	DATA = CAP + 12, /* with a 64-bit address */
	MASK = CAP + 16,
	PENDING = CAP + 20,
	ENABLE = 1,
};

static struct msi *msi;
static unsigned int used_now, told;
static int use_result;

static int used(void *opaque, unsigned int n)
{
	cr_assert_eq(opaque, &dev);
	cr_assert(n == 0 || used_now == 0, "off before on");
	told++;
	if (n && use_result)
		return use_result;
	used_now = n;
	return 0;
}

static void make(unsigned int vectors, bool wide, bool maskable)
{
	const struct msi_config config = {.vectors = vectors,
					  .wide = wide,
					  .maskable = maskable,
					  .vectors_used = used,
					  .opaque = &dev};

	rig_make(GSIS);
	cr_assert_eq(msi_init(&msi, &dev, chip, &config, &err), 0, "%s", err.text);
	rig_attach();
}

static void tear_down(void)
{
	pci_detach(&dev);
	msi_done(msi);
	cr_assert_eq(used_now, 0);
	rig_destroy();
}

static void set_up(void)
{
	make(8, true, true);
}

TestSuite(msi, .init = set_up, .fini = tear_down);
TestSuite(msi_forms, .fini = tear_down);

static void write_config(unsigned int reg, uint32_t v, unsigned int size)
{
	cr_assert(bus_write(mmio, RIG_CONFIG_GPA + reg, &v, size));
}

static uint32_t read_config(unsigned int reg)
{
	uint32_t v = 0;

	cr_assert(bus_read(mmio, RIG_CONFIG_GPA + reg, &v, 4));
	return v;
}

static void message(uint64_t address, uint16_t data)
{
	write_config(ADDRESS, (uint32_t)address, 4);
	write_config(ADDRESS + 4, (uint32_t)(address >> 32), 4);
	write_config(DATA, data, 2);
}

static void enable(unsigned int log2)
{
	write_config(CAP + 2, ENABLE | log2 << 4, 2);
}

static const struct irq_route *route_with(uint32_t data)
{
	for (unsigned int i = 0; i < kernel.n_routes; i++) {
		if (kernel.routes[i].msi && kernel.routes[i].data == data)
			return &kernel.routes[i];
	}
	return NULL;
}

static bool connected(unsigned int v)
{
	for (unsigned int i = RIG_PINS; i < GSIS; i++) {
		if (kernel.fd[i] == msi_fd(msi, v))
			return true;
	}
	return false;
}

Test(msi, the_capability_says_what_there_is)
{
	cr_assert_eq(dev.config[CAP], 0x05);
	cr_assert_eq(load_le16(&dev.config[CAP + 2]), 3 << 1 | 1 << 7 | 1 << 8);
	write_config(MASK, ~0u, 4);
	cr_assert_eq(read_config(MASK), 0xff, "as many mask bits as vectors");
	write_config(ADDRESS, ~0u, 4);
	cr_assert_eq(read_config(ADDRESS), ~3u);
}

Test(msi_forms, a_small_capability_has_a_32_bit_address_and_no_masks)
{
	make(1, false, false);
	cr_assert_eq(load_le16(&dev.config[CAP + 2]), 0);
	write_config(ADDRESS, 0xfee01000, 4);
	write_config(CAP + 8, 0x4321, 2);
	enable(0);
	cr_assert_eq(route_with(0x4321)->address, 0xfee01000);
	cr_assert(connected(0));
	cr_assert_eq(dev.next_cap, CAP + 12);
}

Test(msi_forms, all_32_vectors_want_more_than_there_are)
{
	make(32, true, true);
	message(0xfee01000, 0x4000);
	enable(5);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0, "none rather than some");
	cr_assert_eq(msi_enabled(msi), 32);
	cr_assert_eq(used_now, 0);
	enable(4);
	cr_assert_eq(irq_chip_msi_in_use(chip), 16, "a chip with 16 free GSIs has so many");
	cr_assert_eq(used_now, 16);
}

Test(msi, enabling_routes_each_vector_by_one_table)
{
	unsigned int before = kernel.tables;

	message(0xfee01000, 0x4345);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	enable(2);
	cr_assert_eq(kernel.tables, before + 1);
	cr_assert_eq(irq_chip_msi_in_use(chip), 4);
	cr_assert_eq(msi_enabled(msi), 4);
	cr_assert_eq(used_now, 4);
	for (unsigned int v = 0; v < 4; v++) {
		cr_assert_eq(route_with(0x4344 | v)->devid, 3 << 3);
		cr_assert(connected(v));
	}
	cr_assert_not(connected(4));
	write_config(CAP + 2, 0, 2);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	cr_assert_eq(used_now, 0);
	cr_assert_eq(kernel.n_routes, RIG_PINS);
}

Test(msi, more_than_capable_is_all_there_are)
{
	message(0xfee01000, 0);
	enable(7);
	cr_assert_eq(msi_enabled(msi), 8);
}

Test(msi, another_number_is_told_as_off_and_on)
{
	message(0xfee01000, 0);
	enable(3);
	enable(1);
	cr_assert_eq(used_now, 2);
	cr_assert_eq(told, 3);
	cr_assert_eq(irq_chip_msi_in_use(chip), 2);
}

Test(msi, masks_hold_back_and_show_as_pending)
{
	message(0xfee01000, 0);
	enable(1);
	write_config(MASK, 2, 4);
	cr_assert(connected(0));
	cr_assert_not(connected(1));
	msi_raise(msi, 1);
	cr_assert_eq(read_config(PENDING), 2);
	write_config(MASK, 0, 4);
	cr_assert(connected(1));
	cr_assert_eq(read_config(PENDING), 0);
	cr_assert_eq(fd_event_drain(msi_fd(msi, 1)), 1, "handed on with the connection");
	cr_assert_eq(irq_chip_msi_in_use(chip), 2);
}

Test(msi, nothing_is_sent_while_bus_mastering_is_off)
{
	write_config(4, 0, 2);
	message(0xfee01000, 0);
	enable(0);
	cr_assert_not(connected(0));
	write_config(4, RIG_BUS_MASTER, 2);
	cr_assert(connected(0));
}

Test(msi, a_message_that_changes_while_enabled_takes_effect)
{
	message(0xfee01000, 0x10);
	enable(1);
	message(0xfee02000, 0x20);
	cr_assert_eq(route_with(0x21)->address, 0xfee02000);
	cr_assert_null(route_with(0x11));
	cr_assert_eq(told, 1, "the same use as before");
	cr_assert(connected(0) && connected(1));
}

Test(msi, a_refused_message_is_silence_until_it_is_repaired)
{
	message(0xfee01000, 0x10);
	enable(1);
	write_config(ADDRESS + 4, 0xdeadbeef, 4);
	cr_assert_not(connected(0) || connected(1), "not to the previous address either");
	cr_assert_eq(used_now, 0);
	write_config(MASK, 0, 4);
	cr_assert_not(connected(0));
	write_config(ADDRESS + 4, 0, 4);
	cr_assert(connected(0) && connected(1));
	cr_assert_eq(used_now, 2);
}

Test(msi, a_device_that_cannot_connect_leaves_it_silent)
{
	use_result = -EIO;
	message(0xfee01000, 0x10);
	enable(0);
	cr_assert_not(connected(0));
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	write_config(CAP + 2, 0, 2);
	use_result = 0;
	enable(0);
	cr_assert(connected(0));
}

Test(msi, signals_from_before_are_forgotten)
{
	fd_event_signal(msi_fd(msi, 0));
	msi_raise(msi, 1);
	message(0xfee01000, 0);
	write_config(MASK, 3, 4);
	enable(1);
	cr_assert_eq(read_config(PENDING), 0);
}

Test(msi, reset_turns_it_off)
{
	message(0xfee01000, 0x10);
	write_config(MASK, 1, 4);
	enable(3);
	pci_device_reset(&dev);
	cr_assert_eq(msi_enabled(msi), 0);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	cr_assert_eq(load_le16(&dev.config[CAP + 2]) & 0x71, 0);
	cr_assert_eq(read_config(MASK), 0);
}

Test(msi, eventfds_exist_before_anything_is_enabled)
{
	cr_assert_geq(msi_fd(msi, 7), 0);
	cr_assert_eq(msi_fd(msi, 8), -1);
}

Test(msi, too_few_file_descriptors_are_an_error_that_leaves_none_open)
{
	const struct msi_config config = {.vectors = 32};
	int fds = count_fds();
	struct rlimit limit;
	struct pci_device d;
	struct msi *m;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)fds + 10;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	pci_device_init(&d, &rig_ops, "greedy", &rig_ids);
	cr_assert_eq(msi_init(&m, &d, chip, &config, &err), -EMFILE);
	cr_assert_not_null(strstr(err.text, "greedy"));
	cr_assert_eq(count_fds(), fds);
	cr_assert(list_empty(&d.caps));
}

Test(msi, message_masks_and_pending_vector_come_back_from_a_saved_state)
{
	struct state_buffer buffer = {0};
	struct state_reader *r;
	struct state_writer w;

	message(0xfee01000, 0x10);
	write_config(MASK, 0x2, 4);
	enable(2);
	msi_raise(msi, 1);
	state_writer_begin(&w, state_buffer_sink, &buffer);
	state_writer_owner(&w, "dev");
	pci_device_save(&dev, &w);
	cr_assert_eq(state_writer_end(&w, &err), 0);
	fd_event_drain(msi_fd(msi, 1));
	pci_device_reset(&dev);
	write_config(CAP + 2, 0, 2);

	cr_assert_eq(state_reader_open(&r, buffer.bytes, buffer.len, &err), 0, "%s", err.text);
	state_reader_begin(r, "dev");
	cr_assert_eq(pci_device_load(&dev, r, &err), 0, "%s", err.text);
	cr_assert_eq(msi_enabled(msi), 0, "not before all is checked");
	cr_assert_eq(state_commit(r, &err), 0, "%s", err.text);
	pci_device_loaded(&dev);
	cr_assert_eq(msi_enabled(msi), 4);
	cr_assert_not_null(route_with(0x13));
	cr_assert(connected(0) && !connected(1) && connected(2));
	cr_assert_eq(read_config(PENDING), 0x2);
	write_config(MASK, 0, 4);
	cr_assert(connected(1));
	cr_assert_eq(fd_event_drain(msi_fd(msi, 1)), 1);
	state_reader_close(r);
	free(buffer.bytes);
}
