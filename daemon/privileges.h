/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the process may do, brought down to what it needs.
 */

/**
 * privileges_raise_limits() - as much locked memory and as many descriptors as may be had; before capabilities go
 */
void privileges_raise_limits(void);

/**
 * privileges_drop() - keep CAP_IPC_LOCK if there is any, nothing else, and gain nothing again; be no one's to look into
 * Verifies that it worked. An ordinary user without capabilities passes through. Returns 0 or a negative errno.
 */
int privileges_drop(void);
