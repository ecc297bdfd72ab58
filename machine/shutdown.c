// SPDX-License-Identifier: Apache-2.0
// The guest is asked to power off: by its power button, which is pressed more than once. A guest
// that sleeps (suspend to idle, which needs nothing of the platform) only wakes by the first press,
// and one that boots clears a press from before its driver. A guest that powers off already ignores
// the others.
#include <errno.h>

#include "base/clock.h"
#include "base/num.h"
#include "machine/lacking.h"
#include "machine/vm.h"

/* After 1, 2, 4, 4, ... seconds, for about a minute. */
enum { PRESSES = 17, LONGEST_SHIFT = 2 };

static void press(struct hospes_vm *vm);

static void again(struct loop_op *op, int result)
{
	struct hospes_vm *vm = container_of(op, struct hospes_vm, shutdown.timer);

	vm->shutdown.waits = false;
	if (!result)
		press(vm);
}

static void press(struct hospes_vm *vm)
{
	struct vm_shutdown *s = &vm->shutdown;

	/* Nothing of a paused machine changes. */
	if (atomic_load(&vm->state) == HOSPES_RUNNING)
		pm_power_button(vm->pm);
	s->presses++;
	if (s->waits || s->presses >= PRESSES)
		return;
	s->timer.done = again;
	s->waits = true;
	loop_timer(vm->loop, &s->timer,
		   NS_PER_S << MIN(s->presses - 1, (unsigned int)LONGEST_SHIFT));
}

int vm_do_shutdown(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)arg;
	vm_assert_own_thread(vm);
	if (!arch_has(ARCH_BUTTON))
		return lacking_refuse(ARCH_BUTTON, "the power button", err);
	if (atomic_load(&vm->state) != HOSPES_RUNNING)
		return vm_wrong_state(vm, "press the power button", err);
	vm->shutdown.presses = 0;
	press(vm);
	return 0;
}

void vm_shutdown_done(struct hospes_vm *vm)
{
	if (vm->shutdown.waits)
		loop_cancel(vm->loop, &vm->shutdown.timer);
	while (vm->shutdown.waits && loop_iterate(vm->loop, true) >= 0)
		;
}
