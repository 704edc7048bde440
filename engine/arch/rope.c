/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rotary position embedding: pair i of n turns by position * frequency[i], with frequency[i] = base^(-2i / n_rot) and
 * one of these on top:
 *
 *   linear   every frequency divided by the factor (positions are squeezed into the trained range)
 *   factors  frequency i divided by element i of rope_freqs.weight: how Llama 3.1 stores its scaling
 *   LongRoPE frequency i divided by element i of rope_factors_long.weight when sequences may be longer than the
 *            original context, else of rope_factors_short.weight. Ding et al., arXiv 2402.13753. The engine's context
 *            decides, not each sequence's length: keys in the cache can't be turned again
 *   YaRN     fast pairs as they are, slow pairs divided by the factor, a ramp between; cos and sin grow by
 *            1 + 0.1 ln(factor). Peng et al., arXiv 2309.00071; the ramp's ends are rounded outwards, as in its code
 *
 * All of them are a constant per pair, so a step needs positions and frequencies only. libm is used here, at load;
 * the angles of a step come from the kernels' own sine and cosine.
 */

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"
#include "engine/arch/limits.h"

enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN, SCALING_LONGROPE };

struct settings {
    enum scaling scaling;
    float factor;           /* > 0 */
    float attention_factor; /* on top of what the scaling itself does to the magnitude */
    float beta_fast, beta_slow, log_multiplier;
    uint32_t context_original_tokens;
};

static bool string_is(const struct gguf_string *s, const char *text)
{
    return s->n_bytes == strlen(text) && memcmp(s->data, text, s->n_bytes) == 0;
}

static int scaling_read(struct arch_build *b, struct settings *s)
{
    char key[128];
    struct gguf_string type;
    int r;

    /* Without a type a factor means linear scaling: files older than the key have it so. */
    s->scaling = SCALING_LINEAR;
    snprintf(key, sizeof(key), "%s.rope.scaling.type", b->name);
    r = gguf_get_string(b->gguf, key, &type, b->fault);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    if (string_is(&type, "none"))
        s->scaling = SCALING_NONE;
    else if (string_is(&type, "linear"))
        s->scaling = SCALING_LINEAR;
    else if (string_is(&type, "yarn"))
        s->scaling = SCALING_YARN;
    else if (string_is(&type, "longrope"))
        s->scaling = SCALING_LONGROPE;
    else {
        char found[64];

        fault_model_invalid(b->fault, (int64_t)gguf_find_key(b->gguf, key)->offset,
                            "%s is \"%s\", expected none, linear, longrope or yarn", key,
                            arch_text(&type, found, sizeof(found)));
        return -EINVAL;
    }
    return 0;
}

static int settings_read(struct arch_build *b, struct settings *s)
{
    int r;

    *s = (struct settings){
        .factor = 0.0f,
        .attention_factor = 1.0f,
        .beta_fast = 32.0f,
        .beta_slow = 1.0f,
        .context_original_tokens = b->config->context_tokens,
    };
    r = scaling_read(b, s);
    if (r < 0)
        return r;

    /* A factor of 0 is how some files write "none". */
    r = arch_key_f32(b, "rope.scaling.factor", ARCH_OPTIONAL, 0.0f, 1e6f, &s->factor);
    if (r == 0 && s->factor == 0.0f)
        r = arch_key_f32(b, "rope.scale_linear", ARCH_OPTIONAL, 0.0f, 1e6f, &s->factor);
    if (r == 0)
        r = arch_key_f32(b, "rope.scaling.attn_factor", ARCH_OPTIONAL, 1e-6f, 1e6f, &s->attention_factor);
    if (r == 0)
        r = arch_key_f32(b, "rope.scaling.yarn_beta_fast", ARCH_OPTIONAL, 1e-6f, 1e6f, &s->beta_fast);
    if (r == 0)
        r = arch_key_f32(b, "rope.scaling.yarn_beta_slow", ARCH_OPTIONAL, 1e-6f, 1e6f, &s->beta_slow);
    if (r == 0)
        r = arch_key_f32(b, "rope.scaling.yarn_log_multiplier", ARCH_OPTIONAL, 0.0f, 1e3f, &s->log_multiplier);
    if (r == 0)
        r = arch_key_u32(b, "rope.scaling.original_context_length", ARCH_OPTIONAL, 1, ARCH_CONTEXT_MAX,
                         &s->context_original_tokens);
    if (r < 0)
        return r;
    if (s->factor == 0.0f || s->scaling == SCALING_NONE || s->scaling == SCALING_LONGROPE)
        s->factor = 1.0f;
    return 0;
}

