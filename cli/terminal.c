// SPDX-License-Identifier: Apache-2.0
// The terminal: raw mode that is always restored, and the escape.
#include "terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

enum { CTRL_A = 1 };

static struct termios saved;
static bool is_saved;
static volatile sig_atomic_t is_raw;

const char terminal_help[] = "\n"
			     "Ctrl-A x       end the machine at once\n"
			     "Ctrl-A p       press the power button\n"
			     "Ctrl-A r       reset\n"
			     "Ctrl-A s       show exits and state\n"
			     "Ctrl-A i       show the registers of the vCPUs\n"
			     "Ctrl-A h       this help\n"
			     "Ctrl-A Ctrl-A  send Ctrl-A to the guest\n";

static const struct {
	char key;
	enum terminal_command command;
} keys[] = {
	{'x', TERMINAL_END},    {'p', TERMINAL_POWER},     {'r', TERMINAL_RESET},
	{'s', TERMINAL_STATUS}, {'i', TERMINAL_REGISTERS},
};

bool terminal_is_ours(void)
{
	pid_t foreground = tcgetpgrp(STDIN_FILENO);

	/* Without job control there is none to ask: not the terminal of our session, or (0) one
	 * whose foreground is in another PID namespace. */
	return foreground <= 0 || foreground == getpgrp();
}

void terminal_restore(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	if (!terminal_is_ours())
		return;
	/* Not TCSAFLUSH: what was typed ahead belongs to the shell. */
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void fatal(int signal)
{
	terminal_restore();
	/* SA_RESETHAND: the second time has the default effect. */
	raise(signal);
}

void terminal_restore_at(int signal)
{
	struct sigaction action = {.sa_handler = fatal, .sa_flags = (int)SA_RESETHAND}, was;

	if (sigaction(signal, NULL, &was) == 0 && was.sa_handler != SIG_IGN)
		sigaction(signal, &action, NULL);
}

bool terminal_raw(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};
	struct sigaction action = {.sa_handler = fatal, .sa_flags = (int)SA_RESETHAND};
	struct termios raw;

	if (!isatty(STDIN_FILENO) || !terminal_is_ours())
		return false;
	if (!is_saved && tcgetattr(STDIN_FILENO, &saved) != 0)
		return false;
	raw = saved;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST | ONLCR; /* log lines stay lines */
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
	if (!is_saved)
		atexit(terminal_restore);
	is_saved = true;
	is_raw = 1;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0)
		is_raw = 0;
	return is_raw;
}

static enum terminal_command meaning(struct terminal_filter *filter, uint8_t c)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if ((uint8_t)keys[i].key == c)
			return keys[i].command;
	}
	filter->strategy = c - (unsigned int)'1';
	return c >= '1' && c <= '9' ? TERMINAL_STRATEGY : TERMINAL_HELP;
}

size_t terminal_filter(struct terminal_filter *filter, uint8_t *bytes, size_t n, size_t *used,
		       enum terminal_command *command)
{
	size_t kept = 0;
	size_t i = 0;

	*command = TERMINAL_NONE;
	while (i < n && *command == TERMINAL_NONE) {
		uint8_t c = bytes[i++];

		if (!filter->escaped) {
			filter->escaped = c == CTRL_A;
			if (c != CTRL_A)
				bytes[kept++] = c;
			continue;
		}
		filter->escaped = false;
		if (c == CTRL_A)
			bytes[kept++] = c;
		else
			*command = meaning(filter, c);
	}
	*used = i;
	return kept;
}
