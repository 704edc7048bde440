/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handler has to find the way back of the thread that it runs in, without a global: each call runs with a signal
 * stack of its own, whose address the kernel hands to the handler, and the way back lies right before that stack. A
 * thread without such a stack is not reading by mapread_call(), and gets what it would get without a handler.
 */
#include "base/mapread.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

/* The frame of a signal holds all registers: 11 KiB with those of AMX. */
#define STACK_BYTES 65536
#define MAGIC UINT64_C(0x646165727061016d)

struct mapread {
    sigjmp_buf back;
    uint64_t magic;
    uint8_t stack[STACK_BYTES]; /* the last member: what the handler gets is its address */
};

static void on_bus(int signal, siginfo_t *info, void *context)
{
    const stack_t *stack = &((const ucontext_t *)context)->uc_stack;
    const struct sigaction action = {.sa_handler = SIG_DFL};

    if (info->si_code == BUS_ADRERR && !(stack->ss_flags & SS_DISABLE) && stack->ss_size == STACK_BYTES) {
        struct mapread *m = (void *)((uint8_t *)stack->ss_sp - offsetof(struct mapread, stack));

        if (m->magic == MAGIC)
            siglongjmp(m->back, 1);
    }
    /* The instruction meets the same again, and that ends the process. */
    sigaction(signal, &action, NULL);
}

int mapread_new(struct mapread **ret)
{
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct mapread *m = calloc(1, sizeof(*m));

    if (!m)
        return -ENOMEM;
    m->magic = MAGIC;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, NULL) < 0) {
        free(m);
        return -errno;
    }
    *ret = m;
    return 0;
}

int mapread_call(struct mapread *m, void (*fn)(void *userdata), void *userdata)
{
    const stack_t own = {.ss_sp = m->stack, .ss_size = STACK_BYTES};
    sigset_t bus, mask_before;
    stack_t stack_before;
    volatile int r = 0;

    /* One that is blocked would end the process and not be handled. */
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    if (sigaltstack(&own, &stack_before) < 0)
        return -errno;
    pthread_sigmask(SIG_UNBLOCK, &bus, &mask_before);
    if (sigsetjmp(m->back, /* savesigs= */ 1) == 0)
        fn(userdata);
    else
        r = -EFAULT;
    pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
    (void)sigaltstack(&stack_before, NULL);
    return r;
}

struct mapread *mapread_free(struct mapread *m)
{
    if (!m)
        return NULL;
    m->magic = 0;
    free(m);
    return NULL;
}
