// SPDX-License-Identifier: Apache-2.0
// From the tables to a program of the kernel's (BPF), and into it. See filter.h.
#include "sandbox/filter.h"

#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "sandbox-arch/filter_arch.h"

#define X32_BIT 0x40000000u /* numbers of another interface, which no table knows */
enum { FILTER_CALLS = 256, GROUP = 8 };
#define AT(member) ((uint32_t)offsetof(struct seccomp_data, member))

struct program {
	const struct filter_policy *policy;
	struct sock_filter *insns;
	unsigned int n;
};

static struct sock_filter *emit(struct program *p, uint16_t code, uint32_t k)
{
	assert(p->n < FILTER_INSNS);
	p->insns[p->n] = (struct sock_filter){.code = code, .k = k};
	return &p->insns[p->n++];
}

static void load(struct program *p, uint32_t offset)
{
	emit(p, BPF_LD | BPF_W | BPF_ABS, offset);
}

static void answer(struct program *p, enum filter_verdict verdict)
{
	static const uint32_t answers[] = {
		[FILTER_ALLOW] = SECCOMP_RET_ALLOW,
		[FILTER_BY_PATH] = SECCOMP_RET_ALLOW,
		[FILTER_REFUSE] = SECCOMP_RET_ERRNO | EACCES,
		[FILTER_ABSENT] = SECCOMP_RET_ERRNO | ENOSYS,
		[FILTER_DENY] = SECCOMP_RET_ERRNO | EPERM,
		[FILTER_STOP] = SECCOMP_RET_TRAP,
	};

	if (verdict == FILTER_BY_PATH && !p->policy->paths)
		verdict = FILTER_REFUSE;
	emit(p, BPF_RET | BPF_K, answers[verdict]);
}

/* The next `insns` are for a value that equals k. */
static void unless_equal_skip(struct program *p, uint32_t k, uint8_t insns)
{
	emit(p, BPF_JMP | BPF_JEQ | BPF_K, k)->jf = insns;
}

static bool concerns(const struct program *p, uint16_t roles)
{
	return roles >> p->policy->role & 1;
}

/* The request is loaded. */
static void judge_requests(struct program *p)
{
	unsigned int first = p->n;

	for (unsigned int i = 0; i < filter_n_requests; i++) {
		if (concerns(p, filter_requests[i].roles))
			emit(p, BPF_JMP | BPF_JEQ | BPF_K, filter_requests[i].request);
	}
	assert(p->n - first <= UINT8_MAX);
	for (unsigned int i = first; i < p->n; i++)
		p->insns[i].jt = (uint8_t)(p->n - i);
	answer(p, p->policy->others);
	answer(p, FILTER_ALLOW);
}

/* Little endian: the lower half comes first. */
static void judge_row(struct program *p, const struct filter_call *row)
{
	uint32_t value = row->number == SYS_tgkill ? p->policy->pid : row->value;

	if (row->mask) {
		load(p, AT(args) + row->arg * (uint32_t)sizeof(uint64_t));
		emit(p, BPF_ALU | BPF_AND | BPF_K, row->mask);
		unless_equal_skip(p, value, 1);
	}
	answer(p, (enum filter_verdict)row->verdict);
}

/* A call whose first row looks at arguments: all rows of its number. */
static void judge_by_args(struct program *p, const struct filter_call *row)
{
	const struct filter_call *end = filter_calls + filter_n_calls;
	unsigned int skip = p->n;
	uint16_t number = row->number;
	bool whatever = false;

	emit(p, BPF_JMP | BPF_JEQ | BPF_K, number);
	for (; row < end && row->number == number && !whatever; row++) {
		if (!concerns(p, row->roles))
			continue;
		judge_row(p, row);
		whatever = !row->mask;
	}
	if (!whatever)
		answer(p, p->policy->others);
	assert(p->n - skip - 1 <= UINT8_MAX);
	p->insns[skip].jf = (uint8_t)(p->n - skip - 1);
}

