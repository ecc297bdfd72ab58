// SPDX-License-Identifier: Apache-2.0
// virtio-iommu through its rings: requests as they lie in memory, what is malformed, PROBE, bypass
// in the configuration, faults on the event queue. Built once for each TRANSPORT: the answers are
// the same.
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "base/num.h"
#include "base/thread.h"
#include "core/device.h"
#include "core/state.h"
#include "core/vcpu_gate.h"
#include "driver.h"
#include "iommu/viommu.h"
#include "virtio/iommu.h"

enum { ENDPOINT = 0x18, FEATURES = 0x77 /* all but the legacy bypass */, POLL_NS = 300000 };

static const enum virtio_iommu_transport transport = TRANSPORT;
static struct guest *g;
static struct drv *d;
static struct viommu *viommu;
static struct viommu_endpoint *endpoint;
static struct dma_space *space;
static struct err err;

/* A PROBE asks for the endpoint's number while it is carried out: what a test does meanwhile. */
static void (*during_probe)(void);

static uint32_t id(void *opaque)
{
	(void)opaque;
	if (during_probe)
		during_probe();
	return ENDPOINT;
}

static void setup_polling_for(uint64_t poll_ns)
{
	struct viommu_config config = {0};
	struct virtio_iommu_setup setup = {
		.name = "viommu",
		.transport = transport,
		.poll_ns = poll_ns,
	};
	struct virtio_device *vdev;

	g = guest_create(NULL);
	config.gmem = guest_memory(g);
	config.log = guest_log(g);
	cr_assert_eq(viommu_create(&viommu, &config, &err), 0);
	cr_assert_eq(viommu_add_emulated(&endpoint, viommu, "disk", &space, &err), 0);
	viommu_set_id(endpoint, id, NULL);
	setup.viommu = viommu;
	setup.loop = guest_loop(g, 0);
	cr_assert_eq(virtio_iommu_create(&vdev, &setup, guest_log(g), &err), 0);
	d = drv_create(g, vdev);
	drv_start(d, FEATURES, 0);
}

static void setup(void)
{
	setup_polling_for(POLL_NS);
}

static void teardown(void)
{
	drv_destroy(d);
	viommu_remove(endpoint);
	viommu_destroy(viommu);
	guest_destroy(g);
}

TestSuite(virtio_iommu, .init = setup, .fini = teardown);

/* Send the part that the device reads; the answer's status, or -1 when nothing was written. */
static int request(const void *out, uint32_t out_bytes, void *in, uint32_t in_bytes)
{
	struct drv_sg o = {guest_alloc(g, out_bytes, 8), out_bytes};
	struct drv_sg i = {guest_alloc(g, in_bytes, 8), in_bytes};
	uint8_t *answer = guest_ptr(g, i.gpa, in_bytes);
	uint16_t head;
	uint32_t len;

	memcpy(guest_ptr(g, o.gpa, out_bytes), out, out_bytes);
	memset(answer, 0xee, in_bytes);
	drv_add(d, 0, &o, 1, &i, 1);
	drv_kick(d, 0);
	cr_assert(drv_wait(d, 0, &head, &len));
	if (in)
		memcpy(in, answer, in_bytes);
	if (!len)
		return answer[0] == 0xee ? -1 : -2;
	return answer[len - 4];
}

static int attach(uint32_t domain, uint32_t flags, uint8_t reserved)
{
	struct virtio_iommu_req_attach r = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = domain,
		.endpoint = ENDPOINT,
		.flags = flags,
		.reserved = {reserved},
	};

	return request(&r, sizeof(r) - sizeof(r.tail), NULL, sizeof(r.tail));
}

static int map(uint64_t first, uint64_t last, uint64_t gpa, uint32_t flags)
{
	struct virtio_iommu_req_map r = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = 1,
		.virt_start = first,
		.virt_end = last,
		.phys_start = gpa,
		.flags = flags,
	};

	return request(&r, sizeof(r) - sizeof(r.tail), NULL, sizeof(r.tail));
}

static int unmap(uint64_t first, uint64_t last)
{
	struct virtio_iommu_req_unmap r = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = 1,
		.virt_start = first,
		.virt_end = last,
	};

	return request(&r, sizeof(r) - sizeof(r.tail), NULL, sizeof(r.tail));
}

