/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Whose a subordinate uid is: /etc/subuid gives users ranges of uids for their containers, 65,536 each, and a person
 * is one person with all of them. Format: subuid(5), lines of OWNER:FIRST:COUNT with the owner's name or uid.
 *
 * The file only, and not libsubid, which would bring PAM, audit and SELinux's policy store into the daemon. Where
 * ranges come from elsewhere (nsswitch.conf's subid), their uids belong to nobody here, and who belongs to nobody is
 * refused.
 */

#include <stdint.h>
#include <sys/types.h>

#define SUBUID_PATH "/etc/subuid"

enum { SUBUID_NOBODYS = 1 };

/* How a name becomes a uid. Returns 0, -ESRCH or another negative errno. */
typedef int (*subuid_name_t)(const char *name, uid_t *ret, void *userdata);

/**
 * subuid_owner() - whose range @uid lies in. Blocks on the file and on @name; any thread
 * @path: a file that is missing has no ranges
 * Returns 0; SUBUID_NOBODYS; -ENOTUNIQ (in those of several users); another negative errno.
 */
int subuid_owner(const char *path, uid_t uid, subuid_name_t name, void *userdata, uid_t *ret);
