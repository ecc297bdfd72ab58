/* SPDX-License-Identifier: Apache-2.0 */
/* MSI-X: when a vector has a GSI, where its signals go, and what a careless guest can write. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "core/msix.h"
#include "deny.h"
#include "irq_rig.h"

enum {
	GSIS = 32,
	VECTORS = 70,
	ENABLE = 0x8000,
	MASK_ALL = 0x4000,
	ADDRESS = 0,
	DATA = 8,
	CONTROL = 12,
};

static struct msix *msix;
static unsigned int uses, unuses;
static int use_result;

static int used(void *opaque, unsigned int v, bool on)
{
	(void)v;
	cr_assert_eq(opaque, &dev);
	if (!on) {
		unuses++;
		return 0;
	}
	if (!use_result)
		uses++;
	return use_result;
}

static void set_up(void)
{
	const struct msix_config config = {.vectors = VECTORS,
					   .bar = 2,
					   .table_offset = 0x1000,
					   .pba_offset = 0x2000,
					   .vector_used = used,
					   .opaque = &dev};

	rig_make(GSIS);
	cr_assert_eq(msix_init(&msix, &dev, chip, &config, &err), 0, "%s", err.text);
	rig_attach();
}

static void tear_down(void)
{
	pci_detach(&dev);
	msix_done(msix);
	cr_assert_eq(uses, unuses);
	rig_destroy();
}

TestSuite(msix, .init = set_up, .fini = tear_down);

static void command(uint16_t v)
{
	cr_assert(bus_write(mmio, RIG_CONFIG_GPA + 4, &v, 2));
}

static void control(uint16_t v)
{
	cr_assert(bus_write(mmio, RIG_CONFIG_GPA + 0x42, &v, 2));
}

static void entry(unsigned int v, uint64_t address, uint32_t data, bool masked)
{
	msix_table_write(msix, v * 16ull + ADDRESS, address, 8);
	msix_table_write(msix, v * 16ull + DATA, data, 4);
	msix_table_write(msix, v * 16ull + CONTROL, masked, 4);
}

static const struct irq_route *route_to(uint64_t address)
{
	for (unsigned int i = 0; i < kernel.n_routes; i++) {
		if (kernel.routes[i].msi && kernel.routes[i].address == address)
			return &kernel.routes[i];
	}
	return NULL;
}

static bool connected(unsigned int v)
{
	for (unsigned int i = RIG_PINS; i < GSIS; i++) {
		if (kernel.fd[i] == msix_fd(msix, v))
			return true;
	}
	return false;
}

static bool pending(unsigned int v)
{
	return msix_pba_read(msix, v / 64 * 8, 8) >> v % 64 & 1;
}

Test(msix, the_capability_says_where_things_are)
{
	cr_assert_eq(dev.config[0x40], 0x11);
	cr_assert_eq(load_le16(&dev.config[0x42]), VECTORS - 1);
	cr_assert_eq(load_le32(&dev.config[0x44]), 0x1002);
	cr_assert_eq(load_le32(&dev.config[0x48]), 0x2002);
	control(0xffff);
	cr_assert_eq(load_le16(&dev.config[0x42]), 0xc000 | (VECTORS - 1));
}

Test(msix, entries_begin_masked_and_cost_nothing)
{
	for (unsigned int v = 0; v < VECTORS; v++)
		cr_assert_eq(msix_table_read(msix, v * 16 + CONTROL, 4), 1);
	control(ENABLE);
	cr_assert(msix_enabled(msix));
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
}

Test(msix, a_vector_has_a_route_from_its_first_unmask_until_msix_is_off)
{
	control(ENABLE);
	entry(1, 0xfee01000, 0x41, true);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	entry(1, 0xfee01000, 0x41, false);
	cr_assert_eq(irq_chip_msi_in_use(chip), 1);
	cr_assert_eq(uses, 1);
	cr_assert_eq(route_to(0xfee01000)->data, 0x41);
	cr_assert_eq(route_to(0xfee01000)->devid, 3 << 3);
	cr_assert(connected(1));
	entry(1, 0xfee01000, 0x41, true);
	cr_assert_not(connected(1));
	cr_assert_eq(irq_chip_msi_in_use(chip), 1, "masked it keeps its GSI");
	control(0);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	cr_assert_eq(unuses, 1);
}

Test(msix, unmasking_before_enabling_works_too)
{
	entry(0, 0xfee02000, 1, false);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	control(ENABLE | MASK_ALL);
	cr_assert_not(connected(0));
	control(ENABLE);
	cr_assert(connected(0));
}

Test(msix, the_function_mask_masks_all_and_keeps_routes)
{
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	entry(1, 0xfee02000, 1, false);
	control(ENABLE | MASK_ALL);
	cr_assert_not(connected(0) || connected(1));
	cr_assert_eq(irq_chip_msi_in_use(chip), 2);
	msix_raise(msix, 1);
	cr_assert(pending(1));
	cr_assert_not(pending(0));
	control(ENABLE);
	cr_assert(connected(0) && connected(1));
	cr_assert_not(pending(1), "handed on with the connection");
	cr_assert_eq(fd_event_drain(msix_fd(msix, 1)), 1);
}

Test(msix, pending_bits_are_read_in_both_sizes)
{
	control(ENABLE);
	msix_raise(msix, 0);
	msix_raise(msix, 33);
	msix_raise(msix, VECTORS - 1);
	msix_raise(msix, VECTORS);
	cr_assert_eq(msix_pba_read(msix, 0, 8), 1 | 1ull << 33);
	cr_assert_eq(msix_pba_read(msix, 4, 4), 2);
	cr_assert_eq(msix_pba_read(msix, 8, 8), 1ull << (VECTORS - 1 - 64));
	cr_assert_eq(msix_pba_read(msix, 0x1000, 8), 0);
}

Test(msix, a_message_written_while_masked_counts_at_unmask)
{
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	entry(0, 0xfee01000, 1, true);
	msix_table_write(msix, ADDRESS, 0xfee09000, 4);
	msix_table_write(msix, DATA, 0x77, 4);
	cr_assert_null(route_to(0xfee09000));
	msix_table_write(msix, CONTROL, 0, 4);
	cr_assert_eq(route_to(0xfee09000)->data, 0x77);
	cr_assert_null(route_to(0xfee01000));
	cr_assert_eq(uses, 1, "the same use as before");
}

Test(msix, a_message_changed_while_unmasked_takes_effect)
{
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	msix_table_write(msix, ADDRESS, 0xfee09000, 4);
	cr_assert_not_null(route_to(0xfee09000));
	cr_assert(connected(0));
}

Test(msix, a_refused_message_makes_a_silent_vector_until_it_is_repaired)
{
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	entry(1, 0xfee02000, 2, false);
	msix_table_write(msix, ADDRESS + 4, 0xdeadbeef, 4); /* high half: garbage */
	cr_assert_not(connected(0), "not to the previous address either");
	cr_assert(connected(1), "the others go on");
	control(ENABLE | MASK_ALL);
	control(ENABLE);
	cr_assert_not(connected(0));
	cr_assert_eq(kernel.refused, 1, "not tried again before it changes");
	msix_table_write(msix, ADDRESS + 4, 0, 4);
	cr_assert(connected(0));
}

