// SPDX-License-Identifier: Apache-2.0
// Requests become calls of the library, or failures that say what, which value and what to do.
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "control/dispatch.h"
#include "fake_hospes.h"

static struct hospes_vm *vm;
static struct answer answer;

static void set_up(void)
{
	const struct hospes_vm_options options = {.size = sizeof(options)};
	struct hospes_error error;

	hospes_vm_create(&vm, "", 0, &options, &error);
	fake = (struct fake){.state = HOSPES_RUNNING};
}

static void tear_down(void)
{
	free(answer.text);
}

TestSuite(dispatch, .init = set_up, .fini = tear_down);

static void ask(const char *verb, const char *target, const char *body)
{
	const struct request request = {.verb = verb,
					.target = target,
					.body = body,
					.body_bytes = body ? strlen(body) : 0};

	free(answer.text);
	dispatch(vm, &request, &answer);
}

static const char *part(const char *key)
{
	static char text[1024];
	json_t *object = answer.text ? json_loads(answer.text, 0, NULL) : NULL;
	const char *value = json_string_value(json_object_get(object, key));

	snprintf(text, sizeof(text), "%s", value ? value : "(none)");
	json_decref(object);
	return text;
}

static void refused(int status, const char *code, const char *words)
{
	cr_assert_eq(answer.status, status, "%d: %s", answer.status, answer.text);
	cr_assert_str_eq(part("code"), code);
	cr_assert(strstr(part("text"), words), "%s", answer.text);
	cr_assert_gt(strlen(part("remedy")), 10u);
	cr_assert_str_eq(fake.calls, "");
}

Test(dispatch, each_change_of_the_state_is_one_call_and_answers_the_state)
{
	static const char *const verbs[] = {"pause", "resume", "shutdown", "reset"};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		char path[32], call[32];

		snprintf(path, sizeof(path), "/v1/%s", verbs[i]);
		snprintf(call, sizeof(call), "%s() ", verbs[i]);
		fake.calls[0] = '\0';
		ask("POST", path, NULL);
		cr_assert_eq(answer.status, 200);
		cr_assert_str_eq(fake.calls, call);
		cr_assert_str_eq(part("state"), i == 0 ? "paused" : "running");
	}
}

Test(dispatch, settings_reach_the_device_that_the_path_names)
{
	ask("PUT", "/v1/disks/data/size", "{\"bytes\": 4096}");
	cr_assert_eq(answer.status, 204);
	ask("PUT", "/v1/nets/a%20b%2f/link", "{\"up\": false}");
	ask("PUT", "/v1/consoles/console0/size", "{\"columns\": 80, \"rows\": 25}");
	ask("PUT", "/v1/strategy", "{\"strategy\": \"staged,pool=8\"}");
	ask("PUT", "/v1/balloon", "{\"bytes\": 8192}");
	ask("PUT", "/v1/cpus", "{\"count\": 4}");
	cr_assert_eq(answer.status, 202);
	ask("PUT", "/v1/memory", "{\"size_bytes\": 1073741824}");
	cr_assert_eq(answer.status, 202);
	cr_assert_str_eq(fake.calls, "disk_resize(data, 4096) net_link(a b/, 0) "
				     "console_resize(console0, 80, 25) set_strategy(staged,pool=8) "
				     "balloon(8192) set_cpus(4) set_memory(1073741824) ");
}

Test(dispatch, a_viewer_comes_with_a_descriptor)
{
	ask("POST", "/v1/consoles/console0/view", "{\"fd\": 0}");
	refused(400, "invalid", "not the place of one of the 0");
	ask("POST", "/v1/consoles/console0/view", "{\"take\": true}");
	refused(400, "invalid", "fd");
}

