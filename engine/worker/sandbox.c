/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of system calls names what must not be, not what may: sanitizers, libc versions and the CUDA
 * driver each use others, and the unit's SystemCallFilter= is an allow list already. A refused call fails
 * with EPERM instead of killing, because libc asks for files that it can do without
 * (/sys/devices/system/cpu).
 *
 * CAP_IPC_LOCK is kept if it is there: without it a worker that was started by hand could not lock a model.
 */
#include "engine/worker/sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH_THIS AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH_THIS AUDIT_ARCH_AARCH64
#endif

/* System calls of the x32 ABI have this bit and would pass by the list. */
#define X32_BIT 0x40000000

static const int refused[] = {
#ifdef SYS_open
    SYS_open,
    SYS_creat,
    SYS_fork,
    SYS_vfork,
#endif
    SYS_openat,
    437, /* openat2 */
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    438, /* pidfd_getfd */
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_kexec_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    425, /* io_uring_setup */
    SYS_open_by_handle_at,
    SYS_swapon,
    SYS_swapoff,
    SYS_reboot,
};

#define N_REFUSED (sizeof(refused) / sizeof(refused[0]))

/* Newer than the headers of Debian 12; longer with each version of the interface. */
struct landlock_attr {
    uint64_t fs, net, scoped;
};

static int no_files_by_landlock(void)
{
    /* Rights known to version 1 … 5 of the interface, the network's from 4 on, scopes from 6 on. */
    static const uint64_t fs[] = {0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};
    struct landlock_attr attr = {0};
    size_t size = 8;
    long abi = syscall(444, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */), fd;
    int r = 0;

    if (abi < 1)
        return 0; /* built without it, or switched off: the list below remains */
    attr.fs = fs[abi < 5 ? abi : 5];
    if (abi >= 4) {
        attr.net = 3;
        size = 16;
    }
    if (abi >= 6) {
        attr.scoped = 3;
        size = 24;
    }
    fd = syscall(444, &attr, size, 0);
    if (fd < 0)
        return -errno;
    if (syscall(446, (int)fd, 0) < 0)
        r = -errno;
    close((int)fd);
    return r;
}

static int refuse_calls(void)
{
    struct sock_filter filter[N_REFUSED + 8];
    struct sock_fprog program = {.filter = filter};
    unsigned short n = 0;
    long r;

    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_THIS, 1, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, N_REFUSED + 1, 0);
    for (size_t i = 0; i < N_REFUSED; i++)
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i],
                                                   (unsigned char)(N_REFUSED - i), 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    program.len = n;
    /* A positive result is a thread that could not be brought along: one of the driver's with a filter of its own. */
    r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    return r < 0 ? -errno : r > 0 ? -ESRCH : 0;
}

static int drop_capabilities(void)
{
    const cap_value_t kept = CAP_IPC_LOCK;
    cap_flag_value_t has = CAP_CLEAR;
    cap_t caps = cap_get_proc();
    int r = 0;

    if (!caps)
        return -errno;
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (cap != CAP_IPC_LOCK)
            prctl(PR_CAPBSET_DROP, cap, 0, 0,
                  0); /* only with CAP_SETPCAP; without it NO_NEW_PRIVS does the same */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (cap_get_flag(caps, CAP_IPC_LOCK, CAP_PERMITTED, &has) < 0 || cap_clear(caps) < 0)
        r = -errno;
    if (r == 0 && has == CAP_SET &&
        (cap_set_flag(caps, CAP_PERMITTED, 1, &kept, CAP_SET) < 0 ||
         cap_set_flag(caps, CAP_EFFECTIVE, 1, &kept, CAP_SET) < 0))
        r = -errno;
    if (r == 0 && cap_set_proc(caps) < 0)
        r = -errno;
    cap_free(caps);
    return r;
}

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

int sandbox_close_files(int *keep, size_t n_keep)
{
    unsigned from = STDERR_FILENO + 1;

    qsort(keep, n_keep, sizeof(*keep), compare_fds);
    for (size_t i = 0; i < n_keep; i++) {
        if (keep[i] < (int)from)
            continue;
        if (keep[i] > (int)from && close_range(from, (unsigned)keep[i] - 1, 0) < 0)
            return -errno;
        from = (unsigned)keep[i] + 1;
    }
    return close_range(from, ~0u, 0) < 0 ? -errno : 0;
}

int sandbox_enter(void)
{
    const struct rlimit none = {0};
    int r;

    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    r = drop_capabilities();
    if (r < 0)
        return r;
    /* Giving up capabilities makes a process dumpable again, so this comes after. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    r = no_files_by_landlock();
    return r < 0 ? r : refuse_calls();
}
