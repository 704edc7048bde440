/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The functions that arch.c's table lists: one for each architecture, in a file of its family. Each reads what the file
 * says of the model and appends its operations to b->graph, and returns as all functions of blocks.h.
 */

struct arch_build;

int bert_build(struct arch_build *b);
int deepseek2_build(struct arch_build *b);
int gemma_build(struct arch_build *b);
int gemma2_build(struct arch_build *b);
int gemma3_build(struct arch_build *b);
int gpt_oss_build(struct arch_build *b);
int granite_build(struct arch_build *b);
int llama_build(struct arch_build *b);
int nomic_bert_build(struct arch_build *b);
int phi3_build(struct arch_build *b);
int qwen2_build(struct arch_build *b);
int qwen2moe_build(struct arch_build *b);
int qwen3_build(struct arch_build *b);
int qwen3moe_build(struct arch_build *b);
int smollm3_build(struct arch_build *b);
