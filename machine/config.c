// SPDX-License-Identifier: Apache-2.0
// The document's tables, parsing and text. What must hold between values is in validate.c.
#include "machine/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "machine/validate.h"

#define AT(type, member) .offset = offsetof(struct type, member)

static const char *const backing_names[] = {
	[GMEM_AUTO] = "auto",
	[GMEM_ANONYMOUS] = "anonymous",
	[GMEM_MEMFD] = "memfd",
	[GMEM_HUGETLB_2M] = "hugetlb-2M",
	[GMEM_HUGETLB_1G] = "hugetlb-1G",
	NULL,
};
static const char *const kaslr_names[] = {"auto", "on", "off", NULL}; /* enum kaslr_mode */
static const char *const cache_names[] = {
	[CONFIG_CACHE_WRITEBACK] = "writeback",
	[CONFIG_CACHE_DIRECT] = "direct",
	[CONFIG_CACHE_WRITETHROUGH] = "writethrough",
	NULL,
};
static const char *const console_names[] = {
	[CONFIG_CONSOLE_SERIAL] = "serial",
	[CONFIG_CONSOLE_VIRTIO] = "virtio",
	NULL,
};
static const char *const on_reset_names[] = {
	[CONFIG_ON_RESET_RESTART] = "restart",
	[CONFIG_ON_RESET_STOP] = "stop",
	NULL,
};

static const char *const on_error_names[] = {
	[CONFIG_ON_ERROR_LOG] = "log",
	[CONFIG_ON_ERROR_RESET] = "reset",
	[CONFIG_ON_ERROR_PAUSE] = "pause",
	[CONFIG_ON_ERROR_STOP] = "stop",
	NULL,
};
static const char *const viommu_transport_names[] = {
	[CONFIG_VIOMMU_EXIT] = "exit",
	[CONFIG_VIOMMU_LOOP] = "loop",
	[CONFIG_VIOMMU_POLL] = "poll",
	NULL,
};
static const char *const iommu_names[] = {
	[CONFIG_IOMMU_AUTO] = "auto",
	[CONFIG_IOMMU_IOMMUFD] = "iommufd",
	[CONFIG_IOMMU_TYPE1] = "type1",
	NULL,
};

static const struct schema_field cpus_fields[] = {
	{"count", SCHEMA_UINT, AT(config_cpus, count), .min = 1, .max = 255},
	{"sockets", SCHEMA_UINT, AT(config_cpus, sockets), .min = 0, .max = 255},
	{"cores", SCHEMA_UINT, AT(config_cpus, cores), .min = 0, .max = 255},
	{"threads", SCHEMA_UINT, AT(config_cpus, threads), .min = 0, .max = 255},
	{"pin", SCHEMA_CPUS, AT(config_cpus, pin)},
	{NULL},
};
static const struct config_cpus cpus_defaults = {.count = 1};
static const struct schema cpus_schema = {"cpus", cpus_fields, sizeof(struct config_cpus),
					  &cpus_defaults};

static const struct schema_field memory_fields[] = {
	{"size", SCHEMA_SIZE, AT(config_memory, size_bytes), .min = 0, .max = 64 * TiB},
	{"backing", SCHEMA_ENUM, AT(config_memory, backing), .names = backing_names},
	{"prefault", SCHEMA_BOOL, AT(config_memory, prefault)},
	{"prefault_threads", SCHEMA_UINT, AT(config_memory, prefault_threads), .max = 1024},
	{"numa_node", SCHEMA_INT, AT(config_memory, numa_node), .max = 1023},
	{NULL},
};
static const struct config_memory memory_defaults = {.size_bytes = 256 * MiB, .numa_node = -1};
static const struct schema memory_schema = {"memory", memory_fields, sizeof(struct config_memory),
					    &memory_defaults};

static const struct schema_field kernel_fields[] = {
	{"path", SCHEMA_STRING, AT(config_kernel, path)},
	{"initrd", SCHEMA_STRING, AT(config_kernel, initrd)},
	{"cmdline", SCHEMA_STRING, AT(config_kernel, cmdline)},
	{"kaslr", SCHEMA_ENUM, AT(config_kernel, kaslr), .names = kaslr_names},
	{"cache", SCHEMA_BOOL, AT(config_kernel, cache)},
	{"cache_dir", SCHEMA_STRING, AT(config_kernel, cache_dir)},
	{NULL},
};
static const struct config_kernel kernel_defaults = {.cache = true};
static const struct schema kernel_schema = {"kernel", kernel_fields, sizeof(struct config_kernel),
					    &kernel_defaults};

