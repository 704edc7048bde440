/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bounded JSON: a strict scan over the bytes (RFC 8259), then json-c's parser over text that is known to be good.
 *
 * The scan is iterative: one frame an open container on a heap stack that depth_max bounds, so no input can exhaust
 * the C stack. Keys of open objects are remembered (unescaped) in one arena to find duplicates; each object's keys are
 * compared by sorting their hashes when it closes, so a flat object of n keys costs O(n log n).
 *
 * Comments are blanked in a private copy before json-c sees the text: positions stay those of the original.
 */
#include "base/json.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum expectation { WANT_VALUE, WANT_VALUE_OR_END, WANT_KEY, WANT_KEY_OR_END, WANT_COMMA_OR_END, WANT_NOTHING };

struct frame {
    bool is_object;
    uint64_t n_children;
    size_t path_length; /* of the path up to this container */
    size_t first_key;   /* index of this object's first entry in scan.keys */
};

struct key {
    uint64_t hash;
    size_t text, n_bytes; /* in scan.arena */
    size_t offset;        /* in the JSON text, for messages */
};

struct place {
    uint64_t hash; /* of the path */
    uint32_t line, column;
    size_t path, n_bytes; /* in index.arena */
};

struct buffer {
    char *data;
    size_t n_bytes, allocated;
};

struct json_index {
    struct place *places;
    size_t n_places, allocated;
    struct buffer arena;
};

struct scan {
    const char *text;
    size_t size, at;
    const struct json_limits *limits;
    struct frame *frames;
    uint32_t depth;
    struct key *keys;
    size_t n_keys, keys_allocated;
    struct buffer arena; /* unescaped keys of open objects */
    struct buffer path;  /* "/models/a" of the value that is being read */
    size_t n_values;
    char *blanked; /* the copy without comments, or NULL */
    struct json_index *index;
    size_t counted; /* bytes whose lines are counted in line and column: places come in rising order */
    uint32_t line, column;
    struct json_error *error;
};

/* Never empty-handed afterwards: pointer arithmetic on NULL is undefined even for a length of 0. */
static int buffer_init(struct buffer *b)
{
    b->allocated = 64;
    b->data = malloc(b->allocated);
    return b->data ? 0 : -ENOMEM;
}

static void buffer_done(struct buffer *b)
{
    free(b->data);
}

static int buffer_append(struct buffer *b, const char *data, size_t n)
{
    if (n > b->allocated - b->n_bytes) {
        size_t want = (b->n_bytes + n) * 2 + 64;
        char *grown = realloc(b->data, want);

        if (!grown)
            return -ENOMEM;
        b->data = grown;
        b->allocated = want;
    }
    memcpy(b->data + b->n_bytes, data, n);
    b->n_bytes += n;
    return 0;
}

static uint64_t hash_bytes(const char *data, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a: equal hashes are compared byte for byte, so quality is not safety */

    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)data[i]) * 0x100000001b3u;
    return h;
}

static void count_lines(const char *text, size_t n, uint32_t *line, uint32_t *column)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n') {
            ++*line;
            *column = 1;
        } else {
            ++*column;
        }
    }
}

static int refuse(struct scan *s, size_t offset, int error, const char *reason)
{
    if (s->error) {
        *s->error = (struct json_error){.offset = offset, .reason = reason, .line = 1, .column = 1};
        count_lines(s->text, offset, &s->error->line, &s->error->column);
    }
    return error;
}

static int refuse_key(struct scan *s, size_t offset, const char *reason, const char *key, size_t n)
{
    int r = refuse(s, offset, -EINVAL, reason);

    if (s->error) {
        if (n >= sizeof(s->error->key))
            n = utf8_cut(key, sizeof(s->error->key) - 1);
        memcpy(s->error->key, key, n);
        s->error->key[n] = 0;
    }
    return r;
}

