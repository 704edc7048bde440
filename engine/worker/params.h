/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The parameters that Complete and Chat share: how to sample and when to stop. Every value that is out of
 * range, and every parameter that this worker does not know or can't do, is an InvalidParameter that names
 * it.
 */

#include <stdint.h>

#include "base/json.h"

struct config;
struct fault;
struct sampler;
struct stops;

/* As many alternatives for a token as are worth sending. */
#define PARAMS_LOGPROBS_MAX 20

struct params {
    uint32_t max_tokens;     /* UINT32_MAX: not given */
    int32_t n_logprobs;      /* -1: none are wanted */
    uint32_t adapter;        /* from 1; 0: none */
    struct sampler *sampler; /* owned until taken */
    struct stops *stops;     /* owned until taken */
};

/**
 * params_parse() - read and check them
 * @call:     borrowed; its other members (prompt, messages …) are those in @others, a NULL-terminated list
 * @config:   its defaults hold where @call says nothing, its adapters are those that there are; borrowed
 * @ret:      to be given to params_done()
 * Returns 0; -EINVAL with a fault; -ENOMEM.
 */
int params_parse(json_object *call, const struct config *config, const char *const *others, uint32_t n_vocab,
                 struct params *ret, struct fault *reterr);

/**
 * params_done() - release what was not taken (set to NULL by who took it)
 */
void params_done(struct params *p);
