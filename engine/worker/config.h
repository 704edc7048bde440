/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The JSON of a MODEL packet. All members are optional; null is absent; a member that is not listed is left
 * alone, so that the daemon may be a little newer than its worker.
 *
 *   "model":          the name in the policy, for errors
 *   "context_tokens": longest sequence, 0: the model's own
 *   "sequences":      requests that are computed at the same time, default 4
 *   "kv_tokens":      room for keys and values over all sequences, 0: context_tokens * sequences
 *   "k", "v":         types of keys and values, default "f16"
 *   "weights_bytes_max": so much of the model's matrices may be in memory, 0: all; the rest is read in each step
 *   "lock":           mlock the weights in the worker, too
 *   "small_pages":    weights by 4 KiB pages only
 *   "populate":       fault the weights in before READY, default true
 *   "touch":          … and read a byte of each page, default true; false: somebody has, and they have stayed since
 *   "measure":        only say what the model would take (FACTS with "shape", engine/worker/shape.h), then wait for
 *                     the end; nothing is loaded
 *   "look":           only say which GPUs there are (FACTS with "gpus", engine/worker/gpus.h), likewise; no files come
 *   "bandwidth":      with it, also measure the machine's memory
 *   "threads":        0: one a core; THREADS changes it
 *   "batch_tokens":   of one step, default 512
 *   "drafts":         "auto" (default): speculate where it pays; "off", "always": to diagnose and to compare
 *   "files":          how many of the packet's files are the model's; default: all
 *   "draft_files":    how many behind those are a draft model's (engine/worker/draft.h), default 0
 *   "adapters":       names of adapters, whose files, one each, come last and in this order
 *   "public_prefixes": texts that are no secret of anybody's (engine/worker/public.h), at most 64
 *   "gpu":            {"layers": the last so many are put on GPUs, "expert_layers": of those with their experts,
 *                      "kv_in_ram": bool, "head": whether the output matrix goes there, "devices": [numbers],
 *                      "bus_ids": [where those are, "": not known; the driver may have given them other numbers],
 *                      "device_layers": [of "layers", each device's], "exact": bool, no fewer, "small_steps": bool,
 *                      "keep_locked": bool, what is there stays locked in RAM too, "ram_bytes_max": of locked weights
 *                      and KV cache in RAM, 0: any}; a worker that was not started for
 *                      GPUs (--gpu) computes all of it on the processor
 *   "defaults":       parameters of Complete and Chat that hold where a call does not name them, and "system"
 *   "limits":         {"max_tokens": of one answer, "prompt_bytes": of one call's texts, default 4 MiB}
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/gguf/types.h"

struct fault;

#define CONFIG_SEQUENCES_MAX 1024
#define CONFIG_NAME_MAX      64

enum config_drafts { CONFIG_DRAFTS_AUTO, CONFIG_DRAFTS_OFF, CONFIG_DRAFTS_ALWAYS };

#define CONFIG_BUS_ID_MAX 16

struct config_gpu {
    uint32_t layers, expert_layers; /* 0 layers: none */
    bool kv_in_ram, head, exact, keep_locked, small_steps;
    uint32_t devices[ENGINE_DEVICES_MAX], device_layers[ENGINE_DEVICES_MAX]; /* [n_devices] */
    char bus_ids[ENGINE_DEVICES_MAX][CONFIG_BUS_ID_MAX]; /* where they are, whatever their numbers; "": not known */
    size_t n_devices; /* 0: all, shared out by what is free */
    uint64_t ram_bytes_max;
};

struct config {
    char model[CONFIG_NAME_MAX + 1];
    uint32_t context_tokens, sequences, batch_tokens, n_threads;
    uint64_t kv_tokens, weights_bytes_max;
    enum tensor_type k_type, v_type;
    struct config_gpu gpu;
    bool lock, populate, touch, measure, look, bandwidth, small_pages;
    enum config_drafts drafts;
    uint32_t n_files, n_draft_files, n_adapters; /* n_files 0: all that are not others' */
    json_object *adapters; /* [n_adapters] names, or NULL; owned */
    json_object *public_prefixes; /* texts, or NULL; owned */
    json_object *defaults; /* an object, or NULL; owned */
    uint32_t max_tokens;   /* limits.max_tokens, UINT32_MAX: none */
    uint64_t prompt_bytes_max;
};

/**
 * config_parse() - read the blob of a MODEL packet
 * @ret: to be given to config_done(), on success only
 * Returns 0; -EINVAL with an InvalidParameter that names the member; -ENOMEM.
 */
int config_parse(const char *text, size_t n_bytes, struct config *ret, struct fault *reterr);

/**
 * config_adapter() - the number (from 1) of the adapter @name, 0: there is none
 */
uint32_t config_adapter(const struct config *c, const char *name);

/**
 * config_done() - release what is embedded; works on a zeroed one
 */
void config_done(struct config *c);
