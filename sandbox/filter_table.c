// SPDX-License-Identifier: Apache-2.0
// What each role asks the kernel for.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <linux/vfio.h>
#include <linux/vhost.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/num.h"
#include "iommu/uapi.h"
#include "sandbox/filter.h"

#define ROLE(role) (uint16_t)(1u << THREAD_##role)
/* A helper does a share of what its starter does, and is under its starter's filter. */
#define EACH    (uint16_t)((1u << THREAD_ROLES) - 1)
#define VCPU    ROLE(VCPU)
#define MACHINE (uint16_t)(ROLE(MACHINE) | ROLE(FOREIGN)) /* either may take it down */
#define COMMAND ROLE(FOREIGN)
#define LOOPS   (uint16_t)(MACHINE | ROLE(IO) | ROLE(VIOMMU))
#define MAPS    (uint16_t)(MACHINE | VCPU | ROLE(VIOMMU)) /* for passed-through devices */

#define ALLOW(name, roles) {SYS_##name, roles, FILTER_ALLOW}
#define ALLOW_IF(name, roles, arg, mask, value) \
	{SYS_##name, roles, FILTER_ALLOW, arg, mask, (uint32_t)(value)}
#define BY_PATH(name, roles) {SYS_##name, roles, FILTER_BY_PATH}
#define REFUSE(name)         {SYS_##name, EACH, FILTER_REFUSE}
#define STOP(name)           {SYS_##name, EACH, FILTER_STOP}

const struct filter_call filter_calls[] = {
	/* The data path. */
	ALLOW(io_uring_enter, LOOPS),
	ALLOW(futex, EACH),
	ALLOW(read, EACH),
	ALLOW(write, EACH),
	ALLOW(rt_sigtimedwait, VCPU),
	ALLOW(pread64, EACH),
	ALLOW(pwrite64, EACH),
	ALLOW(readv, EACH),
	ALLOW(writev, EACH),
	ALLOW(preadv, EACH),
	ALLOW(pwritev, EACH),
	ALLOW(recvmsg, EACH),
	ALLOW(sendmsg, EACH),
	ALLOW(recvfrom, EACH),
	ALLOW(sendto, EACH),
	ALLOW(recvmmsg, EACH),
	ALLOW(sendmmsg, EACH),
	ALLOW(epoll_pwait, LOOPS),
	ALLOW(epoll_ctl, EACH),
	ALLOW(timerfd_settime, EACH),
	ALLOW(ppoll, EACH),
	ALLOW(fsync, LOOPS),
	ALLOW(fdatasync, LOOPS),
	ALLOW(fallocate, LOOPS),
	ALLOW(getrandom, EACH),
	ALLOW(clock_gettime, EACH),
	ALLOW(gettimeofday, EACH),

	/* Memory: never executable. */
	ALLOW_IF(mmap, EACH, 2, PROT_EXEC, 0),
	{SYS_mmap, EACH, FILTER_STOP},
	ALLOW_IF(mprotect, EACH, 2, PROT_EXEC, 0),
	{SYS_mprotect, EACH, FILTER_STOP},
	STOP(pkey_mprotect),
	ALLOW(munmap, EACH),
	ALLOW(mremap, EACH),
	ALLOW(madvise, EACH),
	ALLOW(brk, EACH),
	ALLOW(mincore, EACH),
	ALLOW(memfd_create, MACHINE), /* by which a passed-through device's holder is known */
	ALLOW(mbind, MACHINE),        /* of memory that comes while the guest runs */

	/* Files that are open. */
	ALLOW(close, EACH),
	ALLOW(fcntl, EACH),
	ALLOW(lseek, EACH),
	ALLOW(fstat, EACH),
	ALLOW(fstatfs, EACH),
	ALLOW(dup, EACH),
	ALLOW(eventfd2, EACH),
	ALLOW(timerfd_create, MACHINE),
	ALLOW(epoll_create1, MACHINE),
	ALLOW(ftruncate, MACHINE),
	ALLOW(shutdown, EACH),
	ALLOW(getsockopt, MACHINE),
	ALLOW(getpeername, MACHINE), /* is a socket that is handed in connected? */
	ALLOW(setsockopt, MACHINE),
	ALLOW(accept4, MACHINE), /* of the control socket's clients, and a debugger */

	/* Files by path: Landlock says which. Code of ours looks at some to explain a failure, so
	 * that it is refused where a role has none. */
	ALLOW_IF(newfstatat, EACH, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	ALLOW(newfstatat, MACHINE),
	REFUSE(newfstatat),
	ALLOW(statx, MACHINE),
	REFUSE(statx),
	BY_PATH(openat, MAPS),
	REFUSE(openat),
	REFUSE(openat2),
	ALLOW(readlinkat, MACHINE),
	REFUSE(readlinkat),
	ALLOW(faccessat, MACHINE),
	REFUSE(faccessat),
	ALLOW(faccessat2, MACHINE),
	REFUSE(faccessat2),
	ALLOW(getdents64, MACHINE),
	ALLOW(getcwd, MACHINE),
	ALLOW(utimensat, MACHINE), /* of the kernel cache's entry */
	REFUSE(mkdirat),

	/* Threads: new ones of this process, by the flags. Those of clone3 are in memory. */
	{SYS_clone3, EACH, FILTER_ABSENT},
	ALLOW_IF(clone, EACH, 0, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD),
	{SYS_clone, EACH, FILTER_STOP},
	ALLOW(set_robust_list, EACH),
	ALLOW(rseq, EACH),
	ALLOW(exit, EACH),
	ALLOW(exit_group, EACH),
	ALLOW(rt_sigprocmask, EACH),
	ALLOW(rt_sigreturn, EACH),
	ALLOW(rt_sigaction, COMMAND),
	ALLOW(sigaltstack, EACH),
	ALLOW_IF(tgkill, EACH, 0, UINT32_MAX, 0), /* the value is this process */
	ALLOW(restart_syscall, EACH),
	ALLOW(sched_yield, EACH),
	ALLOW(sched_getaffinity, EACH),
	ALLOW(sched_setaffinity, MACHINE),
	ALLOW(membarrier, EACH),
	ALLOW(nanosleep, EACH),
	ALLOW(clock_nanosleep, EACH),
	ALLOW_IF(prctl, EACH, 0, UINT32_MAX, PR_SET_NAME),
	ALLOW_IF(prctl, EACH, 0, UINT32_MAX, PR_GET_NAME),
	ALLOW_IF(prctl, EACH, 0, UINT32_MAX, PR_SET_VMA),

	/* What is asked about this process. */
	ALLOW(getpid, EACH),
	ALLOW(gettid, EACH),
	ALLOW(getuid, EACH),
	ALLOW(geteuid, EACH),
	ALLOW(getgid, EACH),
	ALLOW(getegid, EACH),
	ALLOW(getppid, COMMAND),
	ALLOW(getpgid, COMMAND),
	ALLOW(capget, MACHINE),
	ALLOW(uname, EACH),
	ALLOW(sysinfo, EACH),
	ALLOW(getrusage, EACH),
	ALLOW(getcpu, EACH),
	ALLOW_IF(prlimit64, EACH, 2, UINT32_MAX, 0), /* none is set */

	/* The kernel's announcements of links, for a tap that is added. */
	ALLOW_IF(socket, MACHINE, 0, UINT32_MAX, AF_NETLINK),
	REFUSE(socket),
	/* A pair reaches nobody: one end is for a vhost-user daemon, whose disk is added. */
	ALLOW_IF(socketpair, MACHINE, 0, UINT32_MAX, AF_UNIX),
	ALLOW(bind, MACHINE),
	REFUSE(bind),
	REFUSE(connect),

	/* What only foreign code asks for. */
	STOP(execve),
	STOP(execveat),
	STOP(ptrace),
	STOP(process_vm_readv),
	STOP(process_vm_writev),
	STOP(pidfd_getfd),
	STOP(pidfd_open),
	STOP(io_uring_setup),
	STOP(io_uring_register),
	STOP(bpf),
	STOP(perf_event_open),
	STOP(userfaultfd),
	STOP(keyctl),
	STOP(add_key),
	STOP(request_key),
	STOP(unshare),
	STOP(setns),
	STOP(mount),
	STOP(umount2),
	STOP(pivot_root),
	STOP(chroot),
	STOP(move_mount),
	STOP(open_tree),
	STOP(fsopen),
	STOP(init_module),
	STOP(finit_module),
	STOP(kexec_load),
	STOP(kexec_file_load),
	STOP(open_by_handle_at),
	STOP(setuid),
	STOP(setgid),
	STOP(setresuid),
	STOP(setresgid),
	STOP(capset),
	STOP(kill),
	STOP(tkill),
	STOP(rt_sigqueueinfo),
	STOP(rt_tgsigqueueinfo),

#include "sandbox-arch/filter_calls.inc"
};
const unsigned int filter_n_calls = ARRAY_SIZE(filter_calls);

#define VCPUS (uint16_t)(VCPU | MACHINE)

const struct filter_request filter_requests[] = {
	{KVM_RUN, VCPU},
	{KVM_IRQ_LINE, EACH},
	{KVM_SIGNAL_MSI, EACH},
	/* vectors, doorbells, slots */
	{KVM_IRQFD, EACH},
	{KVM_IOEVENTFD, EACH},
	{KVM_SET_GSI_ROUTING, EACH},
	{KVM_SET_USER_MEMORY_REGION, EACH},
	/* the state of vCPUs and of the chips that KVM emulates */
	{KVM_GET_MP_STATE, VCPUS},
	{KVM_SET_MP_STATE, VCPUS},
	{KVM_TRANSLATE, VCPUS},
	{KVM_SET_GUEST_DEBUG, MACHINE},
	/* what vCPUs write while the machine is migrated */
	{KVM_GET_DIRTY_LOG, MACHINE},
#include "sandbox-arch/filter_requests.inc"
	{KVM_CHECK_EXTENSION, MACHINE},
	{KVM_CREATE_DEVICE, MACHINE},
	{KVM_SET_DEVICE_ATTR, MACHINE},

	/* taps and vhost */
	{TUNGETIFF, EACH},
	{TUNSETOFFLOAD, EACH},
	{TUNSETQUEUE, EACH},
	{TUNSETVNETHDRSZ, EACH},
	{TUNSETCARRIER, EACH},
	{SIOCGIFHWADDR, LOOPS}, /* is it in this namespace? */
	{VHOST_GET_FEATURES, EACH},
	{VHOST_SET_FEATURES, EACH},
	{VHOST_SET_OWNER, EACH},
	{VHOST_SET_MEM_TABLE, EACH},
	{VHOST_SET_VRING_NUM, EACH},
	{VHOST_SET_VRING_ADDR, EACH},
	{VHOST_SET_VRING_BASE, EACH},
	{VHOST_GET_VRING_BASE, EACH},
	{VHOST_SET_VRING_KICK, EACH},
	{VHOST_SET_VRING_CALL, EACH},
	{VHOST_SET_VRING_ERR, EACH},
	{VHOST_NET_SET_BACKEND, EACH},

	/* disks and terminals */
	{BLKGETSIZE64, EACH},
	{BLKSSZGET, MACHINE},
	{TCGETS, EACH},
	{TCSETS, COMMAND},
	{TCSETSW, COMMAND},
	{TCSETSF, COMMAND},
	{TIOCGWINSZ, COMMAND},
	{TIOCGPGRP, COMMAND},

	/* passed-through devices */
	{VFIO_DEVICE_SET_IRQS, MAPS},
	{VFIO_DEVICE_RESET, MAPS},
	{VFIO_DEVICE_GET_INFO, MAPS},
	{VFIO_DEVICE_GET_REGION_INFO, MAPS},
	{VFIO_DEVICE_GET_IRQ_INFO, MAPS},
	{VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, MAPS}, /* VFIO_DEVICE_DETACH_IOMMUFD_PT has another */
	{VFIO_DEVICE_PCI_HOT_RESET, MAPS},
	{VFIO_DEVICE_BIND_IOMMUFD, MACHINE},
	{VFIO_DEVICE_ATTACH_IOMMUFD_PT, MAPS},
	{VFIO_DEVICE_DETACH_IOMMUFD_PT, MAPS},
	{VFIO_GROUP_GET_STATUS, MACHINE},
	{VFIO_GROUP_SET_CONTAINER, MACHINE},
	{VFIO_GROUP_UNSET_CONTAINER, MACHINE},
	{VFIO_GROUP_GET_DEVICE_FD, MACHINE},
	{VFIO_GET_API_VERSION, MAPS},
	{VFIO_CHECK_EXTENSION, MACHINE},
	{VFIO_SET_IOMMU, MACHINE},
	{VFIO_IOMMU_GET_INFO, MAPS},
	{VFIO_IOMMU_MAP_DMA, MAPS},
	{VFIO_IOMMU_UNMAP_DMA, MAPS},
	{IOMMU_IOAS_MAP, MAPS},
	{IOMMU_IOAS_UNMAP, MAPS},
	{IOMMU_IOAS_COPY, MAPS},
	{UAPI_IOAS_MAP_FILE, MAPS},
	{IOMMU_IOAS_ALLOC, MAPS},
	{IOMMU_IOAS_ALLOW_IOVAS, MAPS},
	{IOMMU_IOAS_IOVA_RANGES, MAPS},
	{IOMMU_OPTION, MAPS},
	{IOMMU_HWPT_ALLOC, MAPS},
	{IOMMU_HWPT_SET_DIRTY_TRACKING, MAPS},
	{IOMMU_HWPT_GET_DIRTY_BITMAP, MAPS},
	{IOMMU_GET_HW_INFO, MAPS},
	{IOMMU_DESTROY, MAPS},
};
const unsigned int filter_n_requests = ARRAY_SIZE(filter_requests);
