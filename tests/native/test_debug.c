// SPDX-License-Identifier: Apache-2.0
// A debugger's client at a machine, whose vCPUs run the stub's guest: it stops, steps, changes, and
// goes.
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gdb/packet.h"
#include "machine/vm.h"
#include "rig.h"
#include "stub_kvm.h"

#define DOCUMENT(more)                                                                       \
	"{\"cpus\": {\"count\": 2}, \"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\":" \
	" \"{dir}/kernel\", \"cache\": false}, \"gdb\": {\"path\": \"{dir}/gdb\"" more "}}"
#define RIP "p10"

static struct rig rig;
static struct hospes_vm *vm;
static int client = -1;
static char answer[GDB_PACKET_MAX + 1];

static void start(const char *document)
{
	struct hospes_error error;

	vm = rig_create(&rig, document, HOSPES_VM_THREAD);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
}

static int connect_client(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/gdb", rig.dir);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* The next packet; false: the connection has ended. */
static bool await(void)
{
	static struct gdb_reader reader;
	enum gdb_frame frame = GDB_MORE;
	uint8_t byte;

	while (frame != GDB_PACKET) {
		if (recv(client, &byte, 1, 0) != 1)
			return false;
		gdb_reader_feed(&reader, &byte, 1, &frame);
	}
	snprintf(answer, sizeof(answer), "%s", reader.bytes);
	return true;
}

static void tell(const char *packet)
{
	char frame[GDB_FRAME_MAX];
	size_t n = gdb_frame_write(frame, packet, strlen(packet));

	cr_assert_eq(send(client, frame, n, MSG_NOSIGNAL), (ssize_t)n);
}

static const char *ask(const char *packet)
{
	tell(packet);
	cr_assert(await(), "%s", packet);
	return answer;
}

static void set_up(void)
{
	rig_init(&rig, true);
	start(DOCUMENT(""));
	client = connect_client();
}

static void set_up_alone(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	if (client >= 0)
		close(client);
	hospes_vm_destroy(vm);
	rig_done(&rig);
}

TestSuite(debug, .init = set_up, .fini = tear_down, .timeout = 60);
TestSuite(debug_alone, .init = set_up_alone, .fini = tear_down, .timeout = 60);

/* Of thread 1 or 2. */
static uint64_t rip_of(const char *choose)
{
	uint64_t rip = 0;

	cr_assert_str_eq(ask(choose), "OK");
	cr_assert_eq(strlen(ask(RIP)), 16u, "%s", answer);
	cr_assert(gdb_hex_read(answer, (uint8_t *)&rip, sizeof(rip)));
	return rip;
}

static void choose_start(void)
{
	cr_assert_str_eq(ask("Hg1"), "OK");
	cr_assert_str_eq(ask("P10=0000100000000000"), "OK");
	cr_assert_str_eq(ask("Hg2"), "OK");
	cr_assert_str_eq(ask("P10=0080100000000000"), "OK");
}

Test(debug, a_client_that_comes_finds_every_vcpu_stopped)
{
	struct hospes_error error;

	cr_expect_str_eq(ask("?"), "T05thread:1;");
	cr_expect_str_eq(ask("qfThreadInfo"), "m1,2");
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	cr_expect_eq(hospes_vm_resume(vm, &error), -EBUSY);
	cr_expect(strstr(error.text, "debugger"), "%s", error.text);
}

Test(debug, a_step_is_one_instruction_of_one_vcpu_while_the_other_is_held)
{
	choose_start();
	cr_expect_str_eq(ask("vCont;s:1"), "T05thread:1;");
	cr_expect_eq(rip_of("Hg1"), 0x100001u);
	cr_expect_eq(rip_of("Hg2"), 0x108000u);
	cr_expect_str_eq(ask("vCont;s:2"), "T05thread:2;");
	cr_expect_eq(rip_of("Hg1"), 0x100001u);
	cr_expect_eq(rip_of("Hg2"), 0x108001u);
}

Test(debug, the_other_vcpu_runs_during_a_step_if_that_is_asked)
{
	choose_start();
	do
		cr_expect_str_eq(ask("vCont;s:1;c"), "T05thread:1;");
	while (rip_of("Hg2") == 0x108000);
}

Test(debug, a_software_breakpoint_stops_its_vcpu_before_the_instruction_and_leaves_no_trace)
{
	choose_start();
	cr_assert_str_eq(ask("M100100,2:90ab"), "OK");
	cr_assert_str_eq(ask("Z0,100100,1"), "OK");
	cr_expect_str_eq(ask("m100100,2"), "ccab");
	ask("qSupported:swbreak+;hwbreak+");
	cr_expect_str_eq(ask("vCont;c:1"), "T05thread:1;swbreak:;");
	cr_expect_eq(rip_of("Hg1"), 0x100100u);
	cr_expect_eq(rip_of("Hg2"), 0x108000u);
	cr_assert_str_eq(ask("z0,100100,1"), "OK");
	cr_expect_str_eq(ask("m100100,2"), "90ab");
}

Test(debug, a_hardware_breakpoint_stops_whichever_vcpu_comes_there)
{
	choose_start();
	ask("qSupported:hwbreak+");
	cr_assert_str_eq(ask("Z1,108100,1"), "OK");
	/* The second has less far to go, if the host lets it. */
	if (strcmp(ask("c"), "T05thread:1;hwbreak:;") == 0) {
		cr_expect_eq(rip_of("Hg1"), 0x108100u);
	} else {
		cr_expect_str_eq(answer, "T05thread:2;hwbreak:;");
		cr_expect_eq(rip_of("Hg2"), 0x108100u);
	}
	cr_expect_str_eq(ask("m108100,1"), "00");
}

Test(debug, more_hardware_breakpoints_than_there_are_are_refused)
{
	cr_expect_str_eq(ask("Z1,100000,1"), "OK");
	cr_expect_str_eq(ask("Z2,100008,8"), "OK");
	cr_expect_str_eq(ask("Z4,100010,4"), "OK");
	cr_expect_str_eq(ask("Z3,100020,4"), "");
	cr_expect_str_eq(ask("Z1,100030,1"), "OK");
	cr_expect_str_eq(ask("Z1,100040,1"), "E1c");
	cr_expect_str_eq(ask("z4,100010,4"), "OK");
	cr_expect_str_eq(ask("Z1,100040,1"), "OK");
	cr_expect_str_eq(ask("Z2,100001,8"), "E16");
}

Test(debug, an_interrupt_stops_a_running_guest)
{
	choose_start();
	tell("c");
	cr_assert_eq(send(client, "\3", 1, 0), 1);
	cr_assert(await());
	cr_expect_str_eq(answer, "T02thread:1;");
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
}

Test(debug, registers_and_memory_are_written_and_read_back)
{
	char all[2 * 1024 + 8] = "G";

	cr_assert_str_eq(ask("P0=8877665544332211"), "OK");
	cr_expect_str_eq(ask("p0"), "8877665544332211");
	strcat(all, ask("g"));
	all[1] = 'f';
	cr_assert_str_eq(ask(all), "OK");
	cr_expect_str_eq(ask("p0"), "f877665544332211");
	/* Over the border of two pages. */
	cr_assert_str_eq(ask("M101ffe,4:01020304"), "OK");
	cr_expect_str_eq(ask("m101ffe,4"), "01020304");
}

Test(debug, what_is_no_memory_is_refused)
{
	cr_expect_str_eq(ask("m2000000,4"), "E0e");
	cr_expect_str_eq(ask("Mfee00000,4:00000000"), "E0e");
	cr_expect_str_eq(ask("Z0,e0000000,1"), "E0e");
	/* As much as there is. */
	cr_expect_str_eq(ask("m1fffffe,4"), "0000");
}

Test(debug, a_client_that_detaches_leaves_the_guest_running_without_breakpoints)
{
	choose_start();
	cr_assert_str_eq(ask("Z0,100100,1"), "OK");
	cr_expect_str_eq(ask("D"), "OK");
	cr_expect_not(await());
	cr_expect_eq(hospes_vm_state(vm), HOSPES_RUNNING);
	close(client);
	client = connect_client();
	cr_expect_str_eq(ask("m100100,1"), "00");
}

static void await_state(enum hospes_state state)
{
	while (hospes_vm_state(vm) != state)
		sched_yield();
}

Test(debug, a_connection_that_is_lost_leaves_the_guest_running_without_breakpoints)
{
	choose_start();
	cr_assert_str_eq(ask("Z0,100100,1"), "OK");
	close(client);
	await_state(HOSPES_RUNNING);
	client = connect_client();
	cr_expect_str_eq(ask("m100100,1"), "00");
	/* And while it runs. */
	cr_assert_str_eq(ask("Z0,180000,1"), "OK");
	tell("c");
	await_state(HOSPES_RUNNING);
	close(client);
	client = connect_client();
	cr_expect_str_eq(ask("m180000,1"), "00");
}

Test(debug, a_second_client_is_sent_away)
{
	int second, first = client;

	ask("?");
	second = connect_client();
	client = second;
	cr_expect_not(await());
	client = first;
	cr_expect_str_eq(ask("qC"), "QC1");
	close(second);
}

Test(debug, a_machine_that_another_has_paused_is_taken_over_by_an_interrupt)
{
	struct hospes_error error;

	choose_start();
	tell("c");
	await_state(HOSPES_RUNNING);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	cr_assert_eq(send(client, "\3", 1, 0), 1);
	cr_assert(await());
	cr_expect_str_eq(answer, "T02thread:1;");
	cr_expect_eq(hospes_vm_resume(vm, &error), -EBUSY);
}

Test(debug, a_reset_of_a_stopped_machine_keeps_it_stopped)
{
	struct hospes_error error;

	ask("?");
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	choose_start();
	cr_expect_str_eq(ask("vCont;s:1"), "T05thread:1;");
}

Test(debug, the_client_hears_of_the_end_of_the_machine)
{
	struct hospes_error error;

	choose_start();
	tell("c");
	await_state(HOSPES_RUNNING);
	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	cr_assert(await());
	cr_expect_str_eq(answer, "W01");
	cr_expect_not(await());
}

static void expect_said(const char *all, const char *what)
{
	cr_expect(strstr(all, what), "'%s' in:\n%s", what, all);
}

/* It understands the description of the registers, and the reports of stops. */
Test(debug, real_gdb_debugs_it)
{
	static char said[64 * 1024];
	char command[1024];
	FILE *gdb;

	close(client);
	client = -1;
	snprintf(command, sizeof(command),
		 "gdb -nx -batch -ex 'set pagination off' -ex 'target remote %s/gdb' "
		 "-ex 'info threads' -ex 'set $pc = 0x100000' -ex 'stepi' -ex 'p/x $pc' "
		 "-ex 'hbreak *0x100200' -ex 'continue' -ex 'p/x $pc' -ex 'delete' "
		 "-ex 'break *0x100300' -ex 'continue' -ex 'x/1xb 0x100300' -ex 'delete' "
		 "-ex 'set var *(int *)0x101ffe = 77' -ex 'p *(int *)0x101ffe' "
		 "-ex 'set $xmm1.uint128 = 5' -ex 'p $xmm1.uint128' -ex 'info registers' "
		 "-ex 'p $st0' -ex 'detach' 2>&1",
		 rig.dir);
	gdb = popen(command, "r");
	cr_assert_not_null(gdb);
	said[fread(said, 1, sizeof(said) - 1, gdb)] = '\0';
	cr_expect_eq(pclose(gdb), 0);
	expect_said(said, "Thread 2 (vCPU 1 [");
	expect_said(said, "$1 = 0x100001");
	expect_said(said, "hit Breakpoint 1, 0x0000000000100200");
	expect_said(said, "hit Breakpoint 2, 0x0000000000100300");
	expect_said(said, "0x100300:\t0x00");
	expect_said(said, "$3 = 77");
	expect_said(said, "$4 = 5");
	expect_said(said, "gs_base");
	expect_said(said, "efer");
	expect_said(said, "$5 = 0");
	expect_said(said, "detached");
	await_state(HOSPES_RUNNING);
}

Test(debug, a_client_can_end_the_machine)
{
	tell("k");
	cr_assert_eq(hospes_vm_wait(vm, 30000), 0);
	cr_expect_eq(hospes_vm_outcome(vm), HOSPES_OUTCOME_KILLED);
}

Test(debug_alone, the_guest_waits_for_the_debugger_if_that_is_asked)
{
	start(DOCUMENT(", \"wait\": true"));
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	client = connect_client();
	choose_start();
	cr_expect_eq(stub_kvm_totals().runs, 0u);
	cr_expect_str_eq(ask("vCont;s:1"), "T05thread:1;");
	cr_expect_gt(stub_kvm_totals().runs, 0u);
}

Test(debug_alone, a_vcpu_that_is_out_of_the_machine_is_a_thread_and_says_so)
{
	static const char out[] = "vCPU 2 [not in the machine]";
	char text[sizeof(out)] = "";

	start("{\"cpus\": {\"count\": 2, \"max\": 3}, \"memory\": {\"size\": \"32M\"}, \"kernel\":"
	      " {\"path\": \"{dir}/kernel\", \"cache\": false}, \"gdb\": {\"path\": \"{dir}/gdb\"}}");
	client = connect_client();
	cr_expect_str_eq(ask("qfThreadInfo"), "m1,2,3");
	cr_assert(gdb_hex_read(ask("qThreadExtraInfo,3"), (uint8_t *)text, sizeof(out) - 1));
	cr_expect_str_eq(text, out);
	/* All go on, it does not, and all stop. */
	choose_start();
	tell("c");
	while (hospes_vm_state(vm) != HOSPES_RUNNING)
		sched_yield();
	cr_assert_eq(send(client, "\x03", 1, MSG_NOSIGNAL), 1);
	cr_assert(await());
	cr_expect_not(vcpus_is_in(vm->vcpus, 2));
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
}

Test(debug_alone, the_socket_is_the_users_own_and_goes_with_the_machine)
{
	char path[128];
	struct stat st;

	start(DOCUMENT(""));
	snprintf(path, sizeof(path), "%s/gdb", rig.dir);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect(S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
	hospes_vm_destroy(vm);
	vm = NULL;
	cr_expect_eq(stat(path, &st), -1);
}

Test(debug_alone, a_socket_that_cannot_be_is_refused_with_the_remedy)
{
	struct hospes_error error;
	struct hospes_vm *other;

	start(DOCUMENT(""));
	cr_expect_eq(rig_try(&rig, &other, DOCUMENT(""), 0, &error), -EADDRINUSE);
	cr_expect(strstr(error.text, "choose another path"), "%s", error.text);
	cr_expect_eq(rig_try(&rig, &other,
			     "{\"kernel\": {\"path\": \"{dir}/kernel\"}, \"gdb\": {\"path\": "
			     "\"{dir}/disk\"}}",
			     0, &error),
		     -EEXIST);
	cr_expect(strstr(error.text, "no socket"), "%s", error.text);
	cr_expect_eq(rig_try(&rig, &other,
			     "{\"kernel\": {\"path\": \"{dir}/kernel\"}, \"gdb\": {\"fd\": 0}}", 0,
			     &error),
		     -EINVAL);
	cr_expect_eq(rig_try(&rig, &other,
			     "{\"kernel\": {\"path\": \"{dir}/kernel\"}, \"gdb\": {\"wait\": "
			     "true}}",
			     0, &error),
		     -EINVAL);
}