/* Moves over one comment at s->at. Returns 1 if there was one, 0 if not. */
static int skip_comment(struct scan *s)
{
    size_t start = s->at, end;

    if (s->size - s->at < 2 || s->text[s->at] != '/')
        return 0;
    if (s->text[s->at + 1] == '/') {
        const char *newline = memchr(s->text + s->at, '\n', s->size - s->at);

        end = newline ? (size_t)(newline - s->text) : s->size;
    } else if (s->text[s->at + 1] == '*') {
        const char *close = memmem(s->text + s->at + 2, s->size - s->at - 2, "*/", 2);

        if (!close)
            return refuse(s, start, -EINVAL, "the comment that begins here does not end");
        end = (size_t)(close - s->text) + 2;
    } else {
        return 0;
    }
    if (!s->limits->comments)
        return refuse(s, start, -EINVAL, "comments are not allowed here");
    if (!s->blanked) {
        s->blanked = malloc(s->size);
        if (!s->blanked)
            return -ENOMEM;
        memcpy(s->blanked, s->text, s->size);
    }
    if (!utf8_is_valid(s->text + start, end - start, NULL))
        return refuse(s, start, -EINVAL, "this comment is not UTF-8");
    for (size_t i = start; i < end; i++) {
        if (s->text[i] != '\n')
            s->blanked[i] = ' ';
    }
    s->at = end;
    return 1;
}

static int skip_space(struct scan *s)
{
    for (;;) {
        int r;

        while (s->at < s->size && strchr(" \t\r\n", s->text[s->at]) && s->text[s->at])
            s->at++;
        r = skip_comment(s);
        if (r <= 0)
            return r;
    }
}

static int hex4(const char *p, uint32_t *ret)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++) {
        char c = p[i];

        if (!isxdigit((unsigned char)c))
            return -EINVAL;
        v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    *ret = v;
    return 0;
}

/* s->at is behind a backslash. Appends what the escape stands for to @to (may be NULL). */
static int scan_escape(struct scan *s, struct buffer *to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    size_t start = s->at - 1;
    const char *plain;
    uint32_t code, low;
    char bytes[UTF8_BYTES_MAX];
    size_t n;

    if (s->at >= s->size)
        return refuse(s, start, -EINVAL, "the text ends within an escape");
    plain = s->text[s->at] ? strchr(from, s->text[s->at]) : NULL;
    if (plain) {
        s->at++;
        return to ? buffer_append(to, &into[plain - from], 1) : 0;
    }
    if (s->text[s->at] != 'u' || s->size - s->at < 5 || hex4(s->text + s->at + 1, &code) < 0)
        return refuse(s, start, -EINVAL, "this is no JSON escape");
    s->at += 5;
    if (code >= 0xDC00 && code < 0xE000)
        return refuse(s, start, -EINVAL, "a low surrogate without a high one before it");
    if (code >= 0xD800 && code < 0xDC00) {
        if (s->size - s->at < 6 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u' ||
            hex4(s->text + s->at + 2, &low) < 0 || low < 0xDC00 || low >= 0xE000)
            return refuse(s, start, -EINVAL, "a high surrogate without a low one behind it");
        s->at += 6;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    /* A key with a NUL would look like a shorter one to every C string function behind us. */
    if (code == 0 && to)
        return refuse(s, start, -EINVAL, "a key may not hold the character U+0000");
    n = utf8_encode(code, bytes);
    return to ? buffer_append(to, bytes, n) : 0;
}

/* s->at is on the opening quote. */
static int scan_string(struct scan *s, struct buffer *to)
{
    size_t start = s->at++;

    while (s->at < s->size) {
        unsigned char c = (unsigned char)s->text[s->at];
        uint32_t code;
        int n;

        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c == '\\') {
            s->at++;
            n = scan_escape(s, to);
            if (n < 0)
                return n;
            continue;
        }
        if (c < 0x20)
            return refuse(s, s->at, -EINVAL, "control characters in strings are written as escapes");
        n = utf8_decode(s->text + s->at, s->size - s->at, &code);
        if (n <= 0)
            return refuse(s, s->at, -EINVAL, "these bytes are not UTF-8");
        if (to && buffer_append(to, s->text + s->at, (size_t)n) < 0)
            return -ENOMEM;
        s->at += (size_t)n;
    }
    return refuse(s, start, -EINVAL, "the string that begins here does not end");
}

static bool digits(struct scan *s)
{
    size_t start = s->at;

    while (s->at < s->size && s->text[s->at] >= '0' && s->text[s->at] <= '9')
        s->at++;
    return s->at > start;
}

