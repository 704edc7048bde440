/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/calendar.h"

#include <time.h>

int64_t calendar_hour(int64_t now_s)
{
    time_t now = (time_t)now_s;
    struct tm local;

    /* Fails only for years that no int holds. */
    if (!localtime_r(&now, &local))
        return now_s - now_s % 3600;
    return now_s - local.tm_min * 60 - local.tm_sec;
}

/* Midnight @days later. mktime() knows which hours there are: where 0:00 was skipped it says 1:00. */
static int64_t midnight(int64_t now_s, int days)
{
    time_t now = (time_t)now_s;
    struct tm local;

    if (!localtime_r(&now, &local))
        return now_s - now_s % 86400 + days * 86400;
    local.tm_mday += days;
    local.tm_hour = local.tm_min = local.tm_sec = 0;
    local.tm_isdst = -1;
    return (int64_t)mktime(&local);
}

int64_t calendar_day(int64_t now_s)
{
    return midnight(now_s, 0);
}

int64_t calendar_next_day(int64_t now_s)
{
    return midnight(now_s, 1);
}