Test(msix, a_device_that_cannot_connect_leaves_the_vector_silent)
{
	control(ENABLE);
	use_result = -EIO;
	entry(0, 0xfee01000, 1, false);
	cr_assert_not(connected(0));
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	use_result = 0;
	entry(0, 0xfee01000, 1, true);
	entry(0, 0xfee01000, 1, false);
	cr_assert(connected(0));
}

Test(msix, more_vectors_than_gsis_are_no_crash)
{
	control(ENABLE);
	for (unsigned int v = 0; v < VECTORS; v++)
		entry(v, 0xfee01000, v, false);
	cr_assert_eq(irq_chip_msi_in_use(chip), GSIS - RIG_PINS);
	cr_assert(connected(0));
	cr_assert_not(connected(VECTORS - 1));
	control(0);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
}

Test(msix, reset_masks_everything_and_forgets_what_was_pending)
{
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	msix_raise(msix, 5);
	pci_device_reset(&dev);
	cr_assert_not(msix_enabled(msix));
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	cr_assert_eq(msix_table_read(msix, ADDRESS, 8), 0);
	cr_assert_eq(msix_table_read(msix, CONTROL, 4), 1);
	cr_assert_not(pending(5));
	cr_assert_eq(load_le16(&dev.config[0x42]) & 0xc000, 0);
}