Test(dispatch, a_failure_of_the_library_has_its_message_and_its_remedy)
{
	fake.fails = "pause";
	ask("POST", "/v1/pause", NULL);
	cr_assert_eq(answer.status, 409);
	cr_assert_str_eq(part("code"), "wrong_state");
	cr_assert_str_eq(part("text"), "pause: refused");
	cr_assert_gt(strlen(part("remedy")), 10u);
	fake.failure = "disk 'data': in use; detach it";
	ask("POST", "/v1/pause", NULL);
	cr_assert_str_eq(part("text"), "disk 'data': in use");
	cr_assert_str_eq(part("remedy"), "detach it");
}

Test(dispatch, documents_are_answered_as_they_are)
{
	fake.status = "{\"state\": \"running\"}";
	ask("GET", "/v1/status", NULL);
	cr_assert_str_eq(answer.text, fake.status);
	cr_assert_str_eq(answer.type, "application/json");
	ask("GET", "/metrics", NULL);
	cr_assert(strstr(answer.text, "hospes_state{state=\"running\"} 1\n"), "%s", answer.text);
	ask("GET", "/v1/registers", NULL);
	cr_assert_str_eq(answer.text, "the registers");
	ask("GET", "/v1/schema", NULL);
	cr_assert_str_eq(part("openapi"), "3.0.3");
}

Test(dispatch, events_begin_behind_the_number_that_is_given)
{
	ask("GET", "/v1/events", NULL);
	cr_assert(answer.events);
	cr_assert_eq(answer.since, UINT64_MAX);
	ask("GET", "/v1/events?since=41", NULL);
	cr_assert(answer.events);
	cr_assert_eq(answer.since, 42u);
}

Test(dispatch, paths_and_verbs_that_are_none_are_refused)
{
	static const char *const none[] = {"/",
					   "/v1",
					   "/v1/statu",
					   "/v1/status/",
					   "/v1/statuss",
					   "/v1/disks//size",
					   "/v1/disks/a",
					   "/v1/disks/a/b/size",
					   "/v1/disks/%00/size",
					   "/v1/disks/%4/size",
					   "/v1/disks/%zz/size",
					   "",
					   "*",
					   "http://localhost/v1/status"};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		ask("GET", none[i], NULL);
		refused(404, "unknown_path", "no such path");
	}
	ask("POST", "/v1/status", NULL);
	refused(405, "wrong_method", "takes GET, not POST");
	cr_assert_str_eq(answer.allow, "GET");
}

Test(dispatch, bodies_are_checked_by_the_table)
{
	static const struct {
		const char *path, *body, *words;
	} cases[] = {
		{"/v1/disks/a/size", NULL, "needs a body"},
		{"/v1/disks/a/size", "{", "is no JSON: line 1"},
		{"/v1/disks/a/size", "[]", "must be a JSON object"},
		{"/v1/disks/a/size", "{}", "bytes: is missing"},
		{"/v1/disks/a/size", "{\"bytes\": \"1\"}", "bytes: must be an integer"},
		{"/v1/disks/a/size", "{\"bytes\": 1.5}", "bytes: must be an integer"},
		{"/v1/disks/a/size", "{\"bytes\": -1}", "bytes: -1 is not from 0"},
		{"/v1/disks/a/size", "{\"bytes\": 1, \"bytes\": 2}", "is no JSON"},
		{"/v1/disks/a/size", "{\"bytes\": 1, \"byte\": 2}", "byte: unknown key"},
		{"/v1/disks/a/size", "{\"bytes\": 99999999999999999999}", "is no JSON"},
		{"/v1/nets/a/link", "{\"up\": 1}", "up: must be true or false"},
		{"/v1/consoles/a/size", "{\"columns\": 0, \"rows\": 1}",
		 "0 is not from 1 to 65535"},
		{"/v1/consoles/a/size", "{\"columns\": 80}", "rows: is missing"},
		{"/v1/strategy", "{\"strategy\": \"\"}", "strategy: must be a text"},
		{"/v1/strategy", "{\"strategy\": \"a\\u0000b\"}", "is no JSON"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ask("PUT", cases[i].path, cases[i].body);
		refused(400, "invalid", cases[i].words);
	}
	ask("POST", "/v1/pause", "{\"hard\": true}");
	refused(400, "invalid", "hard: unknown key");
	ask("POST", "/v1/pause", "{}");
	cr_assert_eq(answer.status, 200);
}

Test(dispatch, queries_are_checked_by_the_table)
{
	static const char *const none[] = {
		"/v1/events?since=",   "/v1/events?since=x",
		"/v1/events?since=-1", "/v1/events?since=1x",
		"/v1/events?since",    "/v1/events?until=1",
		"/v1/status?since=1",  "/v1/events?since=99999999999999999999"};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		ask("GET", none[i], NULL);
		refused(400, "invalid", "");
	}
}

