/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grammar-mask VOCABULARY.gguf: what masks cost. Texts of the schemas below are written token by token, as a
 * model would, and every mask on the way is timed: those that had to be made (cold), those that were there
 * already (warm), and both. One JSON object a schema and one for all, times in microseconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/gguf/map.h"
#include "engine/gguf/read.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar/vocabulary.h"
#include "engine/token/tokenizer.h"

#define ROUNDS    20 /* of all texts */
#define TIMES_MAX 200000

struct times {
    double us[TIMES_MAX];
    size_t n;
};

/* The thread's own time, so that others on the machine do not count; asking for it costs 0.3 us. */
static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- typical schemas, and texts of them ---- */

struct subject {
    const char *name, *schema;
    const char *texts[4];
};

static const struct subject subjects[] = {
    {"person",
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\","
     "\"minimum\":0,"
     "\"maximum\":150},\"email\":{\"type\":\"string\",\"format\":\"email\"},\"tags\":{\"type\":\"array\","
     "\"items\":{"
     "\"type\":\"string\"}}},\"required\":[\"name\",\"age\"],\"additionalProperties\":false}",
     {"{\"name\": \"Ada Lovelace\", \"age\": 36, \"email\": \"ada@example.org\", \"tags\": [\"mathematics\", "
      "\"poetry\"]}",
      "{\n  \"name\": \"Jos\xC3\xA9 Ni\xC3\xB1o\",\n  \"age\": 7,\n  \"tags\": []\n}",
      "{\"name\":\"\xE6\x9D\x8E\xE5\x9B\x9B\",\"age\":102}",
      "{\"name\": \"A \\\"quoted\\\" name \\u00e9\", \"age\": 0, \"tags\": [\"x\"]}"}},
    {"weather call",
     "{\"type\":\"object\",\"properties\":{\"name\":{\"const\":\"get_weather\"},\"arguments\":{\"type\":"
     "\"object\","
     "\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":60},\"unit\":{\"enum\":[\"celsius\","
     "\"fahrenheit\"]},"
     "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":14}},\"required\":[\"city\"],"
     "\"additionalProperties\":"
     "false}},\"required\":[\"name\",\"arguments\"],\"additionalProperties\":false}",
     {"{\"name\": \"get_weather\", \"arguments\": {\"city\": \"San Francisco\", \"unit\": \"celsius\", "
      "\"days\": 3}}",
      "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Berlin, Germany\"}}",
      "{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Kyoto\",\"days\":14}}",
      "{\n    \"name\": \"get_weather\",\n    \"arguments\": {\n        \"city\": \"Reykjav\xC3\xADk\"\n    "
      "}\n}"}},
    {"invoice",
     "{\"$defs\":{\"money\":{\"type\":\"object\",\"properties\":{\"amount\":{\"type\":\"number\",\"minimum\":"
     "0},\"currency\":{"
     "\"type\":\"string\",\"pattern\":\"^[A-Z]{3}$\"}},\"required\":[\"amount\",\"currency\"],"
     "\"additionalProperties\":false},"
     "\"line\":{\"type\":\"object\",\"properties\":{\"description\":{\"type\":\"string\",\"minLength\":1,"
     "\"maxLength\":200},"
     "\"quantity\":{\"type\":\"integer\",\"exclusiveMinimum\":0},\"price\":{\"$ref\":\"#/$defs/"
     "money\"}},\"required\":["
     "\"description\",\"quantity\",\"price\"],\"additionalProperties\":false}},\"type\":\"object\","
     "\"properties\":{\"id\":{"
     "\"type\":\"string\",\"format\":\"uuid\"},\"date\":{\"type\":\"string\",\"format\":\"date\"},"
     "\"customer\":{\"type\":"
     "\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"address\":{\"type\":[\"string\",\"null\"]}}"
     ",\"required\":["
     "\"name\"],\"additionalProperties\":false},\"lines\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
     "line\"},"
     "\"minItems\":1},\"paid\":{\"type\":\"boolean\"},\"total\":{\"$ref\":\"#/$defs/"
     "money\"}},\"required\":[\"id\",\"date\","
     "\"customer\",\"lines\",\"total\"],\"additionalProperties\":false}",
     {"{\"id\": \"123e4567-e89b-12d3-a456-426614174000\", \"date\": \"2026-02-28\", \"customer\": {\"name\": "
      "\"ACME Ltd.\", "
      "\"address\": null}, \"lines\": [{\"description\": \"Paper, A4, 80 g\", \"quantity\": 20, \"price\": "
      "{\"amount\": 4.99, "
      "\"currency\": \"EUR\"}}, {\"description\": \"Ink\", \"quantity\": 1, \"price\": {\"amount\": 31, "
      "\"currency\": "
      "\"EUR\"}}], \"paid\": false, \"total\": {\"amount\": 130.8, \"currency\": \"EUR\"}}",
      "{\n  \"id\": \"00000000-0000-4000-8000-0123456789ab\",\n  \"date\": \"2024-02-29\",\n  \"customer\": "
      "{\n    \"name\": "
      "\"M\xC3\xBCller\",\n    \"address\": \"Hauptstra\xC3\x9F"
      "e 1\"\n  },\n  \"lines\": [\n    {\n      \"description\": "
      "\"Consulting\",\n      \"quantity\": 8,\n      \"price\": {\n        \"amount\": 95.0,\n        "
      "\"currency\": "
      "\"CHF\"\n      }\n    }\n  ],\n  \"total\": {\n    \"amount\": 760,\n    \"currency\": \"CHF\"\n  "
      "}\n}"}},
    {"tree",
     "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"label\":{\"type\":\"string\"},\"weight\":{"
     "\"type\":"
     "\"number\"},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
     "node\"}}},\"required\":[\"label\","
     "\"children\"],\"additionalProperties\":false}},\"$ref\":\"#/$defs/node\"}",
     {"{\"label\": \"root\", \"weight\": 1.5, \"children\": [{\"label\": \"left\", \"children\": []}, "
      "{\"label\": \"right\", "
      "\"weight\": -2e3, \"children\": [{\"label\": \"leaf one\", \"children\": []}, {\"label\": \"leaf "
      "two\", \"children\": "
      "[{\"label\": \"deep\", \"children\": []}]}]}]}",
      "{\"label\": \"one\", \"children\": []}"}},
    {"any JSON",
     "{}",
     {"{\"a\": [1, 2.5, null, true, {\"b\": \"text with spaces\"}], \"c\": {\"d\": {\"e\": []}}}",
      "[{\"id\": 1, \"name\": \"first\"}, {\"id\": 2, \"name\": \"second\"}]", "\"just a string\"",
      "-12.75"}},
    {"event",
     "{\"type\":\"object\",\"properties\":{\"kind\":{\"enum\":[\"created\",\"updated\",\"deleted\"]},\"at\":{"
     "\"type\":"
     "\"string\",\"format\":\"date-time\"},\"actor\":{\"type\":\"string\",\"pattern\":\"^[a-z][a-z0-9_-]{2,"
     "31}$\"},\"payload\":"
     "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"body\":{\"type\":"
     "\"string\"}},"
     "\"required\":[\"title\"],\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{"
     "\"title\":{\"type\":"
     "\"string\"},\"reason\":{\"enum\":[\"spam\",\"duplicate\",\"other\"]}},\"required\":[\"reason\"],"
     "\"additionalProperties\":false},{\"type\":\"null\"}]},\"labels\":{\"type\":\"object\","
     "\"additionalProperties\":{\"type\":"
     "\"string\"}}},\"required\":[\"kind\",\"at\",\"actor\",\"payload\"],\"additionalProperties\":false}",
     {"{\"kind\": \"created\", \"at\": \"2026-11-25T22:45:10Z\", \"actor\": \"alice_42\", \"payload\": "
      "{\"title\": \"Hello "
      "world\", \"body\": \"A longer body of text, with commas; and more.\\nSecond line.\"}, \"labels\": "
      "{\"priority\": \"high\", "
      "\"area\": \"engine\"}}",
      "{\"kind\": \"deleted\", \"at\": \"2025-01-01T00:00:00.123+02:00\", \"actor\": \"moderator\", "
      "\"payload\": {\"title\": "
      "\"Buy now\", \"reason\": \"spam\"}}",
      "{\"kind\": \"updated\", \"at\": \"2025-12-31T23:59:59Z\", \"actor\": \"bot-7\", \"payload\": null}"}},
};

