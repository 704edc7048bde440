/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Without any state, so that it is right in whatever thread and moment. Going on is not tried: the operation under way
 * has no weights to compute with, and zeros in their place would be an answer that looks like one.
 *
 * The other reasons for SIGBUS (memory that failed, an address that is wrong) are left to end the process as ever: the
 * handler takes itself away, and the instruction meets the same again. Who is sent the signal by somebody meets nothing
 * again: it is sent once more, and comes when the handler returns. The handler must not be taken away before
 * (SA_RESETHAND): all threads of the pool may meet lost pages at once, and the second would end the process by the
 * signal.
 */
#include "engine/worker/lost-pages.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "engine/proto/worker-proto.h"

static void on_bus(int signal, siginfo_t *info, void *context)
{
    static const char text[] = "<3>worker ends: the model's file can't be read any more where it is mapped\n";

    if (info->si_code != BUS_ADRERR) {
        const struct sigaction action = {.sa_handler = SIG_DFL};

        sigaction(signal, &action, NULL);
        if (info->si_code <= 0) /* SI_USER, SI_QUEUE, SI_TKILL: by kill(2) and such */
            (void)raise(signal);
        return;
    }
    /* Best effort: there is nobody to tell that stderr is gone. */
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(PROTO_EXIT_PAGES_LOST);
}

int lost_pages_expect(void)
{
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}
