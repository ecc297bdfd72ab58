// SPDX-License-Identifier: Apache-2.0
// hospes ctl: a word of the command line becomes a request to the machine's control socket.
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "ask.h"
#include "cli.h"
#include "ctl.h"
#include "document.h"
#include "output.h"
#include "socket.h"
#include "table.h"

enum {
	WORDS_MAX = 16,
};

struct words {
	char *word[WORDS_MAX];
	unsigned int n;
	json_t *devices;      /* of options, as a document has them; NULL: none */
	const char *downtime; /* of migrate; NULL: not given */
	bool check;
};

/* Verbs without operands. */
static const struct {
	const char *word, *verb, *target;
} requests[] = {
	{"status", "GET", "/v1/status"},  {"registers", "GET", "/v1/registers"},
	{"events", "GET", "/v1/events"},  {"metrics", "GET", "/metrics"},
	{"schema", "GET", "/v1/schema"},  {"pause", "POST", "/v1/pause"},
	{"resume", "POST", "/v1/resume"}, {"shutdown", "POST", "/v1/shutdown"},
	{"reset", "POST", "/v1/reset"},   {"stop", "POST", "/v1/stop"},
};

/* --- asking --- */

static int unreachable(const char *what, const char *path, int rc)
{
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		cli_error("%s: no machine listens at %s; 'hospes list' shows which do", what, path);
	else if (rc == -EACCES)
		cli_error("%s: %s belongs to another user; be that user, or root", what, path);
	else
		cli_error("%s: %s: %s", what, path, strerror(-rc));
	return CLI_FAILED;
}

/* The verb of a remedy that begins with a request, "GET /v1/status lists the devices"; *rest is
 * what follows. NULL: it begins with something else. */
static const char *word_of(const char *remedy, const char **rest)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		size_t verb = strlen(requests[i].verb), target = strlen(requests[i].target);

		*rest = remedy + verb + 1 + target;
		if (strncmp(remedy, requests[i].verb, verb) == 0 && remedy[verb] == ' ' &&
		    strncmp(remedy + verb + 1, requests[i].target, target) == 0 && **rest == ' ')
			return requests[i].word;
	}
	return NULL;
}

static int refused(const char *what, const struct reply *reply)
{
	json_t *error = reply->body ? json_loads(reply->body, 0, NULL) : NULL;
	const char *text = text_of(error, "text", "it failed"),
		   *remedy = text_of(error, "remedy", ""), *rest;
	const char *word = word_of(remedy, &rest);

	if (word)
		cli_error("%s: %s; 'hospes ctl %s %s'%s", what, text, what, word, rest);
	else
		cli_error("%s: %s%s%s", what, text, *remedy ? "; " : "", remedy);
	json_decref(error);
	return CLI_FAILED;
}

int ctl_ask(const char *what, const struct question *question, FILE *to, struct reply *reply)
{
	char path[SOCKET_PATH];
	int status = socket_find(path, what), rc;

	*reply = (struct reply){0};
	if (status != CLI_OK)
		return status;
	rc = ask(path, question, to, 0, reply);
	if (rc < 0 && rc != -EPIPE) /* then whoever reads our output has had enough */
		status = unreachable(what, path, rc);
	else if (rc == 0 && reply->status >= 300)
		status = refused(what, reply);
	return status;
}

/* Documents and streams go to standard output; the answer to a change is that it worked. */
static int request(const char *what, const char *verb, const char *target, const char *body)
{
	const struct question question = {.verb = verb, .target = target, .body = body};
	bool reads = strcmp(verb, "GET") == 0;
	struct reply reply;
	int status = ctl_ask(what, &question, reads ? stdout : NULL, &reply);

	if (status == CLI_OK && reads && strcmp(target, "/v1/events") != 0 &&
	    strcmp(target, "/metrics") != 0)
		puts("");
	free(reply.body);
	return status;
}

/* --- set --- */

bool ctl_target(char target[CTL_TARGET_BYTES], const char *kind, const char *id, size_t n,
		const char *what)
{
	size_t at = (size_t)snprintf(target, CTL_TARGET_BYTES, "/v1/%s/", kind);

	for (size_t i = 0; i < n; i++) {
		if (at + 3 + strlen(what) + 2 >= CTL_TARGET_BYTES)
			return false;
		at += (size_t)snprintf(target + at, CTL_TARGET_BYTES - at, "%%%02x",
				       (unsigned char)id[i]);
	}
	snprintf(target + at, CTL_TARGET_BYTES - at, "/%s", what);
	return true;
}

