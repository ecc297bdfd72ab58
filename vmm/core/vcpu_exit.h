/* SPDX-License-Identifier: Apache-2.0 */
/* What an exit of KVM_RUN means: pure functions of struct kvm_run and the buses, apart from the
 * threads so that tests can feed them. Private to vcpu.c and its tests. */
#ifndef CORE_VCPU_EXIT_H
#define CORE_VCPU_EXIT_H

#include "core/bus.h"
#include "core/vcpu.h"

enum { VCPU_EXIT_TEXT = 256 };

/* Carry out the access; for reads, the data is left where KVM takes it at the next entry. */
void vcpu_exit_io(struct kvm_run *run, struct bus *pio);
void vcpu_exit_mmio(struct kvm_run *run, struct bus *mmio);

/* Any other exit: true when it is an event, with its text; false when the vCPU just goes on. */
bool vcpu_exit_event(const struct kvm_run *run, enum vcpu_event *event, char text[VCPU_EXIT_TEXT]);

/* KVM_RUN itself failed with rc: its text. */
void vcpu_exit_failure(const struct kvm_run *run, int rc, char text[VCPU_EXIT_TEXT]);

#endif
