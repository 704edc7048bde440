/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/pagecache.h"

#include <errno.h>
#include <fcntl.h>

int pagecache_drop(int fd)
{
    /* Works on read-only descriptors, too. What can't be written back stays dirty and cached, which is all that could
     * be wished for it here. */
    (void)sync_file_range(fd, 0, 0,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}
