/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Under systemd the unit has done all this before; a daemon that is started by hand, as root too, does it itself.
 * CAP_IPC_LOCK is kept inheritable, so that workers that are started as children can lock their mapping (worker-start.c
 * decides). No new privileges: a root user's exec would otherwise give all capabilities back.
 */
#include "daemon/privileges.h"

#include <errno.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void raise_limit(int resource)
{
    const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    struct rlimit limit;

    if (resource != RLIMIT_NOFILE && setrlimit((__rlimit_resource_t)resource, &all) == 0)
        return;
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit((__rlimit_resource_t)resource, &limit);
}

void privileges_raise_limits(void)
{
    raise_limit(RLIMIT_MEMLOCK);
    raise_limit(RLIMIT_NOFILE);
}

static int keep_only_lock(cap_t before)
{
    static const cap_value_t lock[] = {CAP_IPC_LOCK};
    cap_flag_value_t has = CAP_CLEAR;
    cap_t after = cap_init();
    int r = 0;

    if (!after)
        return -errno;
    cap_get_flag(before, CAP_IPC_LOCK, CAP_PERMITTED, &has);
    if (has == CAP_SET && (cap_set_flag(after, CAP_PERMITTED, 1, lock, CAP_SET) < 0 ||
                           cap_set_flag(after, CAP_EFFECTIVE, 1, lock, CAP_SET) < 0 ||
                           cap_set_flag(after, CAP_INHERITABLE, 1, lock, CAP_SET) < 0))
        r = -errno;
    if (r == 0 && cap_set_proc(after) < 0)
        r = -errno;
    cap_free(after);
    return r;
}

/* Nothing but CAP_IPC_LOCK in any set. */
static int verify(void)
{
    static const cap_flag_t flags[] = {CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE};
    cap_t caps = cap_get_proc();
    int r = 0;

    if (!caps)
        return -errno;
    for (cap_value_t value = 0; value < cap_max_bits(); value++) {
        for (unsigned i = 0; i < 3; i++) {
            cap_flag_value_t has = CAP_CLEAR;

            cap_get_flag(caps, value, flags[i], &has);
            if (has == CAP_SET && value != CAP_IPC_LOCK)
                r = -EPERM;
        }
    }
    cap_free(caps);
    return r;
}

int privileges_drop(void)
{
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};
    cap_t before;
    int r;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    before = cap_get_proc();
    if (!before)
        return -errno;
    r = keep_only_lock(before);
    cap_free(before);
    if (r == 0)
        r = verify();
    if (r < 0)
        return r;
    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return -errno;
    /* Last: dropping capabilities would otherwise be what sets it. Prompts pass through this process. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    return 0;
}