static json_t *size_body(const char *value)
{
	uint64_t bytes = 0;

	if (strcmp(value, "auto") != 0 && (!table_size_parse(value, &bytes) || bytes > INT64_MAX))
		return NULL;
	return json_pack("{s:I}", "bytes", (json_int_t)bytes);
}

/* No other size may be nothing. */
static bool parse_bytes(const char *value, uint64_t *bytes)
{
	*bytes = 0;
	return strcmp(value, "0") == 0 || (table_size_parse(value, bytes) && *bytes <= INT64_MAX);
}

static json_t *bytes_per_s_body(const char *value)
{
	uint64_t bytes;

	if (!parse_bytes(value, &bytes))
		return NULL;
	return json_pack("{s:I}", "bytes_per_s", (json_int_t)bytes);
}

static json_t *ops_per_s_body(const char *value)
{
	char *end;
	unsigned long ops = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || ops > UINT32_MAX)
		return NULL;
	return json_pack("{s:I}", "ops_per_s", (json_int_t)ops);
}

static json_t *link_body(const char *value)
{
	if (strcmp(value, "up") != 0 && strcmp(value, "down") != 0)
		return NULL;
	return json_pack("{s:b}", "up", strcmp(value, "up") == 0);
}

static json_t *terminal_body(const char *value)
{
	int columns, rows, used = 0;

	if (sscanf(value, "%5dx%5d%n", &columns, &rows, &used) != 2 || value[used])
		return NULL;
	return json_pack("{s:i, s:i}", "columns", columns, "rows", rows);
}

/* ID.KEY=VALUE */
static const struct {
	const char *key, *kind, *what;
	json_t *(*body)(const char *value);
	const char *takes;
} settings[] = {
	{"size", "disks", "size", size_body, "a size like 20G, or auto"},
	{"bytes_per_s", "devices", "rate", bytes_per_s_body, "a size like 100M; 0: no limit"},
	{"ops_per_s", "devices", "rate", ops_per_s_body, "a number; 0: no limit"},
	{"link", "nets", "link", link_body, "up or down"},
	{"terminal", "consoles", "size", terminal_body, "a size like 80x24"},
};

/* body is taken over; NULL: it could not be made. */
static int put(const char *what, const char *target, json_t *body)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	int status = text ? request(what, "PUT", target, text) : CLI_FAILED;

	free(text);
	json_decref(body);
	return status;
}

static int set_device(const char *what, const char *word, const char *dot, const char *equals)
{
	size_t n = (size_t)(equals - dot - 1);
	char target[CTL_TARGET_BYTES];
	json_t *body;

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (strlen(settings[i].key) != n || strncmp(settings[i].key, dot + 1, n) != 0)
			continue;
		body = settings[i].body(equals + 1);
		if (!body || !ctl_target(target, settings[i].kind, word, (size_t)(dot - word),
					 settings[i].what)) {
			cli_error("%s: takes %s", word, settings[i].takes);
			json_decref(body);
			return CLI_USAGE;
		}
		return put(what, target, body);
	}
	cli_error("%s: a device has DISK.size, NET.link, CONSOLE.terminal, and a disk and a net "
		  "bytes_per_s and ops_per_s",
		  word);
	return CLI_USAGE;
}

static int set_strategy(const char *what, const char *value)
{
	json_t *body = json_pack("{s:s}", "strategy", value);

	if (!body)
		cli_error("strategy: no UTF-8");
	return put(what, "/v1/strategy", body);
}

static int set_balloon(const char *what, const char *value)
{
	uint64_t bytes;

	if (parse_bytes(value, &bytes))
		return put(what, "/v1/balloon", json_pack("{s:I}", "bytes", (json_int_t)bytes));
	cli_error("balloon: takes a size like 512M, which it takes from the guest; 0: nothing");
	return CLI_USAGE;
}

static int set_cpus(const char *what, const char *value)
{
	char *end;
	unsigned long count = strtoul(value, &end, 10);

	if (*value >= '0' && *value <= '9' && !*end && count <= INT32_MAX)
		return put(what, "/v1/cpus", json_pack("{s:I}", "count", (json_int_t)count));
	cli_error("cpus: takes a number, of the vCPUs that there are to be");
	return CLI_USAGE;
}

static int set_memory(const char *what, const char *value)
{
	uint64_t bytes;

	if (parse_bytes(value, &bytes))
		return put(what, "/v1/memory", json_pack("{s:I}", "size_bytes", (json_int_t)bytes));
	cli_error("memory: takes a size like 2G, of all the memory that there is to be");
	return CLI_USAGE;
}

