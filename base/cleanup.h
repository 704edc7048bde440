/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Ownership helpers: scope-bound release (gcc's cleanup attribute, as systemd uses it) and the TAKE_ macros that
 * empty a variable while handing its value on. Everything here is header-only and touches no state.
 */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* Hands the pointer on and leaves NULL behind, so that a _cleanup_ variable no longer owns it. */
#define TAKE_PTR(p)                                                                                                \
    ({                                                                                                             \
        __typeof__(p) *_pp = &(p);                                                                                 \
        __typeof__(p) _v = *_pp;                                                                                   \
        *_pp = NULL;                                                                                               \
        _v;                                                                                                        \
    })

/* The same for a file descriptor; -EBADF is the unset value everywhere in the project. */
#define TAKE_FD(fd)                                                                                                \
    ({                                                                                                             \
        int *_pf = &(fd);                                                                                          \
        int _v = *_pf;                                                                                             \
        *_pf = -EBADF;                                                                                             \
        _v;                                                                                                        \
    })

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void fclosep(FILE **f)
{
    if (*f)
        fclose(*f);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)

/* Declares xp(), the cleanup handler for a type whose destructor takes NULL. */
#define DEFINE_CLEANUP(type, func)                                                                                 \
    static inline void func##p(type *p)                                                                            \
    {                                                                                                              \
        if (*p)                                                                                                    \
            func(*p);                                                                                              \
    }
