// SPDX-License-Identifier: Apache-2.0
// The control socket of a machine that `hospes run` runs.
#include "serve.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "output.h"

static int find_place(struct serve *serve, const char *option, const char *name)
{
	if (!option)
		return socket_place(serve->socket.path, name);
	if (strncmp(option, "fd:", 3) == 0) {
		serve->socket.fd = socket_inherited(option + 3);
		if (serve->socket.fd >= 0)
			return CLI_OK;
		cli_error("--control %s: no descriptor of that name was passed (LISTEN_FDS)",
			  option);
		return CLI_FAILED;
	}
	if (*option && strlen(option) < SOCKET_PATH) {
		snprintf(serve->socket.path, SOCKET_PATH, "%s", option);
		return CLI_OK;
	}
	cli_error("--control %s: %zu bytes; a socket's path has from 1 to %d", option,
		  strlen(option), SOCKET_PATH - 1);
	return CLI_FAILED;
}

int serve_prepare(struct serve *serve, const char *option, const char *name)
{
	struct hospes_error error;
	int status;

	serve->socket.fd = -1;
	if (option ? strcmp(option, "none") == 0 : !name)
		return CLI_OK;
	status = find_place(serve, option, name);
	if (status != CLI_OK)
		return status;
	serve->ours = serve->socket.fd < 0;
	/* Before anything is done for a machine that cannot be. */
	if (serve->ours && socket_is_taken(serve->socket.path))
		return CLI_FAILED;
	if (hospes_control_create(&serve->control, &error) == 0)
		return CLI_OK;
	cli_error("%s", error.text);
	return CLI_FAILED;
}

int serve_start(struct serve *serve, struct hospes_vm *vm)
{
	struct hospes_error error;

	if (!serve->control)
		return CLI_OK;
	if (serve->ours && socket_listen(&serve->socket) != CLI_OK)
		return CLI_FAILED;
	if (hospes_control_serve(serve->control, vm, serve->socket.fd, &error) == 0)
		return CLI_OK;
	cli_error("%s", error.text);
	return CLI_FAILED;
}

const char *serve_directory(const struct serve *serve, char directory[SOCKET_PATH])
{
	if (!serve->ours)
		return NULL;
	socket_parent(serve->socket.path, directory);
	return directory;
}

int serve_fd(const struct serve *serve)
{
	int fd = serve->control ? hospes_control_fd(serve->control) : -1;

	return fd < 0 ? -1 : fd;
}

void serve_iterate(struct serve *serve)
{
	if (serve_fd(serve) >= 0)
		hospes_control_iterate(serve->control);
}

void serve_event(struct serve *serve, const struct hospes_event *event)
{
	if (serve->control)
		hospes_control_event(serve->control, event);
}

void serve_done(struct serve *serve)
{
	hospes_control_destroy(serve->control);
	serve->control = NULL;
	socket_done(&serve->socket);
}
