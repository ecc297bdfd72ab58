// SPDX-License-Identifier: Apache-2.0
// From the document's devices to device objects: files are opened here, devices get fds.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "machine/open.h"
#include "machine/vm.h"
#include "platform/serial.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/pci.h"
#include "virtio/rng.h"

struct device_env vm_device_env(struct hospes_vm *vm)
{
	return (struct device_env){
		.log = &vm->log,
		.mmio = vm->mmio,
		.pio = vm->pio,
		.irq = vm->irq,
		.loop = vm->loop,
		.dma = vm->dma,
	};
}

static void adopt(struct hospes_vm *vm, struct device *dev)
{
	list_append(&vm->devices, &dev->link);
}

static struct vm_device *name_device(struct hospes_vm *vm, const char *kind, const char *id,
				     struct device *dev, struct virtio_device *vdev)
{
	struct vm_device *named = &vm->named[vm->n_named];

	assert(vm->n_named < VM_MAX_DEVICES);
	*named = (struct vm_device){.kind = kind, .id = id, .dev = dev, .vdev = vdev, .fd = -1};
	vm->n_named++;
	return named;
}

/* Put a virtio device on the bus; it is ours, or gone, afterwards. */
static int plug(struct hospes_vm *vm, struct virtio_device *vdev, const struct schema_pci *addr,
		bool viommu, const char *kind, const char *id, struct vm_device **ret,
		struct err *err)
{
	struct device_env env = vm_device_env(vm);
	const struct virtio_pci_config config = {
		.addr = addr->set ? &addr->addr : NULL,
		.bus = pci_root_bus(vm->pci),
		.platform_dma = viommu,
	};
	struct viommu_endpoint *endpoint = NULL;
	struct vm_device *named;
	struct device *dev;
	int rc = vm_viommu_emulated(vm, viommu, id, &endpoint, &env.dma, err);

	if (!rc)
		rc = virtio_pci_create(&dev, &env, &config, vdev, err);
	if (rc) {
		viommu_remove(endpoint);
		vdev->ops->destroy(vdev);
		err_prefix(err, "%s '%s'", kind, id);
		return rc;
	}
	adopt(vm, dev);
	named = name_device(vm, kind, id, dev, vdev);
	named->endpoint = endpoint;
	vm_viommu_set_requester_id(endpoint, dev);
	if (ret)
		*ret = named;
	return 0;
}

static int create_disk(struct hospes_vm *vm, const struct config_disk *disk, struct err *err)
{
	struct virtio_blk_setup config;
	struct virtio_device *vdev;
	struct vm_device *named;
	struct open_disk file;
	int size_fd;
	int rc = open_disk(disk, &file, err);

	if (rc)
		return rc;
	size_fd = fd_dup(file.fd);
	if (size_fd < 0) {
		fd_close(&file.fd);
		return err_set(err, size_fd, "disk '%s': %s", disk->id, err_name(size_fd));
	}
	config = (struct virtio_blk_setup){
		.name = disk->id,
		.serial = disk->serial,
		.fd = file.fd,
		.size_bytes = file.size_bytes,
		.block_bytes = file.block_bytes,
		.align_bytes = file.align_bytes,
		.readonly = disk->readonly,
		.block_device = file.block_device,
		.discard = disk->discard && !disk->readonly,
		.cache = disk->cache == CONFIG_CACHE_WRITETHROUGH ? VIRTIO_BLK_WRITETHROUGH
								  : VIRTIO_BLK_WRITEBACK,
		.queues = disk->queues,
		.queue_size = disk->queue_size,
		.loops = vm->io_loops,
		.n_loops = vm->n_io_loops,
	};
	rc = virtio_blk_create(&vdev, &config, &vm->log, err);
	if (rc) {
		fd_close(&file.fd);
		fd_close(&size_fd);
		return rc;
	}
	rc = plug(vm, vdev, &disk->addr, disk->viommu, "disk", disk->id, &named, err);
	if (rc)
		fd_close(&size_fd);
	else
		named->fd = size_fd;
	return rc;
}

static void close_all(int *fds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		fd_close(&fds[i]);
}

static int create_net(struct hospes_vm *vm, const struct config_net *net, struct err *err)
{
	struct virtio_net_setup config;
	struct virtio_device *vdev;
	int vhost_fds[32];
	int fds[32];
	int rc = open_net(net, fds, err);

	if (rc)
		return rc;
	rc = net->vhost ? open_vhost(net, vhost_fds, err) : 0;
	if (rc) {
		close_all(fds, net->queues);
		return rc;
	}
	config = (struct virtio_net_setup){
		.name = net->id,
		.backend = net->socket ? VIRTIO_NET_SOCKET : VIRTIO_NET_TAP,
		.fds = fds,
		.pairs = net->queues,
		.queue_size = net->queue_size,
		.mtu = (uint16_t)net->mtu,
		.link_down = !net->link,
		.offload = net->offload,
		.vhost_fds = net->vhost ? vhost_fds : NULL,
		.gmem = vm->gmem,
		.loops = vm->io_loops,
		.n_loops = vm->n_io_loops,
	};
	memcpy(config.mac, net->mac.byte, sizeof(config.mac));
	rc = virtio_net_create(&vdev, &config, &vm->log, err);
	if (rc) {
		close_all(fds, net->queues);
		if (net->vhost)
			close_all(vhost_fds, net->queues);
		return rc;
	}
	return plug(vm, vdev, &net->addr, net->viommu, "net", net->id, NULL, err);
}

