/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every model of the reference folder, as logits/NAME.json describes it: one case for each of its runs and
 * one for its long prompt. A case feeds the prompt whole, token by token and in chunks of an odd size, with
 * different numbers of threads, which all have to give the same bits, compares with the recorded numbers, and
 * continues greedily.
 *
 *   what                      is compared with                          and may differ by
 *   F32 weights, F32 cache    float64 where recorded, else kvf32        1e-3 in any value
 *   F32 weights, F16 cache    the recorded run                          0.05 in any value
 *   F32 weights, other cache  the truth above, by rms                   1.25 times what the recorded run does
 *   quantised weights         the dequantised run (where none is        1.25 times what the recorded run does
 *                             recorded: tests/plain), by rms
 *
 * In a mixture of experts whose weights are quantised two right engines may choose different experts for a
 * token, whose logits then have nothing in common. That is excused where the router's own margin says so: in
 * exact arithmetic (tests/plain) the last chosen expert is above the first other one by at most NEAR_TIE, in
 * some layer. Any other position, those that read the keys and values of such a one included, may be off by
 * FAR_FACTOR times the median of the recorded run's positions, and all of them together by the rms above.
 *
 * A model or cache that the engine says it does not know is skipped with its words; any other refusal is a
 * failure.
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/gguf/read.h"
#include "engine/gguf/types.h"
#include "tests/plain/plain.h"
#include "tests/reference/reference.h"
#include "tests/unit/engine/feed.h"

#define TOLERANCE_F32 1e-3
#define TOLERANCE_F16 0.05
#define RMS_FACTOR    1.25
/* 8-bit activations move the margins of the folder's models by 0.03 (rms), by 0.07 at most. */
#define NEAR_TIE   0.1
#define FAR_FACTOR 3
#define TOLERANCE_STORY \
    0.01            /* of stories260k with quantised weights, in greedy choices: it knows what comes next */
#define CHUNK_ODD 7 /* divides neither 24 nor a page */

struct model {
    char *name, *path;
    struct json_object *json;
    struct json_object *dequantised; /* NULL: recorded for no float model, and for no stories260k */
    bool
        story; /* trained: its greedy text is compared to the end, or with quantised weights to a coin toss */
    bool quantised; /* weights are not F32 */
    uint32_t n_vocab, n;
    int32_t *prompt; /* [n] */
    float *truth;    /* [n, n_vocab] what exact arithmetic gives; NULL until it is needed */
};

/* What is wrong with the case that runs; empty: nothing. */
struct verdict {
    char text[1024];
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void complain(struct verdict *v, const char *format, ...)
{
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(v->text + v->n, sizeof(v->text) - v->n, format, ap);
    va_end(ap);
    v->n += n < 0 || (size_t)n >= sizeof(v->text) - v->n ? 0 : (size_t)n;
}

static double max_distance(const float *a, const float *b, size_t n)
{
    double largest = 0;

    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        /* Written so that a NaN counts as far away. */
        if (!(d <= largest))
            largest = isnan(d) ? INFINITY : d;
    }
    return largest;
}

static double rms_distance(const float *a, const float *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (double)n);
}

/* The same over those of @n positions that are not @excused. */
static double rms_besides(const float *a, const float *b, uint32_t n, size_t n_vocab, const bool *excused)
{
    double sum = 0;
    uint32_t n_counted = 0;

    for (uint32_t i = 0; i < n; i++) {
        double rms = rms_distance(a + i * n_vocab, b + i * n_vocab, n_vocab);

        if (excused[i])
            continue;
        sum += rms * rms;
        n_counted++;
    }
    return sqrt(sum / n_counted);
}

/* Whether the model has experts to choose from. */
static bool is_mixture(const struct gguf *g)
{
    struct gguf_string architecture;
    char key[128];
    uint32_t n = 0;

    if (gguf_get_string(g, "general.architecture", &architecture, NULL) < 0)
        return false;
    snprintf(key, sizeof(key), "%.*s.expert_count", (int)architecture.n_bytes, architecture.data);
    return gguf_get_u32(g, key, &n, NULL) == 0 && n > 0;
}

static int open_model(const struct model *m, enum tensor_type k, enum tensor_type v, uint32_t batch,
                      struct engine **ret, struct fault *reterr)
{
    struct engine_config config = {
        .sequences_max = 1,
        .k_type = k,
        .v_type = v,
        .batch_tokens_max = batch,
        .outputs_max = batch,
        .n_threads = 1,
        .isa_mask = UINT32_MAX,
    };

    *reterr = (struct fault){.kind = FAULT_NONE};
    return feed_open_path(m->path, &config, ret, reterr);
}

