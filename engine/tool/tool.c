/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the verbs share: numbers from the command line, files, messages.
 */

#include "engine/tool/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/pagecache.h"
#include "base/units.h"
#include "engine/gguf/limits.h"
#include "engine/gguf/map.h"
#include "engine/kernels/kernels.h"

int tool_usage(const char *verb, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "resident-engine %s: ", verb);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (resident-engine --help lists the options)\n");
    return TOOL_USAGE;
}

int tool_fail(const char *path, const struct fault *f, int error)
{
    char text[1024];

    if (f && f->kind != FAULT_NONE)
        fprintf(stderr, "resident-engine: %s: %s\n", path, fault_describe(f, text, sizeof(text)));
    else
        fprintf(stderr, "resident-engine: %s: %s\n", path, strerror(error < 0 ? -error : error));
    return TOOL_FAILED;
}

int tool_parse_u32(const char *verb, const char *what, const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
    unsigned long long value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
        return tool_usage(verb, "%s is \"%s\", expected a number from %u to %u", what, text, min, max);
    *ret = (uint32_t)value;
    return 0;
}

int tool_parse_ids(const char *verb, const char *text, int32_t **ret, size_t *ret_n)
{
    _cleanup_free_ int32_t *ids = NULL;
    size_t n = 0;
    const char *p = text;

    ids = calloc(strlen(text) / 2 + 1, sizeof(*ids));
    if (!ids)
        return tool_fail("--ids", NULL, -ENOMEM);
    while (*(p += strspn(p, " ,\t\n"))) {
        char *end;
        long value;

        errno = 0;
        value = strtol(p, &end, 10);
        if (errno || end == p || value < 0 || value > INT32_MAX)
            return tool_usage(verb, "--ids: \"%.20s\" is no token id", p);
        ids[n++] = (int32_t)value;
        p = end;
    }
    if (n == 0)
        return tool_usage(verb, "--ids: no token ids");
    *ret = TAKE_PTR(ids);
    *ret_n = n;
    return 0;
}

static int parse_isa(const char *what, const char *text, uint32_t *ret)
{
    if (kernels_isa_parse(text, ret) == 0)
        return 0;
    fprintf(stderr, "resident-engine: %s: \"%s\" is no instruction set (scalar, avx2, avx512, …)\n", what, text);
    return TOOL_USAGE;
}

int tool_config_init(struct tool_config *c)
{
    const char *isa = getenv("RESIDENT_ISA");

    *c = (struct tool_config){.isa_mask = UINT32_MAX, .k_type = TENSOR_F16, .v_type = TENSOR_F16};
    return isa && *isa ? parse_isa("RESIDENT_ISA", isa, &c->isa_mask) : 0;
}

static int parse_type(const char *what, const char *text, enum tensor_type *ret)
{
    if (tensor_type_from_name(text, ret) == 0)
        return 0;
    fprintf(stderr, "resident-engine: %s: \"%s\" is no type (f32, f16, …)\n", what, text);
    return TOOL_USAGE;
}

int tool_config_option(struct tool_config *c, int option, const char *text)
{
    switch (option) {
    case TOOL_OPT_THREADS:
        return tool_parse_u32("--threads", "the number of threads", text, 1, 1024, &c->n_threads);
    case TOOL_OPT_ISA:
        return parse_isa("--isa", text, &c->isa_mask);
    case TOOL_OPT_K_TYPE:
        return parse_type("--k-type", text, &c->k_type);
    case TOOL_OPT_V_TYPE:
        return parse_type("--v-type", text, &c->v_type);
    case TOOL_OPT_FLASH:
        /* There is one attention, which computes what both words ask for. */
        if (strcmp(text, "on") == 0 || strcmp(text, "off") == 0)
            return 0;
        fprintf(stderr, "resident-engine: --flash is \"%s\", expected on or off\n", text);
        return TOOL_USAGE;
    case TOOL_OPT_ADAPTER:
        c->adapter = text;
        return 0;
    case TOOL_OPT_RAM:
        if (units_parse_size(text, &c->ram_bytes) == 0 && c->ram_bytes > 0)
            return 0;
        fprintf(stderr, "resident-engine: --ram is \"%s\", expected a size like 4G\n", text);
        return TOOL_USAGE;
    case TOOL_OPT_GPU_LAYERS:
        if (strcmp(text, "all") == 0) {
            c->gpu_layers = ENGINE_LAYERS_ALL;
            return 0;
        }
        return tool_parse_u32("--gpu-layers", "the number of layers", text, 0, UINT32_MAX - 1, &c->gpu_layers);
    default:
        return TOOL_USAGE;
    }
}

