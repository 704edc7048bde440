/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One configured model: what is known of it from outside. What moves it between its states is in model.c.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"

struct model;

/* In the order of the table in model.c. MAPPING is shown to clients as loading. */
enum model_state {
    MODEL_ABSENT,
    MODEL_MAPPING,  /* the daemon opens, maps, populates and locks the files */
    MODEL_LOADING,  /* a worker has the files and gets ready */
    MODEL_READY,
    MODEL_DRAINING, /* running requests finish, no new ones are taken */
    MODEL_FAILED,   /* with a reason; a Load, a changed policy or time tries again */
    MODEL_STATE_MAX,
};

/**
 * model_state_to_string() - the value of the interface's ModelState: "absent", "loading", …
 */
const char *model_state_to_string(enum model_state state);

/* One entry of ListModels. Strings and arrays are borrowed until control goes back to the event loop. */
struct model_info {
    const char *name;
    const char *const *aliases; /* [n_aliases] */
    size_t n_aliases;
    const char *architecture;   /* NULL until a worker has read the file */
    uint64_t n_parameters;      /* 0: unknown */
    const char *quantization;   /* NULL: unknown */
    uint64_t size_bytes;        /* of all files */
    uint64_t context_tokens;    /* 0: unknown and not given by the policy */
    enum model_state state;
    const char *const *capabilities; /* [n_capabilities] "complete", "chat", "embed", … */
    size_t n_capabilities;
};

/* Of requests that ended, since the start of the daemon. */
struct model_counters {
    uint64_t n_requests, prompt_tokens, cached_tokens, output_tokens, duration_us;
};

/* One entry of Status. Strings are borrowed until control goes back to the event loop. */
struct model_status {
    const char *name;
    enum model_state state;
    const char *reason; /* NULL: none; why it failed, or what is being waited for */
    pid_t worker_pid;   /* 0: none */
    uint64_t ram_locked_bytes; /* as the kernel reports for the daemon's mapping */
    uint64_t ram_mapped_bytes;
    uint64_t ram_huge_bytes; /* of it in 2 MiB pages */
    const char *ram_pages;   /* what most of what is locked is mapped by; NULL: nothing is */
    uint64_t ram_lost_bytes; /* of what has to be held and is not: an alarm */
    uint64_t vram_bytes;
    int64_t kv_bytes;   /* -1: not for the asker */
    uint64_t gpu_layers;
    const char *gpu_reason; /* why not more; NULL: all that was wanted is there */
    int64_t sequences_active; /* -1: not for the asker */
    uint32_t kv_pages_running, kv_pages_kept, kv_pages; /* of requests that run, of kept prefixes, all; 0 for others */
    int64_t tokens_drafted, tokens_accepted; /* by speculation, since it was loaded; -1: the same */
    uint64_t bytes_done, bytes_total; /* of loading */
    struct model_counters counters;   /* for administrators */
};
