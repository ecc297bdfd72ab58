// SPDX-License-Identifier: Apache-2.0
// What the guest's programs answer, and what the machine's status says: both are data of others.
#include "compare/compare.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* fio(1), "TERSE OUTPUT", version 3: fields from 0, separated by semicolons. */
	FIO_VERSION = 0,
	FIO_ERROR = 4,
	FIO_READ_KIB = 5,
	FIO_RUNTIME_MS = 8,
	FIO_PERCENTILES = 17,
	FIO_PERCENTILES_END = 37,
	FIO_LATENCY_MEAN_US = 39,
	FIO_FIELDS = 41,
	FIELD_BYTES = 48,
};

/* A field as text; "" for one that is longer than any field is. NULL: there are not so many. */
static const char *field(const char *line, unsigned int index, char text[FIELD_BYTES])
{
	size_t length;

	while (index--) {
		line = strchr(line, ';');
		if (!line)
			return NULL;
		line++;
	}
	length = strcspn(line, ";");
	text[0] = '\0';
	if (length < FIELD_BYTES) {
		memcpy(text, line, length);
		text[length] = '\0';
	}
	return text;
}

/* All of the text as a number that is not negative; (double)NAN. */
static double number_of(const char *text)
{
	double value;
	char *end;

	if (!text || *text < '0' || *text > '9')
		return (double)NAN;
	value = strtod(text, &end);
	return *end || !isfinite(value) ? (double)NAN : value;
}

static double fio_number(const char *line, unsigned int index)
{
	char text[FIELD_BYTES];

	return number_of(field(line, index, text));
}

static double fio_p99(const char *line)
{
	static const char name[] = "99.000000%=";
	char text[FIELD_BYTES];

	for (unsigned int i = FIO_PERCENTILES; i < FIO_PERCENTILES_END; i++) {
		const char *found = field(line, i, text);

		if (found && strncmp(found, name, sizeof(name) - 1) == 0)
			return number_of(found + sizeof(name) - 1);
	}
	return (double)NAN;
}

/* Some operations in some time; latencies are known or not, but numbers. */
static int judge(const struct compare_answer *a)
{
	bool good = isfinite(a->operations) && a->operations > 0 && isfinite(a->seconds) &&
		    a->seconds > 0 && !isinf(a->latency_us) && !(a->latency_us < 0) &&
		    !isinf(a->p99_us);

	return good ? 0 : -EINVAL;
}

int compare_parse_fio(const char *line, uint64_t block_bytes, struct compare_answer *ret)
{
	char text[FIELD_BYTES];

	if (!field(line, FIO_FIELDS - 1, text) || fio_number(line, FIO_VERSION) != 3 ||
	    fio_number(line, FIO_ERROR) != 0 || !block_bytes)
		return -EINVAL;
	*ret = (struct compare_answer){
		.operations = fio_number(line, FIO_READ_KIB) * 1024 / (double)block_bytes,
		.seconds = fio_number(line, FIO_RUNTIME_MS) / 1e3,
		.latency_us = fio_number(line, FIO_LATENCY_MEAN_US),
		.p99_us = fio_p99(line),
	};
	return judge(ret);
}

