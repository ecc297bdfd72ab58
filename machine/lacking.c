// SPDX-License-Identifier: Apache-2.0
// What machines of this host's architecture cannot have yet. See lacking.h.
#include "machine/lacking.h"

#include <errno.h>

#include "base/num.h"

static bool plugs_cpus(const struct config *config)
{
	return config->cpus.max > config->cpus.count;
}

static bool plugs_memory(const struct config *config)
{
	return config->memory.max_bytes > config->memory.size_bytes;
}

static bool has_viommu(const struct config *config)
{
	return config->viommu.enabled;
}

static bool has_firmware(const struct config *config)
{
	return config->firmware;
}

static bool is_restored(const struct config *config)
{
	return config->restore.path || config->restore.state_fd >= 0;
}

static bool arrives(const struct config *config)
{
	return config->incoming.fd >= 0;
}

static bool is_debugged(const struct config *config)
{
	return config->gdb.path || config->gdb.fd >= 0;
}

static bool has_smbios(const struct config *config)
{
	const struct config_smbios *s = &config->smbios;

	return s->serial || s->manufacturer || s->product || s->version;
}

static bool has_credentials(const struct config *config)
{
	return !list_empty(&config->credentials);
}

static const struct lacking {
	enum arch_feature feature;
	const char *key;
	bool (*asked)(const struct config *config);
} lacking[] = {
	{ARCH_CPU_PLUG, "cpus.max", plugs_cpus},
	{ARCH_MEMORY_PLUG, "memory.max", plugs_memory},
	{ARCH_VIOMMU, "viommu", has_viommu},
	{ARCH_FIRMWARE, "firmware", has_firmware},
	{ARCH_STATE, "restore", is_restored},
	{ARCH_STATE, "incoming", arrives},
	{ARCH_DEBUG, "gdb", is_debugged},
	{ARCH_SMBIOS, "smbios", has_smbios},
	{ARCH_SMBIOS, "credentials", has_credentials},
};

int lacking_refuse(enum arch_feature feature, const char *what, struct err *err)
{
	if (arch_has(feature))
		return 0;
	return err_set(err, -EOPNOTSUPP, "%s: guests on %s cannot have that yet; leave it out",
		       what, arch_name);
}

int lacking_check(const struct config *config, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(lacking) && !rc; i++) {
		if (lacking[i].asked(config))
			rc = lacking_refuse(lacking[i].feature, lacking[i].key, err);
	}
	return rc;
}
