// SPDX-License-Identifier: Apache-2.0
// A stand-in for Criterion's runner in builds with sanitizers.
//
// Criterion's own maps memory where ThreadSanitizer keeps its shadow, and AddressSanitizer reports
// its leaks. This one implements what the macros of <criterion/criterion.h> call, runs each test
// in a forked child, and writes TAP. It knows plain and parameterized tests, init and fini, signal,
// exit_code, timeout, disabled and cr_skip; not redirection and not theories.
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <sanitizer/lsan_interface.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	EXIT_SKIP = 77,
	DEFAULT_TIMEOUT_S = 300,
};

/* The linker's bounds of the sections in which the macros leave their pointers. */
extern struct criterion_test *const tests_begin[] __asm__("__start_cr_tst");
extern struct criterion_test *const tests_end[] __asm__("__stop_cr_tst");
extern struct criterion_suite *const suites_begin[] __asm__("__start_cr_sts") __attribute__((weak));
extern struct criterion_suite *const suites_end[] __asm__("__stop_cr_sts") __attribute__((weak));

static const struct criterion_suite *running_suite;
static const struct criterion_test *running;
static void *running_param;
static bool expectation_failed;

struct criterion_options criterion_options;

void cri_asserts_passed_incr(void)
{
}

char *cr_translate_assert_msg(int msg_index, ...)
{
	const char *text;
	va_list ap;

	(void)msg_index;
	va_start(ap, msg_index);
	text = va_arg(ap, const char *);
	va_end(ap);
	return strdup(text ? text : "");
}

int cr_asprintf(char **strp, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(strp, fmt, ap);
	va_end(ap);
	return n;
}

void cr_asprintf_free(char *strp)
{
	free(strp);
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (!stats->passed)
		printf("# %s:%u: %s\n", stats->file, stats->line, stats->message);
}

/* The process ends here: what the test left allocated is not a leak worth a second report. */
static void leave(int status) __attribute__((noreturn));
static void leave(int status)
{
	fflush(stdout);
	_exit(status);
}

void criterion_abort_test(void)
{
	leave(1);
}

void criterion_continue_test(void)
{
	expectation_failed = true;
}

__attribute__((format(printf, 1, 2))) void criterion_skip_test(const char *format, ...)
{
	va_list ap;

	printf("# skipped: ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	leave(EXIT_SKIP);
}

__attribute__((format(printf, 1, 2))) void criterion_test_die(const char *msg, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, msg);
	vprintf(msg, ap);
	va_end(ap);
	printf("\n");
	leave(1);
}

void criterion_internal_test_setup(void)
{
	if (running_suite && running_suite->data && running_suite->data->init)
		running_suite->data->init();
	if (running->data->init)
		running->data->init();
}

/* Criterion itself declares a test with a parameter as one without: not for us to report. */
#if defined(__clang__)
__attribute__((no_sanitize("function")))
#endif
void criterion_internal_test_main(void (*fn)(void))
{
	if (running->data->kind_ == CR_TEST_PARAMETERIZED)
		((void (*)(void *))(void *)fn)(running_param);
	else
		fn();
}

void criterion_internal_test_teardown(void)
{
	if (running->data->fini)
		running->data->fini();
	if (running_suite && running_suite->data && running_suite->data->fini)
		running_suite->data->fini();
}

/* LeakSanitizer's question at exit. A test that had opening refused, for the rest of its process,
 * leaves it nothing to look with. */
int __lsan_is_turned_off(void)
{
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return 1;
	close(fd);
	return 0;
}

static void run_child(void) __attribute__((noreturn));
static void run_child(void)
{
	double timeout = running->data->timeout;

	if (timeout <= 0 && running_suite && running_suite->data)
		timeout = running_suite->data->timeout;
	/* Sanitizers slow a test down; its bound is there to end what hangs. */
	alarm(timeout > 0 ? (unsigned int)(timeout * 10) + 1 : DEFAULT_TIMEOUT_S);
	running->test();
	/* exit(), not _exit(): the leak check runs there. */
	exit(expectation_failed ? 1 : running->data->exit_code);
}

/* TAP's line for one run; true if it is a pass. */
static bool report(int number, const char *suffix, int status)
{
	const struct criterion_test_extra_data *data = running->data;
	bool signalled = WIFSIGNALED(status);
	bool skipped =
		!signalled && WEXITSTATUS(status) == EXIT_SKIP && data->exit_code != EXIT_SKIP;
	int want_signal = data->signal;
	bool ok;

	if (!want_signal && running_suite && running_suite->data)
		want_signal = running_suite->data->signal;
	if (skipped)
		ok = true;
	else if (signalled)
		ok = WTERMSIG(status) == want_signal;
	else
		ok = !want_signal && WEXITSTATUS(status) == data->exit_code;
	printf("%s %d - %s::%s%s%s\n", ok ? "ok" : "not ok", number, running->category,
	       running->name, suffix, skipped ? " # SKIP by the test, see above" : "");
	if (!ok)
		printf("# ended by %s %d\n", signalled ? "signal" : "status",
		       signalled ? WTERMSIG(status) : WEXITSTATUS(status));
	return ok;
}

static bool run_one(int number, const char *suffix)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		run_child();
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		printf("not ok %d - %s::%s # cannot fork\n", number, running->category,
		       running->name);
		return false;
	}
	return report(number, suffix, status);
}

static const struct criterion_suite *suite_of(const struct criterion_test *test)
{
	for (struct criterion_suite *const *s = suites_begin; s < suites_end; s++) {
		if (*s && !strcmp((*s)->name, test->category))
			return *s;
	}
	return NULL;
}

static bool run_test(const struct criterion_test *test, int *number)
{
	struct criterion_test_params params;
	bool ok = true;

	running = test;
	running_suite = suite_of(test);
	if (test->data->disabled) {
		printf("ok %d - %s::%s # SKIP disabled\n", ++*number, test->category, test->name);
		return true;
	}
	if (test->data->kind_ != CR_TEST_PARAMETERIZED)
		return run_one(++*number, "");
	params = test->data->param_();
	for (size_t i = 0; i < params.length; i++) {
		char suffix[32];

		snprintf(suffix, sizeof(suffix), "[%zu]", i);
		running_param = (char *)params.params + i * params.size;
		ok = run_one(++*number, suffix) && ok;
	}
	if (params.cleanup)
		params.cleanup(&params);
	return ok;
}

int main(void)
{
	bool ok = true;
	int number = 0;

	printf("TAP version 13\n");
	for (struct criterion_test *const *t = tests_begin; t < tests_end; t++) {
		if (*t)
			ok = run_test(*t, &number) && ok;
	}
	printf("1..%d\n", number);
	return ok ? 0 : 1;
}
