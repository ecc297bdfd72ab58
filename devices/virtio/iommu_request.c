// SPDX-License-Identifier: Apache-2.0
// virtio-iommu: requests as they lie in memory (virtio 1.3, 5.13.6), to and from iommu/viommu.h.
#include <errno.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "base/le.h"
#include "base/num.h"
#include "base/thread.h"
#include "core/vcpu_gate.h"
#include "virtio/iommu_impl.h"

static_assert((int)VIOMMU_NOMEM == VIRTIO_IOMMU_S_NOMEM &&
		      (int)VIOMMU_RANGE == VIRTIO_IOMMU_S_RANGE,
	      "statuses are numbered alike");
static_assert((int)VIOMMU_ATTACH == VIRTIO_IOMMU_T_ATTACH &&
		      (int)VIOMMU_UNMAP == VIRTIO_IOMMU_T_UNMAP,
	      "requests are numbered alike");
static_assert((int)VIOMMU_R_MAPPING == VIRTIO_IOMMU_FAULT_R_MAPPING, "reasons are numbered alike");
static_assert(sizeof(struct virtio_iommu_req_tail) == 4, "as on the wire");

static uint32_t put_property(uint8_t *at, const struct iommu_reserved *range)
{
	struct virtio_iommu_probe_resv_mem p = {
		.head = {.type = htole16(VIRTIO_IOMMU_PROBE_T_RESV_MEM),
			 .length = htole16(sizeof(p) - sizeof(p.head))},
		.subtype = strcmp(range->type, "msi") == 0 ? VIRTIO_IOMMU_RESV_MEM_T_MSI
							   : VIRTIO_IOMMU_RESV_MEM_T_RESERVED,
		.start = htole64(range->first),
		.end = htole64(range->last),
	};

	memcpy(at, &p, sizeof(p));
	return sizeof(p);
}

static void probe(struct iommu_dev *dev, struct iommu_taken *t, uint32_t endpoint)
{
	struct iommu_reserved
		ranges[IOMMU_PROBE_BYTES / sizeof(struct virtio_iommu_probe_resv_mem)];
	int n = viommu_probe(dev->viommu, endpoint, ranges, ARRAY_SIZE(ranges));
	uint32_t used = 0;

	t->status = n < 0 ? VIOMMU_NOENT : VIOMMU_OK;
	if (t->chain.in_bytes < IOMMU_PROBE_BYTES + sizeof(struct virtio_iommu_req_tail)) {
		t->tail = (uint32_t)(t->chain.in_bytes - sizeof(struct virtio_iommu_req_tail));
		t->status = n < 0 ? VIOMMU_NOENT : VIOMMU_INVAL;
		return;
	}
	t->tail = IOMMU_PROBE_BYTES;
	memset(dev->properties, 0, sizeof(dev->properties));
	for (int i = 0; i < MIN(n, (int)ARRAY_SIZE(ranges)); i++)
		used += put_property(dev->properties + used, &ranges[i]);
	iov_from_buf(t->chain.in, t->chain.n_in, 0, dev->properties, sizeof(dev->properties));
}

static uint8_t read_attach(const struct iommu_dev *dev, const uint8_t *out,
			   struct viommu_request *r)
{
	struct virtio_iommu_req_attach a;

	memcpy(&a, out, sizeof(a) - sizeof(a.tail));
	r->domain = le32toh(a.domain);
	r->endpoint = le32toh(a.endpoint);
	r->flags = le32toh(a.flags);
	if (a.reserved[0] | a.reserved[1] | a.reserved[2] | a.reserved[3])
		return VIOMMU_INVAL;
	if (r->flags && !virtio_has(&dev->vdev, VIRTIO_IOMMU_F_BYPASS_CONFIG))
		return VIOMMU_INVAL;
	return VIOMMU_OK;
}

static uint8_t read_detach(const struct iommu_dev *dev, const uint8_t *out,
			   struct viommu_request *r)
{
	struct virtio_iommu_req_detach d;

	(void)dev;
	memcpy(&d, out, sizeof(d) - sizeof(d.tail));
	r->domain = le32toh(d.domain);
	r->endpoint = le32toh(d.endpoint);
	return VIOMMU_OK;
}

static uint8_t read_map(const struct iommu_dev *dev, const uint8_t *out, struct viommu_request *r)
{
	struct virtio_iommu_req_map m;

	memcpy(&m, out, sizeof(m) - sizeof(m.tail));
	r->domain = le32toh(m.domain);
	r->first = le64toh(m.virt_start);
	r->last = le64toh(m.virt_end);
	r->gpa = le64toh(m.phys_start);
	r->flags = le32toh(m.flags);
	if (!virtio_has(&dev->vdev, VIRTIO_IOMMU_F_MAP_UNMAP))
		return VIOMMU_UNSUPP;
	if ((r->flags & VIRTIO_IOMMU_MAP_F_MMIO) && !virtio_has(&dev->vdev, VIRTIO_IOMMU_F_MMIO))
		return VIOMMU_INVAL;
	return VIOMMU_OK;
}

