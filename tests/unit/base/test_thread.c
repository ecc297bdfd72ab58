/* SPDX-License-Identifier: Apache-2.0 */
/* Threads by role: name, signals, role. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>

#include "base/num.h"
#include "base/thread.h"

struct seen {
	char name[16];
	sigset_t blocked;
	enum thread_role role;
	size_t stack_bytes;
};

static void *look(void *opaque)
{
	struct seen *seen = opaque;
	pthread_attr_t attr;

	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	pthread_sigmask(SIG_BLOCK, NULL, &seen->blocked);
	seen->role = thread_role();
	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstacksize(&attr, &seen->stack_bytes);
	pthread_attr_destroy(&attr);
	return NULL;
}

static struct seen run(enum thread_role role, unsigned int index)
{
	struct seen seen;
	pthread_t thread;

	cr_assert_eq(thread_start(&thread, role, index, NULL, look, &seen), 0);
	pthread_join(thread, NULL);
	return seen;
}

Test(thread, is_named_after_its_role)
{
	static const struct {
		enum thread_role role;
		unsigned int index;
		const char *name;
	} rows[] = {
		{THREAD_VCPU, 0, "hospes-vcpu0"},     {THREAD_VCPU, 254, "hospes-vcpu254"},
		{THREAD_IO, 63, "hospes-io63"},       {THREAD_MACHINE, 0, "hospes-machine"},
		{THREAD_VIOMMU, 0, "hospes-viommu"},  {THREAD_LOADER, 0, "hospes-loader"},
		{THREAD_HELPER, 15, "hospes-help15"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		cr_expect_str_eq(run(rows[i].role, rows[i].index).name, rows[i].name);
}

Test(thread, knows_its_role)
{
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(run(role, 0).role, role);
	cr_expect_eq(thread_role(), THREAD_FOREIGN, "a thread that nobody started here has none");
}

Test(thread, blocks_every_signal_that_can_be)
{
	struct seen seen = run(THREAD_IO, 0);

	for (int signo = 1; signo <= SIGRTMAX; signo++) {
		if (signo == SIGKILL || signo == SIGSTOP || (signo > 31 && signo < SIGRTMIN))
			continue;
		cr_expect(sigismember(&seen.blocked, signo) == 1, "signal %d", signo);
	}
}

Test(thread, leaves_the_callers_signals_alone)
{
	sigset_t set, after;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	run(THREAD_HELPER, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	cr_expect(sigismember(&after, SIGUSR2) == 1 && !sigismember(&after, SIGTERM));
}

Test(thread, of_a_vcpu_has_a_small_stack)
{
	cr_expect_lt(run(THREAD_VCPU, 0).stack_bytes, 1024 * 1024);
}

static struct thread_limits *limited_by;
static enum thread_role limited_role;
static int limits_result;

static int enter(struct thread_limits *limits, enum thread_role role)
{
	limited_by = limits;
	limited_role = role;
	return limits_result;
}

static void *count(void *opaque)
{
	++*(int *)opaque;
	return NULL;
}

Test(thread, enters_its_limits_before_it_runs)
{
	struct thread_limits limits = {.enter = enter};
	pthread_t thread;
	int runs = 0;

	cr_assert_eq(thread_start(&thread, THREAD_IO, 0, &limits, count, &runs), 0);
	pthread_join(thread, NULL);
	cr_expect_eq(limited_by, &limits);
	cr_expect_eq(limited_role, THREAD_IO);
	cr_expect_eq(runs, 1);
}

Test(thread, does_not_run_without_its_limits)
{
	struct thread_limits limits = {.enter = enter};
	pthread_t thread;
	int runs = 0;

	limits_result = -EPERM;
	cr_expect_eq(thread_start(&thread, THREAD_IO, 0, &limits, count, &runs), -EPERM);
	cr_expect_eq(runs, 0);
}
