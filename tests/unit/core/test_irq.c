/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupt framework, against a chip that records its calls. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/fd.h"
#include "base/num.h"
#include "core/irq.h"

enum {
	PINS = 24,
	GSIS = 32,
};

static struct {
	struct irq_route routes[GSIS];
	unsigned int n_routes, set_routes_calls;
	int fd[GSIS]; /* connected, or 0 */
	int resample_fd[GSIS];
	bool level[PINS];
	unsigned int edges;
	int refuse_routes, refuse_irqfd;
	uint64_t bad_address;
} chip_state;

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	cr_assert_leq(n, GSIS);
	chip_state.set_routes_calls++;
	for (unsigned int i = 0; i < n; i++) {
		if (routes[i].msi && chip_state.bad_address &&
		    routes[i].address == chip_state.bad_address)
			return -EINVAL;
	}
	if (chip_state.refuse_routes)
		return chip_state.refuse_routes;
	memcpy(chip_state.routes, routes, n * sizeof(*routes));
	chip_state.n_routes = n;
	return 0;
}

static int set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	(void)opaque;
	if (on && chip_state.refuse_irqfd)
		return chip_state.refuse_irqfd;
	chip_state.resample_fd[gsi] = resample_fd;
	cr_assert_eq(chip_state.fd[gsi], on ? 0 : fd, "connected or taken off twice");
	chip_state.fd[gsi] = on ? fd : 0;
	return 0;
}

static int set_line(void *opaque, uint32_t gsi, bool level)
{
	(void)opaque;
	cr_assert_neq(chip_state.level[gsi], level, "only changes are reported");
	chip_state.level[gsi] = level;
	chip_state.edges++;
	return 0;
}

static const struct irq_chip_ops ops = {.set_routes = set_routes,
					.set_irqfd = set_irqfd,
					.set_line = set_line,
					.pins = PINS,
					.max_gsi = GSIS};
static struct irq_chip *chip;
static struct err err;

static void set_up(void)
{
	cr_assert_eq(irq_chip_create(&chip, &ops, NULL, &err), 0);
	cr_assert_eq(irq_chip_start(chip, &err), 0);
}

static void tear_down(void)
{
	irq_chip_destroy(chip);
}

TestSuite(irq, .init = set_up, .fini = tear_down);

static const struct irq_route *route_of(uint32_t gsi)
{
	for (unsigned int i = 0; i < chip_state.n_routes; i++) {
		if (chip_state.routes[i].gsi == gsi)
			return &chip_state.routes[i];
	}
	return NULL;
}

static struct irq_msi source(void)
{
	struct irq_msi m;

	cr_assert_eq(irq_msi_init(&m, chip, 0x0108, &err), 0);
	return m;
}

Test(irq, start_routes_every_pin)
{
	cr_assert_eq(chip_state.n_routes, PINS);
	for (uint32_t i = 0; i < PINS; i++) {
		cr_assert_not(route_of(i)->msi);
		cr_assert_eq(route_of(i)->pin, i);
	}
}

Test(irq, start_tells_a_refusal)
{
	chip_state.refuse_routes = -EPERM;
	cr_assert_eq(irq_chip_start(chip, &err), -EPERM);
	cr_assert_neq(strlen(err.text), 0);
}

Test(irq, enabling_adds_a_route_beside_the_pins_and_connects)
{
	struct irq_msi m = source();

	cr_assert_eq(irq_chip_msi_in_use(chip), 0, "an unused source costs no GSI");
	cr_assert_eq(irq_msi_enable(&m, 0xfee01000, 0x41), 0);
	cr_assert_geq(m.gsi, PINS);
	cr_assert_eq(chip_state.n_routes, PINS + 1);
	cr_assert_eq(route_of(m.gsi)->address, 0xfee01000);
	cr_assert_eq(route_of(m.gsi)->data, 0x41);
	cr_assert_eq(route_of(m.gsi)->devid, 0x0108);
	cr_assert_eq(chip_state.fd[m.gsi], m.fd);
	irq_msi_done(&m);
	cr_assert_eq(chip_state.n_routes, PINS);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
}

