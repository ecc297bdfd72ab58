// SPDX-License-Identifier: Apache-2.0
// The status document for Prometheus: values, labels, and the format's own rules.
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "control/method.h"

static const char status[] =
	"{\"name\": \"a \\\"quoted\\\\ name\", \"state\": \"paused\", \"resets\": 3,"
	" \"memory_bytes\": 4398046511104, \"cpus\": {\"count\": 2, \"max\": 16},"
	" \"memory\": {\"max_bytes\": 8796093022208},"
	" \"exits\": {\"total\": 30, \"io\": 10, \"mmio\": 20},"
	" \"vcpus\": [{\"index\": 0, \"cpu_ns\": 3500000000, \"exits\": {\"io\": {\"calls\": 10, \"ns\": 5}}},"
	"             {\"index\": 1, \"cpu_ns\": 1, \"steal_ns\": 250000000,"
	"              \"exits\": {\"mmio\": {\"calls\": 20, \"ns\": 1500000000}}}],"
	" \"devices\": [{\"kind\": \"console\", \"id\": \"console0\", \"type\": \"serial\","
	"                \"output_bytes\": 12},"
	"               {\"kind\": \"passthrough\", \"id\": \"nic\", \"type\": \"vfio-pci\","
	"                \"trapped\": 7, \"faults\": 1, \"vectors\": 5},"
	"               {\"kind\": \"disk\", \"id\": \"disk0\", \"type\": \"virtio-blk\","
	"                \"queues\": [{\"requests\": 5, \"bytes\": 4096}, {\"requests\": 6}],"
	"                \"latency\": {\"each\": 16, \"measured\": 7, \"ns\": 2500000000,"
	"                              \"us\": {\"4\": 1, \"1024\": 4, \"more\": 2}}}],"
	" \"regions\": [{\"name\": \"bar0\", \"bus\": \"mmio\", \"base\": \"0x1\", \"traps\": 1},"
	"               {\"name\": \"bar0\", \"bus\": \"mmio\", \"base\": \"0x2\", \"traps\": 2}],"
	" \"iommu\": {\"spaces\": [{\"name\": \"nic\", \"mapped_bytes\": 4096,"
	"   \"mapped_byte_seconds\": 0.5, \"retained\": {\"hits\": 9},"
	"   \"operations\": {\"map\": {\"calls\": 4, \"ns\": 1500000000}}}]},"
	" \"viommu\": {\"faults\": 2, \"requests\": {\"attach\": {\"calls\": 6, \"failed\": 0}},"
	"   \"endpoints\": [{\"id\": \"nic\", \"pinned_bytes\": 8192}]}}";

static char *text;

static void set_up(void)
{
	text = metrics_text(status);
	cr_assert_not_null(text);
}

static void tear_down(void)
{
	free(text);
}

TestSuite(metrics, .init = set_up, .fini = tear_down);

static bool has_line(const char *line)
{
	const char *at = strstr(text, line);

	return at && (at == text || at[-1] == '\n') && at[strlen(line)] == '\n';
}

Test(metrics, numbers_keep_their_value_and_say_whose_they_are)
{
	static const char *const lines[] = {
		"hospes_info{name=\"a \\\"quoted\\\\ name\",version=\"9.9.9\"} 1",
		"hospes_state{state=\"paused\"} 1",
		"hospes_state{state=\"running\"} 0",
		"hospes_memory_bytes 4398046511104",
		"hospes_memory_max_bytes 8796093022208",
		"hospes_cpus 2",
		"hospes_cpus_max 16",
		"hospes_resets_total 3",
		"hospes_exits_total{vcpu=\"0\",reason=\"io\"} 10",
		"hospes_exits_total{vcpu=\"1\",reason=\"mmio\"} 20",
		"hospes_exit_seconds_total{vcpu=\"1\",reason=\"mmio\"} 1.5",
		"hospes_vcpu_cpu_seconds_total{vcpu=\"0\"} 3.5",
		"hospes_vcpu_steal_seconds_total{vcpu=\"1\"} 0.25",
		"hospes_device_info{device=\"nic\",kind=\"passthrough\",type=\"vfio-pci\"} 1",
		"hospes_device_output_bytes_total{device=\"console0\"} 12",
		"hospes_device_trapped_accesses_total{device=\"nic\"} 7",
		"hospes_region_accesses_total{region=\"bar0\",bus=\"mmio\",base=\"0x2\"} 2",
		"hospes_space_mapped_bytes{space=\"nic\"} 4096",
		"hospes_space_mapped_byte_seconds_total{space=\"nic\"} 0.5",
		"hospes_space_retained_hits_total{space=\"nic\"} 9",
		"hospes_space_operation_seconds_total{space=\"nic\",operation=\"map\"} 1.5",
		"hospes_device_requests_total{device=\"disk0\",queue=\"0\"} 5",
		"hospes_device_requests_total{device=\"disk0\",queue=\"1\"} 6",
		"hospes_device_bytes_total{device=\"disk0\",queue=\"0\"} 4096",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"2e-06\"} 0",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"4e-06\"} 1",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"0.000512\"} 1",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"0.001024\"} 5",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"4.1943\"} 5",
		"hospes_device_request_seconds_bucket{device=\"disk0\",le=\"+Inf\"} 7",
		"hospes_device_request_seconds_sum{device=\"disk0\"} 2.5",
		"hospes_device_request_seconds_count{device=\"disk0\"} 7",
		"hospes_viommu_faults_total 2",
		"hospes_viommu_requests_total{request=\"attach\"} 6",
		"hospes_endpoint_pinned_bytes{endpoint=\"nic\"} 8192",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		cr_expect(has_line(lines[i]), "%s is not in\n%s", lines[i], text);
	cr_expect_not(strstr(text, "reason=\"total\""), "a sum is no reason");
}

/* Its samples follow a family's HELP and TYPE; counters, and only they, end in _total. */
Test(metrics, the_format_is_kept)
{
	char family[128] = "", type[16] = "", *save;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t n = strcspn(line, "{ ");

		if (sscanf(line, "# TYPE %127s %15s", family, type) == 2) {
			bool total = strlen(family) > 6 &&
				     strcmp(family + strlen(family) - 6, "_total") == 0;

			cr_expect_eq(strcmp(type, "counter") == 0, total, "%s", family);
		} else if (line[0] != '#') {
			static const char *const of_histogram[] = {"_bucket", "_sum", "_count"};
			size_t base = strlen(family);

			cr_expect_eq(strncmp(line, family, base), 0, "%s under %s", line, family);
			for (size_t i = 0; strcmp(type, "histogram") == 0 && i < 3; i++) {
				if (n == base + strlen(of_histogram[i]) &&
				    strncmp(line + base, of_histogram[i], n - base) == 0)
					base = n;
			}
			cr_expect_eq(base, n, "%s under %s", line, family);
			cr_expect(isdigit((unsigned char)strrchr(line, ' ')[1]), "%s", line);
		}
	}
}

Test(metrics, a_label_that_is_too_long_is_left_out)
{
	char document[2048], *long_one;

	strcpy(document, "{\"name\": \"");
	for (int i = 0; i < 600; i++)
		strcat(document, "\\\\");
	strcat(document, "\", \"state\": \"running\"}");
	long_one = metrics_text(document);
	cr_assert_not_null(long_one);
	cr_assert(strstr(long_one, "hospes_info{version=\"9.9.9\"} 1\n"), "%s", long_one);
	free(long_one);
	cr_assert_null(metrics_text("no document"));
}
