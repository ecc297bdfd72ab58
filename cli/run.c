// SPDX-License-Identifier: Apache-2.0
// hospes run: create a machine, start it, pass signals and the terminal to it, report how it ended.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "cloud_init.h"
#include "consoles.h"
#include "daemons.h"
#include "document.h"
#include "hospes/hospes.h"
#include "incoming.h"
#include "notify.h"
#include "output.h"
#include "restore.h"
#include "serve.h"
#include "signals.h"
#include "silence.h"
#include "standard.h"
#include "terminal.h"
#include "violation.h"

/* Where the compiler's instrumentation writes files at the end. */
#ifdef CLI_INSTRUMENTED
enum { RUN_UNCONFINED = true };
#else
enum { RUN_UNCONFINED = false };
#endif

enum { SILENCE_S = 10 /* without a word on the console, until that is explained */ };

struct run_options {
	json_t *document; /* NULL: no flag and no file was given */
	bool dry_run, json_log, verify;
	unsigned int verbose; /* how often it was given */
	const char *log_path;
	unsigned int grace_s; /* between the power button and the end, after SIGTERM */
	const char *control;  /* NULL: by the machine's name */
	const char *incoming; /* an address; NULL: the machine starts here */
};

struct run {
	struct hospes_vm *vm;
	struct output output;
	struct run_options options;
	struct serve serve;
	struct daemons daemons; /* that were started for the machine */
	struct notify notify;   /* the machine's threads tell it what happens */
	int incoming_fd;        /* until the machine has its duplicate */
	int signal_fd;
	int stopped_fd;    /* eventfd: the machine has stopped */
	int grace_fd;      /* timerfd: the guest had its time to power off */
	int silence_fd;    /* timerfd: it had its time to write something */
	int to_guest;      /* pipe to the console's input, -1 without a terminal */
	int from_terminal; /* its other end, the document's `in` */
	bool in_front;     /* the terminal is ours, and raw */
	struct terminal_filter filter;
	bool may_be_silent; /* and it was not looked at yet */
	bool ending;        /* SIGTERM was seen */
	bool ended;         /* we ended it ourselves */
	bool stuck;         /* it does not end: the process has to */
	uint8_t typed[512];
	size_t n_typed; /* for the guest, not yet taken by the pipe */
};

static void on_event(void *opaque, const struct hospes_event *event)
{
	struct run *run = opaque;
	uint64_t one = 1;

	serve_event(&run->serve, event);
	notify_event(&run->notify, event);
	if (event->type == HOSPES_EVENT_STATE && event->value == HOSPES_STOPPED &&
	    write(run->stopped_fd, &one, sizeof(one)) < 0)
		abort(); /* a fresh eventfd takes a one */
}

static void warn(const struct hospes_error *error, int rc)
{
	if (rc < 0)
		cli_error("%s", error->text);
}

static void press_power(struct run *run)
{
	struct hospes_error error;

	warn(&error, hospes_vm_shutdown(run->vm, &error));
}

static void end_now(struct run *run)
{
	struct hospes_error error;
	int rc = hospes_vm_stop(run->vm, &error);

	run->ended = true;
	run->stuck = rc == -ETIMEDOUT;
	warn(&error, rc);
}

static void show(struct run *run,
		 int (*ask)(struct hospes_vm *vm, char **text, struct hospes_error *error))
{
	struct hospes_error error;
	char *text;
	int rc = ask(run->vm, &text, &error);

	warn(&error, rc);
	if (rc < 0)
		return;
	cli_show("\n");
	cli_show(text);
	cli_show("\n");
	hospes_free(text);
}

/* What the library's strategies are; NULL: the message was printed. */
static json_t *load_strategies(json_t **host)
{
	struct hospes_error error;
	char *text;
	int rc = hospes_iommu_list(&text, &error);

	warn(&error, rc);
	*host = rc < 0 ? NULL : answer_load(text);
	return json_object_get(*host, "strategies");
}