static const struct schema_field disk_fields[] = {
	{"id", SCHEMA_STRING, AT(config_disk, id)},
	{"path", SCHEMA_STRING, AT(config_disk, path)},
	{"fd", SCHEMA_INT, AT(config_disk, fd), .max = INT32_MAX},
	{"readonly", SCHEMA_BOOL, AT(config_disk, readonly)},
	{"cache", SCHEMA_ENUM, AT(config_disk, cache), .names = cache_names},
	{"discard", SCHEMA_BOOL, AT(config_disk, discard)},
	{"queues", SCHEMA_UINT, AT(config_disk, queues), .min = 1, .max = 64},
	{"queue_size", SCHEMA_UINT, AT(config_disk, queue_size), .min = 2, .max = 1024},
	{"block_size", SCHEMA_UINT, AT(config_disk, block_bytes), .min = 0, .max = 4096},
	{"serial", SCHEMA_STRING, AT(config_disk, serial)},
	{"viommu", SCHEMA_BOOL, AT(config_disk, viommu)},
	{"addr", SCHEMA_PCI, AT(config_disk, addr)},
	{NULL},
};
static const struct config_disk disk_defaults = {
	.fd = -1, .discard = true, .queues = 1, .queue_size = 256};
static const struct schema disk_schema = {"disk", disk_fields, sizeof(struct config_disk),
					  &disk_defaults};

static const struct schema_field net_fields[] = {
	{"id", SCHEMA_STRING, AT(config_net, id)},
	{"tap", SCHEMA_STRING, AT(config_net, tap)},
	{"create", SCHEMA_BOOL, AT(config_net, create)},
	{"fd", SCHEMA_INT, AT(config_net, fd), .max = INT32_MAX},
	{"socket", SCHEMA_STRING, AT(config_net, socket)},
	{"mac", SCHEMA_MAC, AT(config_net, mac)},
	{"queues", SCHEMA_UINT, AT(config_net, queues), .min = 1, .max = 32},
	{"queue_size", SCHEMA_UINT, AT(config_net, queue_size), .min = 64, .max = 1024},
	{"mtu", SCHEMA_UINT, AT(config_net, mtu), .min = 0, .max = 65535},
	{"vhost", SCHEMA_BOOL, AT(config_net, vhost)},
	{"offload", SCHEMA_BOOL, AT(config_net, offload)},
	{"link", SCHEMA_BOOL, AT(config_net, link)},
	{"viommu", SCHEMA_BOOL, AT(config_net, viommu)},
	{"addr", SCHEMA_PCI, AT(config_net, addr)},
	{NULL},
};
static const struct config_net net_defaults = {
	.fd = -1, .queues = 1, .queue_size = 256, .offload = true, .link = true};
static const struct schema net_schema = {"net", net_fields, sizeof(struct config_net),
					 &net_defaults};

static const struct schema_field console_fields[] = {
	{"id", SCHEMA_STRING, AT(config_console, id)},
	{"type", SCHEMA_ENUM, AT(config_console, type), .names = console_names},
	{"in", SCHEMA_INT, AT(config_console, in), .max = INT32_MAX},
	{"out", SCHEMA_INT, AT(config_console, out), .max = INT32_MAX},
	{"path", SCHEMA_STRING, AT(config_console, path)},
	{"addr", SCHEMA_PCI, AT(config_console, addr)},
	{NULL},
};
static const struct config_console console_defaults = {.in = -1, .out = -1};
static const struct schema console_schema = {"console", console_fields,
					     sizeof(struct config_console), &console_defaults};

static const struct schema_field passthrough_fields[] = {
	{"id", SCHEMA_STRING, AT(config_passthrough, id)},
	{"device", SCHEMA_STRING, AT(config_passthrough, device)},
	{"fd", SCHEMA_INT, AT(config_passthrough, fd), .max = INT32_MAX},
	{"iommufd", SCHEMA_INT, AT(config_passthrough, iommufd), .max = INT32_MAX},
	{"strategy", SCHEMA_STRING, AT(config_passthrough, strategy)},
	{"ioas", SCHEMA_STRING, AT(config_passthrough, ioas)},
	{"on_error", SCHEMA_ENUM, AT(config_passthrough, on_error), .names = on_error_names},
	{"rom", SCHEMA_BOOL, AT(config_passthrough, rom)},
	{"viommu", SCHEMA_BOOL, AT(config_passthrough, viommu)},
	{"addr", SCHEMA_PCI, AT(config_passthrough, addr)},
	{"port", SCHEMA_PCI, AT(config_passthrough, port)},
	{NULL},
};
static const struct config_passthrough passthrough_defaults = {.fd = -1, .iommufd = -1};
static const struct schema passthrough_schema = {"passthrough", passthrough_fields,
						 sizeof(struct config_passthrough),
						 &passthrough_defaults};

static const struct schema_field iommu_fields[] = {
	{"backend", SCHEMA_ENUM, AT(config_iommu, backend), .names = iommu_names},
	{"fd", SCHEMA_INT, AT(config_iommu, fd), .max = INT32_MAX},
	{NULL},
};
static const struct config_iommu iommu_defaults = {.fd = -1};
static const struct schema iommu_schema = {"iommu", iommu_fields, sizeof(struct config_iommu),
					   &iommu_defaults};

