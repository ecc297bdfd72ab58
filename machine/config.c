// SPDX-License-Identifier: Apache-2.0
// The machine's own keys of the document, parsing and text. Devices' keys are their kinds'; what
// must hold between values is in validate.c and config_devices.c.
#include "machine/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "iommu/ioas.h"
#include "machine/credentials.h"
#include "machine/kind.h"
#include "machine/validate.h"
#include "sandbox/sandbox.h"
#include "virtio/iommu.h"

#define AT(type, member) .offset = offsetof(struct type, member)

const char *const config_backing_names[] = {
	[GMEM_AUTO] = "auto",
	[GMEM_ANONYMOUS] = "anonymous",
	[GMEM_MEMFD] = "memfd",
	[GMEM_HUGETLB_2M] = "hugetlb-2M",
	[GMEM_HUGETLB_1G] = "hugetlb-1G",
	NULL,
};
/* enum kaslr_mode, enum config_ports */
static const char *const auto_names[] = {"auto", "on", "off", NULL};
static const char *const on_reset_names[] = {
	[CONFIG_ON_RESET_RESTART] = "restart",
	[CONFIG_ON_RESET_STOP] = "stop",
	NULL,
};

static const char *const sandbox_names[] = {
	[SANDBOX_AUTO] = "auto",
	[SANDBOX_STRICT] = "strict",
	[SANDBOX_OFF] = "off",
	NULL,
};
static const char *const viommu_transport_names[] = {
	[VIRTIO_IOMMU_EXIT] = "exit",
	[VIRTIO_IOMMU_LOOP] = "loop",
	[VIRTIO_IOMMU_POLL] = "poll",
	NULL,
};
static const char *const iommu_names[] = {
	[IOMMU_AUTO] = "auto",
	[IOMMU_IOMMUFD] = "iommufd",
	[IOMMU_TYPE1] = "type1",
	NULL,
};

static const struct schema_field cpus_fields[] = {
	{"count", SCHEMA_UINT, AT(config_cpus, count), .min = 1, .max = 255},
	{"max", SCHEMA_UINT, AT(config_cpus, max), .min = 0, .max = 255},
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
	{"max", SCHEMA_SIZE, AT(config_memory, max_bytes), .min = 0, .max = 64 * TiB},
	{"backing", SCHEMA_ENUM, AT(config_memory, backing), .names = config_backing_names},
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
	{"kaslr", SCHEMA_ENUM, AT(config_kernel, kaslr), .names = auto_names},
	{"cache", SCHEMA_BOOL, AT(config_kernel, cache)},
	{"cache_dir", SCHEMA_STRING, AT(config_kernel, cache_dir)},
	{NULL},
};
static const struct config_kernel kernel_defaults = {.cache = true};
static const struct schema kernel_schema = {"kernel", kernel_fields, sizeof(struct config_kernel),
					    &kernel_defaults};

