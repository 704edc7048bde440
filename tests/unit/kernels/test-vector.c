/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every row of the vector registry against the scalar one, bit for bit: odd sizes, unaligned, hostile values,
 * in place, with an unreadable page right behind each array and canaries before the results. What the scalar
 * kernels compute is compared with double precision.
 */
#include "engine/kernels/vector.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/gguf/half.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/rope.h"

enum {
    N_MAX = 4096, /* floats in an array */
    N_ARRAYS = 5,
    N_CANARIES = 16,
};
#define CANARY 0x88888888u

/* Arrays of N_MAX floats, each followed by a page that can't be touched. */
struct arena {
    char *memory;
    size_t n_bytes;
    float *end[N_ARRAYS];
};

static int arena_setup(void **state)
{
    struct arena *a = calloc(1, sizeof(*a));
    size_t page = (size_t)sysconf(_SC_PAGESIZE), array = N_MAX * sizeof(float) + page;

    if (!a)
        return -1;
    a->n_bytes = N_ARRAYS * (array + page);
    a->memory = mmap(NULL, a->n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a->memory == MAP_FAILED)
        return -1;
    for (size_t i = 0; i < N_ARRAYS; i++) {
        char *guard = a->memory + i * (array + page) + array;

        if (mprotect(guard, page, PROT_NONE) < 0)
            return -1;
        a->end[i] = (float *)guard;
    }
    *state = a;
    return 0;
}

static int arena_teardown(void **state)
{
    struct arena *a = *state;

    munmap(a->memory, a->n_bytes);
    free(a);
    return 0;
}

/* Array @i with room for exactly @n floats before the guard page, canaries before it. */
static float *array(struct arena *a, size_t i, size_t n)
{
    float *p = a->end[i] - n;

    for (size_t j = 1; j <= N_CANARIES; j++)
        p[-(ptrdiff_t)j] = float_from_bits(CANARY);
    return p;
}