/* Where a console's output goes: the document's fd, or a file of its own. */
static int console_output(struct hospes_vm *vm, const struct config_console *console,
			  unsigned int index, int *ret, struct err *err)
{
	int fd;

	*ret = console->out;
	if (!console->path && console->out < 0)
		return 0;
	fd = console->path ? open(console->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
			   : fcntl(console->out, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 && console->path)
		return err_set(err, -errno, "console '%s': '%s': %s", console->id, console->path,
			       err_name(errno));
	if (fd < 0)
		return err_set(err, -errno, "console '%s': out fd %d: %s", console->id,
			       console->out, err_name(errno));
	vm->console_fd[index] = fd;
	*ret = fd;
	return 0;
}

static int create_console(struct hospes_vm *vm, unsigned int index, struct err *err)
{
	const struct config_console *console = &vm->config.consoles.items[index];
	const struct device_env env = vm_device_env(vm);
	struct virtio_device *vdev;
	struct device *dev;
	int out;
	int rc = console_output(vm, console, index, &out, err);

	if (rc)
		return rc;
	if (console->in >= 0 && fcntl(console->in, F_GETFD) < 0)
		return err_set(err, -EBADF, "console '%s': in: fd %d is not open", console->id,
			       console->in);
	if (console->type == CONFIG_CONSOLE_SERIAL) {
		const struct serial_config config = {
			.name = console->id,
			.port = PLATFORM_SERIAL_PORT,
			.gsi = PLATFORM_SERIAL_GSI,
			.in_fd = console->in,
			.out_fd = out,
		};

		rc = serial_create(&dev, &env, &config, err);
		if (rc)
			return rc;
		adopt(vm, dev);
		name_device(vm, "console", console->id, dev, NULL);
		return 0;
	}
	const struct virtio_console_setup config = {
		.name = console->id,
		.in_fd = console->in,
		.out_fd = out,
		.loop = vm->loop,
	};
	rc = virtio_console_create(&vdev, &config, &vm->log, err);
	return rc ? rc : plug(vm, vdev, &console->addr, false, "console", console->id, NULL, err);
}

static int create_rng(struct hospes_vm *vm, struct err *err)
{
	const struct virtio_rng_setup config = {.name = "rng", .loop = vm->loop};
	struct virtio_device *vdev;
	int rc = virtio_rng_create(&vdev, &config, &vm->log, err);

	return rc ? rc : plug(vm, vdev, &vm->config.rng.addr, false, "rng", "rng", NULL, err);
}

static int create_root_port(struct hospes_vm *vm, unsigned int index, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	const struct pci_addr addr = {.slot = (uint8_t)(CONFIG_ROOT_PORT_SLOT + index)};
	char name[16];
	const struct root_port_config config = {
		.name = name,
		.addr = &addr,
		.slot_number = (uint16_t)(index + 1),
	};
	struct device *dev;
	int rc;

	snprintf(name, sizeof(name), "port%u", index);
	rc = root_port_create(&dev, &env, vm->pci, &config, err);
	if (!rc)
		adopt(vm, dev);
	return rc;
}

static int create_platform(struct hospes_vm *vm, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	struct device *dev;
	int rc;

	vm->sink = (struct platform_sink){.event = vm_platform_event, .opaque = vm};
	rc = rtc_create(&dev, &env, err);
	if (rc)
		return rc;
	adopt(vm, dev);
	rc = pm_create(&vm->pm, &env, &vm->sink, err);
	if (rc)
		return rc;
	adopt(vm, vm->pm);
	rc = reset_create(&dev, &env, vm->pci, &vm->sink, err);
	if (rc)
		return rc;
	adopt(vm, dev);
	rc = pvpanic_create(&dev, &env, &vm->sink, err);
	if (rc)
		return rc;
	adopt(vm, dev);
	return 0;
}

int vm_create_devices(struct hospes_vm *vm, struct err *err)
{
	const struct config *c = &vm->config;
	int rc = create_platform(vm, err);

	if (!rc)
		rc = vm_viommu_create(vm, err);
	for (unsigned int i = 0; i < c->pci.root_ports && !rc; i++)
		rc = create_root_port(vm, i, err);
	for (unsigned int i = 0; i < c->disks.n && !rc; i++)
		rc = create_disk(vm, &c->disks.items[i], err);
	for (unsigned int i = 0; i < c->nets.n && !rc; i++)
		rc = create_net(vm, &c->nets.items[i], err);
	for (unsigned int i = 0; i < c->consoles.n && !rc; i++)
		rc = create_console(vm, i, err);
	if (c->rng.enabled && !rc)
		rc = create_rng(vm, err);
	if (!rc)
		rc = vm_passthrough_create(vm, err);
	/* Last: devices are made quiet in this order, and its requests wait for the others. */
	return rc ? rc : vm_viommu_plug(vm, err);
}

struct vm_device *vm_find_device(struct hospes_vm *vm, const char *kind, const char *id,
				 struct err *err)
{
	for (unsigned int i = 0; i < vm->n_named; i++) {
		if (strcmp(vm->named[i].kind, kind) == 0 && strcmp(vm->named[i].id, id) == 0)
			return &vm->named[i];
	}
	err_set(err, -ENOENT, "there is no %s '%s' in this machine", kind, id);
	return NULL;
}