/* The logits of the prompt, in three ways that have to agree. */
static void run_prompt(struct engine *e, const int32_t *prompt, uint32_t n, size_t n_vocab, float *ret,
                       struct verdict *v)
{
    _cleanup_free_ float *other = calloc(n * n_vocab, sizeof(*other));

    if (!other)
        abort();
    feed_new(e, prompt, n, n, ret);
    feed_new(e, prompt, n, 1, other);
    if (memcmp(ret, other, n * n_vocab * sizeof(*ret)) != 0)
        complain(v, "token by token is not the same as whole, by %g\n",
                 max_distance(ret, other, n * n_vocab));
    if (engine_threads_set(e, 3) < 0)
        complain(v, "no three threads\n");
    feed_new(e, prompt, n, CHUNK_ODD, other);
    if (memcmp(ret, other, n * n_vocab * sizeof(*ret)) != 0)
        complain(v, "in chunks of %d with 3 threads is not the same as whole, by %g\n", CHUNK_ODD,
                 max_distance(ret, other, n * n_vocab));
}

/*
 * Continues greedily and compares with what is recorded in @o, up to the first choice that was closer than
 * twice
 * @tolerance: behind that, another answer is as good.
 */
static void check_greedy(struct engine *e, struct json_object *o, const int32_t *prompt, uint32_t n,
                         double tolerance, struct verdict *v)
{
    uint32_t n_expected, n_clear = 0;
    _cleanup_free_ int32_t *expected = reference_ids(o, "greedy_ids", &n_expected), *ids = NULL;

    while (n_clear < n_expected && reference_number(o, "greedy_margin", (int)n_clear) >= 2 * tolerance)
        n_clear++;
    if (n_clear == 0)
        return;
    ids = calloc(n_clear, sizeof(*ids));
    if (!ids)
        abort();
    feed_greedy(e, prompt, n, n_clear, ids);
    for (uint32_t i = 0; i < n_clear; i++) {
        if (ids[i] == expected[i])
            continue;
        complain(v, "greedy token %u of %u is %d, expected %d (margin %g)\n", i, n_clear, ids[i], expected[i],
                 reference_number(o, "greedy_margin", (int)i));
        return;
    }
}

static const float *model_truth(struct model *m, struct engine *e)
{
    static const struct plain_options exact = {};
    const char *file = reference_text(m->json, "float64_reference_logits");
    size_t n = (size_t)m->n * m->n_vocab;
    struct json_object *runs = NULL;
    _cleanup_free_ double *values = NULL;

    if (m->truth)
        return m->truth;
    json_object_object_get_ex(m->json, "runs", &runs);
    if (m->dequantised)
        file = reference_text(m->dequantised, "logits_batch");
    else if (!file && !m->quantised)
        file = reference_text(json_object_array_get_idx(runs, 0), "logits_batch");
    if (file)
        return m->truth = reference_floats(file, n);
    values = calloc(n, sizeof(*values));
    m->truth = calloc(n, sizeof(*m->truth));
    if (!values || !m->truth)
        abort();
    plain_logits(engine_gguf(e), &exact, m->prompt, m->n, values);
    for (size_t i = 0; i < n; i++)
        m->truth[i] = (float)values[i];
    return m->truth;
}

/*
 * Which positions a near tie excuses: those of @values that are far off, where the router was nearly tied;
 * far ones where it was not are what @v complains about. @usual: the rms of positions that nothing is wrong
 * with.
 */