/* The pair (as a fraction) that turns @n_turns times over the original context. */
static double yarn_pair(const struct settings *s, uint32_t n_rot, double base, double n_turns)
{
    return n_rot * log(s->context_original_tokens / (n_turns * 2.0 * M_PI)) / (2.0 * log(base));
}

static double yarn_growth(double factor, double multiplier)
{
    return factor <= 1.0 ? 1.0 : 1.0 + 0.1 * multiplier * log(factor);
}

/* The tensor of factors that divide the frequencies, if the file has any: its name too, for messages. */
static int factors_read(struct arch_build *b, const struct settings *s, uint32_t n_pairs, const char **ret_name,
                        const float **ret)
{
    uint32_t n = b->config->context_tokens;
    bool is_long;

    if (b->target->context_tokens && b->target->context_tokens < n)
        n = b->target->context_tokens;
    is_long = n > s->context_original_tokens;
    *ret_name = "rope_freqs.weight";
    if (!gguf_find_tensor(b->gguf, *ret_name))
        *ret_name = is_long ? "rope_factors_long.weight" : "rope_factors_short.weight";
    return arch_vector(b, ARCH_NO_LAYER, *ret_name, ARCH_OPTIONAL, n_pairs, ret);
}

int arch_rope_read(struct arch_build *b, struct arch_rope *rope)
{
    struct settings s = {.factor = 1.0f, .attention_factor = 1.0f};
    uint32_t n_pairs = rope->n_rot / 2;
    const float *factors = NULL;
    const char *name = NULL;
    double *frequency;
    double low = 0, high = 0;
    int r = 0;

    if (!rope->is_fixed)
        r = arch_key_f32(b, "rope.freq_base", ARCH_OPTIONAL, 1.0001f, ARCH_ROPE_BASE_MAX, &rope->base);
    if (r == 0 && !rope->is_fixed)
        r = settings_read(b, &s);
    if (r == 0 && !rope->is_fixed)
        r = factors_read(b, &s, n_pairs, &name, &factors);
    if (r < 0)
        return r;

    rope->magnitude = s.attention_factor;
    if (s.scaling == SCALING_YARN) {
        low = fmax(0.0, floor(yarn_pair(&s, rope->n_rot, rope->base, s.beta_fast)));
        high = fmin(rope->n_rot - 1.0, ceil(yarn_pair(&s, rope->n_rot, rope->base, s.beta_slow)));
        rope->magnitude *= (float)(yarn_growth(s.factor, 1.0) / yarn_growth(s.factor, s.log_multiplier));
    }

    r = graph_constants(b->graph, n_pairs, &frequency);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < n_pairs; i++) {
        double f = pow(rope->base, -2.0 * i / rope->n_rot);
        double slow = 1.0; /* how much of the scaling this pair gets */

        if (factors) {
            if (!(factors[i] > 0.0f) || !isfinite(factors[i])) {
                fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                                    "element %" PRIu32 " of %s is %g, expected a positive number", i, name,
                                    (double)factors[i]);
                return -EINVAL;
            }
            f /= factors[i];
        }
        if (s.scaling == SCALING_YARN)
            slow = fmin(1.0, fmax(0.0, (i - low) / fmax(0.001, high - low)));
        frequency[i] = f / s.factor * slow + f * (1.0 - slow);
        if (!(frequency[i] <= ARCH_ROPE_FREQUENCY_MAX)) {
            fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                                "rope's pair %" PRIu32 " turns by %g radians a position (base %g, factor %g%s%s), "
                                "expected at most %g", i, frequency[i], (double)rope->base, (double)s.factor,
                                factors ? ", " : "", factors ? name : "", ARCH_ROPE_FREQUENCY_MAX);
            return -EINVAL;
        }
    }
    rope->frequency = frequency;
    return 0;
}
