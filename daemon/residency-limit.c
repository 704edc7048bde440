/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the kernel lets the service lock so much, and what to do where it does not.
 */
#include "daemon/residency-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/capability.h>
#include <sys/resource.h>

#include "base/checked.h"
#include "base/units.h"

bool residency_may_lock_anything(void)
{
    cap_flag_value_t value = CAP_CLEAR;
    cap_t caps = cap_get_proc();

    if (!caps)
        return false;
    cap_get_flag(caps, CAP_IPC_LOCK, CAP_EFFECTIVE, &value);
    cap_free(caps);
    return value == CAP_SET;
}

static uint64_t locked_so_far(void)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    uint64_t kb = 0;

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmLck: %" SCNu64 " kB", &kb) == 1)
            break;
    }
    return kb * 1024;
}

void residency_lock_advice(uint64_t bytes, uint64_t locked_bytes, uint64_t limit_bytes, struct fault *fault)
{
    char need[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX], all[UNITS_TEXT_MAX];

    fault_set(fault, FAULT_MODEL_UNAVAILABLE, NULL,
              "can't lock %s: RLIMIT_MEMLOCK is %s and the service has no CAP_IPC_LOCK. Raise the limit to %s or more: "
              "LimitMEMLOCK=infinity in residentd.service (without systemd: ulimit -l unlimited). Or grant the "
              "capability: AmbientCapabilities=CAP_IPC_LOCK (without systemd: setcap cap_ipc_lock=ep on residentd). Or "
              "set residency.ram to \"map\"",
              units_format_size(bytes, need), units_format_size(limit_bytes, limit),
              units_format_size(bytes + locked_bytes, all));
}

int residency_lock_refused(struct residency *r)
{
    struct rlimit limit = {.rlim_cur = 0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    residency_lock_advice(r->bytes_total, locked_so_far(), limit.rlim_cur, &r->fault);
    return -EPERM;
}

/* Before gigabytes are read in vain. What is refused later all the same gets the same answer. */
int residency_check_lock_limit(struct residency *r)
{
    struct rlimit limit;
    uint64_t whole = 0;

    if (r->ram == POLICY_RAM_MAP || residency_is_partial(r, NULL) || residency_may_lock_anything())
        return 0;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return 0;
    whole = residency_held_bytes(r);
    if (!checked_add(whole, locked_so_far(), &whole) || whole > limit.rlim_cur)
        return residency_lock_refused(r);
    return 0;
}