Test(dispatch, file_descriptors_are_refused_where_none_is_taken)
{
	const int fds[] = {50, 60};
	const struct request request = {
		.verb = "POST", .target = "/v1/pause", .fds = fds, .n_fds = 2};

	dispatch(vm, &request, &answer);
	refused(400, "invalid", "takes no file descriptors, 2 came");
}

static void add_device(const char *body)
{
	static const int fds[] = {50, 60};
	const struct request request = {.verb = "POST",
					.target = "/v1/devices",
					.body = body,
					.body_bytes = strlen(body),
					.fds = fds,
					.n_fds = 2};

	free(answer.text);
	dispatch(vm, &request, &answer);
}

Test(dispatch, a_device_is_added_with_descriptors_in_place_of_paths)
{
	add_device("{\"passthrough\": {\"id\": \"a\", \"fd\": 1, \"iommufd\": 0}}");
	cr_assert_eq(answer.status, 200, "%s", answer.text);
	cr_assert_str_eq(part("id"), "new");
	cr_assert_str_eq(fake.calls, "device_add({\"passthrough\":{\"id\":\"a\",\"fd\":60,"
				     "\"iommufd\":50}}) ");
}

Test(dispatch, a_device_of_a_group_is_named_beside_the_groups_descriptor)
{
	add_device("{\"passthrough\": {\"device\": \"0000:01:00.0\", \"fd\": 0}}");
	cr_assert_eq(answer.status, 200, "%s", answer.text);
	cr_assert_str_eq(fake.calls, "device_add({\"passthrough\":{\"device\":\"0000:01:00.0\","
				     "\"fd\":50}}) ");
}

Test(dispatch, a_client_names_no_path_and_no_descriptor_of_the_machine)
{
	add_device("{\"disk\": {\"path\": \"/etc/shadow\"}}");
	refused(400, "invalid", "path: a machine that runs opens nothing");
	cr_assert(strstr(part("remedy"), "'hospes ctl NAME add --disk ...' opens it"), "%s",
		  part("remedy"));
	add_device("{\"passthrough\": {\"device\": \"0000:01:00.0\"}}");
	refused(400, "invalid", "device: a machine that runs opens nothing");
	add_device("{\"disk\": {\"fd\": 2}}");
	refused(400, "invalid", "fd: not the place of one of the 2");
	add_device("{\"disk\": {\"fd\": -1}}");
	refused(400, "invalid", "fd: not the place of one of the 2");
	add_device("{\"disk\": {\"fd\": \"1\"}}");
	refused(400, "invalid", "fd: not the place of one of the 2");
	add_device("{\"floppy\": {}}");
	refused(400, "invalid", "floppy: unknown key");
	add_device("{\"disk\": 1}");
	refused(400, "invalid", "disk: must be an object");
}

Test(dispatch, a_device_is_removed_in_its_time_or_by_force)
{
	ask("DELETE", "/v1/devices/data", NULL);
	cr_assert_eq(answer.status, 202);
	ask("DELETE", "/v1/devices/data?timeout_ms=0&force=1", NULL);
	cr_assert_eq(answer.status, 202);
	cr_assert_str_eq(fake.calls, "device_remove(data, 30000, 0) device_remove(data, 0, 1) ");
	fake.calls[0] = '\0';
	ask("DELETE", "/v1/devices/data?force=2", NULL);
	refused(400, "invalid", "force: 2 is not from 0 to 1");
}