static uint64_t reach(uint64_t iova)
{
	uint64_t gpa, bytes;

	return viommu_translate(endpoint, iova, 1, DMA_TO_DEVICE, &gpa, &bytes) ? UINT64_MAX : gpa;
}

Test(virtio_iommu, requests_are_carried_out_and_answered)
{
	cr_assert_eq(map(0, 0xfff, 0x5000, 3), VIRTIO_IOMMU_S_NOENT);
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(map(0, 0xfff, 0x5000, 3), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(reach(0x123), 0x5123);
	cr_assert_eq(unmap(0, 0x7ff), VIRTIO_IOMMU_S_RANGE);
	cr_assert_eq(unmap(0, 0xfff), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(reach(0x123), UINT64_MAX);
}

Test(virtio_iommu, what_must_be_refused_is)
{
	static const uint8_t unknown[20] = {9}, none[20];
	struct virtio_iommu_req_map r = {.head.type = VIRTIO_IOMMU_T_MAP};

	cr_assert_eq(attach(1, 0, 1), VIRTIO_IOMMU_S_INVAL, "reserved");
	cr_assert_eq(attach(1, 2, 0), VIRTIO_IOMMU_S_INVAL, "an unknown flag");
	cr_assert_eq(request(unknown, sizeof(unknown), NULL, 4), -1, "an unknown type");
	cr_assert_eq(request(none, sizeof(none), NULL, 4), -1);
	cr_assert_eq(request(&r, sizeof(r) - sizeof(r.tail) - 1, NULL, 4), -1, "too short");
	cr_assert_eq(request(&r, sizeof(r) - sizeof(r.tail), NULL, 3), -1, "no room for a status");
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK, "and it goes on");
}

Test(virtio_iommu, features_that_were_not_accepted_are_not_there)
{
	drv_start(d, 1ull << VIRTIO_IOMMU_F_MAP_UNMAP, 0);
	cr_assert_eq(attach(1, VIRTIO_IOMMU_ATTACH_F_BYPASS, 0), VIRTIO_IOMMU_S_INVAL);
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(map(0, 0xfff, 0, VIRTIO_IOMMU_MAP_F_MMIO | 1), VIRTIO_IOMMU_S_INVAL);
	drv_start(d, 0, 0);
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(map(0, 0xfff, 0, 1), VIRTIO_IOMMU_S_UNSUPP);
}

Test(virtio_iommu, probe_tells_the_msi_window)
{
	struct virtio_iommu_req_probe r = {.head.type = VIRTIO_IOMMU_T_PROBE, .endpoint = ENDPOINT};
	uint32_t bytes = (uint32_t)drv_bar_read(
		d, d->config + offsetof(struct virtio_iommu_config, probe_size), 4);
	struct virtio_iommu_probe_resv_mem p[2];
	static uint8_t in[4096];

	cr_assert_lt(bytes, sizeof(in) - 4);
	cr_assert_eq(request(&r, sizeof(r), in, bytes + 4), VIRTIO_IOMMU_S_OK);
	memcpy(p, in, sizeof(p));
	cr_assert_eq(p[0].head.type, VIRTIO_IOMMU_PROBE_T_RESV_MEM);
	cr_assert_eq(p[0].head.length, sizeof(p[0]) - 4);
	cr_assert_eq(p[0].subtype, VIRTIO_IOMMU_RESV_MEM_T_MSI);
	cr_assert_eq(p[0].start, 0xfee00000);
	cr_assert_eq(p[0].end, 0xfeefffff);
	cr_assert_eq(p[1].head.type, VIRTIO_IOMMU_PROBE_T_NONE);
	cr_assert_eq(request(&r, sizeof(r), in, 64), VIRTIO_IOMMU_S_INVAL, "no room");
	cr_assert_eq(in[0], 0xee, "and nothing written but the status");
	r.endpoint++;
	cr_assert_eq(request(&r, sizeof(r), in, bytes + 4), VIRTIO_IOMMU_S_NOENT);
}

static uint64_t bypass_at(void)
{
	return d->config + offsetof(struct virtio_iommu_config, bypass);
}

static bool bypass_is_on(void *opaque)
{
	(void)opaque;
	return drv_bar_read(d, bypass_at(), 1);
}

Test(virtio_iommu, bypass_which_may_map_all_of_memory_is_not_set_in_the_vcpus_exit)
{
	drv_bar_write(d, bypass_at(), 1, 1);
	cr_assert_eq(reach(0x1000), UINT64_MAX);
	cr_assert_not(bypass_is_on(NULL), "it reads as it is");
	cr_assert(guest_until(g, bypass_is_on, NULL));
	cr_assert_eq(reach(0x1000), 0x1000);
}

Test(virtio_iommu, bypass_is_set_without_a_running_queue_too)
{
	drv_reset(d);
	cr_assert(drv_negotiate(d, FEATURES));
	drv_bar_write(d, bypass_at(), 1, 1);
	cr_assert(guest_until(g, bypass_is_on, NULL));
}

Test(virtio_iommu, bypass_is_the_drivers_and_outlives_a_reset)
{
	uint64_t at = bypass_at();

	cr_assert_eq(drv_bar_read(d, at, 1), 0);
	drv_bar_write(d, at, 2, 1);
	guest_turn(g);
	cr_assert_eq(reach(0x1000), UINT64_MAX, "no such value");
	drv_bar_write(d, at, 1, 1);
	cr_assert(guest_until(g, bypass_is_on, NULL));
	cr_assert_eq(reach(0x1000), 0x1000);
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(reach(0x1000), UINT64_MAX);
	drv_reset(d);
	cr_assert_eq(drv_bar_read(d, at, 1), 1);
	cr_assert_eq(reach(0x1000), 0x1000, "no domain is left");
	drv_bar_write(d, at, 0, 1);
	guest_turn(g);
	cr_assert_eq(drv_bar_read(d, at, 1), 1, "not without the feature");
}

Test(virtio_iommu, faults_come_on_the_event_queue)
{
	struct drv_sg buffer = {guest_alloc(g, sizeof(struct virtio_iommu_fault), 8),
				sizeof(struct virtio_iommu_fault)};
	struct virtio_iommu_fault fault;
	struct dma_port port;
	uint16_t head;
	uint32_t len, word;

	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	dma_port_init(&port, space, ENDPOINT);
	cr_assert_neq(dma_read(&port, 0xabc000, &word, sizeof(word)), 0);
	dma_port_done(&port);
	guest_turn(g);
	/* It waited for a buffer. */
	drv_add(d, 1, NULL, 0, &buffer, 1);
	drv_kick(d, 1);
	cr_assert(drv_wait(d, 1, &head, &len));
	cr_assert_eq(len, sizeof(fault));
	memcpy(&fault, guest_ptr(g, buffer.gpa, sizeof(fault)), sizeof(fault));
	cr_assert_eq(fault.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
	cr_assert_eq(fault.flags, VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	cr_assert_eq(fault.endpoint, ENDPOINT);
	cr_assert_eq(fault.address, 0xabc000);
}

Test(virtio_iommu, many_requests_at_once_are_answered_in_order)
{
	enum { N = 100 };
	struct virtio_iommu_req_map r = {.head.type = VIRTIO_IOMMU_T_MAP, .domain = 1, .flags = 3};
	uint8_t *answers[N];
	uint16_t head;
	uint32_t len;

	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	for (unsigned int i = 0; i < N; i++) {
		struct drv_sg o = {guest_alloc(g, sizeof(r), 8), sizeof(r) - sizeof(r.tail)};
		struct drv_sg in = {guest_alloc(g, 4, 4), 4};

		/* Each second one asks for what the one before it got. */
		r.virt_start = (i & ~1u) * 4096ull;
		r.virt_end = r.virt_start + 4095;
		r.phys_start = i * 4096ull;
		memcpy(guest_ptr(g, o.gpa, o.len), &r, o.len);
		answers[i] = guest_ptr(g, in.gpa, 4);
		drv_add(d, 0, &o, 1, &in, 1);
	}
	drv_kick(d, 0);
	for (unsigned int i = 0; i < N; i++) {
		cr_assert(drv_wait(d, 0, &head, &len));
		cr_assert_eq(len, 4);
	}
	for (unsigned int i = 0; i < N; i++)
		cr_assert_eq(answers[i][0], i & 1 ? VIRTIO_IOMMU_S_INVAL : VIRTIO_IOMMU_S_OK);
	cr_assert_eq(reach(98 * 4096), 98 * 4096);
}

/* Add a map request for `bytes` from the page on. */
static void add_map_of(uint64_t page, uint64_t bytes, uint8_t **answer)
{
	struct virtio_iommu_req_map r = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = 1,
		.virt_start = page << 12,
		.virt_end = (page << 12) + (bytes - 1),
		.phys_start = 0x5000,
		.flags = 3,
	};
	struct drv_sg o = {guest_alloc(g, sizeof(r), 8), sizeof(r) - sizeof(r.tail)};
	struct drv_sg i = {guest_alloc(g, 4, 4), 4};

	memcpy(guest_ptr(g, o.gpa, o.len), &r, o.len);
	*answer = guest_ptr(g, i.gpa, 4);
	**answer = 0xee;
	drv_add(d, 0, &o, 1, &i, 1);
}

static void add_map(uint64_t page, uint8_t **answer)
{
	add_map_of(page, 0x1000, answer);
}

Test(virtio_iommu, who_serves_a_request_is_as_asked_for)
{
	uint8_t *answer;

	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	add_map(1, &answer);
	drv_publish(d, 0);
	drv_notify(d, 0);
	cr_assert_eq(*answer, transport == VIRTIO_IOMMU_EXIT ? VIRTIO_IOMMU_S_OK : 0xee,
		     "served by the write itself, or not");
	cr_assert(drv_wait(d, 0, NULL, NULL));
	cr_assert_eq(*answer, VIRTIO_IOMMU_S_OK);
	/* By way of config space it is the loop's in any case. */
	add_map(2, &answer);
	drv_publish(d, 0);
	drv_cfg_write(d, d->pci_cap + 4, DRV_BAR, 1);
	drv_cfg_write(d, d->pci_cap + 8, d->notify, 4);
	drv_cfg_write(d, d->pci_cap + 12, 2, 4);
	drv_cfg_write(d, d->pci_cap + 16, 0, 2);
	cr_assert_eq(*answer, 0xee);
	cr_assert(drv_wait(d, 0, NULL, NULL));
	cr_assert_eq(*answer, VIRTIO_IOMMU_S_OK);
}

static bool kicks_are_wanted(void *opaque)
{
	/* used flags: no event index here */
	(void)opaque;
	return !(__atomic_load_n((uint16_t *)guest_ptr(g, d->queues[0].used, 2), __ATOMIC_ACQUIRE) &
		 1);
}

Test(virtio_iommu, polling_needs_no_kick)
{
	uint8_t *answer;

	teardown();
	setup_polling_for(3600 * 1000000000ull);
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert_eq(kicks_are_wanted(NULL), transport != VIRTIO_IOMMU_POLL);
	add_map(1, &answer);
	cr_assert_eq(drv_kick(d, 0), transport != VIRTIO_IOMMU_POLL);
	cr_assert(drv_wait(d, 0, NULL, NULL));
	cr_assert_eq(*answer, VIRTIO_IOMMU_S_OK);
}

Test(virtio_iommu, polling_ends_when_nothing_came_for_a_while)
{
	uint8_t *answer;

	cr_assert(guest_until(g, kicks_are_wanted, NULL), "before the first request");
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	cr_assert(guest_until(g, kicks_are_wanted, NULL), "and after one");
	add_map(1, &answer);
	cr_assert(drv_kick(d, 0));
	cr_assert(drv_wait(d, 0, NULL, NULL));
	cr_assert_eq(*answer, VIRTIO_IOMMU_S_OK);
}

/* --- in a vCPU's thread --- */

static struct vcpu_gate gate;
static sem_t entered, go_on;

static void *notify_as_vcpu(void *opaque)
{
	vcpu_gate_own(&gate);
	drv_notify(opaque, 0);
	return NULL;
}

static void start_vcpu(pthread_t *thread)
{
	vcpu_gate_init(&gate);
	atomic_store(&gate.want, VCPU_WANT_RUN);
	drv_publish(d, 0);
	cr_assert_eq(thread_start(thread, THREAD_VCPU, 0, NULL, notify_as_vcpu, d), 0);
}

static void run_vcpu(void)
{
	pthread_t thread;

	start_vcpu(&thread);
	pthread_join(thread, NULL);
}

static void add_probe(void)
{
	const struct virtio_iommu_req_probe r = {.head.type = VIRTIO_IOMMU_T_PROBE,
						 .endpoint = ENDPOINT};
	struct drv_sg o = {guest_alloc(g, sizeof(r), 8), sizeof(r)};
	struct drv_sg i = {guest_alloc(g, 4096, 8), 4096};

	memcpy(guest_ptr(g, o.gpa, o.len), &r, o.len);
	drv_add(d, 0, &o, 1, &i, 1);
}

Test(virtio_iommu, what_takes_long_is_left_to_the_loop)
{
	enum { N = 4 };
	uint8_t *answers[N];

	if (transport != VIRTIO_IOMMU_EXIT)
		return;
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	add_map(1, &answers[0]);
	add_map(2, &answers[1]);
	add_map_of(0x10000, 32 * MiB, &answers[2]);
	add_map(3, &answers[3]);
	run_vcpu();
	for (unsigned int i = 0; i < N; i++)
		cr_expect_eq(*answers[i], i < 2 ? VIRTIO_IOMMU_S_OK : 0xee, "%u", i);
	for (unsigned int i = 0; i < N; i++)
		cr_assert(drv_wait(d, 0, NULL, NULL));
	for (unsigned int i = 0; i < N; i++)
		cr_expect_eq(*answers[i], VIRTIO_IOMMU_S_OK, "%u", i);
}

static void want_it_out(void)
{
	atomic_store(&gate.want, VCPU_WANT_PAUSE);
}

Test(virtio_iommu, a_vcpu_that_is_wanted_out_leaves_in_the_middle_of_a_batch)
{
	uint8_t *answers[10];

	if (transport != VIRTIO_IOMMU_EXIT)
		return;
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	during_probe = want_it_out;
	add_probe();
	for (unsigned int i = 0; i < ARRAY_SIZE(answers); i++)
		add_map(i, &answers[i]);
	run_vcpu();
	during_probe = NULL;
	for (unsigned int i = 0; i < ARRAY_SIZE(answers); i++)
		cr_expect_eq(*answers[i], 0xee, "%u", i);
	for (unsigned int i = 0; i < ARRAY_SIZE(answers) + 1; i++)
		cr_assert(drv_wait(d, 0, NULL, NULL));
	cr_expect_eq(*answers[9], VIRTIO_IOMMU_S_OK);
}

static void block(void)
{
	sem_post(&entered);
	sem_wait(&go_on);
}

Test(virtio_iommu, a_vcpu_does_not_wait_for_another_that_serves, .timeout = 20)
{
	pthread_t thread;
	uint8_t *answer;

	if (transport != VIRTIO_IOMMU_EXIT)
		return;
	cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
	sem_init(&entered, 0, 0);
	sem_init(&go_on, 0, 0);
	during_probe = block;
	add_probe();
	start_vcpu(&thread);
	sem_wait(&entered);
	during_probe = NULL;
	add_map(1, &answer);
	drv_publish(d, 0);
	drv_notify(d, 0);
	cr_expect_eq(*answer, 0xee);
	sem_post(&go_on);
	pthread_join(thread, NULL);
	cr_expect_eq(*answer, VIRTIO_IOMMU_S_OK, "the other has looked again");
}

/* Kicks of one vCPU while another resets the device: no request is answered after the reset. */
static _Atomic bool ended;

static void *kick(void *opaque)
{
	while (!atomic_load(&ended))
		drv_notify(opaque, 0);
	return NULL;
}

Test(virtio_iommu, resets_while_requests_come)
{
	pthread_t thread;
	uint8_t *answer;

	guest_run_loops(g);
	cr_assert_eq(pthread_create(&thread, NULL, kick, d), 0);
	for (unsigned int i = 0; i < 50; i++) {
		drv_start(d, FEATURES, 0);
		cr_assert_eq(attach(1, 0, 0), VIRTIO_IOMMU_S_OK);
		add_map(i, &answer);
		drv_publish(d, 0);
		drv_reset(d);
		cr_assert_eq(reach(i << 12), UINT64_MAX, "in no domain");
		cr_assert(*answer == 0xee || *answer == VIRTIO_IOMMU_S_OK);
		*answer = 0x11;
		cr_assert_eq(*answer, 0x11);
	}
	atomic_store(&ended, true);
	pthread_join(thread, NULL);
	guest_join_loops(g);
}

Test(virtio_iommu, its_state_is_refused_with_the_reason)
{
	struct state_buffer buffer = {0};
	struct state_writer w;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	cr_assert_eq(state_save_device(&w, d->dev, &err), -EOPNOTSUPP);
	cr_assert_not_null(strstr(err.text, "the state of a virtual IOMMU"), "%s", err.text);
	free(buffer.bytes);
}
