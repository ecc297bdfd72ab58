// SPDX-License-Identifier: Apache-2.0
// Interrupt framework: one table of routes, set as a whole, because that is what the kernel takes
// (KVM_SET_GSI_ROUTING replaces everything, the I/O APIC's pins included).
#include "core/irq.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/probe.h"

struct irq_chip {
	const struct irq_chip_ops *ops;
	void *opaque;
	/* Guards what follows, and orders the calls of ops. Recursive, for batches. */
	pthread_mutex_t lock;
	unsigned int batches;     /* begun and not ended */
	bool stale;               /* routes changed in a batch */
	struct irq_msi **msis;    /* by gsi, NULL when free */
	struct irq_route *routes; /* scratch, room for all GSIs */
	unsigned int *high;       /* per pin: how many holders assert it */
	unsigned int msi_in_use;
	unsigned int next_gsi; /* where the search for a free one begins */
};

int irq_chip_create(struct irq_chip **ret, const struct irq_chip_ops *ops, void *opaque,
		    struct err *err)
{
	pthread_mutexattr_t attr;
	struct irq_chip *chip;

	assert(ops->pins <= ops->max_gsi);
	if (!mem_new(chip))
		goto no_memory;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&chip->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	chip->ops = ops;
	chip->opaque = opaque;
	chip->next_gsi = ops->pins;
	chip->msis = calloc(ops->max_gsi + 1u, sizeof(struct irq_msi *));
	chip->routes = calloc(ops->max_gsi + 1u, sizeof(*chip->routes));
	chip->high = calloc(ops->pins + 1u, sizeof(*chip->high));
	if (!chip->msis || !chip->routes || !chip->high)
		goto no_memory;
	*ret = chip;
	return 0;
no_memory:
	irq_chip_destroy(chip);
	return err_set(err, -ENOMEM, "interrupts: out of memory for %u routes", ops->max_gsi);
}

void irq_chip_destroy(struct irq_chip *chip)
{
	if (!chip)
		return;
	pthread_mutex_destroy(&chip->lock);
	free(chip->high);
	free(chip->routes);
	free(chip->msis);
	free(chip);
}

/* Lock held. */
static int routes_apply(struct irq_chip *chip)
{
	unsigned int n = 0;

	if (chip->batches) {
		chip->stale = true;
		return 0;
	}
	for (uint32_t gsi = 0; gsi < chip->ops->pins; gsi++)
		chip->routes[n++] = (struct irq_route){.gsi = gsi, .pin = gsi};
	for (uint32_t gsi = chip->ops->pins; gsi < chip->ops->max_gsi; gsi++) {
		const struct irq_msi *msi = chip->msis[gsi];

		if (msi)
			chip->routes[n++] = (struct irq_route){.gsi = gsi,
							       .msi = true,
							       .address = msi->address,
							       .data = msi->data,
							       .devid = msi->devid};
	}
	return chip->ops->set_routes(chip->opaque, chip->routes, n);
}

int irq_chip_start(struct irq_chip *chip, struct err *err)
{
	int ret;

	pthread_mutex_lock(&chip->lock);
	ret = routes_apply(chip);
	pthread_mutex_unlock(&chip->lock);
	if (ret)
		return err_set(err, ret, "cannot set the routes of %u interrupt pins: %s",
			       chip->ops->pins, err_name(ret));
	return 0;
}

void irq_batch_begin(struct irq_chip *chip)
{
	pthread_mutex_lock(&chip->lock);
	chip->batches++;
}

int irq_batch_end(struct irq_chip *chip)
{
	int ret = 0;

	assert(chip->batches);
	if (!--chip->batches && chip->stale) {
		chip->stale = false;
		ret = routes_apply(chip);
	}
	pthread_mutex_unlock(&chip->lock);
	return ret;
}

unsigned int irq_chip_msi_in_use(struct irq_chip *chip)
{
	unsigned int n;

	pthread_mutex_lock(&chip->lock);
	n = chip->msi_in_use;
	pthread_mutex_unlock(&chip->lock);
	return n;
}

int irq_line_get(struct irq_line *line, struct irq_chip *chip, uint32_t gsi, struct err *err)
{
	if (gsi >= chip->ops->pins)
		return err_set(err, -EINVAL, "interrupt line %u: the chip has pins 0 to %u", gsi,
			       chip->ops->pins - 1);
	*line = (struct irq_line){.chip = chip, .gsi = gsi, .fd = -1};
	list_init(&line->link);
	return 0;
}

void irq_line_put(struct irq_line *line)
{
	if (!line->chip)
		return;
	irq_line_disconnect(line);
	irq_line_set(line, false);
	line->chip = NULL;
}

int irq_line_connect(struct irq_line *line, int fd, int resample_fd)
{
	struct irq_chip *chip = line->chip;
	int ret;

	if (!chip)
		return -ENODEV;
	if (line->fd >= 0)
		return -EBUSY;
	pthread_mutex_lock(&chip->lock);
	ret = chip->ops->set_irqfd(chip->opaque, line->gsi, fd, resample_fd, true);
	if (!ret)
		line->fd = fd;
	pthread_mutex_unlock(&chip->lock);
	return ret;
}

void irq_line_disconnect(struct irq_line *line)
{
	struct irq_chip *chip = line->chip;

	if (!chip || line->fd < 0)
		return;
	pthread_mutex_lock(&chip->lock);
	chip->ops->set_irqfd(chip->opaque, line->gsi, line->fd, -1, false);
	line->fd = -1;
	pthread_mutex_unlock(&chip->lock);
}