static void set_strategy(struct run *run, unsigned int i)
{
	json_t *host, *strategy = json_array_get(load_strategies(&host), i);
	struct hospes_error error;

	if (strategy)
		warn(&error,
		     hospes_vm_set_strategy(run->vm, text_of(strategy, "name", ""), &error));
	else
		cli_error("there is no strategy %u; Ctrl-A h lists them", i + 1);
	json_decref(host);
}

static void show_help(void)
{
	json_t *host, *strategy;
	size_t i;

	fputs(terminal_help, stderr);
	json_array_foreach(load_strategies(&host), i, strategy)
	{
		fprintf(stderr,
			"Ctrl-A %zu       strategy '%s' for passed-through devices behind "
			"the virtual IOMMU\n",
			i + 1, text_of(strategy, "name", ""));
	}
	json_decref(host);
}

static void end_by_signal(struct run *run)
{
	struct itimerspec grace = {.it_value = {.tv_sec = run->options.grace_s}};

	if (run->ending || run->options.grace_s == 0) {
		end_now(run);
		return;
	}
	run->ending = true;
	cli_error("asking the guest to power off (%u s; once more ends it at once)",
		  run->options.grace_s);
	notify_stopping(&run->notify);
	press_power(run);
	timerfd_settime(run->grace_fd, 0, &grace, NULL);
}

static void on_signal(struct run *run)
{
	switch (signals_read(run->signal_fd)) {
	case SIGNALS_FOREGROUND:
		run->in_front = false; /* look again */
		break;
	case SIGNALS_STATUS:
		show(run, hospes_vm_status);
		show(run, hospes_vm_registers);
		break;
	case SIGNALS_POWER:
		press_power(run);
		break;
	case SIGNALS_END:
		end_by_signal(run);
		break;
	default:
		break;
	}
}

static void feed_guest(struct run *run)
{
	ssize_t n = write(run->to_guest, run->typed, run->n_typed);

	if (n <= 0)
		return;
	run->n_typed -= (size_t)n;
	memmove(run->typed, run->typed + n, run->n_typed);
}

static void on_terminal(struct run *run)
{
	struct hospes_error error;
	uint8_t bytes[sizeof(run->typed)];
	ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes) - run->n_typed);
	size_t at = 0;

	if (got < 0 && !terminal_is_ours())
		return; /* since the last look */
	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
		/* The terminal is gone. */
		close(run->to_guest);
		run->to_guest = -1;
		return;
	}
	while (got > 0 && at < (size_t)got) {
		enum terminal_command command;
		size_t used;
		size_t kept = terminal_filter(&run->filter, bytes + at, (size_t)got - at, &used,
					      &command);

		memcpy(run->typed + run->n_typed, bytes + at, kept);
		run->n_typed += kept;
		at += used;
		if (command == TERMINAL_END)
			end_now(run);
		else if (command == TERMINAL_POWER)
			press_power(run);
		else if (command == TERMINAL_RESET)
			warn(&error, hospes_vm_reset(run->vm, &error));
		else if (command == TERMINAL_STATUS)
			show(run, hospes_vm_status);
		else if (command == TERMINAL_REGISTERS)
			show(run, hospes_vm_registers);
		else if (command == TERMINAL_STRATEGY)
			set_strategy(run, run->filter.strategy);
		else if (command == TERMINAL_HELP)
			show_help();
	}
	feed_guest(run);
}

static void look_for_silence(struct run *run)
{
	struct hospes_error error;
	char *status;

	if (!run->may_be_silent)
		return;
	run->may_be_silent = false;
	if (hospes_vm_status(run->vm, &status, &error) == 0)
		silence_explain(run->options.document, status);
}

/* A job comes to the front and leaves it as its shell wants, which need not say so: while it is
 * behind, look again each second. Returns the time to wait, for poll. */
static int look_at_terminal(struct run *run)
{
	bool in_front = run->to_guest >= 0 && terminal_is_ours();

	/* Its modes are the shell's after each stop. */
	if (in_front && !run->in_front)
		terminal_raw();
	run->in_front = in_front;
	return run->to_guest >= 0 && !in_front ? 1000 : -1;
}