static int set_one(const char *what, const char *word)
{
	const char *equals = strchr(word, '='), *dot = NULL;

	for (const char *at = word; equals && at < equals; at++) {
		if (*at == '.')
			dot = at;
	}
	if (equals && dot)
		return set_device(what, word, dot, equals);
	if (equals && strncmp(word, "strategy=", 9) == 0)
		return set_strategy(what, equals + 1);
	if (equals && strncmp(word, "balloon=", 8) == 0)
		return set_balloon(what, equals + 1);
	if (equals && strncmp(word, "cpus=", 5) == 0)
		return set_cpus(what, equals + 1);
	if (equals && strncmp(word, "memory=", 7) == 0)
		return set_memory(what, equals + 1);
	cli_error("set %s: takes cpus=N, memory=SIZE, strategy=NAME, balloon=SIZE, DISK.size=SIZE, "
		  "NET.link=up|down, CONSOLE.terminal=80x24, or bytes_per_s and ops_per_s of a "
		  "disk or net",
		  word);
	return CLI_USAGE;
}

/* --- the command --- */

static int take_word(void *into, char *text)
{
	struct words *words = into;

	if (words->n < WORDS_MAX) {
		words->word[words->n++] = text;
		return CLI_OK;
	}
	cli_error("ctl: more than %d words", WORDS_MAX);
	return CLI_USAGE;
}

/* remove ID [force] */
static int remove_device(const struct words *words)
{
	const char *id = words->word[2];
	char target[CTL_TARGET_BYTES];
	size_t at;

	if (words->n > 4 || (words->n == 4 && strcmp(words->word[3], "force") != 0)) {
		cli_error("remove: takes a device, and 'force'");
		return CLI_USAGE;
	}
	if (!ctl_target(target, "devices", id, strlen(id), "")) {
		cli_error("remove %s: no device has so long an id", id);
		return CLI_USAGE;
	}
	at = strlen(target) - 1; /* its last slash */
	snprintf(target + at, sizeof(target) - at, "%s", words->n == 4 ? "?force=1" : "");
	return request(words->word[0], "DELETE", target, NULL);
}

/* console [ID [force]] */
static int open_console(const struct words *words)
{
	const char *id = words->n > 2 ? words->word[2] : NULL;

	if (words->n > 4 || (words->n == 4 && strcmp(words->word[3], "force") != 0)) {
		cli_error("console: takes a console, and 'force'");
		return CLI_USAGE;
	}
	return ctl_console(words->word[0], id, words->n == 4);
}

static int make_snapshot(const struct words *words)
{
	const char *then = words->n > 3 ? words->word[3] : "";

	if (words->n > 4 || (*then && strcmp(then, "pause") != 0 && strcmp(then, "stop") != 0)) {
		cli_error(
			"snapshot: takes a directory, and 'pause' or 'stop', which say what becomes of "
			"the machine then");
		return CLI_USAGE;
	}
	return ctl_snapshot(words->word[0], words->word[2],
			    *then == 'p'   ? CTL_PAUSE
			    : *then == 's' ? CTL_STOP
					   : CTL_RESUME);
}

static int act(const struct words *words)
{
	const char *machine = words->word[0], *verb = words->word[1];
	int status = CLI_OK;

	if (words->n < 2) {
		cli_error("ctl: needs a machine and a verb; 'hospes ctl --help' shows them");
		return CLI_USAGE;
	}
	if (strcmp(verb, "add") == 0 && words->n == 2)
		return ctl_add(machine, words->devices);
	if (words->devices) {
		cli_error("ctl %s: devices are for the verb 'add'", verb);
		return CLI_USAGE;
	}
	if (strcmp(verb, "set") == 0 && words->n > 2) {
		for (unsigned int i = 2; i < words->n && status == CLI_OK; i++)
			status = set_one(machine, words->word[i]);
		return status;
	}
	if (strcmp(verb, "remove") == 0 && words->n > 2)
		return remove_device(words);
	if (strcmp(verb, "console") == 0)
		return open_console(words);
	if (strcmp(verb, "dump") == 0 && words->n == 3)
		return ctl_dump(machine, words->word[2]);
	if (strcmp(verb, "migrate") == 0 && words->n < 4)
		return ctl_migrate(machine, words->n > 2 ? words->word[2] : NULL, words->downtime,
				   words->check);
	if (words->downtime || words->check) {
		cli_error("ctl %s: --downtime and --check are for the verb 'migrate'", verb);
		return CLI_USAGE;
	}
	if (strcmp(verb, "snapshot") == 0 && words->n > 2)
		return make_snapshot(words);
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		if (strcmp(requests[i].word, verb) == 0 && words->n == 2)
			return request(machine, requests[i].verb, requests[i].target, NULL);
	}
	cli_error("ctl: '%s' with %u words behind it is no verb; 'hospes ctl --help' shows them",
		  verb, words->n - 2);
	return CLI_USAGE;
}