static uint8_t read_unmap(const struct iommu_dev *dev, const uint8_t *out, struct viommu_request *r)
{
	struct virtio_iommu_req_unmap u;

	memcpy(&u, out, sizeof(u) - sizeof(u.tail));
	r->domain = le32toh(u.domain);
	r->first = le64toh(u.virt_start);
	r->last = le64toh(u.virt_end);
	return virtio_has(&dev->vdev, VIRTIO_IOMMU_F_MAP_UNMAP) ? VIOMMU_OK : VIOMMU_UNSUPP;
}

/* By type: how long the part is that the device reads, and who reads it. */
static const struct {
	uint32_t out_bytes;
	uint8_t (*read)(const struct iommu_dev *dev, const uint8_t *out, struct viommu_request *r);
} kinds[] = {
#define KIND(name) sizeof(struct virtio_iommu_req_##name) - sizeof(struct virtio_iommu_req_tail)
	[VIRTIO_IOMMU_T_ATTACH] = {KIND(attach), read_attach},
	[VIRTIO_IOMMU_T_DETACH] = {KIND(detach), read_detach},
	[VIRTIO_IOMMU_T_MAP] = {KIND(map), read_map},
	[VIRTIO_IOMMU_T_UNMAP] = {KIND(unmap), read_unmap},
	[VIRTIO_IOMMU_T_PROBE] = {sizeof(struct virtio_iommu_req_probe), NULL},
};

/* One chain: a request more, or an answer, or nothing that can be understood. */
static void parse(struct iommu_dev *dev, struct iommu_taken *t, unsigned int *n)
{
	uint8_t out[sizeof(struct virtio_iommu_req_probe)] = {0};
	size_t got = iov_to_buf(t->chain.out, t->chain.n_out, 0, out, sizeof(out));
	struct virtio_iommu_req_probe p;
	uint8_t type = out[0];

	t->written = 0;
	t->request = -1;
	t->tail = 0;
	if (t->chain.truncated || !got || type >= ARRAY_SIZE(kinds) || !kinds[type].out_bytes ||
	    got < kinds[type].out_bytes || t->chain.in_bytes < sizeof(struct virtio_iommu_req_tail))
		return;
	if (type == VIRTIO_IOMMU_T_PROBE) {
		memcpy(&p, out, sizeof(p));
		probe(dev, t, le32toh(p.endpoint));
	} else {
		dev->requests[*n] = (struct viommu_request){.op = (enum viommu_op)type};
		t->status = kinds[type].read(dev, out, &dev->requests[*n]);
		if (t->status == VIOMMU_OK)
			t->request = (int)(*n)++;
	}
	t->written = t->tail + (uint32_t)sizeof(struct virtio_iommu_req_tail);
}

/* What others wait for meanwhile, as bytes. For an endpoint that moves all memory may be mapped. */
static uint64_t cost(const struct viommu_request *r)
{
	if (r->op == VIOMMU_ATTACH || r->op == VIOMMU_DETACH)
		return IOMMU_BATCH_BYTES;
	return r->last < r->first ? 0 : MIN(r->last - r->first, (uint64_t)IOMMU_BATCH_BYTES);
}

/* The next batch: how many chains, and how many requests. */
static int take(struct iommu_dev *dev, unsigned int *requests)
{
	struct virtq *vq = dev->vdev.queues[IOMMU_REQUEST_QUEUE].vq;
	uint64_t bytes = 0;
	int n = 0;

	*requests = 0;
	/* Whoever pauses the vCPU waits for no more than the requests at hand. */
	while (n < IOMMU_BATCH && bytes < IOMMU_BATCH_BYTES && !(n && vcpu_wanted_out())) {
		struct iommu_taken *t = &dev->taken[n];

		t->chain.iov = t->segments;
		t->chain.max_iov = IOMMU_SEGMENTS;
		if (virtq_pop(vq, &t->chain) <= 0)
			break;
		parse(dev, t, requests);
		if (t->request >= 0)
			bytes += cost(&dev->requests[t->request]);
		if (bytes >= IOMMU_BATCH_BYTES && thread_role() == THREAD_VCPU) {
			virtq_unpop(vq, &t->chain);
			*requests -= t->request >= 0;
			return n ? n : -EAGAIN;
		}
		n++;
	}
	return n;
}

int iommu_serve_batch(struct iommu_dev *dev)
{
	struct virtq *vq = dev->vdev.queues[IOMMU_REQUEST_QUEUE].vq;
	unsigned int requests;
	int n = take(dev, &requests);

	if (requests)
		viommu_run(dev->viommu, dev->requests, requests);
	/* The answers become visible at once: nobody can use the first without the last. */
	for (int i = 0; i < n; i++) {
		struct iommu_taken *t = &dev->taken[i];
		struct virtio_iommu_req_tail tail = {.status = t->status};

		if (t->request >= 0)
			tail.status = (uint8_t)dev->requests[t->request].status;
		if (t->written)
			iov_from_buf(t->chain.in, t->chain.n_in, t->tail, &tail, sizeof(tail));
		if (i + 1 < n)
			virtq_stage(vq, &t->chain, t->written);
		else
			virtq_push(vq, &t->chain, t->written);
	}
	return n;
}