/* ---- measuring ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void add_time(struct times *t, double us)
{
    if (t->n < TIMES_MAX)
        t->us[t->n++] = us;
}

static void print_times(const char *name, struct times *t)
{
    double sum = 0;

    qsort(t->us, t->n, sizeof(*t->us), by_size);
    for (size_t i = 0; i < t->n; i++)
        sum += t->us[i];
    printf("\"%s\": {\"n\": %zu", name, t->n);
    if (t->n > 0)
        printf(", \"mean\": %.2f, \"p50\": %.2f, \"p95\": %.2f, \"p99\": %.2f, \"max\": %.1f",
               sum / (double)t->n, t->us[t->n / 2], t->us[t->n * 95 / 100], t->us[t->n * 99 / 100],
               t->us[t->n - 1]);
    printf("}");
}

/* Masks that had to be made, those that were there, both; an answer's first; what came before that. */
struct tally {
    struct times made, kept, all, firsts, accepts, compiles;
};

/* Writes a text, with a mask before each token. Returns false when the grammar does not allow it. */
static bool write_text(struct matcher *m, const struct tokenizer *t, const char *text,
                       struct tally *tallies[2])
{
    int32_t *ids, only;
    size_t n;
    bool ok;

    if (tokenizer_encode(t, text, strlen(text), 0, &ids, &n) < 0)
        return false;
    ok = n > 0;
    for (size_t i = 0; i <= n && ok; i++) {
        uint64_t n_made = matcher_n_made(m);
        const uint64_t *mask;
        double begin = now_us(), end;

        ok = matcher_mask(m, &mask, &only) == 0;
        end = now_us();
        for (int k = 0; k < 2; k++) {
            add_time(&tallies[k]->all, end - begin);
            if (i == 0)
                add_time(&tallies[k]->firsts, end - begin);
            add_time(matcher_n_made(m) > n_made ? &tallies[k]->made : &tallies[k]->kept, end - begin);
        }
        if (!ok || i == n)
            break;
        begin = now_us();
        ok = (mask[ids[i] / 64] >> (ids[i] % 64) & 1) && matcher_accept(m, ids[i]) == 0;
        end = now_us();
        for (int k = 0; k < 2; k++)
            add_time(&tallies[k]->accepts, end - begin);
    }
    ok = ok && matcher_may_end(m);
    free(ids);
    return ok;
}