Test(irq, a_masked_source_keeps_its_gsi_and_collects_signals)
{
	struct irq_msi m = source();
	uint32_t gsi;

	irq_msi_enable(&m, 0xfee00000, 1);
	gsi = m.gsi;
	irq_msi_mask(&m);
	cr_assert_eq(chip_state.fd[gsi], 0);
	cr_assert_not(irq_msi_pending(&m));
	irq_msi_raise(&m);
	cr_assert(irq_msi_pending(&m));
	cr_assert(irq_msi_pending(&m), "looking does not clear");
	cr_assert_eq(irq_msi_unmask(&m), 0);
	cr_assert_eq(m.gsi, gsi);
	cr_assert_eq(chip_state.fd[gsi], m.fd);
	cr_assert_eq(fd_event_drain(m.fd), 1, "the signal is still there for the chip");
	irq_msi_done(&m);
}

Test(irq, enabling_a_masked_source_does_not_connect_it)
{
	struct irq_msi m = source();

	irq_msi_mask(&m);
	cr_assert_eq(irq_msi_enable(&m, 0xfee00000, 1), 0);
	cr_assert_eq(chip_state.fd[m.gsi], 0);
	irq_msi_done(&m);
}

Test(irq, update_replaces_the_message_in_place)
{
	struct irq_msi m = source();
	unsigned int calls;

	irq_msi_enable(&m, 0xfee00000, 1);
	calls = chip_state.set_routes_calls;
	cr_assert_eq(irq_msi_update(&m, 0xfee00000, 1), 0);
	cr_assert_eq(chip_state.set_routes_calls, calls, "the same again is no change");
	cr_assert_eq(irq_msi_update(&m, 0xfee02000, 2), 0);
	cr_assert_eq(route_of(m.gsi)->address, 0xfee02000);
	cr_assert_eq(chip_state.fd[m.gsi], m.fd);
	irq_msi_done(&m);
}

Test(irq, a_refused_message_takes_nothing_and_spoils_nobody)
{
	struct irq_msi good = source(), bad = source();

	chip_state.bad_address = 0xbad;
	irq_msi_enable(&good, 0xfee00000, 1);
	cr_assert_eq(irq_msi_enable(&bad, 0xbad, 2), -EINVAL);
	cr_assert_not(bad.enabled);
	cr_assert_eq(irq_chip_msi_in_use(chip), 1);
	cr_assert_eq(irq_msi_update(&good, 0xbad, 1), -EINVAL);
	cr_assert_eq(good.address, 0xfee00000);
	cr_assert_eq(irq_msi_enable(&bad, 0xfee03000, 2), 0, "the table is sound again");
	irq_msi_done(&good);
	irq_msi_done(&bad);
}

Test(irq, a_refused_irqfd_gives_the_gsi_back)
{
	struct irq_msi m = source();

	chip_state.refuse_irqfd = -EMFILE;
	cr_assert_eq(irq_msi_enable(&m, 0xfee00000, 1), -EMFILE);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	cr_assert_eq(chip_state.n_routes, PINS);
	irq_msi_mask(&m);
	cr_assert_eq(irq_msi_enable(&m, 0xfee00000, 1), 0);
	cr_assert_eq(irq_msi_unmask(&m), -EMFILE);
	cr_assert(m.masked, "a failed unmask leaves it masked");
	irq_msi_done(&m);
}

Test(irq, gsis_run_out_and_come_back)
{
	struct irq_msi m[GSIS - PINS + 1];
	unsigned int seen = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++)
		m[i] = source();
	for (unsigned int i = 0; i < GSIS - PINS; i++) {
		cr_assert_eq(irq_msi_enable(&m[i], 0xfee00000, i), 0);
		cr_assert_eq(seen & 1u << m[i].gsi, 0, "one GSI, one source");
		seen |= 1u << m[i].gsi;
	}
	cr_assert_eq(irq_msi_enable(&m[GSIS - PINS], 0xfee00000, 9), -ENOSPC);
	irq_msi_disable(&m[3]);
	cr_assert_eq(irq_msi_enable(&m[GSIS - PINS], 0xfee00000, 9), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++)
		irq_msi_done(&m[i]);
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
}

Test(irq, a_shared_line_is_the_or_of_its_holders)
{
	struct irq_line a, b;

	cr_assert_eq(irq_line_get(&a, chip, 5, &err), 0);
	cr_assert_eq(irq_line_get(&b, chip, 5, &err), 0);
	irq_line_set(&a, true);
	irq_line_set(&a, true);
	irq_line_set(&b, true);
	irq_line_set(&a, false);
	cr_assert(chip_state.level[5]);
	irq_line_put(&b);
	cr_assert_not(chip_state.level[5], "who leaves lets go");
	cr_assert_eq(chip_state.edges, 2);
	irq_line_set(&b, true);
	cr_assert_not(chip_state.level[5], "and has no more say");
	irq_line_pulse(&a);
	cr_assert_eq(chip_state.edges, 4);
	irq_line_put(&a);
}

