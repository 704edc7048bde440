/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The types of less than four bits whose values come from code books or are ternary: decode.c's functions for them.
 */

#include "engine/kernels/decode.h"

/**
 * decode_iq2_xxs() - and its neighbours: block_decode() of one type, all members of @ret set
 */
void decode_iq2_xxs(const void *src, struct decoded_block *ret);
void decode_iq2_xs(const void *src, struct decoded_block *ret);
void decode_iq2_s(const void *src, struct decoded_block *ret);
void decode_iq3_xxs(const void *src, struct decoded_block *ret);
void decode_iq3_s(const void *src, struct decoded_block *ret);
void decode_iq1_s(const void *src, struct decoded_block *ret);
void decode_iq1_m(const void *src, struct decoded_block *ret);
void decode_tq1_0(const void *src, struct decoded_block *ret);
void decode_tq2_0(const void *src, struct decoded_block *ret);