static const struct schema_field iommu_fields[] = {
	{"backend", SCHEMA_ENUM, AT(config_iommu, backend), .names = iommu_names},
	{"fd", SCHEMA_FD, AT(config_iommu, fd), .max = INT32_MAX},
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

static const struct schema_field pci_fields[] = {
	{"root_ports", SCHEMA_UINT, AT(config_pci, root_ports), .max = CONFIG_MAX_ROOT_PORTS},
	{"config_ports", SCHEMA_ENUM, AT(config_pci, config_ports), .names = auto_names},
	{NULL},
};
static const struct config_pci pci_defaults = {.root_ports = CONFIG_MAX_ROOT_PORTS};
static const struct schema pci_schema = {"pci", pci_fields, sizeof(struct config_pci),
					 &pci_defaults};

static const struct schema_field smbios_fields[] = {
	{"serial", SCHEMA_STRING, AT(config_smbios, serial)},
	{"manufacturer", SCHEMA_STRING, AT(config_smbios, manufacturer)},
	{"product", SCHEMA_STRING, AT(config_smbios, product)},
	{"version", SCHEMA_STRING, AT(config_smbios, version)},
	{NULL},
};
static const struct schema smbios_schema = {"smbios", smbios_fields, sizeof(struct config_smbios),
					    NULL};

static const struct schema_field gdb_fields[] = {
	{"path", SCHEMA_STRING, AT(config_gdb, path)},
	{"fd", SCHEMA_FD, AT(config_gdb, fd), .max = INT32_MAX},
	{"wait", SCHEMA_BOOL, AT(config_gdb, wait)},
	{NULL},
};
static const struct config_gdb gdb_defaults = {.fd = -1};
static const struct schema gdb_schema = {"gdb", gdb_fields, sizeof(struct config_gdb),
					 &gdb_defaults};

static const struct schema_field cloud_init_fields[] = {
	{"user", SCHEMA_STRING, AT(config_cloud_init, user)},
	{"key", SCHEMA_STRING, AT(config_cloud_init, key)},
	{"password", SCHEMA_STRING, AT(config_cloud_init, password)},
	{"hostname", SCHEMA_STRING, AT(config_cloud_init, hostname)},
	{"userdata", SCHEMA_STRING, AT(config_cloud_init, userdata)},
	{NULL},
};
static const struct schema cloud_init_schema = {"cloud_init", cloud_init_fields,
						sizeof(struct config_cloud_init), NULL};

static const char *const clock_names[] = {
	[SNAPSHOT_CONTINUE] = "continue",
	[SNAPSHOT_REAL] = "real",
	NULL,
};
static const struct schema_field restore_fields[] = {
	{"path", SCHEMA_STRING, AT(config_restore, path)},
	{"state_fd", SCHEMA_FD, AT(config_restore, state_fd), .max = INT32_MAX},
	{"memory_fd", SCHEMA_FD, AT(config_restore, memory_fd), .max = INT32_MAX},
	{"clock", SCHEMA_ENUM, AT(config_restore, clock), .names = clock_names},
	{NULL},
};
static const struct config_restore restore_defaults = {.state_fd = -1, .memory_fd = -1};
static const struct schema restore_schema = {"restore", restore_fields,
					     sizeof(struct config_restore), &restore_defaults};

static const struct schema_field incoming_fields[] = {
	{"fd", SCHEMA_FD, AT(config_incoming, fd), .max = INT32_MAX},
	{NULL},
};
static const struct config_incoming incoming_defaults = {.fd = -1};
static const struct schema incoming_schema = {"incoming", incoming_fields,
					      sizeof(struct config_incoming), &incoming_defaults};

static const struct config machine_defaults = {.io_threads = CONFIG_IO_THREADS_AUTO};
static const struct schema_field machine_fields[] = {
	{"name", SCHEMA_STRING, AT(config, name)},
	{"uuid", SCHEMA_UUID, AT(config, uuid)},
	{"cpus", SCHEMA_OBJECT, AT(config, cpus), .sub = &cpus_schema},
	{"memory", SCHEMA_OBJECT, AT(config, memory), .sub = &memory_schema},
	{"kernel", SCHEMA_OBJECT, AT(config, kernel), .sub = &kernel_schema},
	{"firmware", SCHEMA_STRING, AT(config, firmware)},
	{"iommu", SCHEMA_OBJECT, AT(config, iommu), .sub = &iommu_schema},
	{"viommu", SCHEMA_OBJECT, AT(config, viommu), .sub = &viommu_schema},
	{"pci", SCHEMA_OBJECT, AT(config, pci), .sub = &pci_schema},
	{"smbios", SCHEMA_OBJECT, AT(config, smbios), .sub = &smbios_schema},
	{"credentials", SCHEMA_LIST, AT(config, credentials), .max = CREDENTIALS_MAX,
	 .sub = &credential_schema},
	{"gdb", SCHEMA_OBJECT, AT(config, gdb), .sub = &gdb_schema},
	{"cloud_init", SCHEMA_OBJECT, AT(config, cloud_init), .sub = &cloud_init_schema},
	{"restore", SCHEMA_OBJECT, AT(config, restore), .sub = &restore_schema},
	{"incoming", SCHEMA_OBJECT, AT(config, incoming), .sub = &incoming_schema},
	{"io_threads", SCHEMA_UINT, AT(config, io_threads), .max = 64},
	{"on_reset", SCHEMA_ENUM, AT(config, on_reset), .names = on_reset_names},
	{"sandbox", SCHEMA_ENUM, AT(config, sandbox), .names = sandbox_names},
};

/* The table of the document: the machine's keys and those of the kinds of devices. */
enum { MAX_KINDS = 32 };
struct document {
	struct schema schema;
	struct schema_field fields[ARRAY_SIZE(machine_fields) + MAX_KINDS + 1];
};

static const struct schema *document(struct document *d)
{
	struct schema_field *f = d->fields + ARRAY_SIZE(machine_fields);

	*d = (struct document){
		.schema = {"machine", d->fields, sizeof(struct config), &machine_defaults}};
	memcpy(d->fields, machine_fields, sizeof(machine_fields));
	for (const struct device_kind *const *kind = device_kinds; *kind; kind++) {
		assert(f < d->fields + ARRAY_SIZE(d->fields) - 1);
		*f++ = (struct schema_field){
			.key = (*kind)->key,
			.kind = (*kind)->max ? SCHEMA_LIST : SCHEMA_ITEM,
			.offset = offsetof(struct config, devices),
			.max = (*kind)->max,
			.sub = &(*kind)->schema,
		};
	}
	return &d->schema;
}

int config_read(struct config *ret, const char *json, size_t len, struct err *err)
{
	struct document table;
	json_error_t at;
	json_t *root;
	int rc;

	*ret = (struct config){0};
	list_init(&ret->devices);
	list_init(&ret->credentials);
	root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &at);
	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", at.line, at.column, at.text);
	rc = schema_read(document(&table), root, "", ret, err);
	json_decref(root);
	return rc ? rc : config_validate(ret, err);
}

int config_check_fds(const struct config *config, struct err *err)
{
	struct document table;

	return schema_check_fds(document(&table), config, "", err);
}

void config_done(struct config *config)
{
	struct document table;

	schema_free(document(&table), config);
}

char *config_write(const struct config *config, bool fds)
{
	struct document table;
	json_t *root = schema_write(document(&table), config, fds);
	char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	char *line = NULL;

	json_decref(root);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}
