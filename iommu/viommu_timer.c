// SPDX-License-Identifier: Apache-2.0
// Ticks of strategies: one timer for all domains, on the virtual IOMMU's loop.
#include "base/clock.h"
#include "base/num.h"
#include "iommu/viommu_impl.h"

/* The loop's thread, under serial. */
static void set_timer(struct viommu *viommu)
{
	uint64_t now = clock_ns();

	if (!viommu->due_ns)
		return;
	if (!viommu->timer_ns) {
		viommu->timer_ns = MAX(viommu->due_ns, now + 1);
		loop_timer(viommu->loop, &viommu->timer, viommu->timer_ns - now);
	} else if (viommu->due_ns < viommu->timer_ns) {
		loop_cancel(viommu->loop, &viommu->timer);
	}
}

static void tick(const struct list *domains)
{
	for (const struct list *item = domains->next; item != domains; item = item->next) {
		struct viommu_domain *d = container_of(item, struct viommu_domain, link);

		if (d->hw)
			hw_domain_tick(d->hw);
	}
}

static void timer_done(struct loop_op *op, int result)
{
	struct viommu *viommu = container_of(op, struct viommu, timer);

	(void)result; /* maybe cancelled, by set_timer */
	pthread_mutex_lock(&viommu->serial);
	viommu->timer_ns = 0;
	if (viommu->due_ns && clock_ns() >= viommu->due_ns) {
		viommu->due_ns = 0;
		tick(&viommu->domains);
		tick(&viommu->orphans);
	}
	set_timer(viommu);
	pthread_mutex_unlock(&viommu->serial);
}

static void wake_done(struct loop_op *op, int result)
{
	struct viommu *viommu = container_of(op, struct viommu, wake);

	(void)result;
	pthread_mutex_lock(&viommu->serial);
	viommu->waking = false;
	set_timer(viommu);
	pthread_mutex_unlock(&viommu->serial);
}

void viommu_wake(void *opaque, uint64_t ns)
{
	const struct viommu_domain *domain = opaque;
	struct viommu *viommu = domain->viommu;
	uint64_t due_ns = clock_ns() + ns;

	if (viommu->due_ns && viommu->due_ns <= due_ns)
		return;
	viommu->due_ns = due_ns;
	viommu->waking = true;
	loop_post(viommu->loop, &viommu->wake);
}

void viommu_timer_init(struct viommu *viommu)
{
	viommu->timer.done = timer_done;
	viommu->wake.done = wake_done;
}

void viommu_timer_finish(struct viommu *viommu)
{
	viommu->due_ns = 0;
	if (viommu->timer_ns)
		loop_cancel(viommu->loop, &viommu->timer);
	while (viommu->timer_ns || viommu->waking) {
		if (loop_iterate(viommu->loop, true))
			break;
	}
}