static void check_canaries(const float *p, const char *name)
{
    for (size_t j = 1; j <= N_CANARIES; j++)
        if (float_to_bits(p[-(ptrdiff_t)j]) != CANARY)
            fail_msg("%s wrote before its result", name);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

enum values { USUAL, LARGE, SMALL, ANY_BITS, N_VALUES };

static void fill(float *p, size_t n, enum values kind, uint64_t seed)
{
    static const float special[] = {0.0f,  -0.0f,  1.0f,    -1.0f,       INFINITY,     -INFINITY,
                                    NAN,   1e-45f, -1e-40f, __FLT_MAX__, -__FLT_MAX__, 88.7f,
                                    88.8f, -87.4f, -103.9f, -104.1f,     0.625f,       -0.625f};

    for (size_t i = 0; i < n; i++) {
        uint64_t z = next_random(&seed);
        float uniform = (float)(z >> 40) * 0x1p-23f - 1.0f;

        switch (kind) {
        case USUAL:
            p[i] = uniform * 8;
            break;
        case LARGE:
            p[i] = uniform * 200;
            break;
        case SMALL:
            p[i] = uniform * 1e-38f;
            break;
        default:
            p[i] = z % 3 == 0 ? special[(z >> 8) % (sizeof(special) / sizeof(*special))]
                              : float_from_bits((uint32_t)(z >> 32));
            break;
        }
    }
}

/* Equal bits, any NaN being as good as any other. */
static void check_equal(const float *a, const float *b, size_t n, const char *name, const char *isa)
{
    for (size_t i = 0; i < n; i++)
        if (float_to_bits(a[i]) != float_to_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("%s, %s: element %zu of %zu is %a instead of %a", name, isa, i, n, (double)b[i],
                     (double)a[i]);
}

/*
 * Calls the kernel in @slot. @x, @w, @b: inputs [n]; @y: holds an input where the kernel changes its result
 * in place.
 */
static void call(const struct vector_table *t, const char *slot, float *y, const float *x, const float *w,
                 const float *b, uint32_t n)
{
    if (strcmp(slot, "rms_norm") == 0)
        t->rms_norm(y, x, n % 2 ? w : NULL, n, 1e-5f);
    else if (strcmp(slot, "layer_norm") == 0)
        t->layer_norm(y, x, n % 2 ? w : NULL, n % 3 ? b : NULL, n, 1e-5f);
    else if (strcmp(slot, "silu_mul") == 0)
        t->silu_mul(y, x, w, n);
    else if (strcmp(slot, "gelu_mul") == 0)
        t->gelu_mul(y, x, w, n);
    else if (strcmp(slot, "swiglu_clamped") == 0)
        t->swiglu_clamped(y, x, w, n, 1.702f, 7.0f);
    else if (strcmp(slot, "add") == 0)
        t->add(y, x, n);
    else if (strcmp(slot, "add_scaled") == 0)
        t->add_scaled(y, x, -0.7f, n);
    else if (strcmp(slot, "scale") == 0)
        t->scale(y, x, 0.3f, n);
    else if (strcmp(slot, "mul") == 0)
        t->mul(y, x, w, n);
    else if (strcmp(slot, "softcap") == 0)
        t->softcap(y, x, 30.0f, n);
    else if (strcmp(slot, "softmax") == 0)
        t->softmax(y, x, n);
    else if (strcmp(slot, "rope") == 0)
        t->rope(y, 1, n, n / 2 * 2, w, n % 4 < 2);
    else if (strcmp(slot, "map[VECTOR_EXP]") == 0)
        t->map[VECTOR_EXP](y, x, n);
    else if (strcmp(slot, "map[VECTOR_TANH]") == 0)
        t->map[VECTOR_TANH](y, x, n);
    else if (strcmp(slot, "map[VECTOR_SIGMOID]") == 0)
        t->map[VECTOR_SIGMOID](y, x, n);
    else if (strcmp(slot, "map[VECTOR_SILU]") == 0)
        t->map[VECTOR_SILU](y, x, n);
    else if (strcmp(slot, "map[VECTOR_GELU]") == 0)
        t->map[VECTOR_GELU](y, x, n);
    else
        fail_msg("the kernel \"%s\" has no test", slot);
}

static bool in_place(const char *slot)
{
    return strncmp(slot, "add", 3) == 0 || strcmp(slot, "rope") == 0;
}

static void check_row(struct arena *a, const struct vector_table *scalar, const struct vector_row *row,
                      uint32_t n, enum values kind)
{
    float *x = array(a, 0, n), *w = array(a, 1, n), *b = array(a, 2, n), *expected = array(a, 3, n),
          *y = array(a, 4, n);
    struct vector_table table = *scalar;

    memcpy((char *)&table + row->slot, &row->fn, sizeof(row->fn));
    fill(x, n, kind, n);
    fill(w, n, kind, n + 1);
    fill(b, n, kind, n + 2);
    if (in_place(row->name)) {
        fill(expected, n, kind, n + 3);
        memcpy(y, expected, n * sizeof(float));
    } else {
        memset(y, 0x11, n * sizeof(float));
    }
    call(scalar, row->name, expected, x, w, b, n);
    call(&table, row->name, y, x, w, b, n);
    check_equal(expected, y, n, row->name, row->isa_name);
    check_canaries(y, row->name);
    if (!in_place(row->name)) {
        /* y may be x */
        call(&table, row->name, x, x, w, b, n);
        check_equal(expected, x, n, row->name, row->isa_name);
        check_canaries(x, row->name);
    }
}

static void rows_have_the_scalar_bits(void **state)
{
    static const uint32_t sizes[] = {100, 127, 128, 255, 256, 257, 1000, 2816, 4095, 4096};
    uint32_t has = kernels_isa_detect();
    const struct vector_row *row;
    struct vector_table scalar;

    vector_select(0, &scalar);
    for (uint32_t i = 0; (row = vector_row_at(i)); i++) {
        if ((row->isa & has) != row->isa)
            continue;
        if (strncmp(row->name, "attention", 9) == 0 ||
            strcmp(row->name, "kv_write") == 0) /* test-attention.c */
            continue;
        for (int kind = USUAL; kind < N_VALUES; kind++) {
            for (uint32_t n = 1; n <= 67; n++)
                check_row(*state, &scalar, row, n, (enum values)kind);
            for (size_t j = 0; j < sizeof(sizes) / sizeof(*sizes); j++)
                check_row(*state, &scalar, row, sizes[j], (enum values)kind);
        }
    }
}

static void the_table_is_always_full(void **state)
{
    static const uint32_t masks[] = {0, ISA_AVX2, ISA_AVX512, ISA_AVX2 | ISA_AVX512, ISA_ALL, ~0u};

    for (size_t i = 0; i < sizeof(masks) / sizeof(*masks); i++) {
        void (*slots[sizeof(struct vector_table) / sizeof(void (*)(void))])(void);
        struct vector_table t;

        vector_select(masks[i], &t);
        memcpy(slots, &t, sizeof(t));
        for (size_t j = 0; j < sizeof(slots) / sizeof(*slots); j++)
            assert_non_null(slots[j]);
    }
}

static void select_takes_what_the_mask_allows(void **state)
{
    struct vector_table scalar, only_512, avx2, avx512;

    vector_select(0, &scalar);
    vector_select(ISA_AVX512, &only_512); /* names AVX-512 without what it stands on: not enough */
    vector_select(ISA_AVX2, &avx2);
    vector_select(ISA_AVX2 | ISA_AVX512, &avx512);
    assert_memory_equal(&scalar, &only_512, sizeof(scalar));
#ifdef __x86_64__
    assert_ptr_not_equal(scalar.attention, avx2.attention);
    assert_ptr_not_equal(avx2.attention, avx512.attention);
#endif
}

/* Units in the last place of the true value, as a float; subnormals have the smallest normal's. */
static double ulps_wrong(float y, double truth)
{
    int e;

    if (isnan(truth))
        return isnan(y) ? 0 : INFINITY;
    if (fabs(truth) >= 0x1.ffffffp+127)
        return isinf(y) && (y > 0) == (truth > 0) ? 0 : INFINITY;
    if (!isfinite(y))
        return INFINITY;
    frexp(truth, &e);
    return fabs((double)y - truth) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

static double gelu_of(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static double silu_of(double x)
{
    return x / (1 + exp(-x));
}

static double sigmoid_of(double x)
{
    return 1 / (1 + exp(-x));
}

/* Every 499th float (so each exponent, both signs), but those for which the function has no useful value. */
static void functions_are_accurate(void **state)
{
    const struct {
        const char *name;
        enum vector_map map;
        double (*truth)(double);
        float limit; /* up to this |x| */
        double ulps;
    } functions[] = {
        {"exp", VECTOR_EXP, exp, INFINITY, 1.0},
        {"tanh", VECTOR_TANH, tanh, INFINITY, 1.5},
        {"sigmoid", VECTOR_SIGMOID, sigmoid_of, 80, 2.5},
        {"silu", VECTOR_SILU, silu_of, 80, 3.0},
        {"gelu", VECTOR_GELU, gelu_of, 3, 16}, /* the exponent is a rounded cubic: its error grows with x */
    };
    struct vector_table t;

    vector_select(kernels_isa_detect(), &t);
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
        float x[1024], y[1024], at = 0;
        double worst = 0;
        uint64_t bits = 0;

        while (bits <= UINT32_MAX) {
            uint32_t n = 0;

            for (; n < 1024 && bits <= UINT32_MAX; bits += 499) {
                float v = float_from_bits((uint32_t)bits);

                if (fabsf(v) <= functions[i].limit)
                    x[n++] = v;
            }
            if (n == 0)
                continue;
            t.map[functions[i].map](y, x, n);
            for (uint32_t j = 0; j < n; j++) {
                double wrong = ulps_wrong(y[j], functions[i].truth((double)x[j]));

                if (!(wrong <= worst)) {
                    worst = wrong;
                    at = x[j];
                }
            }
        }
        print_message("%s: %.2f ulp at %a\n", functions[i].name, worst, (double)at);
        if (!(worst <= functions[i].ulps))
            fail_msg("%s: %g ulp at %a", functions[i].name, worst, (double)at);
    }
}

static void functions_have_ends(void **state)
{
    static const float x[] = {-INFINITY, INFINITY, NAN, 0.0f, -0.0f, 1000, -1000, -103.98f};
    struct vector_table t;
    float y[8];

    vector_select(0, &t);
    t.map[VECTOR_EXP](y, x, 8);
    assert_true(y[0] == 0 && y[1] == INFINITY && isnan(y[2]) && y[3] == 1 && y[4] == 1 && y[5] == INFINITY &&
                y[6] == 0);
    t.map[VECTOR_TANH](y, x, 8);
    assert_true(y[0] == -1 && y[1] == 1 && isnan(y[2]) && y[3] == 0 && signbit(y[4]) && y[5] == 1 &&
                y[6] == -1);
    t.map[VECTOR_SILU](y, x, 8);
    assert_true(y[1] == INFINITY && isnan(y[2]) && y[3] == 0 && y[5] == 1000 && y[6] == 0);
    t.map[VECTOR_GELU](y, x, 8);
    assert_true(y[1] == INFINITY && isnan(y[2]) && y[3] == 0 && y[5] == 1000 && y[6] == 0);
}

static double relative(double a, double b)
{
    return fabs(a - b) / fmax(1e-30, fabs(b));
}

static void norms_agree_with_double(void **state)
{
    float x[2816], w[2816], b[2816], y[2816];
    struct vector_table t;

    vector_select(kernels_isa_detect(), &t);
    for (uint32_t n = 1; n <= 2816; n = n * 2 + n % 3) {
        double squares = 0, mean = 0, variance = 0;

        fill(x, n, USUAL, n);
        fill(w, n, USUAL, n + 1);
        fill(b, n, USUAL, n + 2);
        for (uint32_t i = 0; i < n; i++) {
            x[i] += 3;
            squares += (double)x[i] * (double)x[i] / n;
            mean += (double)x[i] / n;
        }
        for (uint32_t i = 0; i < n; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
        t.rms_norm(y, x, w, n, 1e-6f);
        for (uint32_t i = 0; i < n; i++)
            assert_true(relative((double)y[i], (double)x[i] / sqrt(squares + 1e-6) * (double)w[i]) < 1e-6);
        t.rms_norm(y, x, NULL, n, 0.5f);
        for (uint32_t i = 0; i < n; i++)
            assert_true(relative((double)y[i], (double)x[i] / sqrt(squares + 0.5)) < 1e-6);
        t.layer_norm(y, x, w, b, n, 1e-2f);
        for (uint32_t i = 0; i < n; i++)
            assert_true(fabs((double)y[i] - (((double)x[i] - mean) / sqrt(variance + 1e-2) * (double)w[i] +
                                             (double)b[i])) < 4e-5);
    }
}

static void softmax_agrees_with_double(void **state)
{
    float x[300], y[300];
    struct vector_table t;

    vector_select(kernels_isa_detect(), &t);
    for (uint32_t n = 1; n <= 300; n += 13) {
        double sum = 0;

        fill(x, n, LARGE, n);
        for (uint32_t i = 0; i < n; i++) {
            x[i] *= 0.05f;
            sum += exp((double)x[i]);
        }
        t.softmax(y, x, n);
        for (uint32_t i = 0; i < n; i++)
            assert_true(relative((double)y[i], exp((double)x[i]) / sum) < 2e-6);
        x[n / 2] = -INFINITY;
        t.softmax(y, x, n);
        assert_true(y[n / 2] == 0);
        for (uint32_t i = 0; i < n; i++)
            x[i] = -INFINITY;
        t.softmax(y, x, n);
        for (uint32_t i = 0; i < n; i++)
            assert_true(y[i] == 0);
    }
}

static void glus_agree_with_double(void **state)
{
    static const float gate[] = {-20, -1, -0.1f, 0, 0.3f, 2, 6.9f, 7.5f, 30},
                       up[] = {1, -9, 3, 2, 0.5f, 8, -1, 7.5f, -2};
    struct vector_table t;
    float y[9];

    vector_select(kernels_isa_detect(), &t);
    t.silu_mul(y, gate, up, 9);
    for (int i = 0; i < 9; i++)
        assert_true(fabs((double)y[i] - silu_of((double)gate[i]) * (double)up[i]) <=
                    2e-6 * fabs((double)y[i]) + 1e-12);
    t.gelu_mul(y, gate, up, 9);
    for (int i = 0; i < 9; i++)
        assert_true(fabs((double)y[i] - gelu_of((double)gate[i]) * (double)up[i]) <=
                    2e-6 * fabs((double)y[i]) + 1e-12);
    t.swiglu_clamped(y, gate, up, 9, 1.702f, 7.0f);
    for (int i = 0; i < 9; i++) {
        double g = fmin((double)gate[i], 7), u = fmax(-7, fmin((double)up[i], 7));

        assert_true(fabs((double)y[i] - (u + 1) * g / (1 + exp(-(double)1.702f * g))) <=
                    2e-6 * fabs((double)y[i]) + 1e-12);
    }
    t.softcap(y, gate, 5.0f, 9);
    for (int i = 0; i < 9; i++)
        assert_true(fabs((double)y[i] - 5 * tanh((double)gate[i] / 5)) <= 1e-6 * fabs((double)y[i]));
}

static void sums_of_vectors_are_plain(void **state)
{
    const float x[] = {1, 2, 3, 4, 5}, w[] = {2, 2, 0.5f, 0, -1};
    struct vector_table t;
    float y[] = {10, 20, 30, 40, 50};

    vector_select(kernels_isa_detect(), &t);
    t.add(y, x, 5);
    for (int i = 0; i < 5; i++)
        assert_true(y[i] == 11.0f * (float)(i + 1));
    t.add_scaled(y, x, -11, 5);
    for (int i = 0; i < 5; i++)
        assert_true(y[i] == 0);
    t.scale(y, x, 3, 5);
    for (int i = 0; i < 5; i++)
        assert_true(y[i] == 3.0f * (float)(i + 1));
    t.mul(y, x, w, 5);
    for (int i = 0; i < 5; i++)
        assert_true(y[i] == x[i] * w[i]);
}

static void angles_are_exact_at_any_position(void **state)
{
    static const uint32_t positions[] = {0, 1, 2, 31, 1000, 8191, 131071, 1000000, 10000000};
    double frequency[64];
    float table[128];

    for (int i = 0; i < 64; i++)
        frequency[i] = pow(10000, -i / 64.0);
    for (size_t p = 0; p < sizeof(positions) / sizeof(*positions); p++) {
        rope_table(frequency, 64, positions[p], 1, table);
        for (int i = 0; i < 64; i++) {
            assert_true(fabs((double)table[2 * i] - cos(positions[p] * frequency[i])) < 6.1e-8);
            assert_true(fabs((double)table[2 * i + 1] - sin(positions[p] * frequency[i])) < 6.1e-8);
        }
    }
    /* every quadrant, from both sides, and with a magnitude */
    for (int i = -40; i <= 40; i++) {
        double angle = i * 0.19634954084936207;

        rope_table(&angle, 1, 1, 2.0f, table);
        assert_true(fabs((double)table[0] - 2 * cos(angle)) < 1.3e-7);
        assert_true(fabs((double)table[1] - 2 * sin(angle)) < 1.3e-7);
    }
}

static void rope_rotates_pairs(void **state)
{
    double frequency[40];
    float x[3 * 100], y[3 * 100], table[80];
    struct vector_table t;

    vector_select(kernels_isa_detect(), &t);
    for (int i = 0; i < 40; i++)
        frequency[i] = pow(500, -i / 40.0);
    rope_table(frequency, 40, 77, 1, table);
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        fill(x, 300, USUAL, 5);
        memcpy(y, x, sizeof(x));
        t.rope(y, 3, 100, 80, table, interleaved);
        for (int head = 0; head < 3; head++) {
            const float *from = x + 100 * head, *to = y + 100 * head;

            for (int i = 0; i < 40; i++) {
                int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + 40;
                double c = cos(77 * frequency[i]), s = sin(77 * frequency[i]);

                assert_true(fabs((double)to[first] - ((double)from[first] * c - (double)from[second] * s)) <
                            3e-6);
                assert_true(fabs((double)to[second] - ((double)from[first] * s + (double)from[second] * c)) <
                            3e-6);
            }
            assert_memory_equal(to + 80, from + 80, 20 * sizeof(float));
        }
    }
}

/*
 * One position attended to gives its V exactly: so every half goes in and out unchanged, and every float is
 * rounded as float_to_half() does it.
 */
static void the_cache_rounds_exactly(void **state)
{
    enum { DIM = 64 };
    static const uint32_t masks[] = {0, ISA_AVX2, ISA_AVX2 | ISA_AVX512};
    static _Alignas(64) uint8_t page[2 * 32 * DIM * 2];
    struct kv_layout layout;
    void *pages[] = {page}, *scratch;
    float q[DIM] = {0}, v[DIM], out[DIM];

    assert_int_equal(kv_layout_init(&layout, TENSOR_F16, TENSOR_F16, 1, DIM, DIM), 0);
    scratch = aligned_alloc(64, attention_scratch_bytes(&layout));
    assert_non_null(scratch);
    for (size_t m = 0; m < sizeof(masks) / sizeof(*masks); m++) {
        struct attention_args args = {.layout = &layout,
                                      .pages = pages,
                                      .n_queries = 1,
                                      .q = q,
                                      .q_stride = DIM,
                                      .n_heads = 1,
                                      .scale = 1,
                                      .out = out,
                                      .out_stride = DIM,
                                      .scratch = scratch};
        struct kernels k;

        if ((masks[m] & kernels_isa_detect()) != masks[m])
            continue;
        kernels_select(masks[m], &k);
        for (uint32_t bits = 0; bits < 0x10000 * 3; bits += DIM) {
            for (uint32_t i = 0; i < DIM; i++) {
                uint32_t below = bits >= 0x20000   ? 0x1000u
                                 : bits >= 0x10000 ? 0xFFFu
                                                   : 0; /* ties, and just under */

                v[i] = float_from_bits(float_to_bits(half_to_float((uint16_t)(bits + i))) | below);
            }
            memset(page, 0xFF, sizeof(page));
            kv_write(&k, &layout, page, 0, q, v);
            attention(&k, &args);
            for (uint32_t i = 0; i < DIM; i++) {
                float expected = half_to_float(float_to_half(v[i]));

                assert_true(isnan(expected) ? isnan(out[i]) : out[i] == expected);
            }
        }
    }
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_always_full),   cmocka_unit_test(select_takes_what_the_mask_allows),
        cmocka_unit_test(rows_have_the_scalar_bits),  cmocka_unit_test(functions_are_accurate),
        cmocka_unit_test(functions_have_ends),        cmocka_unit_test(norms_agree_with_double),
        cmocka_unit_test(softmax_agrees_with_double), cmocka_unit_test(glus_agree_with_double),
        cmocka_unit_test(sums_of_vectors_are_plain),  cmocka_unit_test(angles_are_exact_at_any_position),
        cmocka_unit_test(rope_rotates_pairs),         cmocka_unit_test(the_cache_rounds_exactly),
    };

    return cmocka_run_group_tests_name("kernels/vector", tests, arena_setup, arena_teardown);
}
