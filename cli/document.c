// SPDX-License-Identifier: Apache-2.0
// Flags and files become one JSON document.
#include "document.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "output.h"
#include "socket.h"

/* How a flag's argument goes into the document. */
enum flag_kind {
	FLAG_VALUE,  /* text at key, in object `in` if that is set */
	FLAG_OBJECT, /* k=v,... merged into the object at key; a first word without '=' is
		      * `first` */
	FLAG_ENABLE, /* the same, and it is enabled unless the words say no */
	FLAG_APPEND, /* k=v,... appended to the list at key; likewise */
	FLAG_CACHE,
	FLAG_CONSOLE,
	FLAG_SOCKET, /* as FLAG_OBJECT; `first` may be fd:NAME, for a key "fd" */
};

struct flag {
	enum flag_kind kind;
	const char *in;
	const char *key;
	const char *first;
};

static int apply_flag(void *at, const struct option *option, const char *argument);

#define FLAG(kind_, in_, key_, first_)                                       \
	.kind = OPTION_CALL, .set = apply_flag, .data = &(const struct flag) \
	{                                                                    \
		.kind = kind_, .in = in_, .key = key_, .first = first_       \
	}

const struct option device_options[] = {
	{"disk", "FILE",
	 "a raw file, block device or qcow2 image: path=FILE or fd=N; or\n"
	 "what a daemon serves (docs/vhost-user.md): vhost_user=SOCKET\n"
	 "[,readonly=on][,cache=writeback|direct|writethrough]\n"
	 "[,format=raw|qcow2][,backing=DIR][,queues=N][,id=NAME][,serial=TEXT][,discard=off]\n"
	 "[,bytes_per_s=SIZE][,ops_per_s=N][,viommu=on][,addr=SLOT]",
	 FLAG(FLAG_APPEND, NULL, "disks", "path")},
	{"net", "tap=NAME|fd=N|socket=PATH|vhost_user=SOCKET",
	 "a network card on a tap, on passt's socket, or served by a daemon\n"
	 "[,create=on][,mac=MAC][,queues=N][,mtu=N][,vhost=on]\n"
	 "[,link=off][,offload=off][,bytes_per_s=SIZE][,ops_per_s=N]\n"
	 "[,moderation_us=N][,viommu=on][,id=NAME][,addr=SLOT]",
	 FLAG(FLAG_APPEND, NULL, "nets", NULL)},
	{"share", "DIR|vhost_user=SOCKET",
	 "a folder of this host, which virtiofsd serves; the guest mounts\n"
	 "it by 'mount -t virtiofs NAME DIR'\n"
	 "[,tag=NAME][,readonly=on][,queues=N][,id=NAME][,addr=SLOT]",
	 FLAG(FLAG_APPEND, NULL, "shares", "path")},
	{"console", "serial|virtio|none",
	 "a console (serial on the terminal)\n"
	 "[,path=FILE|in=FD,out=FD][,overflow=wait]",
	 FLAG(FLAG_CONSOLE, NULL, "consoles", "type")},
	{"rng", "[on|off]", "random numbers from this host (on)", .otherwise = "on",
	 FLAG(FLAG_VALUE, "rng", "enabled", NULL)},
	{"balloon", "[on]",
	 "takes memory from the guest ('hospes ctl NAME set balloon=SIZE')\n"
	 "[,stats=SECONDS][,free_page_reporting=on][,deflate_on_oom=off]\n"
	 "[,granule=256K]",
	 .otherwise = "on", FLAG(FLAG_ENABLE, NULL, "balloon", "enabled")},
	{"passthrough", "BDF|PATH|fd=N",
	 "a PCI device of this host, bound to vfio-pci\n"
	 "[,viommu=on][,strategy=NAME[,KEY=N]][,iommufd=M][,ioas=NAME]\n"
	 "[,rom=on][,on_error=log|reset|pause|stop][,id=NAME][,addr=SLOT]\n"
	 "'hospes iommu list' shows the strategies and their keys",
	 FLAG(FLAG_APPEND, NULL, "passthrough", "device")},
	{0},
};