/* Wait for the end, serving signals and the terminal. */
static void attend(struct run *run)
{
	while (!run->stuck) {
		int wait_ms = look_at_terminal(run);
		struct pollfd fds[] = {
			{.fd = run->stopped_fd, .events = POLLIN},
			{.fd = run->signal_fd, .events = POLLIN},
			{.fd = run->grace_fd, .events = POLLIN},
			/* Read no more than the guest takes. */
			{.fd = run->in_front && !run->n_typed ? STDIN_FILENO : -1,
			 .events = POLLIN},
			{.fd = run->n_typed ? run->to_guest : -1, .events = POLLOUT},
			{.fd = run->may_be_silent ? run->silence_fd : -1, .events = POLLIN},
			{.fd = serve_fd(&run->serve), .events = POLLIN},
			{.fd = run->notify.watchdog_fd, .events = POLLIN},
		};
		uint64_t ticks;

		if (poll(fds, sizeof(fds) / sizeof(fds[0]), wait_ms) < 0 && errno != EINTR)
			return;
		if (fds[0].revents)
			return;
		if (fds[1].revents)
			on_signal(run);
		if (fds[2].revents && read(run->grace_fd, &ticks, sizeof(ticks)) > 0) {
			cli_error("the guest did not power off within %u s: ending it",
				  run->options.grace_s);
			end_now(run);
		}
		if (fds[3].revents)
			on_terminal(run);
		if (fds[4].revents)
			feed_guest(run);
		if (fds[5].revents)
			look_for_silence(run);
		if (fds[6].revents)
			serve_iterate(&run->serve);
		if (fds[7].revents)
			notify_watchdog(&run->notify, run->vm);
	}
}

static int exit_status(struct run *run)
{
	switch (hospes_vm_outcome(run->vm)) {
	case HOSPES_OUTCOME_POWERED_OFF:
	case HOSPES_OUTCOME_RESET:
	case HOSPES_OUTCOME_MIGRATED:
		return CLI_OK;
	case HOSPES_OUTCOME_PANICKED:
		cli_error("the guest's kernel panicked");
		return CLI_CRASHED;
	case HOSPES_OUTCOME_CRASHED:
		cli_error("the guest crashed (triple fault)");
		return CLI_CRASHED;
	case HOSPES_OUTCOME_KILLED:
		cli_error("the machine was ended%s", run->ending ? " by a signal" : "");
		return CLI_FAILED;
	default:
		return CLI_FAILED;
	}
}

/* Once the machine has its duplicates of what the document names by number: a number that nobody
 * handed in is then refused, where it would be one of these. */
static int open_fds(struct run *run)
{
	run->signal_fd = signals_open();
	run->stopped_fd = eventfd(0, EFD_CLOEXEC);
	run->grace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	run->silence_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (run->signal_fd >= 0 && run->stopped_fd >= 0 && run->grace_fd >= 0 &&
	    run->silence_fd >= 0)
		return CLI_OK;
	cli_error("cannot make event descriptors: %s", strerror(errno));
	return CLI_FAILED;
}

static int create_machine(struct run *run, json_t *document)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.log = output_log,
		.log_opaque = &run->output,
		.log_level = run->options.verbose >= 2   ? HOSPES_LOG_DEBUG
			     : run->options.verbose == 1 ? HOSPES_LOG_INFO
							 : HOSPES_LOG_WARNING,
		.event = on_event,
		.event_opaque = run,
	};
	struct hospes_error error;
	char *text = json_dumps(document, JSON_COMPACT);
	int status = CLI_OK;

	if (!text || hospes_vm_create(&run->vm, text, strlen(text), &options, &error) < 0) {
		cli_error("%s", text ? error.text : "no memory");
		status = CLI_FAILED;
	}
	free(text);
	return status;
}

