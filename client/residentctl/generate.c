/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of generation and the answer on the screen.
 */
#include "client/residentctl/generate.h"

#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/print.h"

enum {
    TEMPERATURE = 256,
    TOP_K,
    TOP_P,
    MIN_P,
    REPEAT_PENALTY,
    SEED,
    STOP,
    JSON_SCHEMA,
    GRAMMAR,
    ADAPTER,
    STATS,
    SYSTEM,
    CHAT,
    RAW,
};

enum option_type { OPTION_INT, OPTION_DOUBLE };

/* Options that are one number of the method each. */
static const struct {
    int option;
    const char *name;
    enum option_type type;
} numbers[] = {
    {'n', "max_tokens", OPTION_INT}, {TEMPERATURE, "temperature", OPTION_DOUBLE},
    {TOP_K, "top_k", OPTION_INT},    {TOP_P, "top_p", OPTION_DOUBLE},
    {MIN_P, "min_p", OPTION_DOUBLE}, {REPEAT_PENALTY, "repeat_penalty", OPTION_DOUBLE},
    {SEED, "seed", OPTION_INT},
};

static int set_number(const struct verb *verb, json_object *parameters, size_t i, const char *text)
{
    json_object *value;
    int64_t number;
    double real;

    if (numbers[i].type == OPTION_INT ? !parse_int(text, INT64_MIN, INT64_MAX, &number)
                                      : !parse_double(text, &real))
        return ctl_usage(verb, "\"%s\" is no number", text);
    value =
        numbers[i].type == OPTION_INT ? json_object_new_int64(number) : json_object_new_double_s(real, text);
    return put(parameters, numbers[i].name, value) ? STATUS_DONE : ctl_no_memory();
}

static int add_stop(json_object *parameters, const char *text)
{
    json_object *stops = get_array(parameters, "stop"), *stop;

    if (!stops) {
        stops = json_object_new_array();
        if (!put(parameters, "stop", stops))
            return ctl_no_memory();
    }
    stop = json_object_new_string(text);
    if (!stop || json_object_array_add(stops, stop) < 0) {
        json_object_put(stop);
        return ctl_no_memory();
    }
    return STATUS_DONE;
}

static int read_schema(json_object *parameters, const char *path)
{
    static const struct json_limits limits = {.bytes_max = 1 << 24, .depth_max = 60, .values_max = 1 << 20};
    _cleanup_json_ json_object *schema = NULL;
    _cleanup_free_ char *text = NULL;
    struct json_error error = {0};
    size_t n;
    int status;

    status = ctl_read_all(path, &text, &n);
    if (status != STATUS_DONE)
        return status;
    if (json_parse(text, n, &limits, &schema, NULL, &error) < 0 ||
        !json_object_is_type(schema, json_type_object)) {
        fprintf(stderr, "residentctl: %s:%u:%u: %s\n", path, error.line, error.column,
                error.reason ? error.reason : "a JSON object is expected");
        return STATUS_FAILED;
    }
    return put(parameters, "json_schema", TAKE_PTR(schema)) ? STATUS_DONE : ctl_no_memory();
}

static int read_grammar(json_object *parameters, const char *path)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int status;

    status = ctl_read_all(path, &text, &n);
    if (status != STATUS_DONE)
        return status;
    return put(parameters, "grammar", json_object_new_string_len(text, (int)n)) ? STATUS_DONE
                                                                                : ctl_no_memory();
}

static int set_option(const struct verb *verb, struct generate_options *options, int c)
{
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i].option == c)
            return set_number(verb, options->parameters, i, optarg);
    switch (c) {
    case STOP:
        return add_stop(options->parameters, optarg);
    case JSON_SCHEMA:
        return read_schema(options->parameters, optarg);
    case GRAMMAR:
        return read_grammar(options->parameters, optarg);
    case ADAPTER:
        return put(options->parameters, "adapter", json_object_new_string(optarg)) ? STATUS_DONE : ctl_no_memory();
    case SYSTEM:
        options->system = optarg;
        options->mode = GENERATE_CHAT;
        return STATUS_DONE;
    case CHAT:
        options->mode = GENERATE_CHAT;
        return STATUS_DONE;
    case RAW:
        options->mode = GENERATE_RAW;
        return STATUS_DONE;
    case STATS:
        options->stats = true;
        return STATUS_DONE;
    default:
        return ctl_usage(verb, NULL);
    }
}

int generate_parse(const struct verb *verb, int argc, char **argv, struct generate_options *ret)
{
    static const struct option table[] = {
        {"temperature", required_argument, NULL, TEMPERATURE},
        {"top-k", required_argument, NULL, TOP_K},
        {"top-p", required_argument, NULL, TOP_P},
        {"min-p", required_argument, NULL, MIN_P},
        {"repeat-penalty", required_argument, NULL, REPEAT_PENALTY},
        {"seed", required_argument, NULL, SEED},
        {"stop", required_argument, NULL, STOP},
        {"json-schema", required_argument, NULL, JSON_SCHEMA},
        {"grammar", required_argument, NULL, GRAMMAR},
        {"adapter", required_argument, NULL, ADAPTER},
        {"stats", no_argument, NULL, STATS},
        {"system", required_argument, NULL, SYSTEM},
        {"chat", no_argument, NULL, CHAT},
        {"raw", no_argument, NULL, RAW},
        {NULL, 0, NULL, 0},
    };
    int c;

    *ret = (struct generate_options){.parameters = json_object_new_object()};
    if (!ret->parameters)
        return ctl_no_memory();
    while ((c = getopt_long(argc, argv, "n:", table, NULL)) >= 0) {
        int status = set_option(verb, ret, c);

        if (status != STATUS_DONE)
            return status;
    }
    return STATUS_DONE;
}

