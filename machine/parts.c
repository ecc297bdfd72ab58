// SPDX-License-Identifier: Apache-2.0
// Parts that come and go with the guest's consent. See parts.h.
#include "machine/parts.h"

#include "base/clock.h"
#include "base/num.h"
#include "machine/vm.h"

#define ANSWER_NS (30 * NS_PER_S)

static void timer_done(struct loop_op *op, int result)
{
	struct vm_parts *p = container_of(op, struct vm_parts, timer);

	(void)result; /* parts_act follows */
	p->timer_set = false;
}

/* In a vCPU thread. */
static void changed(void *opaque)
{
	struct vm_parts *p = opaque;

	atomic_store(&p->changed, true);
	loop_post(p->vm->loop, &p->vm->wake);
}

int parts_create(struct vm_parts *p, struct hospes_vm *vm, const struct parts_ops *ops,
		 const struct plug_config *config, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	struct plug_config plug = *config;
	int rc;

	plug.changed = changed;
	plug.opaque = p;
	p->ops = ops;
	p->vm = vm;
	p->max = config->max;
	p->timer.done = timer_done;
	rc = plug_create(&p->plug, &env, &plug, err);
	if (!rc)
		vm_adopt(vm, p->plug);
	return rc;
}

void parts_begin(struct vm_parts *p)
{
	plug_forget(p->plug);
	p->ops->follow(p->vm);
}

void parts_wait(struct vm_parts *p)
{
	p->until_ns = clock_ns() + ANSWER_NS;
	/* The timer may be for another end. */
	parts_cancel(p);
}

void parts_restart(struct vm_parts *p)
{
	p->ops->follow(p->vm);
	atomic_store(&p->changed, true);
}

struct parts_answers parts_answers(const struct vm_parts *p)
{
	struct parts_answers ret = {0};

	for (unsigned int i = 0; i < p->max; i++) {
		struct plug_view v = plug_look(p->plug, i);

		ret.silent += v.waits != PLUG_NONE;
		if (v.refusal && !ret.refused++) {
			ret.number = i;
			ret.status = v.refusal;
		}
	}
	return ret;
}

static void report(struct vm_parts *p)
{
	char text[360];

	p->ops->explain(p->vm, text, sizeof(text));
	p->until_ns = 0;
	plug_forget(p->plug);
	p->ops->report(p->vm, text);
}

void parts_act(struct vm_parts *p)
{
	uint64_t now_ns;

	if (!p->plug || atomic_load(&p->vm->state) == HOSPES_STOPPED)
		return;
	vm_assert_own_thread(p->vm);
	if (!atomic_exchange(&p->changed, false) && !p->until_ns)
		return;
	p->ops->follow(p->vm);
	now_ns = clock_ns();
	if (p->until_ns ? now_ns >= p->until_ns || !parts_answers(p).silent : p->ops->differ(p->vm))
		report(p);
	if (!p->until_ns || p->timer_set)
		return;
	p->timer_set = true;
	loop_timer(p->vm->loop, &p->timer, p->until_ns - now_ns);
}

void parts_cancel(struct vm_parts *p)
{
	if (p->timer_set)
		loop_cancel(p->vm->loop, &p->timer);
}