/* Whether @path ends in "-00001-of-0000N.gguf"; then N in *ret_n and the length of what stands before it. */
static bool split_name(const char *path, uint32_t *ret_n, size_t *ret_prefix)
{
    static const char sample[] = "-00001-of-00001.gguf";
    size_t n = strlen(path);
    const char *tail;
    uint32_t count = 0;

    if (n < sizeof(sample) - 1)
        return false;
    tail = path + n - (sizeof(sample) - 1);
    if (strncmp(tail, "-00001-of-", 10) != 0 || strcmp(tail + 15, ".gguf") != 0)
        return false;
    for (int i = 10; i < 15; i++) {
        if (tail[i] < '0' || tail[i] > '9')
            return false;
        count = count * 10 + (uint32_t)(tail[i] - '0');
    }
    *ret_n = count;
    *ret_prefix = n - (sizeof(sample) - 1);
    return count >= 1 && count <= GGUF_PARTS_MAX;
}

void tool_files_done(struct tool_files *f)
{
    for (size_t i = 0; i < f->n; i++)
        closep(&f->fds[i]);
    free(f->fds);
    *f = (struct tool_files){};
}

int tool_files_open(const char *path, struct tool_files *ret)
{
    _cleanup_tool_files_ struct tool_files files = {};
    uint32_t n = 1;
    size_t prefix = 0;
    bool split = split_name(path, &n, &prefix);

    files.fds = calloc(n, sizeof(*files.fds));
    if (!files.fds)
        return tool_fail(path, NULL, -ENOMEM);
    for (uint32_t i = 0; i < n; i++) {
        _cleanup_free_ char *name = NULL;

        if (split ? asprintf(&name, "%.*s-%05u-of-%05u.gguf", (int)prefix, path, i + 1, n) < 0
                  : !(name = strdup(path))) {
            name = NULL;
            return tool_fail(path, NULL, -ENOMEM);
        }
        files.fds[i] = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (files.fds[i] < 0)
            return tool_fail(name, NULL, -errno);
        files.n++;
    }
    *ret = files;
    files = (struct tool_files){};
    return 0;
}

/* Who asks for a GPU and gets none has asked for something else; who gets fewer layers is told. */
static int gpu_check(const struct tool_config *c, const struct engine_facts *facts, struct engine **e)
{
    if (c->gpu_layers == 0 || facts->gpu_layers >= c->gpu_layers || facts->gpu_layers == facts->n_layers)
        return 0;
    fprintf(stderr, "resident-engine: %s: %u of %u layers are on GPUs: %s\n", c->path, facts->gpu_layers,
            facts->n_layers,
            *facts->gpu_reason ? facts->gpu_reason : "they are of kinds that GPUs have no kernels for");
    if (facts->gpu_layers > 0)
        return 0;
    *e = engine_free(*e);
    return TOOL_FAILED;
}