static double member(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

int compare_parse_iperf(const char *line, uint64_t message_bytes, struct compare_answer *ret)
{
	json_t *document = json_loads(line, 0, NULL);
	const json_t *sent = json_object_get(json_object_get(document, "end"), "sum_received");
	double bytes = member(sent, "bytes");

	*ret = (struct compare_answer){
		.operations = message_bytes ? bytes / (double)message_bytes : (double)NAN,
		.seconds = member(sent, "seconds"),
		.latency_us = (double)NAN,
		.p99_us = (double)NAN,
	};
	json_decref(document);
	return judge(ret);
}

int compare_parse_ping(const char *line, double seconds, struct compare_answer *ret)
{
	const char *received = strstr(line, " transmitted, ");
	const char *rtt = strstr(line, "min/avg/max");
	double min_ms, mean_ms;
	long answers;

	if (!received || !rtt || !(rtt = strchr(rtt, '=')) ||
	    sscanf(received, " transmitted, %9ld", &answers) != 1 ||
	    sscanf(rtt, "= %lf/%lf/", &min_ms, &mean_ms) != 2 || answers <= 0 || seconds <= 0)
		return -EINVAL;
	*ret = (struct compare_answer){
		.operations = (double)answers,
		.seconds = seconds,
		.latency_us = mean_ms * 1e3,
		.p99_us = (double)NAN,
	};
	return judge(ret);
}

/* --- the machine's status --- */

static const json_t *space_of(const json_t *status, const char *device)
{
	const json_t *spaces = json_object_get(json_object_get(status, "iommu"), "spaces");
	json_t *space, *name;
	size_t i, k;

	json_array_foreach(spaces, i, space)
	{
		json_array_foreach(json_object_get(space, "devices"), k, name)
		{
			if (json_is_string(name) && strcmp(json_string_value(name), device) == 0)
				return space;
		}
	}
	return NULL;
}

static const json_t *endpoint_of(const json_t *status, const char *device)
{
	const json_t *list = json_object_get(json_object_get(status, "viommu"), "endpoints");
	json_t *endpoint;
	size_t i;

	json_array_foreach(list, i, endpoint)
	{
		const char *id = json_string_value(json_object_get(endpoint, "id"));

		if (id && strcmp(id, device) == 0)
			return endpoint;
	}
	return NULL;
}

int compare_parse_status(const json_t *status, const char *device, bool behind,
			 struct compare_snapshot *ret)
{
	const json_t *ledger = behind ? endpoint_of(status, device) : space_of(status, device);
	const json_t *operations = json_object_get(ledger, "operations");
	const json_t *map = json_object_get(operations, "map");
	const json_t *copy = json_object_get(operations, "copy");
	const json_t *unmap = json_object_get(operations, "unmap");
	const json_t *requests = json_object_get(json_object_get(status, "viommu"), "requests");

	if (!map || !unmap)
		return -ENOENT;
	ret->returns = member(json_object_get(status, "exits"), "total");
	ret->map_requests = member(json_object_get(requests, "map"), "calls");
	ret->unmap_requests = member(json_object_get(requests, "unmap"), "calls");
	ret->maps = member(map, "calls") + member(copy, "calls");
	ret->map_ns = member(map, "ns") + member(copy, "ns");
	ret->unmaps = member(unmap, "calls");
	ret->unmap_ns = member(unmap, "ns");
	ret->hits = member(json_object_get(ledger, "retained"), "hits") + member(ledger, "joined");
	ret->time_s = member(ledger, "at_ns") / 1e9;
	ret->mapped = member(ledger, "mapped_byte_seconds");
	ret->requested = member(ledger, "requested_byte_seconds");
	ret->stale = member(ledger, "stale_byte_seconds");
	ret->pinned = member(ledger, "pinned_byte_seconds");
	return 0;
}

static double per(double from, double to, double n)
{
	return n > 0 ? (to - from) / n : (double)NAN;
}

void compare_figures_of(const struct compare_snapshot *from, const struct compare_snapshot *to,
			const struct compare_answer *answer, uint64_t bytes, bool behind,
			double figures[COMPARE_FIGURES])
{
	double n = answer->operations, s = to->time_s - from->time_s;
	double guest = per(from->guest_s, to->guest_s, n) * 1e6;

	figures[COMPARE_RATE] = n / answer->seconds;
	figures[COMPARE_BYTES] = figures[COMPARE_RATE] * (double)bytes;
	figures[COMPARE_LATENCY] = answer->latency_us;
	figures[COMPARE_P99] = answer->p99_us;
	figures[COMPARE_GUEST] = guest;
	figures[COMPARE_VMM] = fmax(0, per(from->user_s, to->user_s, n) * 1e6 - guest);
	figures[COMPARE_KERNEL] = per(from->kernel_s, to->kernel_s, n) * 1e6;
	/* The sum is exact; how it is shared out may be the kernel's sampling, tick by tick. */
	figures[COMPARE_CPU] =
		per(from->user_s + from->kernel_s, to->user_s + to->kernel_s, n) * 1e6;
	figures[COMPARE_RETURNS] = per(from->returns, to->returns, n);
	figures[COMPARE_MAP_REQUESTS] = behind ? per(from->map_requests, to->map_requests, n) : 0;
	figures[COMPARE_UNMAP_REQUESTS] =
		behind ? per(from->unmap_requests, to->unmap_requests, n) : 0;
	figures[COMPARE_MAPS] = per(from->maps, to->maps, n);
	figures[COMPARE_UNMAPS] = per(from->unmaps, to->unmaps, n);
	figures[COMPARE_HITS] = per(from->hits, to->hits, n);
	figures[COMPARE_MAP_TIME] = per(from->map_ns, to->map_ns, to->maps - from->maps) / 1e3;
	figures[COMPARE_UNMAP_TIME] =
		per(from->unmap_ns, to->unmap_ns, to->unmaps - from->unmaps) / 1e3;
	figures[COMPARE_MAPPED] = per(from->mapped, to->mapped, s);
	/* A device without a virtual IOMMU requests nothing in particular. */
	figures[COMPARE_REQUESTED] = behind ? per(from->requested, to->requested, s) : (double)NAN;
	figures[COMPARE_STALE] = per(from->stale, to->stale, s);
	/* A page is counted as pinned in the space that pinned it first, even after that space is
	 * gone; but every page that is mapped for a real device is pinned. */
	figures[COMPARE_PINNED] = fmax(per(from->pinned, to->pinned, s), figures[COMPARE_MAPPED]);
}