const struct option document_options[] = {
	{"kernel", "FILE", "bzImage or vmlinux", FLAG(FLAG_VALUE, "kernel", "path", NULL)},
	{"initrd", "FILE", "initial RAM disk", FLAG(FLAG_VALUE, "kernel", "initrd", NULL)},
	{"cmdline", "TEXT", "kernel command line", FLAG(FLAG_VALUE, "kernel", "cmdline", NULL)},
	{"kaslr", "auto|on|off", "randomise the kernel's addresses (auto: if the kernel can)",
	 FLAG(FLAG_VALUE, "kernel", "kaslr", NULL)},
	{"kernel-cache", "on|off|DIR", "keep unpacked kernels ($XDG_CACHE_HOME/hospes/kernels)",
	 FLAG(FLAG_CACHE, "kernel", NULL, NULL)},
	{"firmware", "FILE", "UEFI that boots what is on a disk, instead of a kernel: CLOUDHV.fd",
	 FLAG(FLAG_VALUE, NULL, "firmware", NULL)},
	{"cpus", "N[,max=M]",
	 "vCPUs (1), and how many there can be ('hospes ctl NAME set cpus=M')\n"
	 "[,sockets=S,cores=C,threads=T][,pin=0-3]",
	 FLAG(FLAG_OBJECT, NULL, "cpus", "count")},
	{"memory", "SIZE[,max=MAX]",
	 "memory of the guest (256M), and how much there can be\n"
	 "('hospes ctl NAME set memory=MAX'); how it is backed:\n"
	 "[,backing=auto|anonymous|memfd|hugetlb-2M|hugetlb-1G]\n"
	 "[,prefault=on][,numa_node=N]",
	 FLAG(FLAG_OBJECT, NULL, "memory", "size")},
	{"iommu", "auto|iommufd|type1[,fd=N]",
	 "the kernel's interface for passed-through devices (auto)",
	 FLAG(FLAG_OBJECT, NULL, "iommu", "backend")},
	{"viommu", "[on|off]",
	 "a virtual IOMMU, for devices with viommu=on\n"
	 "[,bypass=off][,transport=exit|loop|poll][,poll_us=N]",
	 .otherwise = "on", FLAG(FLAG_OBJECT, NULL, "viommu", "enabled")},
	{"root-ports", "N", "spare PCIe root ports (8)",
	 FLAG(FLAG_VALUE, "pci", "root_ports", NULL)},
	{"config-ports", "auto|on|off",
	 "PCI config space by ports too (auto: if the kernel needs them)",
	 FLAG(FLAG_VALUE, "pci", "config_ports", NULL)},
	{"io-threads", "N", "threads for disks and networks (1 with a disk)",
	 FLAG(FLAG_VALUE, NULL, "io_threads", NULL)},
	{"name", "TEXT", "name of the machine", FLAG(FLAG_VALUE, NULL, "name", NULL)},
	{"uuid", "UUID", "its UUID", FLAG(FLAG_VALUE, NULL, "uuid", NULL)},
	{"smbios", "serial=TEXT",
	 "what the guest reads about its machine\n"
	 "[,manufacturer=TEXT][,product=TEXT][,version=TEXT]",
	 FLAG(FLAG_OBJECT, NULL, "smbios", NULL)},
	{"credential", "NAME[,path=FILE]",
	 "for systemd in the guest; without a file: the one of that name\nin $CREDENTIALS_DIRECTORY",
	 FLAG(FLAG_APPEND, NULL, "credentials", "name")},
	{"cloud-init", "user=NAME,key=FILE",
	 "a disk that tells cloud-init of the first user and that one's key of\n"
	 "ssh's: [,password=TEXT][,hostname=NAME], or userdata=FILE",
	 FLAG(FLAG_OBJECT, NULL, "cloud_init", NULL)},
	{"restore", "DIR[,clock=continue|real]",
	 "a machine from a snapshot ('hospes ctl NAME snapshot DIR'); other\noptions change its "
	 "document: paths, names, what is limited",
	 FLAG(FLAG_OBJECT, NULL, "restore", "path")},
	{"on-reset", "restart|stop", "when the guest resets (restart)",
	 FLAG(FLAG_VALUE, NULL, "on_reset", NULL)},
	{"gdb", "PATH|fd:NAME[,wait=on]",
	 "listen there for a debugger, 'target remote PATH'; with wait,\nthe guest does not start "
	 "before the debugger lets it",
	 FLAG(FLAG_SOCKET, NULL, "gdb", "path")},
	{"sandbox", "auto|strict|off",
	 "confine the machine: by what this host has (auto), or not\nwithout all of it (strict)",
	 FLAG(FLAG_VALUE, NULL, "sandbox", NULL)},
	{0},
};

/* The object or list at key, made if it is not there; borrowed. NULL: something else is there. */
static json_t *member(json_t *object, const char *key, json_t *(*make)(void))
{
	json_t *found = json_object_get(object, key);

	if (!found) {
		json_object_set_new(object, key, make());
		found = json_object_get(object, key);
	}
	return found;
}

/* The next "key=value" of *text, with ",," as a comma: false at the end. Cuts *text up. */
static bool next_pair(char **text, char **key, char **value)
{
	char *out = *text;
	char *in = *text;

	if (!in || !*in)
		return false;
	*key = in;
	*value = NULL;
	while (*in) {
		if (*in == ',' && in[1] == ',') {
			in++;
		} else if (*in == ',') {
			in++;
			break;
		} else if (*in == '=' && !*value) {
			*value = out + 1;
			*out++ = '\0';
			in++;
			continue;
		}
		*out++ = *in++;
	}
	/* *in is past the separator, out never beyond it. */
	*text = *in ? in : NULL;
	*out = '\0';
	return true;
}