/* A few calls one after the other; those of one verdict share its answer. */
static void judge_group(struct program *p, const struct filter_call *const *calls, unsigned int n)
{
	unsigned int at[GROUP], shared;

	for (unsigned int i = 0; i < n; i++) {
		at[i] = p->n;
		if (calls[i]->mask)
			judge_by_args(p, calls[i]);
		else
			emit(p, BPF_JMP | BPF_JEQ | BPF_K, calls[i]->number);
	}
	answer(p, p->policy->others);
	for (enum filter_verdict verdict = FILTER_ALLOW; verdict <= FILTER_STOP; verdict++) {
		shared = p->n;
		for (unsigned int i = 0; i < n; i++) {
			if (calls[i]->mask || calls[i]->verdict != verdict)
				continue;
			if (shared == p->n)
				answer(p, verdict);
			assert(shared - at[i] - 1 <= UINT8_MAX);
			p->insns[at[i]].jt = (uint8_t)(shared - at[i] - 1);
		}
	}
}

/* By halves, at most six deep. The kernel tries a new program with every number that there is, and
 * translates it: both take a thread's start the longer, the longer the program is. */
static void judge_calls(struct program *p, const struct filter_call *const *calls, unsigned int n)
{
	unsigned int half = n / 2, jump;

	if (n <= GROUP) {
		judge_group(p, calls, n);
		return;
	}
	emit(p, BPF_JMP | BPF_JGE | BPF_K, calls[half]->number)->jf = 1;
	jump = p->n;
	emit(p, BPF_JMP | BPF_JA, 0);
	judge_calls(p, calls, half);
	p->insns[jump].k = p->n - jump - 1;
	judge_calls(p, calls + half, n - half);
}

static int by_number(const void *a, const void *b)
{
	const struct filter_call *const *x = a, *const *y = b;

	return (*x)->number - (*y)->number;
}

/* The first row of each number that concerns the role, by number. */
static unsigned int collect(const struct program *p, const struct filter_call *calls[FILTER_CALLS])
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < filter_n_calls; i++) {
		if (!concerns(p, filter_calls[i].roles) ||
		    (n && calls[n - 1]->number == filter_calls[i].number))
			continue;
		assert(n < FILTER_CALLS);
		calls[n++] = &filter_calls[i];
	}
	qsort(calls, n, sizeof(calls[0]), by_number);
	return n;
}

unsigned int filter_build(struct sock_filter program[FILTER_INSNS],
			  const struct filter_policy *policy)
{
	struct program p = {.policy = policy, .insns = program};
	const struct filter_call *calls[FILTER_CALLS];
	unsigned int skip;

	load(&p, AT(arch));
	unless_equal_skip(&p, FILTER_AUDIT_ARCH, 1);
	emit(&p, BPF_JMP | BPF_JA, 1);
	answer(&p, FILTER_STOP);
	load(&p, AT(nr));
	emit(&p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT)->jf = 1;
	answer(&p, FILTER_STOP);
	/* Longer than a conditional jump reaches. */
	emit(&p, BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl)->jf = 1;
	skip = p.n;
	emit(&p, BPF_JMP | BPF_JA, 1);
	emit(&p, BPF_JMP | BPF_JA, 0);
	load(&p, AT(args) + (uint32_t)sizeof(uint64_t));
	judge_requests(&p);
	program[skip + 1].k = p.n - skip - 2;
	judge_calls(&p, calls, collect(&p, calls));
	return p.n;
}

int filter_probe(void)
{
	uint32_t action = SECCOMP_RET_TRAP;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) ? -errno : 0;
}

int filter_enter(const struct filter_policy *policy)
{
	struct sock_filter insns[FILTER_INSNS];
	const struct sock_fprog program = {
		.len = (unsigned short)filter_build(insns, policy),
		.filter = insns,
	};
	sigset_t stops;

	/* A signal that is blocked would end the process without a word. */
	sigemptyset(&stops);
	sigaddset(&stops, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &stops, NULL);
	/* Against speculation a guest is no better or worse off than before. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		       &program)
		       ? -errno
		       : 0;
}
