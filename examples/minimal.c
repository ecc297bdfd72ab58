// SPDX-License-Identifier: Apache-2.0
// The smallest embedder: boot a kernel with an initial RAM disk, its serial console on standard
// output.
#include <stdio.h>
#include <string.h>

#include <hospes/hospes.h>

int main(int argc, char **argv)
{
	struct hospes_error error;
	struct hospes_vm *vm;
	char json[1024];

	if (argc != 3) {
		fprintf(stderr, "usage: %s KERNEL INITRD\n", argv[0]);
		return 2;
	}
	snprintf(json, sizeof(json),
		 "{\"kernel\": {\"path\": \"%s\", \"initrd\": \"%s\"},"
		 " \"consoles\": [{\"type\": \"serial\", \"out\": 1}]}",
		 argv[1], argv[2]);
	if (hospes_vm_create(&vm, json, strlen(json), NULL, &error) < 0 ||
	    hospes_vm_start(vm, &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		hospes_vm_destroy(vm);
		return 1;
	}
	hospes_vm_run(vm);
	printf("outcome %d\n", (int)hospes_vm_outcome(vm));
	hospes_vm_destroy(vm);
	return 0;
}