static struct matcher *start(const char *text, const struct grammar_vocabulary *v, struct tally *tallies[2])
{
    json_object *schema = json_tokener_parse(text);
    struct grammar *g = NULL;
    struct matcher *m = NULL;
    struct fault fault = {0};
    double begin = now_us();

    if (grammar_from_schema(schema, &g, &fault) < 0 || matcher_new(g, v, 0, &m) < 0) {
        fprintf(stderr, "%s\n", fault.reason);
        exit(1);
    }
    for (int k = 0; k < 2; k++)
        add_time(&tallies[k]->compiles, now_us() - begin);
    json_object_put(schema);
    return m;
}

static void print_tally(const char *name, struct tally *t)
{
    printf("{\"schema\": \"%s\", ", name);
    print_times("all", &t->all);
    printf(", "), print_times("made", &t->made);
    printf(", "), print_times("kept", &t->kept);
    printf(", "), print_times("first", &t->firsts);
    printf(", "), print_times("accept", &t->accepts);
    printf(", "), print_times("compile", &t->compiles);
    printf("}\n");
}

/* Each text is one answer, with a matcher of its own: nothing is there before its first mask. */
static void measure(const struct subject *s, const struct tokenizer *t, const struct grammar_vocabulary *v,
                    struct tally *all)
{
    struct tally *own = calloc(1, sizeof(*own)), *tallies[2] = {own, all};

    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 4 && s->texts[i]; i++) {
            struct matcher *m = start(s->schema, v, tallies);

            if (!write_text(m, t, s->texts[i], tallies)) {
                fprintf(stderr, "%s: text %d is not allowed\n", s->name, i);
                exit(1);
            }
            matcher_free(m);
        }
    print_tally(s->name, own);
    free(own);
}

/* ---- the vocabulary ---- */

static size_t piece(const void *userdata, int32_t token, const char **ret)
{
    return tokenizer_piece(userdata, token, false, ret);
}

static bool is_end(const void *userdata, int32_t token)
{
    return tokenizer_is_end(userdata, token);
}

static struct tokenizer *open_tokenizer(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct gguf_map *map = NULL;
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct fault fault = {0};
    size_t n;

    if (fd < 0 || gguf_map(&fd, 1, 0, &map, &fault) < 0 ||
        gguf_read(gguf_map_parts(map, &n), 1, &g, &fault) < 0 || tokenizer_new(g, &t, &fault) < 0) {
        fprintf(stderr, "%s: %s\n", path, fd < 0 ? strerror(errno) : fault.reason);
        exit(1);
    }
    gguf_free(g);
    gguf_unmap(map);
    close(fd);
    return t;
}

int main(int argc, char **argv)
{
    struct tally *all = calloc(1, sizeof(*all));
    struct grammar_vocabulary *v = NULL;
    struct tokenizer *t;
    double begin;

    if (argc != 2) {
        fprintf(stderr, "usage: grammar-mask VOCABULARY.gguf\n");
        return 2;
    }
    t = open_tokenizer(argv[1]);
    begin = now_us();
    if (grammar_vocabulary_new(tokenizer_n_vocab(t), tokenizer_n_vocab(t), piece, is_end, t, &v) < 0)
        return 1;
    printf("{\"tokens\": %u, \"vocabulary_ms\": %.1f}\n", tokenizer_n_vocab(t), (now_us() - begin) / 1e3);
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
        measure(&subjects[i], t, v, all);
    print_tally("all of them", all);
    grammar_vocabulary_free(v);
    tokenizer_free(t);
    free(all);
    return 0;
}