static void excuse_ties(const struct model *m, const float *values, const float *truth, const double *margins,
                        double usual, const char *whose, bool *excused, struct verdict *v)
{
    for (uint32_t i = 0; i < m->n; i++) {
        double rms =
            rms_distance(values + (size_t)i * m->n_vocab, truth + (size_t)i * m->n_vocab, m->n_vocab);

        if (rms <= FAR_FACTOR * usual)
            continue;
        if (margins[i] <= NEAR_TIE) {
            printf("# %s: position %u is %.2f off in %s: experts %.3f apart\n", m->name, i, rms, whose,
                   margins[i]);
            excused[i] = true;
        } else {
            complain(
                v, "position %u is %g off in %s, expected at most %g: its experts are not nearly tied (%g)\n",
                i, rms, whose, FAR_FACTOR * usual, margins[i]);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The median of the positions' rms: of which a few may be far off. */
static double usual_rms(const struct model *m, const float *values, const float *truth)
{
    _cleanup_free_ double *rms = calloc(m->n, sizeof(*rms));

    if (!rms)
        abort();
    for (uint32_t i = 0; i < m->n; i++)
        rms[i] = rms_distance(values + (size_t)i * m->n_vocab, truth + (size_t)i * m->n_vocab, m->n_vocab);
    qsort(rms, m->n, sizeof(*rms), by_value);
    return rms[m->n / 2];
}

/* Distances of a mixture of experts: *ret_ours, and what it may be. */
static void compare_mixture(struct model *m, struct engine *e, const float *ours, const float *recorded,
                            const float *truth, double *ret_ours, double *ret_allowed, struct verdict *v)
{
    _cleanup_free_ double *margins = calloc(m->n, sizeof(*margins)),
                          *logits = calloc((size_t)m->n * m->n_vocab, sizeof(*logits));
    _cleanup_free_ bool *excused = calloc(m->n, sizeof(*excused));
    const struct plain_options exact = {.router_margins = margins};
    double usual = usual_rms(m, recorded, truth);

    if (!margins || !logits || !excused)
        abort();
    plain_logits(engine_gguf(e), &exact, m->prompt, m->n, logits);
    excuse_ties(m, recorded, truth, margins, usual, "the recorded run", excused, v);
    excuse_ties(m, ours, truth, margins, usual, "ours", excused, v);
    *ret_ours = rms_besides(ours, truth, m->n, m->n_vocab, excused);
    *ret_allowed = RMS_FACTOR * rms_besides(recorded, truth, m->n, m->n_vocab, excused);
}

/* Compares with the recorded @run; returns how far apart two right engines' logits may lie. */
static double check_logits(struct model *m, struct json_object *run, struct engine *e, enum tensor_type k,
                           const float *ours, struct verdict *v)
{
    size_t n = (size_t)m->n * m->n_vocab;
    _cleanup_free_ float *recorded = reference_floats(reference_text(run, "logits_batch"), n);
    const float *truth = model_truth(m, e);
    double distance, allowed;

    if (!m->quantised && k == TENSOR_F32) {
        distance = max_distance(ours, truth, n);
        if (!(distance <= TOLERANCE_F32))
            complain(v, "max |difference| is %g, expected at most %g\n", distance, TOLERANCE_F32);
        return TOLERANCE_F32;
    }
    if (!m->quantised && k == TENSOR_F16) {
        distance = max_distance(ours, recorded, n);
        if (!(distance <= TOLERANCE_F16))
            complain(v, "max |difference| is %g, expected at most %g\n", distance, TOLERANCE_F16);
        return TOLERANCE_F16;
    }
    if (m->quantised && is_mixture(engine_gguf(e))) {
        compare_mixture(m, e, ours, recorded, truth, &distance, &allowed, v);
    } else {
        distance = rms_distance(ours, truth, n);
        allowed = RMS_FACTOR * rms_distance(recorded, truth, n);
    }
    if (!(distance <= allowed))
        complain(v, "rms from the truth is %g, expected at most %g (%g times the recorded run's)\n", distance,
                 allowed, RMS_FACTOR);
    return max_distance(recorded, truth, n) + max_distance(ours, truth, n);
}

/* "not supported", "can't multiply with": the engine knows that it does not know this. */
static bool is_unknown(int r, const struct fault *f)
{
    return r == -EINVAL && (strstr(f->reason, "not supported") || strstr(f->reason, "can't multiply with"));
}

static void report_refusal(struct tap *tap, const char *label, int r, const struct fault *f)
{
    char text[512];

    if (f->kind == FAULT_NONE)
        snprintf(text, sizeof(text), "%s", strerror(-r));
    else
        fault_describe(f, text, sizeof(text));
    if (is_unknown(r, f))
        tap_skip(tap, f->reason, "%s", label);
    else
        tap_not_ok(tap, text, "%s: it does not load", label);
}

static void case_run(struct tap *tap, struct model *m, struct json_object *run)
{
    const char *k_name = reference_text(run, "kv_type_k"), *v_name = reference_text(run, "kv_type_v");
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ float *ours = NULL;
    enum tensor_type k, v;
    struct verdict verdict = {};
    struct fault fault;
    char label[128];
    double tolerance;
    int r;

    snprintf(label, sizeof(label), "%s, %s keys, %s values%s%s", m->name, k_name, v_name,
             reference_true(run, "flash_attn") ? ", beside flash attention" : "",
             reference_true(run, "kv_hadamard_rotation") ? " with rotation" : "");
    if (tensor_type_from_name(k_name, &k) < 0 || tensor_type_from_name(v_name, &v) < 0)
        abort();
    r = open_model(m, k, v, m->n, &e, &fault);
    if (r < 0) {
        report_refusal(tap, label, r, &fault);
        return;
    }
    ours = calloc((size_t)m->n * m->n_vocab, sizeof(*ours));
    if (!ours)
        abort();
    run_prompt(e, m->prompt, m->n, m->n_vocab, ours, &verdict);
    tolerance = check_logits(m, run, e, k, ours, &verdict);
    if (m->story)
        tolerance = m->quantised ? TOLERANCE_STORY : 0;
    check_greedy(e, run, m->prompt, m->n, tolerance, &verdict);
    if (verdict.n)
        tap_not_ok(tap, verdict.text, "%s", label);
    else
        tap_ok(tap, "%s", label);
}

/* 200 tokens: many pages, windows and scaled positions. The last 8 positions' logits are recorded. */
static void case_long(struct tap *tap, struct model *m, struct json_object *o)
{
    uint32_t n;
    _cleanup_free_ int32_t *prompt = reference_ids(o, "prompt_ids", &n);
    const char *file = reference_text(o, "float64_reference_logits_last_8");
    size_t n_last = (size_t)8 * m->n_vocab;
    _cleanup_free_ float *expected =
        reference_floats(file ? file : reference_text(o, "logits_last_8_positions"), n_last);
    _cleanup_free_ float *ours = calloc((size_t)n * m->n_vocab, sizeof(*ours));
    _cleanup_engine_ struct engine *e = NULL;
    struct verdict verdict = {};
    struct fault fault;
    char label[128];
    double distance;
    int r;

    snprintf(label, sizeof(label), "%s, %u tokens", m->name, n);
    r = open_model(m, TENSOR_F32, TENSOR_F32, n, &e, &fault);
    if (r < 0) {
        report_refusal(tap, label, r, &fault);
        return;
    }
    if (!ours)
        abort();
    run_prompt(e, prompt, n, m->n_vocab, ours, &verdict);
    distance = max_distance(ours + (size_t)(n - 8) * m->n_vocab, expected, n_last);
    if (!(distance <= TOLERANCE_F32))
        complain(&verdict, "max |difference| is %g, expected at most %g\n", distance, TOLERANCE_F32);
    check_greedy(e, o, prompt, n, TOLERANCE_F32, &verdict);
    if (verdict.n)
        tap_not_ok(tap, verdict.text, "%s", label);
    else
        tap_ok(tap, "%s", label);
}

static void model_done(struct model *m)
{
    free(m->name);
    free(m->path);
    free(m->prompt);
    free(m->truth);
    json_object_put(m->json);
}

static void check_model(struct tap *tap, const char *file, const char *made)
{
    _cleanup_(model_done) struct model m = {.name = strndup(file, strlen(file) - strlen(".json"))};
    struct json_object *runs = NULL, *o;
    const char *model;

    m.json = reference_json("logits", file);
    model = reference_text(m.json, "model");
    if (!m.json || !model || !json_object_object_get_ex(m.json, "runs", &runs))
        abort();
    if (reference_true(m.json, "stored"))
        m.path = reference_path("models", model);
    else if (asprintf(&m.path, "%s/%s", made, model) < 0)
        abort();
    json_object_object_get_ex(m.json, "dequantised", &m.dequantised);
    m.story = strncmp(m.name, "stories", 7) == 0;
    m.quantised = m.dequantised || (m.story && !strstr(m.name, "f32"));
    m.n_vocab = (uint32_t)reference_number(m.json, "n_vocab", -1);
    m.prompt = reference_ids(m.json, "prompt_ids", &m.n);

    for (size_t i = 0; i < json_object_array_length(runs); i++) {
        if (access(m.path, F_OK) != 0)
            tap_skip(tap, "not stored, and not made (tools/make_recipes.py needs numpy)", "%s, run %zu",
                     m.name, i);
        else
            case_run(tap, &m, json_object_array_get_idx(runs, i));
    }
    if (json_object_object_get_ex(m.json, "long", &o) && access(m.path, F_OK) == 0)
        case_long(tap, &m, o);
}

static int is_json(const struct dirent *d)
{
    size_t n = strlen(d->d_name);

    return n > 5 && strcmp(d->d_name + n - 5, ".json") == 0;
}

int main(int argc, char **argv)
{
    _cleanup_free_ char *folder = reference_path("logits", "");
    struct dirent **files;
    struct tap tap = {};
    int n;

    if (!reference_present()) {
        tap_skip(&tap, "no reference folder", "logits of the reference models");
        return tap_end(&tap);
    }
    n = scandir(folder, &files, is_json, alphasort);
    if (n <= 0)
        abort();
    for (int i = 0; i < n; i++) {
        check_model(&tap, files[i]->d_name, argc > 1 ? argv[1] : ".");
        free(files[i]);
    }
    free(files);
    return tap_end(&tap);
}