static int execute(int argc, char **argv)
{
	struct words words = {0};
	int status;

	if (options_parse(&ctl_command, argc, argv, &words, &status))
		status = act(&words);
	json_decref(words.devices);
	return status;
}

static const struct option migrate_options[] = {
	{"downtime", "TIME", "how long the guest may stand still (50ms)",
	 OPTION_AT(TEXT, struct words, downtime)},
	{"check", NULL, "only say whether it can be migrated, and if not, why",
	 OPTION_AT(SWITCH, struct words, check)},
	{0},
};

const struct command ctl_command = {
	.name = "ctl",
	.operands = "MACHINE VERB [ARGUMENT...] [DEVICE-OPTION...]",
	.summary = "control a machine that runs",
	.text = "MACHINE is a name ('hospes run --name'), or the path of a control socket, with a "
		"slash.\n\n"
		"Verbs:\n"
		"  status                the status document, as JSON\n"
		"  pause, resume         let the guest stand still, and go on\n"
		"  shutdown              press the power button\n"
		"  reset, stop           at once, whatever the guest is doing\n"
		"  set KEY=VALUE...      cpus=N               up to the max that it was started with\n"
		"                        memory=SIZE          likewise\n"
		"                        strategy=NAME        of devices behind the virtual IOMMU\n"
		"                        balloon=SIZE         what the balloon takes from the guest\n"
		"                        DISK.size=SIZE       of its backing; auto: ask the file\n"
		"                        NET.link=up|down\n"
		"                        DISK.bytes_per_s=SIZE, DISK.ops_per_s=N, and of a NET\n"
		"                        CONSOLE.terminal=COLUMNSxROWS\n"
		"  add DEVICE-OPTION...   open a device and hand it over; its id is printed\n"
		"  remove DEVICE [force]  ask the guest to give it up; an event says how it ended.\n"
		"                        force: after 30 s, take it in any case\n"
		"  console [ID [force]]  this terminal on a console of it, the first by default; Ctrl-A "
		"x leaves.\n"
		"                        force: also where somebody else looks at it\n"
		"  events                what happens, a line of JSON each, until it ends\n"
		"  dump FILE             memory and registers, as an ELF core for gdb\n"
		"  snapshot DIR [pause|stop]  all of it, for 'hospes run --restore DIR'; it stands "
		"still\n"
		"                        meanwhile, and then, or ends: by the time to copy its disks\n"
		"  migrate ADDRESS|cancel  to where 'hospes run --incoming ADDRESS' waits, while it "
		"works:\n"
		"                        unix:PATH, tcp:HOST:PORT, fd:N; or keep it here\n"
		"  metrics               the status document's numbers for Prometheus\n"
		"  registers             of every vCPU\n"
		"  schema                what can be asked by HTTP, as OpenAPI 3\n",
	.groups = {{"Devices to add, as 'hospes run' takes them", device_options,
		    offsetof(struct words, devices)},
		   {"For 'migrate'", migrate_options, 0}},
	.operand = take_word,
	.notes = "Exit status: 0 it was done, 1 failure, 2 usage.\n",
	.examples = "  hospes ctl web pause\n"
		    "  hospes ctl web set strategy=strict net0.link=down\n"
		    "  hospes ctl web set cpus=4 memory=2G\n"
		    "  hospes ctl web add --disk path=data.img,id=data\n"
		    "  hospes ctl web add --passthrough 0000:01:10.2,strategy=strict\n"
		    "  hospes ctl web console\n"
		    "  hospes ctl web snapshot /srv/web.1 stop\n"
		    "  hospes ctl web migrate tcp:other.example:7000 --downtime 100ms\n"
		    "  hospes ctl ./web.sock events\n"
		    "  curl --unix-socket $XDG_RUNTIME_DIR/hospes/web.sock "
		    "http://localhost/v1/status\n",
	.run = execute,
};
