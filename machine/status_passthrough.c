// SPDX-License-Identifier: Apache-2.0
// The status document, about passed-through devices and their address spaces.
#include "base/num.h"
#include "iommu/ledger.h"
#include "iommu/strategy/policy.h"
#include "machine/kind_passthrough.h"
#include "machine/vm.h"

static json_t *reset_list(unsigned int resets)
{
	static const struct {
		enum host_reset bit;
		const char *name;
	} names[] = {
		{HOST_RESET_FLR, "flr"}, {HOST_RESET_AF_FLR, "af_flr"}, {HOST_RESET_PM, "pm"},
		{HOST_RESET_BUS, "bus"}, {HOST_RESET_DEVICE, "device"},
	};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (resets & names[i].bit)
			json_array_append_new(list, json_string(names[i].name));
	}
	return list;
}

void passthrough_status(struct vm_device *d, json_t *item)
{
	const struct vm_passthrough *p = passthrough_of(d);
	struct vfio_pci_status s;
	char addr[PCI_ADDR_TEXT];

	json_object_set_new(item, "type", json_string("vfio-pci"));
	json_object_set_new(item, "host", json_string(p->found.bdf));
	json_object_set_new(item, "state", json_string(d->dev ? "present" : "released"));
	if (p->space)
		json_object_set_new(item, "ioas", json_string(p->space->name));
	json_object_set_new(item, "strategy", json_string(passthrough_config(p)->strategy));
	json_object_set_new(item, "faults", json_integer((json_int_t)p->faults));
	if (p->last_fault[0])
		json_object_set_new(item, "last_fault", json_string(p->last_fault));
	json_object_set_new(item, "host_resets", reset_list(p->found.host.resets));
	if (!d->dev)
		return;
	vfio_pci_status(d->dev, &s);
	if (s.gone)
		json_object_set_new(item, "state", json_string("gone"));
	json_object_set_new(item, "addr",
			    json_string(pci_addr_format(&vfio_pci_function(d->dev)->addr, addr)));
	json_object_set_new(item, "interrupt", json_string(s.interrupt));
	json_object_set_new(item, "vectors", json_integer(s.vectors));
	json_object_set_new(item, "trapped", json_integer((json_int_t)s.trapped));
}

static json_t *calls(const struct ledger_kind *kind)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "calls", (json_int_t)kind->calls,
			 "failed", (json_int_t)kind->failed, "bytes", (json_int_t)kind->bytes, "ns",
			 (json_int_t)kind->ns, "p50_ns", (json_int_t)ledger_quantile_ns(kind, 0.5),
			 "p99_ns", (json_int_t)ledger_quantile_ns(kind, 0.99), "max_ns",
			 (json_int_t)kind->max_ns);
}

/* What the devices reach though the guest has unmapped it, and what became of it. */
static json_t *retained(const struct hw_domain *domain, const struct ledger_totals *t)
{
	const struct hw_domain_retained now = hw_domain_retained(domain);

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "mappings",
			 (json_int_t)t->stale_mappings, "bytes", (json_int_t)t->stale_bytes,
			 "peak_bytes", (json_int_t)t->stale_peak_bytes, "oldest_ns",
			 (json_int_t)now.oldest_ns, "longest_ns",
			 (json_int_t)MAX(t->stale_longest_ns, now.oldest_ns), "hits",
			 (json_int_t)t->hits, "evicted", (json_int_t)t->evicted, "overruns",
			 (json_int_t)t->overruns);
}

/* What 'auto' has chosen. */
static json_t *policy_status(const struct policy_view *view)
{
	json_t *candidates = json_array();

	for (unsigned int i = 0; i < view->n; i++)
		json_array_append_new(candidates, json_pack("{s:s, s:f}", "strategy",
							    view->candidates[i].strategy, "cpu",
							    view->candidates[i].cpu));
	return json_pack("{s:s, s:s, s:I, s:o}", "strategy", view->running, "why", view->why,
			 "decisions", (json_int_t)view->decisions, "candidates", candidates);
}

void vm_ledger_status(json_t *item, const struct hw_domain *domain)
{
	json_t *ops = json_object();
	struct ledger_totals t;
	struct policy_view view;

	hw_domain_totals(domain, &t);
	json_object_set_new(item, "strategy", json_string(hw_domain_strategy(domain)));
	if (hw_domain_policy(domain, &view))
		json_object_set_new(item, "chosen", policy_status(&view));
	for (unsigned int op = 0; op < LEDGER_OPS; op++)
		json_object_set_new(ops, ledger_op_name((enum ledger_op)op), calls(&t.kind[op]));
	json_object_set_new(item, "operations", ops);
	json_object_set_new(item, "at_ns", json_integer((json_int_t)t.at_ns));
	json_object_set_new(item, "mapped_bytes", json_integer((json_int_t)t.mapped_bytes));
	json_object_set_new(item, "mapped_peak_bytes",
			    json_integer((json_int_t)t.mapped_peak_bytes));
	json_object_set_new(item, "requested_bytes", json_integer((json_int_t)t.requested_bytes));
	json_object_set_new(item, "stale_bytes", json_integer((json_int_t)t.stale_bytes));
	json_object_set_new(item, "retained", retained(domain, &t));
	json_object_set_new(item, "joined", json_integer((json_int_t)t.joined));
	json_object_set_new(item, "pinned_bytes", json_integer((json_int_t)t.pinned_bytes));
	json_object_set_new(item, "mapped_byte_seconds", json_real(t.mapped_byte_seconds));
	json_object_set_new(item, "requested_byte_seconds", json_real(t.requested_byte_seconds));
	json_object_set_new(item, "stale_byte_seconds", json_real(t.stale_byte_seconds));
	json_object_set_new(item, "pinned_byte_seconds", json_real(t.pinned_byte_seconds));
}

static json_t *space_status(struct hospes_vm *vm, const struct vm_space *space)
{
	json_t *item = json_object(), *devices = json_array();
	const struct vm_passthrough *p = NULL;

	json_object_set_new(item, "name", json_string(space->name));
	while ((p = passthrough_next(vm, p))) {
		if (p->space == space && p->attached)
			json_array_append_new(devices, json_string(p->d.config->id));
	}
	json_object_set_new(item, "devices", devices);
	vm_ledger_status(item, space->domain);
	return item;
}

json_t *vm_iommu_status(struct hospes_vm *vm)
{
	struct vm_host_iommu *host = &vm->host_iommu;
	int given = vm->config.iommu.fd;
	json_t *item, *spaces;

	if (!host->iommu)
		return json_pack(
			"{s:s, s:b}", "backend",
			given >= 0 ? iommu_kind_name(IOMMU_IOMMUFD)
				   : iommu_kind_name((enum iommu_kind)vm->config.iommu.backend),
			"iommufd", given >= 0);
	spaces = json_array();
	list_for_each (i, &host->spaces)
		json_array_append_new(spaces,
				      space_status(vm, container_of(i, struct vm_space, link)));
	item = json_pack("{s:s, s:b, s:s, s:s}", "backend",
			 iommu_kind_name(iommu_kind_of(host->iommu)), "iommufd",
			 iommu_fd(host->iommu) >= 0, "reason", iommu_reason(host->iommu),
			 "fault_source", fault_source(host->faults));
	json_object_set_new(item, "spaces", spaces);
	return item;
}
