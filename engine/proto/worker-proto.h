/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The packets between residentd and a resident-worker: one SOCK_SEQPACKET connection per worker, one packet
 * per message. This file is the layout and the rules; channel.h sends and receives.
 *
 *   packet = struct packet_head · struct packet_X · blob (JSON or text, the rest of the packet)
 *
 * A body (all after the head) of more than PROTO_INLINE_MAX bytes travels as a sealed memfd: the packet is
 * then the head alone, with PACKET_FLAG_MEMFD and the memfd as its first fd. Both processes run on one
 * machine, which is little-endian (GGUF weights are used in place, so there is no other), and numbers are
 * stored as they are in memory. Reserved fields are zero and checked. Times are CLOCK_MONOTONIC in ns. HELLO
 * and RESET keep their layout in every version; everything else may change with PROTO_VERSION.
 *
 * States, and what moves both sides from one to the next:
 *   NEW --HELLO of the worker--> HELLO --MODEL--> LOADING --READY--> READY;  any but NEW --DRAIN--> DRAINING
 * Which packet is legal in which state is one table in proto.c, written so that packets that cross
 * each other on the way are legal. Everything else is a violation, which the receiver answers by ending the
 * connection.
 *
 * Epochs: the daemon names one in HELLO, and every later packet of both sides carries it. A daemon that took
 * a link over sends RESET with a higher one: the worker forgets all requests and tenants and says HELLO (with
 * its state), then FACTS if it has them, then USED. What the worker sent before that carries the older epoch
 * and is dropped on receipt. What tenants are due stays, under their marks.
 *
 * Adding a packet: the enum, a struct with its asserts, the union in struct packet, a row in the table.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_MAGIC   UINT32_C(0x6b777372) /* "rswk" */
#define PROTO_VERSION UINT32_C(7)
#define PROTO_INLINE_MAX \
    (UINT32_C(64) << 10) /* a SEQPACKET message ends at about 200 KB (net.core.wmem_default) */
#define PROTO_BUILD_MAX 128
#define PROTO_FDS_MAX   128 /* split files of one model; the kernel takes 253 a message */

enum proto_side { PROTO_DAEMON, PROTO_WORKER };

enum proto_state {
    PROTO_STATE_NEW,
    PROTO_STATE_HELLO,
    PROTO_STATE_LOADING,
    PROTO_STATE_READY,
    PROTO_STATE_DRAINING,
    PROTO_STATE_MAX,
};

enum packet_type {
    PACKET_HELLO = 1, /* both ways: daemon first, the worker answers at once */
    PACKET_MODEL,     /* daemon → worker from here */
    PACKET_THREADS,
    PACKET_TENANT,
    PACKET_SPENT,
    PACKET_SUBMIT,
    PACKET_CANCEL,
    PACKET_PAUSE,
    PACKET_RESUME,
    PACKET_TRIM,
    PACKET_DRAIN,
    PACKET_RESET,
    PACKET_PING,
    PACKET_FACTS, /* worker → daemon from here */
    PACKET_PROGRESS,
    PACKET_READY,
    PACKET_STEP,
    PACKET_DONE,
    PACKET_FAILED,
    PACKET_LOG,
    PACKET_PONG,
    PACKET_USED,
    PACKET_GPUS,
    PACKET_TYPE_MAX,
};

#define PACKET_FLAG_MEMFD UINT16_C(1)

struct packet_head {
    uint16_t type, flags;
    uint32_t n_bytes; /* of the body, wherever it is */
    uint64_t epoch;
};

/* HELLO and RESET; blob: the build id, printable ASCII. */
struct packet_hello {
    uint32_t magic, version;
    uint32_t state; /* from the worker: enum proto_state as of now; from the daemon: 0 */
    uint32_t reserved;
};

/* MODEL; fds: the model's files in order, those of a draft model, one of each adapter, none to look for GPUs;
 * blob: JSON (engine/worker/config.h) */
struct packet_model {
    uint64_t reserved;
};

struct packet_threads {
    uint32_t n_threads; /* >= 1 */
    uint32_t reserved;
};

/* What the daemon knows of a tenant; sent before its first SUBMIT and whenever it changes. */
struct packet_tenant {
    uint32_t tenant;
    uint32_t weight;       /* shares are proportional; 0: forget it: no request is left, its number never comes again */
    uint64_t kv_max_bytes; /* 0: no limit of its own */
    uint32_t tenant_class; /* tenants with the same class > 0 also share as a group; 0: none */
    uint32_t class_weight; /* of that group; 0 if there is none */
    uint64_t mark;         /* who it is, also for the next daemon, which gives it another number; opaque; 0: none */
};

/* What a tenant was computed elsewhere counts here, too: it has one share of the machine, not one of each model. Only
 * while it has requests here: nobody who comes later pays for what nobody wanted at the time. */
struct packet_spent {
    uint32_t tenant;
    uint32_t reserved;
    uint64_t cost_ns; /* of time that this worker would have taken for it */
};

enum submit_kind {
    SUBMIT_COMPLETE,
    SUBMIT_CHAT,
    SUBMIT_EMBED,
    SUBMIT_TOKENIZE,
    SUBMIT_DETOKENIZE,
    SUBMIT_KIND_MAX
};