Test(msix, only_the_mask_bit_of_vector_control_is_there)
{
	msix_table_write(msix, CONTROL, 0xffffffff, 4);
	cr_assert_eq(msix_table_read(msix, CONTROL, 4), 1);
	msix_table_write(msix, DATA, 0xfffffffe00000055, 8);
	cr_assert_eq(msix_table_read(msix, DATA, 8), 0x55);
	msix_table_write(msix, VECTORS * 16, ~0ull, 8);
	cr_assert_eq(msix_table_read(msix, VECTORS * 16, 8), 0, "beyond the table: nothing");
}

Test(msix, eventfds_exist_before_anything_is_enabled)
{
	cr_assert_geq(msix_fd(msix, VECTORS - 1), 0);
	cr_assert_eq(msix_fd(msix, VECTORS), -1);
	cr_assert_eq(msix_vectors(msix), VECTORS);
}

Test(msix, too_few_file_descriptors_are_an_error_that_leaves_none_open)
{
	const struct msix_config config = {.vectors = 100, .pba_offset = 0x800};
	int fds = count_fds();
	struct rlimit limit;
	struct pci_device d;
	struct msix *m;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)fds + 50;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	pci_device_init(&d, &rig_ops, "greedy", &rig_ids);
	cr_assert_eq(msix_init(&m, &d, chip, &config, &err), -EMFILE);
	cr_assert_not_null(strstr(err.text, "greedy"));
	cr_assert_eq(count_fds(), fds);
	cr_assert(list_empty(&d.caps));
}

Test(msix, nothing_is_sent_while_bus_mastering_is_off)
{
	command(0);
	control(ENABLE);
	entry(0, 0xfee01000, 1, false);
	cr_assert_not(connected(0));
	cr_assert_eq(uses, 0);
	msix_raise(msix, 0);
	cr_assert(pending(0));
	command(RIG_BUS_MASTER);
	cr_assert(connected(0));
	cr_assert_eq(fd_event_drain(msix_fd(msix, 0)), 1, "what was held back comes");
	command(0);
	cr_assert_not(connected(0));
	cr_assert_eq(irq_chip_msi_in_use(chip), 1, "it keeps its GSI");
}

Test(msix, enabling_many_vectors_sets_one_table)
{
	unsigned int before;

	for (unsigned int v = 0; v < 6; v++)
		entry(v, 0xfee01000 + (v << 12), v, false);
	before = kernel.tables;
	control(ENABLE);
	cr_assert_eq(kernel.tables, before + 1);
	cr_assert_eq(uses, 6);
	for (unsigned int v = 0; v < 6; v++) {
		cr_assert(connected(v));
		cr_assert_eq(route_to(0xfee01000 + (v << 12))->data, v);
	}
	control(0);
	cr_assert_eq(kernel.tables, before + 2);
	cr_assert_eq(unuses, 6);
}

Test(msix, one_bad_message_among_many_silences_its_own_vector_only)
{
	for (unsigned int v = 0; v < 4; v++)
		entry(v, v == 2 ? 0xdeadbeef00000000 : 0xfee01000 + (v << 12), v, false);
	control(ENABLE);
	for (unsigned int v = 0; v < 4; v++)
		cr_assert_eq(connected(v), v != 2, "vector %u", v);
	cr_assert_eq(irq_chip_msi_in_use(chip), 3);
}
