// SPDX-License-Identifier: Apache-2.0
// A machine inside another program, told what to do by lines:   embed DOCUMENT
//
//   strategy NAME   "strategy: NAME", or the error
//   switch N        "switch: N, 0 failed": N times to another strategy; strict at the end
//   status          "status: JSON"
//   pause, resume   "pause: 0"
//   shutdown        the power button
//
// Ends with the machine: 0 when the guest powered off.
#include <hospes/hospes.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct hospes_vm *vm;
static struct hospes_error error;

static void on_log(void *opaque, enum hospes_log_level level, const char *component,
		   const char *text)
{
	(void)opaque;
	if (level <= HOSPES_LOG_INFO)
		printf("log: %s: %s\n", component, text);
}

static char *read_file(const char *path)
{
	enum { MAX = 1 << 20 };
	FILE *f = fopen(path, "re");
	char *text = calloc(1, MAX);
	size_t n = f && text ? fread(text, 1, MAX - 1, f) : 0;

	if (!n)
		exit(2);
	fclose(f);
	return text;
}

static void switch_often(unsigned int n)
{
	static const char *const names[] = {"direct", "strict",   "cached,quota=1M",
					    "auto",   "deferred", "cached",
					    "direct", "cached",   "deferred"};
	unsigned int failed = 0;

	/* Each twice: to what it has already is no change, and no device may notice. */
	for (unsigned int i = 0; i < 2 * n; i++)
		failed += hospes_vm_set_strategy(vm,
						 names[i / 2 % (sizeof(names) / sizeof(names[0]))],
						 &error) != 0;
	failed += hospes_vm_set_strategy(vm, "strict", &error) != 0;
	printf("switch: %u, %u failed%s%s\n", n, failed, failed ? ": " : "",
	       failed ? error.text : "");
}

static void command(char *line)
{
	char *json;

	if (!strncmp(line, "strategy ", 9)) {
		if (hospes_vm_set_strategy(vm, line + 9, &error))
			printf("error: %s\n", error.text);
		else
			printf("strategy: %s\n", line + 9);
	} else if (!strncmp(line, "switch ", 7)) {
		switch_often((unsigned int)atoi(line + 7));
	} else if (!strcmp(line, "status")) {
		if (hospes_vm_status(vm, &json, &error)) {
			printf("error: %s\n", error.text);
			return;
		}
		for (char *p = json; *p; p++)
			*p = (char)(*p == '\n' ? ' ' : *p);
		printf("status: %s\n", json);
		hospes_free(json);
	} else if (!strcmp(line, "pause")) {
		printf("pause: %d\n", hospes_vm_pause(vm, &error));
	} else if (!strcmp(line, "resume")) {
		printf("resume: %d\n", hospes_vm_resume(vm, &error));
	} else if (!strcmp(line, "shutdown")) {
		printf("shutdown: %d\n", hospes_vm_shutdown(vm, &error));
	}
}

int main(int argc, char **argv)
{
	struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.log = on_log,
		.log_level = HOSPES_LOG_INFO,
	};
	char line[200], *json;
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

	if (argc != 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	json = read_file(argv[1]);
	if (hospes_vm_create(&vm, json, strlen(json), &options, &error) ||
	    hospes_vm_start(vm, &error)) {
		printf("error: %s\n", error.text);
		return 1;
	}
	free(json);
	while (hospes_vm_state(vm) != HOSPES_STOPPED) {
		if (poll(&in, 1, 200) <= 0)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			break;
		line[strcspn(line, "\n")] = '\0';
		command(line);
	}
	printf("outcome: %d\n", hospes_vm_outcome(vm));
	argc = hospes_vm_outcome(vm) == HOSPES_OUTCOME_POWERED_OFF ? 0 : 1;
	hospes_vm_destroy(vm);
	return argc;
}