static int scan_number(struct scan *s)
{
    char copy[512];
    size_t start = s->at, n;
    bool integer = true;
    char *end;

    if (s->text[s->at] == '-')
        s->at++;
    if (s->at < s->size && s->text[s->at] == '0')
        s->at++;
    else if (!digits(s))
        return refuse(s, start, -EINVAL, "expected a value");
    if (s->at < s->size && s->text[s->at] == '.') {
        integer = false;
        s->at++;
        if (!digits(s))
            return refuse(s, start, -EINVAL, "digits must follow the decimal point");
    }
    if (s->at < s->size && (s->text[s->at] == 'e' || s->text[s->at] == 'E')) {
        integer = false;
        s->at++;
        if (s->at < s->size && (s->text[s->at] == '+' || s->text[s->at] == '-'))
            s->at++;
        if (!digits(s))
            return refuse(s, start, -EINVAL, "digits must follow the exponent's sign");
    }
    n = s->at - start;
    if (n >= sizeof(copy))
        return refuse(s, start, -EINVAL, "this number has too many digits");
    memcpy(copy, s->text + start, n);
    copy[n] = 0;
    errno = 0;
    if (integer && copy[0] == '-')
        (void)strtoll(copy, &end, 10);
    else if (integer)
        (void)strtoull(copy, &end, 10);
    else if (!isfinite(strtod(copy, &end)))
        errno = ERANGE;
    else
        errno = 0; /* an underflow to zero or a subnormal is no fault */
    if (errno == ERANGE)
        return refuse(s, start, -EINVAL, "this number is out of range");
    return 0;
}

static int scan_word(struct scan *s)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        size_t n = strlen(words[i]);

        if (s->size - s->at >= n && memcmp(s->text + s->at, words[i], n) == 0) {
            s->at += n;
            return 0;
        }
    }
    return refuse(s, s->at, -EINVAL, "expected a value");
}

