// SPDX-License-Identifier: Apache-2.0
// The gate of vCPU threads. See vcpu_gate.h.
#include "core/vcpu_gate.h"

#include "base/clock.h"

static _Thread_local struct vcpu_gate *own; /* of the calling thread; NULL: no vCPU's */

void vcpu_gate_init(struct vcpu_gate *gate)
{
	pthread_condattr_t attr;

	atomic_init(&gate->want, VCPU_WANT_PAUSE);
	pthread_mutex_init(&gate->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&gate->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void vcpu_gate_done(struct vcpu_gate *gate)
{
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
}

void vcpu_gate_own(struct vcpu_gate *gate)
{
	own = gate;
}

bool vcpu_wanted_out(void)
{
	return own && atomic_load(&own->want) != VCPU_WANT_RUN;
}

void vcpu_wait(uint64_t ns)
{
	struct timespec until = clock_timespec(clock_ns() + ns);
	int rc = 0;

	if (!ns || !own)
		return;
	pthread_mutex_lock(&own->lock);
	while (!rc && !vcpu_wanted_out())
		rc = pthread_cond_timedwait(&own->changed, &own->lock, &until);
	pthread_mutex_unlock(&own->lock);
}
