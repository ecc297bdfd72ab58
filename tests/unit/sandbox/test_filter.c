// SPDX-License-Identifier: Apache-2.0
// The filter's programs against their tables: an interpreter of our own runs them, for every call
// and every role.
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "base/num.h"
#include "sandbox/filter.h"

enum { CALLS = 600, PID = 4711 };

static uint32_t run(const struct sock_filter *program, const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (unsigned int i = 0;; i++) {
		const struct sock_filter *f = &program[i];
		bool holds;

		cr_assert_lt(i, FILTER_INSNS);
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			cr_assert_leq(f->k, sizeof(*data) - sizeof(a));
			memcpy(&a, (const char *)data + f->k, sizeof(a));
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			break;
		case BPF_JMP | BPF_JA:
			i += f->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_K:
			holds = BPF_OP(f->code) == BPF_JEQ ? a == f->k : a >= f->k;
			i += holds ? f->jt : f->jf;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			cr_assert_fail("instruction 0x%x", f->code);
		}
	}
}

static uint32_t answer_of(enum filter_verdict verdict, const struct filter_policy *policy)
{
	switch (verdict) {
	case FILTER_BY_PATH:
		return policy->paths ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EACCES;
	case FILTER_ALLOW:
		return SECCOMP_RET_ALLOW;
	case FILTER_REFUSE:
		return SECCOMP_RET_ERRNO | EACCES;
	case FILTER_ABSENT:
		return SECCOMP_RET_ERRNO | ENOSYS;
	case FILTER_DENY:
		return SECCOMP_RET_ERRNO | EPERM;
	case FILTER_STOP:
		return SECCOMP_RET_TRAP;
	}
	return 0;
}

/* As filter.h says it. */
static uint32_t wanted(const struct seccomp_data *data, const struct filter_policy *policy)
{
	uint32_t role = 1u << policy->role;

	if (data->nr == SYS_ioctl) {
		for (unsigned int i = 0; i < filter_n_requests; i++) {
			if (filter_requests[i].roles & role &&
			    filter_requests[i].request == (uint32_t)data->args[1])
				return SECCOMP_RET_ALLOW;
		}
		return answer_of(policy->others, policy);
	}
	for (unsigned int i = 0; i < filter_n_calls; i++) {
		const struct filter_call *row = &filter_calls[i];
		uint32_t value = row->number == SYS_tgkill ? policy->pid : row->value;

		if (row->number == data->nr && row->roles & role &&
		    (!row->mask || ((uint32_t)data->args[row->arg] & row->mask) == value))
			return answer_of((enum filter_verdict)row->verdict, policy);
	}
	return answer_of(policy->others, policy);
}

static void compare(const struct sock_filter *program, const struct seccomp_data *data,
		    const struct filter_policy *policy)
{
	uint32_t got = run(program, data), want = wanted(data, policy);

	cr_assert_eq(got, want, "%s: call %d (0x%llx, 0x%llx): 0x%x, and the table says 0x%x",
		     thread_role_name(policy->role), data->nr, (unsigned long long)data->args[0],
		     (unsigned long long)data->args[1], got, want);
}

static void check(const struct filter_policy *policy)
{
	struct sock_filter program[FILTER_INSNS];
	struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64};
	unsigned int n = filter_build(program, policy);

	cr_assert_leq(n, FILTER_INSNS);
	for (data.nr = 0; data.nr < CALLS; data.nr++)
		compare(program, &data, policy);
	/* Each row's own value, and what is next to it. */
	for (unsigned int i = 0; i < filter_n_calls; i++) {
		const struct filter_call *row = &filter_calls[i];

		data.nr = row->number;
		for (uint32_t bit = 1; bit; bit <<= 1) {
			data.args[row->arg] = row->value;
			compare(program, &data, policy);
			data.args[row->arg] = row->value ^ bit;
			compare(program, &data, policy);
		}
		data.args[row->arg] = PID;
		compare(program, &data, policy);
		memset(data.args, 0, sizeof(data.args));
	}
	data.nr = SYS_ioctl;
	for (unsigned int i = 0; i < filter_n_requests; i++) {
		data.args[1] = filter_requests[i].request;
		compare(program, &data, policy);
		data.args[1]++;
		compare(program, &data, policy);
	}
	data = (struct seccomp_data){.arch = AUDIT_ARCH_I386, .nr = SYS_read};
	cr_expect_eq(run(program, &data), SECCOMP_RET_TRAP, "another architecture's calls");
	data = (struct seccomp_data){.arch = AUDIT_ARCH_X86_64, .nr = 0x40000000 | SYS_read};
	cr_expect_eq(run(program, &data), SECCOMP_RET_TRAP, "those of x32");
}

Test(filter, each_program_does_what_its_tables_say)
{
	struct filter_policy policy = {.pid = PID};

	for (policy.role = THREAD_FOREIGN; policy.role < THREAD_ROLES; policy.role++) {
		for (int paths = 0; paths < 2; paths++) {
			policy.paths = paths;
			policy.others = FILTER_DENY;
			check(&policy);
			policy.others = FILTER_STOP;
			check(&policy);
		}
	}
}

Test(filter, rows_of_one_number_follow_each_other)
{
	for (unsigned int i = 1; i < filter_n_calls; i++) {
		for (unsigned int j = 0; j + 1 < i; j++)
			cr_expect(filter_calls[j].number != filter_calls[i].number ||
					  filter_calls[i - 1].number == filter_calls[i].number,
				  "row %u", i);
	}
}

Test(filter, only_vcpus_run_the_guest_and_no_vcpu_has_a_ring)
{
	struct seccomp_data run_guest = {
		.arch = AUDIT_ARCH_X86_64, .nr = SYS_ioctl, .args = {0, 0xae80}}; /* KVM_RUN */
	struct seccomp_data enter_ring = {.arch = AUDIT_ARCH_X86_64, .nr = SYS_io_uring_enter};
	struct filter_policy policy = {.others = FILTER_DENY, .pid = PID};
	struct sock_filter program[FILTER_INSNS];

	for (policy.role = THREAD_VCPU; policy.role < THREAD_ROLES; policy.role++) {
		bool is_vcpu = policy.role == THREAD_VCPU;

		filter_build(program, &policy);
		cr_expect_eq(run(program, &run_guest) == SECCOMP_RET_ALLOW, is_vcpu);
		cr_expect(!is_vcpu || run(program, &enter_ring) != SECCOMP_RET_ALLOW);
	}
}