/* SUBMIT; blob: the call's parameters as a JSON object, checked by the daemon against the interface. */
struct packet_submit {
    uint64_t request; /* > 0, never used before in this epoch */
    uint32_t tenant;
    int32_t priority;
    uint64_t deadline_ns; /* 0: none */
    uint32_t kind;        /* enum submit_kind */
    uint32_t tokens_max;  /* of prompt and answer together, 0: as many as the context has. A longer prompt ends
                             in ContextTooLong. */
};

/* CANCEL (answered by DONE or FAILED, whichever the worker comes to first), PAUSE and RESUME (0: all
 * requests). A request that the worker does not know any more is no error: its DONE crossed the packet. */
struct packet_request {
    uint64_t request;
};

struct packet_trim {
    uint64_t bytes; /* give back this much of what is only cached */
};

struct packet_drain {
    uint64_t deadline_ns; /* 0: take the time that the running requests need. The worker exits when it has
                             none left. */
};

struct packet_ping {
    uint64_t cookie;
};

/* FACTS, READY, GPUS; blob: JSON object (engine/worker/facts.h, gpus.h) */
struct packet_facts {
    uint64_t reserved;
};

struct packet_progress {
    uint64_t bytes_done, bytes_total;
};

/* STEP: [n_tenants] struct step_tenant, then n_pieces times struct step_piece · text · extra, without
 * padding. */
struct packet_step {
    uint64_t n_steps; /* counts the worker's steps; the same as before: nothing was computed, only news of the
                         queue */
    uint64_t duration_ns; /* of this step, engine only */
    uint32_t n_pieces, n_tenants;
    uint32_t n_running, n_waiting;
    uint32_t pages_used, pages_total;
    uint32_t n_drafted, n_accepted; /* tokens that were drafted for this step, and those of them that were right */
    uint32_t pages_kept; /* with prefixes that no request has; counted every few seconds, and when nothing runs */
    uint32_t reserved;
};

struct step_tenant {
    uint32_t tenant;
    uint32_t n_pages;  /* of the KV cache, held now */
    uint64_t cost_ns;  /* its part of the time of this step, and of a draft model's before it */
    uint32_t n_prompt; /* prompt tokens computed in this step */
    uint32_t n_output; /* tokens sampled in this step */
};

#define STEP_NOT_WAITING (-1)
#define STEP_ETA_UNKNOWN INT64_C(-1)

struct step_piece {
    uint64_t request;
    uint32_t n_text;        /* whole UTF-8, may be 0 */
    uint32_t n_extra;       /* JSON object ({"logprobs": […]}), 0: none */
    uint32_t n_tokens;      /* output tokens so far in all */
    int32_t queue_position; /* from 1; STEP_NOT_WAITING once it runs */
    int64_t eta_ms;         /* until its first token, STEP_ETA_UNKNOWN */
};

enum done_finish { DONE_STOP, DONE_LENGTH, DONE_TOOL_CALLS, DONE_CANCELLED, DONE_DEADLINE, DONE_FINISH_MAX };

/* DONE; blob: JSON object or nothing ({"tokens": […]} for SUBMIT_TOKENIZE, {"text", "bytes"} for
 * SUBMIT_DETOKENIZE, {"embeddings": [{"values": […]}, …]} for SUBMIT_EMBED) */
struct packet_done {
    uint64_t request;
    uint32_t finish; /* enum done_finish */
    uint32_t reserved;
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    uint64_t queue_ns, prefill_ns, decode_ns;
};

/* With this status a worker ends that could not read its model's file any more where it is mapped. */
#define PROTO_EXIT_PAGES_LOST 74
/* … and with this one that lost a GPU, and what it kept there. */
#define PROTO_EXIT_GPU_LOST 75

/* FAILED; blob: {"error": name, "parameters": {…}} as fault_to_json() has them. request 0: the model itself,
 * after which the worker ends. */
struct packet_failed {
    uint64_t request;
};

/* LOG; blob: text, never of a prompt or an answer */
struct packet_log {
    uint32_t level; /* as syslog's, LOG_ERR … LOG_DEBUG */
    uint32_t tenant;
    uint64_t request; /* 0: none */
};

struct packet_pong {
    uint64_t cookie;
    uint64_t n_steps; /* done so far … */
    uint64_t busy_ns; /* … and for how long the present one runs, 0: idle. The link thread answers even if it
                         hangs. */
};

/* USED; after RESET, of requests that ended lately or with it, and whose DONE nobody may have heard or written down. */
struct packet_used {
    uint64_t epoch, request; /* of the daemon that had it, and its number there */
    uint64_t mark;           /* of its tenant */
    uint64_t age_ns;         /* since it came */
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    uint64_t duration_ns;
};

/* A received packet: checked, so the member of the union that its type names may be used. */
struct packet {
    enum packet_type type;
    uint64_t epoch;
    union {
        const void *fixed;
        const struct packet_hello *hello; /* HELLO, RESET */
        const struct packet_model *model;
        const struct packet_threads *threads;
        const struct packet_tenant *tenant;
        const struct packet_spent *spent;
        const struct packet_submit *submit;
        const struct packet_request *request; /* CANCEL, PAUSE, RESUME */
        const struct packet_trim *trim;
        const struct packet_drain *drain;
        const struct packet_ping *ping;
        const struct packet_facts *facts; /* FACTS, READY, GPUS */
        const struct packet_progress *progress;
        const struct packet_step *step;
        const struct packet_done *done;
        const struct packet_failed *failed;
        const struct packet_log *log;
        const struct packet_pong *pong;
        const struct packet_used *used;
    };
    const char *blob; /* not terminated */
    size_t n_blob;
};