int tool_engine_open(const struct tool_config *c, struct engine_config *config, struct engine **ret)
{
    _cleanup_tool_files_ struct tool_files files = {}, adapter = {};
    struct fault fault = {.kind = FAULT_NONE};
    struct engine_facts facts;
    int r;

    r = tool_files_open(c->path, &files);
    if (r == 0 && c->adapter)
        r = tool_files_open(c->adapter, &adapter);
    if (r != 0)
        return r;
    config->adapters = adapter.fds;
    config->n_adapters = adapter.n;
    config->fds = files.fds;
    config->n_fds = files.n;
    config->n_threads = c->n_threads;
    config->isa_mask = c->isa_mask;
    config->k_type = c->k_type;
    config->v_type = c->v_type;
    config->weights_bytes_max = c->ram_bytes;
    config->gpu.layers = c->gpu_layers;
    r = engine_open(config, ret, &fault);
    config->fds = config->adapters = NULL;
    if (r < 0) {
        /* The engine does not know what the file is called. */
        if (fault.kind == FAULT_MODEL_INVALID || fault.kind == FAULT_MODEL_UNAVAILABLE)
            fault_subject(&fault, c->path);
        return tool_fail(c->path, &fault, r);
    }
    engine_facts(*ret, &facts);
    if (facts.is_encoder) {
        *ret = engine_free(*ret);
        fault_set(&fault, FAULT_INVALID_PARAMETER, "model",
                  "it is an encoder: it has embeddings (residentctl embed), no next token");
        return tool_fail(c->path, &fault, -EINVAL);
    }
    return gpu_check(c, &facts, ret);
}

int tool_engine_open_huge(const struct tool_config *c, struct engine_config *config, struct engine **ret)
{
    _cleanup_tool_files_ struct tool_files files = {};
    struct tool_memory m;
    int r;

    config->populate = true;
    r = tool_engine_open(c, config, ret);
    if (r != 0 || c->ram_bytes > 0 || tool_memory_read(engine_gguf(*ret), &m) < 0 ||
        m.bytes_weights_huge > m.bytes_weights / 100 * 95)
        return r;
    *ret = engine_free(*ret);
    r = tool_files_open(c->path, &files);
    for (size_t i = 0; i < files.n; i++)
        (void)pagecache_drop(files.fds[i]);
    return r == 0 ? tool_engine_open(c, config, ret) : r;
}

int tool_sequence_open(const struct tool_config *c, struct engine *e, uint32_t *ret)
{
    if (engine_sequence_open(e, ret) != 0 || (c->adapter && engine_sequence_adapt(e, *ret, 1) != 0))
        return tool_fail(c->path, NULL, -ENOSPC);
    return 0;
}

int tool_model_open(const char *path, struct tool_model *ret)
{
    _cleanup_tool_files_ struct tool_files files = {};
    struct fault fault = {.kind = FAULT_NONE};
    const struct gguf_part *parts;
    size_t n_parts;
    int r;

    r = tool_files_open(path, &files);
    if (r != 0)
        return r;
    r = gguf_map(files.fds, files.n, 0, &ret->map, &fault);
    if (r == 0) {
        parts = gguf_map_parts(ret->map, &n_parts);
        r = gguf_read(parts, n_parts, &ret->gguf, &fault);
    }
    if (r < 0) {
        fault_subject(&fault, path);
        return tool_fail(path, &fault, r);
    }
    return 0;
}

void tool_model_done(struct tool_model *m)
{
    gguf_free(m->gguf);
    gguf_unmap(m->map);
    *m = (struct tool_model){0};
}

int tool_read_all(FILE *f, char **ret, size_t *ret_n)
{
    _cleanup_free_ char *data = NULL;
    size_t n = 0, room = 0;

    do {
        char *grown;

        if (n > TOOL_INPUT_BYTES_MAX)
            return -E2BIG;
        room = room * 2 + 65536;
        grown = realloc(data, room);
        if (!grown)
            return -ENOMEM;
        data = grown;
        n += fread(data + n, 1, room - n, f);
    } while (n == room);
    if (ferror(f))
        return -EIO;
    if (n > TOOL_INPUT_BYTES_MAX)
        return -E2BIG;
    *ret = TAKE_PTR(data);
    *ret_n = n;
    return 0;
}
