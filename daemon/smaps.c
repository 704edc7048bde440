/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The format is that of proc_pid_smaps(5): a header line with the addresses, then "Key: value kB" lines, VmFlags last.
 */
#include "daemon/smaps.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"

static bool inside(const struct smaps_range *ranges, size_t n, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < n; i++) {
        if (start >= ranges[i].start && end <= ranges[i].end)
            return true;
    }
    return false;
}

static bool has_flag(const char *flags, const char *flag)
{
    size_t n = strlen(flag);

    for (const char *at = strstr(flags, flag); at; at = strstr(at + 1, flag)) {
        if (at > flags && at[-1] == ' ' && (at[n] == ' ' || at[n] == '\n' || at[n] == 0))
            return true;
    }
    return false;
}

int smaps_parse(FILE *f, const struct smaps_range *ranges, size_t n, struct smaps_figures *ret)
{
    struct smaps_figures sum = {.size_bytes = 0};
    _cleanup_free_ char *line = NULL;
    size_t allocated = 0;
    uint64_t rss = 0;
    bool counts = false;

    while (getline(&line, &allocated, f) > 0) {
        uint64_t start, end, kb;

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
            counts = inside(ranges, n, start, end);
            rss = 0;
            if (counts)
                sum.size_bytes += end - start;
        } else if (!counts) {
            continue;
        } else if (sscanf(line, "Rss: %" SCNu64 " kB", &kb) == 1) {
            rss = kb * 1024;
            sum.rss_bytes += rss;
        } else if (sscanf(line, "FilePmdMapped: %" SCNu64 " kB", &kb) == 1 ||
                   sscanf(line, "ShmemPmdMapped: %" SCNu64 " kB", &kb) == 1) {
            sum.huge_bytes += kb * 1024;
        } else if (sscanf(line, "Shared_Hugetlb: %" SCNu64 " kB", &kb) == 1 ||
                   sscanf(line, "Private_Hugetlb: %" SCNu64 " kB", &kb) == 1) {
            sum.hugetlb_bytes += kb * 1024;
        } else if (strncmp(line, "VmFlags:", 8) == 0 && has_flag(line, "lo")) {
            sum.locked_bytes += rss;
        }
    }
    if (ferror(f))
        return -EIO;
    *ret = sum;
    return 0;
}

int smaps_read(const struct smaps_range *ranges, size_t n, struct smaps_figures *ret)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/smaps", "re");

    if (!f)
        return -errno;
    return smaps_parse(f, ranges, n, ret);
}