static int add_pairs(const struct option *option, const char *argument, json_t *object)
{
	const struct flag *flag = option->data;
	char *copy = strdup(argument);
	char *rest = copy;
	char *key;
	char *value;
	bool first = true;
	int status = CLI_OK;

	while (status == CLI_OK && next_pair(&rest, &key, &value)) {
		if (!value && first && flag->first) {
			value = key;
			json_object_set_new(object, flag->first, json_string(value));
		} else if (value) {
			json_object_set_new(object, key, json_string(value));
		} else {
			cli_error("--%s: '%s' in '%s' is not key=value; 'hospes run --help' shows "
				  "the keys",
				  option->name, key, argument);
			status = CLI_USAGE;
		}
		first = false;
	}
	if (first && status == CLI_OK) {
		cli_error("--%s: needs a value (%s); 'hospes run --help' shows it", option->name,
			  option->value);
		status = CLI_USAGE;
	}
	free(copy);
	return status;
}

static int take_inherited(const struct option *option, json_t *object, const char *first)
{
	const char *name = json_string_value(json_object_get(object, first));
	int fd;

	if (!name || strncmp(name, "fd:", 3) != 0)
		return CLI_OK;
	fd = socket_inherited(name + 3);
	if (fd < 0) {
		cli_error("--%s %s: no descriptor of that name was passed (LISTEN_FDS)",
			  option->name, name);
		return CLI_FAILED;
	}
	json_object_del(object, first);
	json_object_set_new(object, "fd", json_integer(fd));
	return CLI_OK;
}

static int apply_flag(void *at, const struct option *option, const char *argument)
{
	const struct flag *flag = option->data;
	json_t **document = at, *root, *object, *item, *text = json_string(argument);
	int status;

	/* JSON has no other bytes, and would be silent about them. */
	if (!text) {
		cli_error("--%s: '%s' is not UTF-8; give a file with such a name as fd=N, or by a "
			  "link with another name",
			  option->name, argument);
		return CLI_USAGE;
	}
	json_decref(text);
	if (!*document)
		*document = json_object();
	root = *document;
	object = flag->in ? member(root, flag->in, json_object) : root;

	switch (flag->kind) {
	case FLAG_VALUE:
		json_object_set_new(object, flag->key, json_string(argument));
		return CLI_OK;
	case FLAG_CACHE:
		if (strcmp(argument, "on") == 0 || strcmp(argument, "off") == 0) {
			json_object_set_new(object, "cache", json_boolean(argument[1] == 'n'));
		} else {
			json_object_set_new(object, "cache", json_true());
			json_object_set_new(object, "cache_dir", json_string(argument));
		}
		return CLI_OK;
	case FLAG_OBJECT:
		return add_pairs(option, argument, member(root, flag->key, json_object));
	case FLAG_ENABLE:
		item = member(root, flag->key, json_object);
		if (!json_object_get(item, "enabled"))
			json_object_set_new(item, "enabled", json_true());
		return add_pairs(option, argument, item);
	case FLAG_SOCKET:
		object = member(root, flag->key, json_object);
		status = add_pairs(option, argument, object);
		return status == CLI_OK ? take_inherited(option, object, flag->first) : status;
	case FLAG_CONSOLE:
		if (strcmp(argument, "none") == 0) {
			json_object_set_new(root, flag->key, json_array());
			return CLI_OK;
		}
		break;
	case FLAG_APPEND:
		break;
	}
	item = json_object();
	status = add_pairs(option, argument, item);
	json_array_append_new(member(root, flag->key, json_array), item);
	return status;
}

void document_find_credentials(json_t *document)
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");
	json_t *credential;
	size_t i;

	json_array_foreach(json_object_get(document, "credentials"), i, credential)
	{
		const char *name = json_string_value(json_object_get(credential, "name"));

		if (directory && *directory && name && !strchr(name, '/') &&
		    !json_object_get(credential, "path"))
			json_object_set_new(credential, "path",
					    json_sprintf("%s/%s", directory, name));
	}
}

int document_load(json_t **ret, const char *path)
{
	json_error_t at;

	if (*ret) {
		cli_error("'%s': one CONFIG.json is enough; 'hospes run --help' shows the usage",
			  path);
		return CLI_USAGE;
	}
	*ret = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
	if (!*ret && at.line < 0) {
		cli_error("'%s': %s", path, at.text);
		return CLI_FAILED;
	}
	if (!*ret) {
		cli_error("'%s', line %d, column %d: %s", path, at.line, at.column, at.text);
		return CLI_FAILED;
	}
	if (json_is_object(*ret))
		return CLI_OK;
	cli_error("'%s': must hold an object { ... }", path);
	json_decref(*ret);
	*ret = NULL;
	return CLI_FAILED;
}