static const struct schema_field viommu_fields[] = {
	{"enabled", SCHEMA_BOOL, AT(config_viommu, enabled)},
	{"bypass", SCHEMA_BOOL, AT(config_viommu, bypass)},
	{"transport", SCHEMA_ENUM, AT(config_viommu, transport), .names = viommu_transport_names},
	{"poll_us", SCHEMA_UINT, AT(config_viommu, poll_us), .max = CONFIG_VIOMMU_POLL_US_MAX},
	{"addr", SCHEMA_PCI, AT(config_viommu, addr)},
	{NULL},
};
static const struct config_viommu viommu_defaults = {
	.bypass = true,
	.poll_us = CONFIG_VIOMMU_POLL_US,
};
static const struct schema viommu_schema = {"viommu", viommu_fields, sizeof(struct config_viommu),
					    &viommu_defaults};

static const struct schema_field rng_fields[] = {
	{"enabled", SCHEMA_BOOL, AT(config_rng, enabled)},
	{"addr", SCHEMA_PCI, AT(config_rng, addr)},
	{NULL},
};
static const struct config_rng rng_defaults = {.enabled = true};
static const struct schema rng_schema = {"rng", rng_fields, sizeof(struct config_rng),
					 &rng_defaults};

static const struct schema_field pci_fields[] = {
	{"root_ports", SCHEMA_UINT, AT(config_pci, root_ports), .max = CONFIG_MAX_ROOT_PORTS},
	{NULL},
};
static const struct schema pci_schema = {"pci", pci_fields, sizeof(struct config_pci), NULL};

static const struct schema_field smbios_fields[] = {
	{"serial", SCHEMA_STRING, AT(config_smbios, serial)},
	{"manufacturer", SCHEMA_STRING, AT(config_smbios, manufacturer)},
	{"product", SCHEMA_STRING, AT(config_smbios, product)},
	{"version", SCHEMA_STRING, AT(config_smbios, version)},
	{NULL},
};
static const struct schema smbios_schema = {"smbios", smbios_fields, sizeof(struct config_smbios),
					    NULL};

static const struct schema_field machine_fields[] = {
	{"name", SCHEMA_STRING, AT(config, name)},
	{"uuid", SCHEMA_UUID, AT(config, uuid)},
	{"cpus", SCHEMA_OBJECT, AT(config, cpus), .sub = &cpus_schema},
	{"memory", SCHEMA_OBJECT, AT(config, memory), .sub = &memory_schema},
	{"kernel", SCHEMA_OBJECT, AT(config, kernel), .sub = &kernel_schema},
	{"firmware", SCHEMA_STRING, AT(config, firmware)},
	{"disks", SCHEMA_ARRAY, AT(config, disks), .max = 64, .sub = &disk_schema},
	{"nets", SCHEMA_ARRAY, AT(config, nets), .max = 32, .sub = &net_schema},
	{"consoles", SCHEMA_ARRAY, AT(config, consoles), .max = 8, .sub = &console_schema},
	{"passthrough", SCHEMA_ARRAY, AT(config, passthrough), .max = CONFIG_MAX_PASSTHROUGH,
	 .sub = &passthrough_schema},
	{"iommu", SCHEMA_OBJECT, AT(config, iommu), .sub = &iommu_schema},
	{"viommu", SCHEMA_OBJECT, AT(config, viommu), .sub = &viommu_schema},
	{"rng", SCHEMA_OBJECT, AT(config, rng), .sub = &rng_schema},
	{"pci", SCHEMA_OBJECT, AT(config, pci), .sub = &pci_schema},
	{"smbios", SCHEMA_OBJECT, AT(config, smbios), .sub = &smbios_schema},
	{"io_threads", SCHEMA_UINT, AT(config, io_threads), .max = 64},
	{"on_reset", SCHEMA_ENUM, AT(config, on_reset), .names = on_reset_names},
	{NULL},
};
/* Sub-objects that the document leaves out keep these. */
static const struct config machine_defaults = {
	.cpus = {.count = 1},
	.memory = {.size_bytes = 256 * MiB, .numa_node = -1},
	.kernel = {.cache = true},
	.iommu = {.fd = -1},
	.viommu = {.bypass = true, .poll_us = CONFIG_VIOMMU_POLL_US},
	.rng = {.enabled = true},
	.pci = {.root_ports = 2},
};
static const struct schema machine_schema = {"machine", machine_fields, sizeof(struct config),
					     &machine_defaults};

int config_read(struct config *ret, const char *json, size_t len, struct err *err)
{
	json_error_t at;
	json_t *root;
	int rc;

	*ret = machine_defaults;
	root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &at);
	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", at.line, at.column, at.text);
	rc = schema_read(&machine_schema, root, "", ret, err);
	json_decref(root);
	if (rc) {
		*ret = machine_defaults;
		return rc;
	}
	return config_validate(ret, err);
}

void config_done(struct config *config)
{
	schema_free(&machine_schema, config);
}

char *config_write(const struct config *config)
{
	json_t *root = schema_write(&machine_schema, config);
	char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	char *line = NULL;

	json_decref(root);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}