Test(irq, a_line_beyond_the_pins_is_refused)
{
	struct irq_line a;

	cr_assert_eq(irq_line_get(&a, chip, PINS, &err), -EINVAL);
}

static void *churn(void *opaque)
{
	struct irq_msi *m = opaque;

	for (unsigned int i = 0; i < 200; i++) {
		if (irq_msi_enable(m, 0xfee00000, i))
			abort();
		irq_msi_raise(m);
		irq_msi_mask(m);
		if (irq_msi_update(m, 0xfee01000, i) || irq_msi_unmask(m))
			abort();
		irq_msi_disable(m);
	}
	return NULL;
}

Test(irq, sources_of_different_devices_change_at_the_same_time)
{
	struct irq_msi m[4];
	pthread_t t[4];

	for (unsigned int i = 0; i < 4; i++) {
		m[i] = source();
		cr_assert_eq(pthread_create(&t[i], NULL, churn, &m[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		irq_msi_done(&m[i]);
	}
	cr_assert_eq(chip_state.n_routes, PINS);
	for (unsigned int i = 0; i < GSIS; i++)
		cr_assert_eq(chip_state.fd[i], 0);
}

Test(irq, a_line_is_driven_by_one_pair_of_eventfds)
{
	struct irq_line line;

	cr_assert_eq(irq_line_get(&line, chip, 17, &err), 0);
	cr_assert_eq(irq_line_connect(&line, 100, 101), 0);
	cr_assert_eq(chip_state.fd[17], 100);
	cr_assert_eq(chip_state.resample_fd[17], 101);
	cr_assert_eq(irq_line_connect(&line, 102, 103), -EBUSY);
	irq_line_disconnect(&line);
	cr_assert_eq(chip_state.fd[17], 0);
	irq_line_disconnect(&line);
	chip_state.refuse_irqfd = -ENOSPC;
	cr_assert_eq(irq_line_connect(&line, 100, 101), -ENOSPC);
	chip_state.refuse_irqfd = 0;
	cr_assert_eq(irq_line_connect(&line, 100, 101), 0, "a refusal leaves it free");
	irq_line_put(&line);
	cr_assert_eq(chip_state.fd[17], 0, "put disconnects");
	cr_assert_eq(irq_line_connect(&line, 100, 101), -ENODEV);
}

Test(irq, a_batch_sets_its_routes_once_at_its_end)
{
	struct irq_msi m[4];
	unsigned int before = chip_state.set_routes_calls;

	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++) {
		m[i] = source();
		irq_msi_mask(&m[i]);
	}
	irq_batch_begin(chip);
	irq_batch_begin(chip);
	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++)
		cr_assert_eq(irq_msi_enable(&m[i], 0xfee00000, 0x30 + i), 0);
	cr_assert_eq(irq_batch_end(chip), 0);
	cr_assert_eq(chip_state.set_routes_calls, before, "the outer one is open");
	cr_assert_eq(irq_batch_end(chip), 0);
	cr_assert_eq(chip_state.set_routes_calls, before + 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++)
		cr_assert_eq(route_of(m[i].gsi)->data, 0x30 + i);
	irq_batch_begin(chip);
	cr_assert_eq(irq_batch_end(chip), 0);
	cr_assert_eq(chip_state.set_routes_calls, before + 1, "nothing changed, nothing set");
	for (unsigned int i = 0; i < ARRAY_SIZE(m); i++)
		irq_msi_done(&m[i]);
}

Test(irq, a_refused_batch_says_so_and_can_be_undone)
{
	struct irq_msi a = source(), b = source();

	cr_assert_eq(irq_msi_enable(&a, 0xfee00000, 1), 0);
	irq_msi_mask(&b);
	chip_state.bad_address = 0xbad;
	irq_batch_begin(chip);
	cr_assert_eq(irq_msi_enable(&b, 0xbad, 2), 0);
	cr_assert_eq(irq_batch_end(chip), -EINVAL);
	cr_assert_eq(chip_state.n_routes, PINS + 1, "the previous table");
	irq_msi_disable(&b);
	cr_assert_eq(irq_chip_msi_in_use(chip), 1);
	cr_assert_eq(irq_msi_update(&a, 0xfee00000, 3), 0, "the chip goes on");
	irq_msi_done(&b);
	irq_msi_done(&a);
}