/* Lock held. */
static void line_set_locked(struct irq_line *line, bool level)
{
	struct irq_chip *chip = line->chip;
	unsigned int *high = &chip->high[line->gsi];

	if (line->level == level)
		return;
	line->level = level;
	probe_pin(line->gsi, level);
	if (level ? (*high)++ == 0 : --*high == 0)
		chip->ops->set_line(chip->opaque, line->gsi, level);
}

void irq_line_set(struct irq_line *line, bool level)
{
	if (!line->chip)
		return;
	pthread_mutex_lock(&line->chip->lock);
	line_set_locked(line, level);
	pthread_mutex_unlock(&line->chip->lock);
}

void irq_line_pulse(struct irq_line *line)
{
	if (!line->chip)
		return;
	pthread_mutex_lock(&line->chip->lock);
	line_set_locked(line, true);
	line_set_locked(line, false);
	pthread_mutex_unlock(&line->chip->lock);
}

int irq_msi_init(struct irq_msi *msi, struct irq_chip *chip, uint32_t devid, struct err *err)
{
	int fd = fd_eventfd();

	*msi = (struct irq_msi){.chip = chip, .fd = -1, .devid = devid};
	if (fd < 0)
		return err_set(err, fd, "cannot create an eventfd for an interrupt: %s%s",
			       err_name(fd),
			       fd == -EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
	msi->fd = fd;
	return 0;
}

void irq_msi_done(struct irq_msi *msi)
{
	if (!msi->chip)
		return;
	irq_msi_disable(msi);
	fd_close(&msi->fd);
	msi->chip = NULL;
}

/* Lock held. Round robin, so that a GSI freed a moment ago is not the next one to be used: what is
 * still on its way to it then goes nowhere. */
static int gsi_alloc(struct irq_chip *chip, uint32_t *ret)
{
	unsigned int first = chip->ops->pins, n = chip->ops->max_gsi - first;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int gsi = first + (chip->next_gsi - first + i) % n;

		if (!chip->msis[gsi]) {
			chip->next_gsi = gsi + 1;
			*ret = gsi;
			return 0;
		}
	}
	return -ENOSPC;
}

/* Lock held. */
static void gsi_free(struct irq_chip *chip, uint32_t gsi)
{
	chip->msis[gsi] = NULL;
	chip->msi_in_use--;
}

static int irqfd(struct irq_msi *msi, bool on)
{
	return msi->chip->ops->set_irqfd(msi->chip->opaque, msi->gsi, msi->fd, -1, on);
}

int irq_msi_enable(struct irq_msi *msi, uint64_t address, uint32_t data)
{
	struct irq_chip *chip = msi->chip;
	int ret;

	if (msi->enabled)
		return irq_msi_update(msi, address, data);
	pthread_mutex_lock(&chip->lock);
	ret = gsi_alloc(chip, &msi->gsi);
	if (ret)
		goto out;
	msi->address = address;
	msi->data = data;
	chip->msis[msi->gsi] = msi;
	chip->msi_in_use++;
	ret = routes_apply(chip);
	if (ret) {
		/* The kernel refused the table as a whole and keeps the one before. */
		gsi_free(chip, msi->gsi);
		goto out;
	}
	if (!msi->masked)
		ret = irqfd(msi, true);
	if (ret) {
		gsi_free(chip, msi->gsi);
		routes_apply(chip);
		goto out;
	}
	msi->enabled = true;
out:
	pthread_mutex_unlock(&chip->lock);
	return ret;
}

int irq_msi_update(struct irq_msi *msi, uint64_t address, uint32_t data)
{
	struct irq_chip *chip = msi->chip;
	uint64_t old_address = msi->address;
	uint32_t old_data = msi->data;
	int ret = 0;

	if (!msi->enabled)
		return irq_msi_enable(msi, address, data);
	if (address == old_address && data == old_data)
		return 0;
	pthread_mutex_lock(&chip->lock);
	msi->address = address;
	msi->data = data;
	ret = routes_apply(chip);
	if (ret) {
		msi->address = old_address;
		msi->data = old_data;
	}
	pthread_mutex_unlock(&chip->lock);
	return ret;
}

void irq_msi_mask(struct irq_msi *msi)
{
	if (msi->masked)
		return;
	pthread_mutex_lock(&msi->chip->lock);
	msi->masked = true;
	if (msi->enabled)
		irqfd(msi, false);
	pthread_mutex_unlock(&msi->chip->lock);
}

int irq_msi_unmask(struct irq_msi *msi)
{
	int ret = 0;

	if (!msi->masked)
		return 0;
	pthread_mutex_lock(&msi->chip->lock);
	if (msi->enabled)
		ret = irqfd(msi, true);
	if (!ret)
		msi->masked = false;
	pthread_mutex_unlock(&msi->chip->lock);
	return ret;
}

bool irq_msi_signalled(const struct irq_msi *msi)
{
	struct pollfd p = {.fd = msi->fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

bool irq_msi_pending(const struct irq_msi *msi)
{
	/* While connected, the chip takes signals off the eventfd as they come. */
	if (msi->enabled && !msi->masked)
		return false;
	return irq_msi_signalled(msi);
}

void irq_msi_disable(struct irq_msi *msi)
{
	struct irq_chip *chip = msi->chip;

	if (!msi->enabled)
		return;
	pthread_mutex_lock(&chip->lock);
	if (!msi->masked)
		irqfd(msi, false);
	msi->enabled = false;
	gsi_free(chip, msi->gsi);
	/* A refusal leaves a route that nothing signals; the next table is without it. */
	routes_apply(chip);
	pthread_mutex_unlock(&chip->lock);
}

void irq_msi_raise(struct irq_msi *msi)
{
	probe_interrupt(msi->fd);
	fd_event_signal(msi->fd);
}
