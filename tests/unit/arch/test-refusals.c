/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers of the families that make no sense, and what is said about them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/arch/models.h"

struct refusal {
    const char *architecture;
    uint32_t n_experts, window;
    const char *key; /* changed to value */
    uint32_t value;
    const char *reason;
};

static const struct refusal refusals[] = {
    {"llama", 4, 0, "llama.expert_used_count", 5, "llama.expert_used_count is 5, expected 1 to 4"},
    {"llama", 4, 0, "llama.expert_used_count", 0, "llama.expert_used_count is 0, expected 1 to 4"},
    {"llama", 4, 0, "llama.expert_count", 1025, "llama.expert_count is 1025, expected 0 to 1024"},
    {"llama", 4, 0, "llama.expert_count", 3,
     "the tensor blk.0.ffn_gate_inp.weight has the shape 64 x 4 x 1 x 1, expected 64 x 3 x 1"},
    {"llama", 4, 0, "llama.expert_count", 0, "the tensor blk.0.ffn_gate.weight is missing"},
    {"llama", 0, 8, "llama.attention.sliding_window", 1u << 29,
     "llama.attention.sliding_window is 536870912, expected 0 to 268435456"},
    {"qwen3moe", 0, 0, NULL, 0, "the key qwen3moe.expert_count is missing"},
    {"qwen3moe", 4, 0, "qwen3moe.expert_count", 0, "qwen3moe.expert_count is 0, expected 1 to 1024"},
    {"qwen3moe", 4, 0, "qwen3moe.expert_feed_forward_length", 33,
     "the tensor blk.0.ffn_gate_exps.weight has the shape 64 x 32 x 4 x 1, expected 64 x 33 x 4"},
    {"qwen2moe", 4, 0, "qwen2moe.expert_feed_forward_length", (1u << 20) + 1,
     "qwen2moe.expert_feed_forward_length is 1048577, expected 0 to 1048576"},
    {"gpt-oss", 4, 0, NULL, 0, "the key gpt-oss.attention.sliding_window is missing"},
    {"gpt-oss", 4, 8, "gpt-oss.attention.sliding_window", 0,
     "gpt-oss.attention.sliding_window is 0, expected 1 to 268435456"},
    {"gemma2", 0, 8, "gemma2.attn_logit_softcapping", 0xBF800000,
     "gemma2.attn_logit_softcapping is -1, expected 0 to 1e+06"},
    {"granite", 0, 0, "granite.logit_scale", 0, "granite.logit_scale is 0, expected 1e-06 to 1e+06"},
    {"granite", 0, 0, "granite.residual_scale", 0xBF800000,
     "granite.residual_scale is -1, expected 1e-06 to 1e+06"},
    {"phi3", 0, 0, "phi3.feed_forward_length", 97,
     "the tensor blk.0.ffn_up.weight has the shape 64 x 192 x 1 x 1, expected 64 x 194 x 1"},
    {"deepseek2", 4, 0, "deepseek2.attention.kv_lora_rank", 0,
     "deepseek2.attention.kv_lora_rank is 0, expected 1 to 1024"},
    {"deepseek2", 4, 0, "deepseek2.attention.kv_lora_rank", 33,
     "the tensor blk.0.attn_kv_a_mqa.weight has the shape 64 x 40 x 1 x 1, expected 64 x 41 x 1"},
    {"deepseek2", 4, 0, "deepseek2.rope.dimension_count", 24,
     "deepseek2.rope.dimension_count is 24, expected less than a head's 24 dimensions, and with "
     "attention.kv_lora_rank (32) at most 1024"},
    {"deepseek2", 4, 0, "deepseek2.attention.value_length_mla", 20,
     "the tensor blk.0.attn_v_b.weight has the shape 32 x 16 x 4 x 1, expected 32 x 20 x 4"},
    {"deepseek2", 4, 0, "deepseek2.attention.key_length_mla", 1025,
     "deepseek2.attention.key_length_mla is 1025, expected 1 to 1024"},
    {"deepseek2", 4, 0, "deepseek2.leading_dense_block_count", 3,
     "deepseek2.leading_dense_block_count is 3, expected 0 to 2"},
    {"deepseek2", 4, 0, "deepseek2.leading_dense_block_count", 2, "the tensor blk.1.ffn_gate.weight is missing"},
    {"deepseek2", 4, 0, "deepseek2.expert_shared_count", 3,
     "the tensor blk.1.ffn_gate_shexp.weight has the shape 64 x 64 x 1 x 1, expected 64 x 96 x 1"},
    {"deepseek2", 4, 0, "deepseek2.expert_shared_count", UINT32_MAX,
     "deepseek2.expert_shared_count is 4294967295, expected 0 to 32768"},
    {"deepseek2", 4, 0, "deepseek2.expert_gating_func", 4, "deepseek2.expert_gating_func is 4, expected 0 to 2"},
    {"deepseek2", 4, 0, "deepseek2.expert_group_count", 3,
     "1 of 3 groups of 4 experts have not the 2 experts of a token"},
    {"deepseek2", 4, 0, "deepseek2.expert_group_count", 4,
     "1 of 4 groups of 4 experts have not the 2 experts of a token"},
    {"deepseek2", 4, 0, "deepseek2.expert_group_used_count", 3,
     "deepseek2.expert_group_used_count is 3, expected 1 to 2"},
    {"mamba", 0, 0, NULL, 0,
     "the architecture is \"mamba\", which is not supported; known: bert, deepseek2, gemma, gemma2, gemma3, gpt-oss, granite, llama, "
     "nomic-bert, phi3, qwen2, qwen2moe, qwen3, qwen3moe, smollm3"},
};

static void numbers_that_make_no_sense_are_named(void **state)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        const struct refusal *r = &refusals[i];
        struct model_shape shape = model_shape_default();
        char reason[512];

        shape.architecture = r->architecture;
        shape.dim = 64;
        shape.ff = 96;
        shape.n_heads = 4;
        shape.n_experts = r->n_experts;
        shape.expert_ff = strstr(r->architecture, "moe") ? 32 : 0;
        shape.window = r->window;
        if (strcmp(r->architecture, "deepseek2") == 0) {
            shape.expert_ff = 32;
            shape.head_dim = 16;
            shape.latent.kv_rank = 32;
            shape.latent.n_rot = 8;
            shape.latent.v_dim = 16;
            shape.latent.compressed = true;
            shape.dense_layers = 1;
            shape.expert_groups = 2;
            shape.expert_groups_used = 1;
            shape.sigmoid = true;
        }
        assert_string_equal(models_refused(&shape, r->key, r->value, reason, sizeof(reason)), r->reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_make_no_sense_are_named),
    };

    return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