static int remember_place(struct scan *s, size_t offset)
{
    struct json_index *index = s->index;
    struct place *place;

    if (!index)
        return 0;
    if (index->n_places == index->allocated) {
        size_t want = index->allocated * 2 + 64;
        struct place *grown = reallocarray(index->places, want, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        index->places = grown;
        index->allocated = want;
    }
    place = &index->places[index->n_places];
    *place = (struct place){.hash = hash_bytes(s->path.data, s->path.n_bytes),
                            .path = index->arena.n_bytes,
                            .n_bytes = s->path.n_bytes};
    count_lines(s->text + s->counted, offset - s->counted, &s->line, &s->column);
    s->counted = offset;
    place->line = s->line;
    place->column = s->column;
    if (buffer_append(&index->arena, s->path.data, s->path.n_bytes) < 0)
        return -ENOMEM;
    index->n_places++;
    return 0;
}

static int path_push(struct scan *s, const char *text, size_t n)
{
    if (!s->index)
        return 0;
    if (buffer_append(&s->path, "/", 1) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const char *piece = text[i] == '~' ? "~0" : text[i] == '/' ? "~1" : NULL;

        if (buffer_append(&s->path, piece ? piece : text + i, piece ? 2 : 1) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int scan_key(struct scan *s)
{
    struct key key = {.text = s->arena.n_bytes, .offset = s->at};
    int r = scan_string(s, &s->arena);

    if (r < 0)
        return r;
    if (++s->n_values > s->limits->values_max)
        return refuse(s, key.offset, -E2BIG, "too many values");
    key.n_bytes = s->arena.n_bytes - key.text;
    key.hash = hash_bytes(s->arena.data + key.text, key.n_bytes);
    if (s->n_keys == s->keys_allocated) {
        size_t want = s->keys_allocated * 2 + 64;
        struct key *grown = reallocarray(s->keys, want, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        s->keys = grown;
        s->keys_allocated = want;
    }
    s->keys[s->n_keys++] = key;
    r = path_push(s, s->arena.data + key.text, key.n_bytes);
    if (r < 0)
        return r;
    r = skip_space(s);
    if (r < 0)
        return r;
    if (s->at >= s->size || s->text[s->at] != ':')
        return refuse(s, s->at, -EINVAL, "expected ':' behind the key");
    s->at++;
    return 0;
}

static int compare_keys(const void *a, const void *b, void *arena)
{
    const struct key *x = a, *y = b;
    int r;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    r = memcmp((const char *)arena + x->text, (const char *)arena + y->text, x->n_bytes);
    if (r != 0)
        return r;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int close_object(struct scan *s, const struct frame *frame)
{
    size_t n = s->n_keys - frame->first_key;
    struct key *keys;

    if (n == 0)
        return 0;
    keys = s->keys + frame->first_key;
    s->n_keys = frame->first_key;
    s->arena.n_bytes = keys[0].text; /* the first key in the text has the lowest place; sorting comes after */
    qsort_r(keys, n, sizeof(*keys), compare_keys, s->arena.data);
    for (size_t i = 1; i < n; i++) {
        const char *text = s->arena.data + keys[i].text;

        if (keys[i].hash == keys[i - 1].hash && keys[i].n_bytes == keys[i - 1].n_bytes &&
            memcmp(s->arena.data + keys[i - 1].text, text, keys[i].n_bytes) == 0)
            return refuse_key(s, keys[i].offset, "this key stands in its object already", text, keys[i].n_bytes);
    }
    return 0;
}

static enum expectation after_value(const struct scan *s)
{
    return s->depth > 0 ? WANT_COMMA_OR_END : WANT_NOTHING;
}

static int open_container(struct scan *s, enum expectation *want)
{
    bool is_object = s->text[s->at] == '{';

    if (s->depth == s->limits->depth_max)
        return refuse(s, s->at, -E2BIG, "nested too deeply");
    s->frames[s->depth++] =
        (struct frame){.is_object = is_object, .path_length = s->path.n_bytes, .first_key = s->n_keys};
    s->at++;
    *want = is_object ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
    return 0;
}

static int scan_value(struct scan *s, enum expectation *want)
{
    struct frame *frame = s->depth > 0 ? &s->frames[s->depth - 1] : NULL;
    char c = s->text[s->at];
    int r;

    if (frame && !frame->is_object) {
        char number[24];
        int n = snprintf(number, sizeof(number), "%" PRIu64, frame->n_children);

        r = path_push(s, number, (size_t)n);
        if (r < 0)
            return r;
    }
    if (frame)
        frame->n_children++;
    if (++s->n_values > s->limits->values_max)
        return refuse(s, s->at, -E2BIG, "too many values");
    r = remember_place(s, s->at);
    if (r < 0)
        return r;
    if (c == '{' || c == '[')
        return open_container(s, want);
    *want = after_value(s);
    if (c == '"')
        r = scan_string(s, NULL);
    else if (c == '-' || (c >= '0' && c <= '9'))
        r = scan_number(s);
    else
        r = scan_word(s);
    if (r == 0 && frame)
        s->path.n_bytes = frame->path_length;
    return r;
}

static int close_container(struct scan *s, enum expectation *want)
{
    const struct frame *frame = &s->frames[s->depth - 1];
    int r;

    if (s->text[s->at] != (frame->is_object ? '}' : ']'))
        return refuse(s, s->at, -EINVAL, frame->is_object ? "expected ',' or '}'" : "expected ',' or ']'");
    r = frame->is_object ? close_object(s, frame) : 0;
    if (r < 0)
        return r;
    s->at++;
    s->depth--;
    s->path.n_bytes = s->depth > 0 ? s->frames[s->depth - 1].path_length : 0;
    *want = after_value(s);
    return 0;
}

static int scan_step(struct scan *s, enum expectation *want)
{
    char c = s->text[s->at];
    bool in_object = s->depth > 0 && s->frames[s->depth - 1].is_object;

    switch (*want) {
    case WANT_VALUE_OR_END:
        if (c == ']')
            return close_container(s, want);
        return scan_value(s, want);
    case WANT_VALUE:
        return scan_value(s, want);
    case WANT_KEY_OR_END:
        if (c == '}')
            return close_container(s, want);
        __attribute__((fallthrough));
    case WANT_KEY:
        if (c != '"')
            return refuse(s, s->at, -EINVAL, "expected a key in double quotes");
        *want = WANT_VALUE;
        return scan_key(s);
    case WANT_COMMA_OR_END:
        if (c != ',')
            return close_container(s, want);
        s->at++;
        *want = in_object ? WANT_KEY : WANT_VALUE;
        return 0;
    case WANT_NOTHING:
        break;
    }
    return refuse(s, s->at, -EINVAL, "expected nothing behind the value");
}

static int scan_text(struct scan *s)
{
    enum expectation want = WANT_VALUE;

    for (;;) {
        int r = skip_space(s);

        if (r < 0)
            return r;
        if (s->at >= s->size)
            break;
        r = scan_step(s, &want);
        if (r < 0)
            return r;
    }
    if (want != WANT_NOTHING)
        return refuse(s, s->size, -EINVAL, "the text ends too early");
    return 0;
}

static void scan_done(struct scan *s)
{
    free(s->frames);
    free(s->keys);
    free(s->blanked);
    buffer_done(&s->arena);
    buffer_done(&s->path);
    json_index_free(s->index);
}

DEFINE_CLEANUP(struct json_tokener *, json_tokener_free)

static int build_objects(struct scan *s, json_object **ret)
{
    _cleanup_(json_tokener_freep) struct json_tokener *tokener = NULL;
    const char *text = s->blanked ? s->blanked : s->text;
    json_object *object;
    int limit = s->limits->depth_max < INT32_MAX - 1 ? (int)s->limits->depth_max + 1 : INT32_MAX;

    /*
     * json-c reads a NUL as the end of a text; the scan has let none through. JSON_TOKENER_STRICT stays off: the scan
     * is stricter, and with it json-c 0.18 takes each byte above 127 in a string for a control character.
     */
    tokener = json_tokener_new_ex(limit);
    if (!tokener)
        return -ENOMEM;
    object = json_tokener_parse_ex(tokener, text, (int)s->size);
    if (json_tokener_get_error(tokener) == json_tokener_continue)
        object = json_tokener_parse_ex(tokener, "\n", 1); /* a number at the very end waits for its end */
    if (json_tokener_get_error(tokener) != json_tokener_success) {
        json_object_put(object);
        return refuse(s, json_tokener_get_parse_end(tokener), -EINVAL, "this is no JSON");
    }
    *ret = object;
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

int json_parse(const char *text, size_t n, const struct json_limits *limits, json_object **ret,
               struct json_index **ret_index, struct json_error *reterr)
{
    _cleanup_(scan_done) struct scan s = {
        .text = text, .size = n, .limits = limits, .line = 1, .column = 1, .error = reterr};
    int r;

    if (n > limits->bytes_max || n > INT32_MAX)
        return refuse(&s, 0, -E2BIG, "the text is too long");
    s.frames = reallocarray(NULL, limits->depth_max + 1u, sizeof(*s.frames));
    if (!s.frames || buffer_init(&s.arena) < 0 || buffer_init(&s.path) < 0)
        return -ENOMEM;
    if (ret_index) {
        s.index = calloc(1, sizeof(*s.index));
        if (!s.index || buffer_init(&s.index->arena) < 0)
            return -ENOMEM;
    }
    r = scan_text(&s);
    if (r < 0)
        return r;
    r = build_objects(&s, ret);
    if (r < 0)
        return r;
    if (ret_index) {
        qsort(s.index->places, s.index->n_places, sizeof(*s.index->places), compare_places);
        *ret_index = TAKE_PTR(s.index);
    }
    return 0;
}

bool json_index_find(const struct json_index *index, const char *path, uint32_t *ret_line, uint32_t *ret_column)
{
    size_t n = strlen(path), low = 0, high = index->n_places;
    uint64_t hash = hash_bytes(path, n);

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (index->places[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < index->n_places && index->places[low].hash == hash; low++) {
        const struct place *place = &index->places[low];

        if (place->n_bytes != n || memcmp(index->arena.data + place->path, path, n) != 0)
            continue;
        *ret_line = place->line;
        *ret_column = place->column;
        return true;
    }
    return false;
}

struct json_index *json_index_free(struct json_index *index)
{
    if (!index)
        return NULL;
    free(index->places);
    buffer_done(&index->arena);
    free(index);
    return NULL;
}

const char *json_text(json_object *value)
{
    return json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}