/* This thread, with the last that it needs by path: the control socket, which it removes. */
static int confine(struct run *run, struct hospes_error *error)
{
	char directory[SOCKET_PATH];

	if (RUN_UNCONFINED)
		return 0;
	return hospes_vm_confine(run->vm, serve_directory(&run->serve, directory), error);
}

/* From its start to its end; its outcome, as an exit status. */
static int live(struct run *run)
{
	const struct itimerspec patience = {.it_value = {.tv_sec = SILENCE_S}};
	struct hospes_error error;

	if (hospes_vm_start(run->vm, &error) < 0 || confine(run, &error) < 0) {
		cli_error("%s", error.text);
		return CLI_FAILED;
	}
	notify_ready(&run->notify);
	run->may_be_silent = !run->options.incoming && silence_is_likely(run->options.document);
	timerfd_settime(run->silence_fd, 0, &patience, NULL);
	attend(run);
	serve_iterate(&run->serve); /* its last events */
	/* A machine that ended by itself may still have a thread that does not return. */
	if (!run->ended && hospes_vm_stop(run->vm, &error) == -ETIMEDOUT)
		run->stuck = true;
	if (run->stuck)
		return CLI_FAILED;
	look_for_silence(run);
	return exit_status(run);
}

/* With what is made for it, which it has then, or never. */
static int create_with_parts(struct run *run, json_t *document)
{
	int seed, status = cloud_init_seed(document, &seed);

	if (status == CLI_OK)
		status = daemons_start(&run->daemons, document);
	if (status == CLI_OK)
		status = create_machine(run, document);
	daemons_release(&run->daemons);
	if (seed >= 0)
		close(seed);
	return status;
}

static int run_machine(struct run *run, json_t *document)
{
	int status;

	signals_keep_others();
	violation_explain();
	status = serve_prepare(&run->serve, run->options.control,
			       json_string_value(json_object_get(document, "name")));
	if (status == CLI_OK)
		status = consoles_take_terminal(document, &run->from_terminal, &run->to_guest);
	if (status == CLI_OK)
		status = create_with_parts(run, document);
	if (status != CLI_OK)
		return status;
	if (run->incoming_fd >= 0)
		close(run->incoming_fd);
	run->incoming_fd = -1;
	strays_close(run->serve.socket.fd);
	notify_open(&run->notify);
	status = open_fds(run);
	if (status == CLI_OK)
		status = serve_start(&run->serve, run->vm);
	if (status == CLI_OK) {
		signals_keep_ending();
		look_at_terminal(run);
		if (run->to_guest >= 0 && !run->in_front)
			cli_error("in the background; in the foreground ('fg'), what is typed goes "
				  "to the guest");
		status = live(run);
		terminal_restore();
	}
	if (run->stuck) {
		/* The kernel ends the hold on devices in the order that is safe (hospes.h). */
		cli_error("leaving without it: the kernel takes back what it holds");
		socket_done(&run->serve.socket);
		_exit(CLI_FAILED);
	}
	hospes_vm_destroy(run->vm);
	return status;
}

static int dry_run(json_t *document)
{
	char *text = json_dumps(document, JSON_COMPACT);
	struct hospes_error error;
	char *effective;

	if (!text || hospes_config_check(text, strlen(text), &effective, &error) < 0) {
		cli_error("%s", text ? error.text : "no memory");
		free(text);
		return CLI_FAILED;
	}
	fputs(effective, stdout);
	hospes_free(effective);
	free(text);
	return CLI_OK;
}

