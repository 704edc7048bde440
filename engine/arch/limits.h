/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The largest numbers that a model's metadata may hold. Well above any published model, and small enough that the
 * sizes made of them stay inside 64 bits and loops over them end.
 */

#define ARCH_LAYERS_MAX    1024u       /* published: 126 */
#define ARCH_EMBEDDING_MAX (1u << 17)  /* 16384 */
#define ARCH_FF_MAX        (1u << 20)  /* 53248 */
#define ARCH_HEADS_MAX     4096u       /* 128 */
#define ARCH_HEAD_DIM_MAX  1024u       /* 576 */
#define ARCH_EXPERTS_MAX   1024u       /* 384 */
#define ARCH_VOCAB_MAX     (1u << 22)  /* 262144 */
#define ARCH_CONTEXT_MAX   (1u << 28)  /* 10 million */
#define ARCH_ROPE_BASE_MAX 1e15f       /* 1e9 */

/* Radians a position: 1 in every published model. Times ARCH_CONTEXT_MAX it is still an angle that a double can
 * turn. */
#define ARCH_ROPE_FREQUENCY_MAX 256.0
