/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file's share of the page cache.
 */

/**
 * pagecache_drop() - have the kernel forget what it caches of the file @fd, so that the next read is from the device
 * Writes back what is dirty first, since dirty pages can't be forgotten; waits for that. Pages that some process has
 * mapped stay. Who reads next decides how large the cache's pages are (2 MiB for a mapping with MADV_HUGEPAGE) and
 * which memory cgroup pays for them: cached pages keep both for good.
 * Any thread. Returns 0 or a negative errno (-ESPIPE: no file of that kind).
 */
int pagecache_drop(int fd);