static void close_fds(struct run *run)
{
	int fds[] = {run->signal_fd, run->stopped_fd,    run->grace_fd,   run->silence_fd,
		     run->to_guest,  run->from_terminal, run->incoming_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

static const struct option run_options[] = {
	{"dry-run", NULL, "print the effective document and do nothing",
	 OPTION_AT(SWITCH, struct run_options, dry_run)},
	{"verify", NULL, "with --restore: check the snapshot's checksums first",
	 OPTION_AT(SWITCH, struct run_options, verify)},
	{"incoming", "ADDRESS",
	 "wait there for a machine that comes ('hospes ctl NAME migrate ADDRESS'):\nunix:PATH, "
	 "tcp:ADDR:PORT, fd:N; options say where its disks, networks\nand kernel are on this host",
	 OPTION_AT(TEXT, struct run_options, incoming)},
	{"verbose", NULL, "log more; twice: everything", .letter = 'v',
	 OPTION_AT(COUNT, struct run_options, verbose)},
	{"log", "FILE", "log there instead of on standard error",
	 OPTION_AT(TEXT, struct run_options, log_path)},
	{"json-log", NULL, "log as JSON lines", OPTION_AT(SWITCH, struct run_options, json_log)},
	{"grace", "SECONDS", "after SIGTERM: time for the guest to power off (30)",
	 OPTION_AT(NUMBER, struct run_options, grace_s), .max = 86400},
	{"control", "PATH|fd:NAME|none",
	 "listen there for 'hospes ctl' and HTTP (docs/control.md);\nby default, where the machine "
	 "has a name: in\n$XDG_RUNTIME_DIR/hospes or /run/hospes, as NAME.sock",
	 OPTION_AT(TEXT, struct run_options, control)},
	{0},
};

static int load(void *into, char *path)
{
	struct run_options *options = into;

	return document_load(&options->document, path);
}

static int execute(int argc, char **argv)
{
	struct run run = {.options = {.grace_s = 30},
			  .serve = {.socket = {.fd = -1}},
			  .notify = {.fd = -1, .watchdog_fd = -1},
			  .incoming_fd = -1,
			  .signal_fd = -1,
			  .stopped_fd = -1,
			  .grace_fd = -1,
			  .silence_fd = -1,
			  .to_guest = -1,
			  .from_terminal = -1};
	int status;

	if (options_parse(&run_command, argc, argv, &run.options, &status)) {
		if (!run.options.document)
			run.options.document = json_object();
		status = restore_document(&run.options.document, run.options.verify);
		if (status == CLI_OK && run.options.incoming)
			status = incoming_document(&run.options.document, run.options.incoming,
						   &run.incoming_fd);
		consoles_default(run.options.document);
		document_find_credentials(run.options.document);
		daemons_complete(run.options.document);
		if (status != CLI_OK)
			;
		else if (run.options.dry_run)
			status = dry_run(run.options.document);
		else
			status = output_open(&run.output, run.options.log_path,
					     run.options.json_log);
		if (status == CLI_OK && !run.options.dry_run)
			status = run_machine(&run, run.options.document);
	}
	daemons_wait(&run.daemons);
	serve_done(&run.serve);
	output_close(&run.output);
	close_fds(&run);
	notify_close(&run.notify);
	json_decref(run.options.document);
	return status;
}

const struct command run_command = {
	.name = "run",
	.operands = "[CONFIG.json] [OPTION...]",
	.summary = "start a virtual machine and stay with it until it ends",
	.groups = {{"The machine (flags add to CONFIG.json and override it; see "
		    "docs/configuration.md)",
		    document_options, offsetof(struct run_options, document)},
		   {"Its devices", device_options, offsetof(struct run_options, document)},
		   {"This command", run_options, 0}},
	.operand = load,
	.notes = "On the terminal, Ctrl-A h lists what Ctrl-A does; Ctrl-A x ends the machine.\n"
		 "SIGUSR1 writes status and registers to standard error.\n"
		 "Exit status: 0 the guest powered off, 1 failure, 2 usage, 3 the guest crashed.\n",
	.examples = "  hospes run --kernel bzImage --initrd initrd.img --memory 512M \\\n"
		    "             --cmdline 'console=ttyS0'\n"
		    "  hospes run --kernel vmlinuz --cpus 4,pin=0-3 --memory 4G,prefault=on \\\n"
		    "             --disk path=root.img --net tap=tap0,create=on \\\n"
		    "             --cmdline 'console=ttyS0 root=/dev/vda rw'\n",
	.run = execute,
};