void generate_options_done(struct generate_options *options)
{
    json_object_put(options->parameters);
    options->parameters = NULL;
}

bool generate_message(json_object *messages, const char *role, const char *content, size_t n)
{
    json_object *message = json_object_new_object();

    if (message && put(message, "role", json_object_new_string(role)) &&
        put(message, "content", json_object_new_string_len(content, (int)n)) &&
        json_object_array_add(messages, message) == 0)
        return true;
    json_object_put(message);
    return false;
}

/* ---- the answer ---- */

void generate_output_init(struct generate_output *o, const struct ctl *ctl, bool stats)
{
    *o = (struct generate_output){.ctl = ctl, .stats = stats, .ends_in_line_feed = true};
    o->shows_waiting = !ctl->json && isatty(STDERR_FILENO);
}

static void wipe_waiting(struct generate_output *o)
{
    if (o->waiting_shown)
        fputs("\r\033[K", stderr);
    o->waiting_shown = false;
}

/* Something is waited for: a place in the queue, or the model. */
static void show_waiting(struct generate_output *o, const struct resident_reply *reply)
{
    int64_t position, done, total, eta_ms;
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (!o->shows_waiting)
        return;
    if (resident_reply_int(reply, "loading/bytes_done", &done) == 0 &&
        resident_reply_int(reply, "loading/bytes_total", &total) == 0 && done >= 0 && total > 0) {
        fprintf(stderr, "\rThe model is being loaded: %s of %s\033[K", units_format_size((uint64_t)done, a),
                units_format_size((uint64_t)total, b));
        o->waiting_shown = true;
    } else if (resident_reply_int(reply, "queue/position", &position) == 0) {
        fprintf(stderr, "\rWaiting, place %" PRId64 " in the queue", position);
        if (resident_reply_int(reply, "queue/eta_ms", &eta_ms) == 0 && eta_ms >= 0 && eta_ms < INT32_MAX)
            fprintf(stderr, ", about %s", units_format_duration((uint64_t)eta_ms * 1000, a));
        fputs("\033[K", stderr);
        o->waiting_shown = true;
    }
}

static void show_text(struct generate_output *o, const char *text, size_t n)
{
    if (n == 0)
        return;
    wipe_waiting(o);
    print_text(stdout, text, n, o->ctl->is_terminal);
    o->ends_in_line_feed = text[n - 1] == '\n';
    if (o->copy)
        fwrite(text, 1, n, o->copy);
}

/* ", 12.3 tokens/s", or nothing when it took no time that could be measured. */
static const char *per_second(int64_t tokens, int64_t ms, char *buffer, size_t size)
{
    buffer[0] = 0;
    if (ms > 0)
        snprintf(buffer, size, ", %.1f tokens/s", (double)tokens * 1000 / (double)ms);
    return buffer;
}

static void show_stats(struct generate_output *o, const struct resident_reply *reply)
{
    int64_t prompt = 0, cached = 0, output = 0, queue = 0, prefill = 0, decode = 0;
    const char *finish = resident_reply_text(reply, "finish", NULL);
    char speed[2][40];

    (void)resident_reply_int(reply, "usage/prompt_tokens", &prompt);
    (void)resident_reply_int(reply, "usage/cached_tokens", &cached);
    (void)resident_reply_int(reply, "usage/output_tokens", &output);
    (void)resident_reply_int(reply, "usage/queue_ms", &queue);
    (void)resident_reply_int(reply, "usage/prefill_ms", &prefill);
    (void)resident_reply_int(reply, "usage/decode_ms", &decode);
    generate_end(o);
    fflush(stdout);
    fprintf(stderr,
            "%" PRId64 " prompt tokens (%" PRId64 " cached) in %" PRId64 " ms%s; %" PRId64
            " output tokens in %" PRId64 " ms%s; %" PRId64 " ms in the queue; ended by %s\n",
            prompt, cached, prefill, per_second(prompt - cached, prefill, speed[0], sizeof(speed[0])), output,
            decode, per_second(output, decode, speed[1], sizeof(speed[1])), queue, finish ? finish : "?");
}

int generate_show(struct generate_output *o, const struct resident_reply *reply)
{
    const char *text;
    size_t n = 0;

    if (o->ctl->json) {
        print_json(stdout, resident_reply_json(reply), o->ctl->is_terminal);
    } else {
        text = resident_reply_text(reply, "text", &n);
        if (text)
            show_text(o, text, n);
        if (n == 0 && !resident_reply_is_last(reply))
            show_waiting(o, reply);
    }
    if (o->stats && resident_reply_is_last(reply))
        show_stats(o, reply);
    return fflush(stdout) == 0 ? 0 : -1;
}

void generate_end(struct generate_output *o)
{
    wipe_waiting(o);
    if (!o->ends_in_line_feed && !o->ctl->json)
        fputc('\n', stdout);
    o->ends_in_line_feed = true;
}
