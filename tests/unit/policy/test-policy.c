/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Policies from real files in a directory of their own: merging, every kind of error with its place, access, quotas. */
#include "policy/policy.h"
#include "policy/quota.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "policy/class.h"

struct place {
    char dir[64];
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int setup(void **state)
{
    struct place *t = calloc(1, sizeof(*t));

    if (!t)
        return -1;
    umask(022);
    snprintf(t->dir, sizeof(t->dir), "/tmp/residentd-policy.XXXXXX");
    if (!mkdtemp(t->dir))
        return -1;
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct place *t = *state;

    nftw(t->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(t);
    return 0;
}

static const char *in(const struct place *t, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", t->dir, name);
    return path;
}

static void put(const struct place *t, const char *name, const char *text)
{
    char path[256];
    FILE *f = fopen(in(t, name, path), "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int user_number(const char *name, uid_t *ret, void *userdata)
{
    static const struct {
        const char *name;
        uid_t uid;
    } users[] = {{"root", 0}, {"alice", 1001}, {"bob", 1002}, {"guest", 1003}};

    for (size_t i = 0; i < 4; i++) {
        if (strcmp(users[i].name, name) == 0) {
            *ret = users[i].uid;
            return 0;
        }
    }
    return strcmp(name, "unreachable") == 0 ? -EIO : -ESRCH;
}

static int group_number(const char *name, gid_t *ret, void *userdata)
{
    static const struct {
        const char *name;
        gid_t gid;
    } groups[] = {{"ai", 2001}, {"students", 2002}, {"staff", 2003}, {"residentd-admin", 2004}};

    for (size_t i = 0; i < 4; i++) {
        if (strcmp(groups[i].name, name) == 0) {
            *ret = groups[i].gid;
            return 0;
        }
    }
    return -ESRCH;
}

static const struct policy_names names = {.user = user_number, .group = group_number};

static int load(const struct place *t, struct policy **ret, struct fault *fault)
{
    const char *paths[] = {t->dir};
    struct policy_options options = {.paths = paths, .n_paths = 1, .own_uid = geteuid(), .names = &names};

    return policy_load(&options, ret, fault);
}

static struct policy *load_text(const struct place *t, const char *text)
{
    struct policy *p = NULL;
    struct fault fault;
    char line[512];

    put(t, "a.json", text);
    if (load(t, &p, &fault) < 0)
        fail_msg("%s", fault_describe(&fault, line, sizeof(line)));
    return p;
}

static const char example[] =
    "{ \"version\": 1, // as in the manual\n"
    "  \"host\": {\"ram\": {\"budget\": \"80%\", \"reserve\": \"2G\"},\n"
    "    \"vram\": {\"budget\": \"90%\", \"devices\": {\"0\": {\"budget\": \"10G\"}}},\n"
    "    \"threads\": \"auto\", \"ready\": \"listening\", \"upgrade_deadline\": \"10min\", \"maintenance\": null},\n"
    "  \"models\": { \"llama3-8b\": {\n"
    "    \"path\": \"/var/lib/residentd/models/Meta-Llama-3-8B-Instruct-Q4_K_M.gguf\",\n"
    "    \"sha256\": \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\n"
    "    \"residency\": {\"ram\": \"lock\", \"when\": \"always\", \"idle\": \"10min\", \"numa\": \"auto\",\n"
    "      \"huge\": \"auto\", \"offloaded\": \"keep\"},\n"
    "    \"placement\": {\"gpu_layers\": \"auto\", \"vram\": \"8G\", \"devices\": [0], \"experts\": \"ram\"},\n"
    "    \"context\": {\"tokens\": 8192, \"sequences\": 8, \"k\": \"q8_0\", \"v\": \"q8_0\", \"flash\": \"auto\"},\n"
    "    \"defaults\": {\"temperature\": 0.7, \"system\": \"be brief\"},\n"
    "    \"limits\": {\"max_tokens\": 4096, \"sequences_per_user\": 2},\n"
    "    \"public_prefixes\": [\"/etc/residentd/prefix/helpdesk.txt\"],\n"
    "    \"adapters\": {\"legal\": \"/var/lib/residentd/adapters/legal.gguf\"},\n"
    "    \"draft\": \"llama3-1b\", \"share\": {\"groups\": [\"ai\"]},\n"
    "    \"priority\": 10, \"allow\": {\"users\": [\"*\"], \"groups\": [\"ai\"]}, \"deny\": {\"users\": [\"guest\"]} },\n"
    "   \"llama3-1b\": {\"path\": \"/m/1b.gguf\"} },\n"
    "  \"aliases\": {\"chat\": \"llama3-8b\"},\n"
    "  \"quotas\": {\"default\": {\"concurrent\": 2, \"queued\": 8, \"requests_per_minute\": 60,\n"
    "      \"tokens_per_minute\": 20000, \"tokens_per_day\": \"1M\", \"context_tokens\": 8192, \"output_tokens\": 2048,\n"
    "      \"kv\": \"512M\", \"connections\": 32, \"weight\": 100, \"priority_max\": 10},\n"
    "    \"groups\": {\"students\": {\"weight\": 50, \"total\": {\"tokens_per_day\": \"20M\", \"weight\": 400}}},\n"
    "    \"users\": {\"alice\": {\"weight\": 200}}},\n"
    "  \"admins\": {\"users\": [\"root\"], \"groups\": [\"residentd-admin\"]} }\n";

static void types_every_key(void **state)
{
    _cleanup_(policy_unrefp) struct policy *p = load_text(*state, example);
    const struct policy_model *m = policy_find_model(p, "chat");
    const struct policy_quota_entry *q = &p->quota_default;

    assert_true(p->ram_budget.is_share);
    assert_int_equal(policy_size_of(&p->ram_budget, 1000), 800);
    assert_int_equal(policy_size_of(&p->ram_reserve, 1000), 2ll << 30);
    assert_int_equal(policy_size_of(&p->vram_budget, 1000), 900);
    assert_int_equal(p->n_vram_devices, 1);
    assert_int_equal(p->vram_devices[0].index, 0);
    assert_int_equal(p->vram_devices[0].budget.bytes, 10ll << 30);
    assert_int_equal(p->threads, POLICY_AUTO);
    assert_int_equal(p->ready, POLICY_READY_LISTENING);
    assert_int_equal(p->upgrade_deadline_us, 600000000);
    assert_null(p->maintenance);
    assert_int_equal(p->n_models, 2);
    assert_non_null(m);
    assert_ptr_equal(m, policy_find_model(p, "llama3-8b"));
    assert_string_equal(m->name, "llama3-8b");
    assert_string_equal(m->path, "/var/lib/residentd/models/Meta-Llama-3-8B-Instruct-Q4_K_M.gguf");
    assert_int_equal(strlen(m->sha256), 64);
    assert_int_equal(m->residency.ram, POLICY_RAM_LOCK);
    assert_int_equal(m->residency.when, POLICY_WHEN_ALWAYS);
    assert_int_equal(m->residency.idle_us, 600000000);
    assert_int_equal(m->residency.numa, POLICY_NUMA_AUTO);
    assert_int_equal(m->residency.huge, POLICY_HUGE_AUTO);
    assert_int_equal(m->residency.offloaded, POLICY_OFFLOADED_KEEP);
    assert_int_equal(m->placement.gpu_layers, POLICY_AUTO);
    assert_true(m->placement.vram_given);
    assert_int_equal(m->placement.vram.bytes, 8ll << 30);
    assert_int_equal(m->placement.n_devices, 1);
    assert_int_equal(m->placement.devices[0], 0);
    assert_int_equal(m->placement.experts, POLICY_EXPERTS_RAM);
    assert_int_equal(m->context.tokens, 8192);
    assert_int_equal(m->context.sequences, 8);
    assert_string_equal(m->context.k, "q8_0");
    assert_string_equal(m->context.v, "q8_0");
    assert_int_equal(m->context.flash, POLICY_FLASH_AUTO);
    assert_int_equal(m->max_tokens, 4096);
    assert_int_equal(m->sequences_per_user, 2);
    assert_int_equal(json_object_object_length(m->defaults), 2);
    assert_int_equal(m->n_public_prefixes, 1);
    assert_string_equal(m->public_prefixes[0], "/etc/residentd/prefix/helpdesk.txt");
    assert_int_equal(m->n_adapters, 1);
    assert_string_equal(m->adapters[0].name, "legal");
    assert_string_equal(m->adapters[0].value, "/var/lib/residentd/adapters/legal.gguf");
    assert_string_equal(m->draft, "llama3-1b");
    assert_int_equal(m->priority, 10);
    assert_int_equal(q->given, (1u << POLICY_QUOTA_KEY_MAX) - 1);
    assert_int_equal(q->values.concurrent, 2);
    assert_int_equal(q->values.queued, 8);
    assert_int_equal(q->values.requests_per_minute, 60);
    assert_int_equal(q->values.tokens_per_minute, 20000);
    assert_int_equal(q->values.tokens_per_day, 1000000);
    assert_int_equal(q->values.context_tokens, 8192);
    assert_int_equal(q->values.output_tokens, 2048);
    assert_int_equal(q->values.kv_bytes, 512 << 20);
    assert_int_equal(q->values.connections, 32);
    assert_int_equal(q->values.weight, 100);
    assert_int_equal(q->values.priority_max, 10);
    assert_int_equal(p->n_quota_groups, 1);
    assert_true(p->quota_groups[0].has_total);
    assert_int_equal(p->quota_groups[0].id, 2002);
    assert_int_equal(p->quota_groups[0].total.tokens_per_day, 20000000);
    assert_int_equal(p->quota_groups[0].total.weight, 400);
    assert_int_equal(p->quota_groups[0].total.concurrent, POLICY_UNLIMITED);
    assert_int_equal(p->n_warnings, 0);
    assert_null(policy_find_model(p, "nothing"));
}

static void fills_defaults(void **state)
{
    _cleanup_(policy_unrefp) struct policy *p = load_text(*state, "{\"models\": {\"m\": {\"path\": \"/m\"}}}");
    const struct policy_model *m = policy_find_model(p, "m");

    assert_int_equal(m->residency.ram, POLICY_RAM_MAP);
    assert_int_equal(m->residency.when, POLICY_WHEN_ON_DEMAND);
    assert_int_equal(m->context.tokens, 0);
    assert_int_equal(m->context.sequences, 4);
    assert_string_equal(m->context.k, "f16");
    assert_int_equal(m->max_tokens, POLICY_AUTO);
    assert_false(m->allow.given);
    assert_int_equal(p->quota_default.values.concurrent, POLICY_UNLIMITED);
    assert_int_equal(p->quota_default.values.weight, 100);
}

static void merges_in_order(void **state)
{
    struct place *t = *state;
    _cleanup_(policy_unrefp) struct policy *p = NULL;
    char dropins[256], file[256], vendor[256];
    const char *paths[3] = {in(t, "vendor", vendor), in(t, "policy.json", file), in(t, "policy.d", dropins)};
    struct policy_options options = {.paths = paths, .n_paths = 3, .own_uid = geteuid(), .names = &names};
    const struct policy_model *m;
    const char *from;
    uint32_t line, column;
    struct fault fault;

    assert_int_equal(mkdir(vendor, 0755), 0);
    assert_int_equal(mkdir(dropins, 0755), 0);
    put(t, "vendor/50.json", "{\"models\": {\"m\": {\"path\": \"/vendor\", \"priority\": 1,"
                             " \"placement\": {\"devices\": [0, 1]}, \"limits\": {\"max_tokens\": 5}}}}");
    put(t, "policy.json", "{\"models\": {\"m\": {\"priority\": 2, \"context\": {\"tokens\": 100}},\n"
                          "  \"gone\": {\"path\": \"/gone\"}}, \"aliases\": {\"a\": \"m\"}}");
    put(t, "policy.d/20.json", "{\"models\": {\"m\": {\"priority\": 3, \"placement\": {\"devices\": [7]},\n"
                               " \"context\": {\"k\": \"q8_0\"}, \"limits\": null}, \"gone\": null}}");
    put(t, "policy.d/10.json", "{\"models\": {\"m\": {\"priority\": 4}}}");
    put(t, "policy.d/30.txt", "not a policy");
    put(t, "policy.d/.hidden.json", "nor this");
    assert_int_equal(policy_load(&options, &p, &fault), 0);
    m = policy_find_model(p, "a");
    assert_int_equal(p->n_models, 1);
    assert_string_equal(m->path, "/vendor");
    assert_int_equal(m->priority, 3);
    assert_int_equal(m->placement.n_devices, 1);
    assert_int_equal(m->placement.devices[0], 7);
    assert_int_equal(m->context.tokens, 100);
    assert_string_equal(m->context.k, "q8_0");
    assert_int_equal(m->max_tokens, POLICY_AUTO);
    assert_true(policy_origin(p, "/models/m/priority", &from, &line, &column));
    assert_non_null(strstr(from, "policy.d/20.json"));
    assert_int_equal(line, 1);
    assert_true(policy_origin(p, "/models/m/path", &from, &line, &column));
    assert_non_null(strstr(from, "vendor/50.json"));
    assert_false(policy_origin(p, "/models/m/nothing", &from, &line, &column));
}

static void differences_are_named(void **state)
{
    static const struct {
        const char *before, *after, *keys;
    } cases[] = {
        {"{}", "{}", "[]"},
        {"{\"version\": 1}", "{\"version\": 1, \"models\": {\"m\": {\"path\": \"/m\"}}}", "[\"models\"]"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"priority\": 1}, \"n\": {\"path\": \"/n\"}}}",
         "{\"models\": {\"m\": {\"path\": \"/m\", \"priority\": 2, \"limits\": {}}, \"o\": {\"path\": \"/o\"}}}",
         "[\"models.m.priority\",\"models.m.limits\",\"models.n\",\"models.o\"]"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"placement\": {\"devices\": [0, 1]}}}}",
         "{\"models\": {\"m\": {\"path\": \"/m\", \"placement\": {\"devices\": [1, 0]}}}}",
         "[\"models.m.placement.devices\"]"},
        {"{\"host\": {\"threads\": 2}}", "{\"host\": {\"threads\": \"auto\"}}", "[\"host.threads\"]"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(policy_unrefp) struct policy *before = load_text(*state, cases[i].before);
        _cleanup_(policy_unrefp) struct policy *after = load_text(*state, cases[i].after);
        _cleanup_json_ json_object *keys = NULL;

        assert_int_equal(policy_diff(before, after, &keys), 0);
        assert_string_equal(json_text(keys), cases[i].keys);
    }
}

static void says_where_an_error_is(void **state)
{
    static const struct {
        const char *text;
        uint32_t line, column;
        const char *key, *expected;
    } cases[] = {
        {"{\n \"host\": {\"threds\": 2}}", 2, 21, "host.threds", "a key that is known here (ram, vram, threads"},
        {"{\"models\": {\"m\": {\"path\": \"x\"}}}", 1, 27, "models.m.path", "an absolute path"},
        {"{\"models\": {\n\"m\": {}}}", 2, 6, "models.m", "the key \"path\""},
        {"{\"models\": {\"m/x\": {}}}", 1, 20, "models.m/x", "a model's name"},
        {"{\"models\": []}", 1, 12, "models", "an object"},
        {"{\"version\": 2}", 1, 13, "version", "1"},
        {"{\"host\": {\"ram\": {\"budget\": \"101%\"}}}", 1, 29, "host.ram.budget", "a size such as"},
        {"{\"host\": {\"ram\": {\"budget\": -1}}}", 1, 29, "host.ram.budget", "a size such as"},
        {"{\"host\": {\"vram\": {\"devices\": {\"x\": {}}}}}", 1, 37, "host.vram.devices.x", "the number of a device"},
        {"{\"host\": {\"vram\": {\"devices\": {\"1\": {}}}}}", 1, 37, "host.vram.devices.1", "the key \"budget\""},
        {"{\"host\": {\"threads\": 0}}", 1, 22, "host.threads", "\"auto\" or a whole number from 1 to 1024"},
        {"{\"host\": {\"threads\": 1.5}}", 1, 22, "host.threads", "\"auto\" or a whole number"},
        {"{\"host\": {\"ready\": \"now\"}}", 1, 20, "host.ready", "one of \"listening\", \"resident\""},
        {"{\"host\": {\"upgrade_deadline\": \"soon\"}}", 1, 31, "host.upgrade_deadline", "a duration"},
        {"{\"host\": {\"maintenance\": 1}}", 1, 26, "host.maintenance", "a text"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"sha256\": \"12\"}}}", 1, 43, "models.m.sha256", "a SHA-256"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"context\": {\"tokens\": 0}}}}", 1, 55, "models.m.context.tokens",
         "a whole number from 1"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"context\": {\"k\": \"q9\"}}}}", 1, 50, "models.m.context.k",
         "one of \"f32\""},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"placement\": {\"devices\": [0, 0]}}}}", 1, 62,
         "models.m.placement.devices.1", "each device once"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"placement\": {\"gpu_layers\": \"some\"}}}}", 1, 61,
         "models.m.placement.gpu_layers", "\"auto\", \"all\" or a whole number"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"defaults\": {\"top_p\": 2}}}}", 1, 55, "models.m.defaults.top_p",
         "a number from 0 to 1"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"defaults\": {\"prompt\": \"x\"}}}}", 1, 56,
         "models.m.defaults.prompt", "a sampling parameter"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"priority\": 1001}}}", 1, 45, "models.m.priority",
         "a whole number from -1000 to 1000"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"adapters\": {\"a\": \"b\"}}}}", 1, 51, "models.m.adapters.a",
         "an absolute path"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"public_prefixes\": [1]}}}", 1, 53, "models.m.public_prefixes.0",
         "an absolute path"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"draft\": \"m\"}}}", 1, 42, "models.m.draft", "the name of another model"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"residency\": {\"numa\": true}}}}", 1, 55,
         "models.m.residency.numa", "\"auto\", \"off\", \"interleave\""},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"deny\": {\"users\": [\"unreachable\"]}}}}", 1, 52,
         "models.m.deny.users.0", "a user that can be looked up"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"allow\": {\"groups\": [-1]}}}}", 1, 54,
         "models.m.allow.groups.0", "the name or number of a group"},
        {"{\"models\": {\"m\": {\"path\": \"/m\", \"allow\": {\"user\": []}}}}", 1, 51, "models.m.allow.user",
         "a key that is known here (users, groups)"},
        {"{\"aliases\": {\"a\": \"b\"}}", 1, 19, "aliases.a", "the name of a model of this policy"},
        {"{\"models\": {\"m\": {\"path\": \"/m\"}}, \"aliases\": {\"m\": \"m\"}}", 1, 52, "aliases.m",
         "an alias that is not the name of a model"},
        {"{\"quotas\": {\"default\": {\"weight\": 0}}}", 1, 35, "quotas.default.weight", "a number from 1 to 10000"},
        {"{\"quotas\": {\"default\": {\"total\": {}}}}", 1, 34, "quotas.default.total", "a key that is known"},
        {"{\"quotas\": {\"default\": {\"tokens_per_day\": \"lots\"}}}", 1, 43, "quotas.default.tokens_per_day",
         "a number from 0"},
        {"{\"quotas\": {\"users\": {\"alice\": {}, \"1001\": {}}}}", 1, 44, "quotas.users.1001", "each user once"},
        {"{\"quotas\": {\"users\": {\"alice\": {\"kv\": \"5X\"}}}}", 1, 39, "quotas.users.alice.kv", "a size such as"},
        {"{\"version\": 1, \"version\": 1}", 1, 16, "version", "JSON with comments"},
        {"{\"version\": }", 1, 13, "", "JSON with comments"},
        {"[]", 1, 1, "", "an object"},
    };
    struct place *t = *state;
    char file[256];

    in(t, "a.json", file);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct policy *p = NULL;
        struct fault f;

        put(t, "a.json", cases[i].text);
        fault_init(&f, FAULT_NONE, NULL);
        if (load(t, &p, &f) != -EINVAL || p)
            fail_msg("not refused: %s", cases[i].text);
        if (f.kind != FAULT_POLICY_INVALID || strcmp(f.file, file) != 0 || f.line != cases[i].line ||
            f.column != cases[i].column || strcmp(f.subject, cases[i].key) != 0 ||
            strncmp(f.reason, cases[i].expected, strlen(cases[i].expected)) != 0)
            fail_msg("%s\n -> %s:%u:%u: %s: expected %s", cases[i].text, f.file, f.line, f.column, f.subject, f.reason);
    }
}

static void names_the_file_at_fault(void **state)
{
    struct policy *p = NULL;
    struct fault f;

    put(*state, "10.json", "{\"models\": {\"m\": {\"path\": \"/m\"}}}");
    put(*state, "20.json", "{\"models\": {\n  \"m\": {\"priority\": \"high\"}}}");
    put(*state, "30.json", "{\"models\": {\"m\": {\"limits\": {}}}}");
    assert_int_equal(load(*state, &p, &f), -EINVAL);
    assert_non_null(strstr(f.file, "/20.json"));
    assert_int_equal(f.line, 2);
    assert_int_equal(f.column, 21);
}

static void refuses_files_of_others(void **state)
{
    struct place *t = *state;
    const char *paths[] = {t->dir};
    struct policy_options options = {.paths = paths, .n_paths = 1, .own_uid = geteuid(), .names = &names};
    struct policy *p = NULL;
    char path[256];
    struct fault f;

    put(t, "a.json", "{}");
    in(t, "a.json", path);
    chmod(path, 0664);
    assert_int_equal(policy_load(&options, &p, &f), -EINVAL);
    assert_string_equal(f.file, path);
    assert_non_null(strstr(f.reason, "not writable by its group"));
    chmod(path, 0646);
    assert_int_equal(policy_load(&options, &p, &f), -EINVAL);
    assert_non_null(strstr(f.reason, "not writable by others"));
    options.skip_ownership = true;
    assert_int_equal(policy_load(&options, &p, &f), 0);
    p = policy_unref(p);
    options.skip_ownership = false;
    chmod(path, 0644);
    chmod(t->dir, 0777);
    assert_int_equal(policy_load(&options, &p, &f), -EINVAL);
    assert_string_equal(f.file, t->dir);
    assert_non_null(strstr(f.reason, "not writable by others"));
    paths[0] = path;
    assert_int_equal(policy_load(&options, &p, &f), -EINVAL);
    assert_non_null(strstr(f.reason, t->dir));
    chmod(t->dir, 0755);
    assert_int_equal(policy_load(&options, &p, &f), 0);
    p = policy_unref(p);
    paths[0] = "/nonexistent/policy.json";
    assert_int_equal(policy_load(&options, &p, &f), -EINVAL);
    assert_string_equal(f.file, "/nonexistent/policy.json");
}

static void refuses_a_stranger_as_owner(void **state)
{
    struct place *t = *state;
    struct policy *p = NULL;
    struct fault f;
    char path[256];

    if (geteuid() != 0)
        skip();
    put(t, "a.json", "{}");
    assert_int_equal(chown(in(t, "a.json", path), 1, 1), 0);
    assert_int_equal(load(t, &p, &f), -EINVAL);
    assert_non_null(strstr(f.reason, "owned by root or the service's own user"));
}

static void decides_who_may_use_a_model(void **state)
{
    _cleanup_(policy_unrefp) struct policy *p = load_text(
        *state, "{\"models\": {"
                "\"all\": {\"path\": \"/m\"},"
                "\"star\": {\"path\": \"/m\", \"allow\": {\"users\": [\"*\"]}, \"deny\": {\"users\": [\"guest\"], \"groups\": [\"students\"]}},"
                "\"some\": {\"path\": \"/m\", \"allow\": {\"users\": [\"alice\", 1042], \"groups\": [\"ai\"]}, \"share\": {\"users\": [\"alice\"]}},"
                "\"none\": {\"path\": \"/m\", \"allow\": {\"users\": [\"nobody-knows\"]}}},"
                "\"admins\": {\"groups\": [\"residentd-admin\"]}}");
    const gid_t ai[] = {5, 2001}, students[] = {2002}, admin[] = {2004};
    const struct policy_subject alices_container = {.uid = 1001, .is_subordinate = true, .gid = 100000},
                                guests_container = {.uid = 1003, .is_subordinate = true, .gid = 100000},
                                roots_container = {.uid = 0, .is_subordinate = true, .gid = 100000};
    const struct policy_subject alice = {.uid = 1001, .gid = 100}, guest = {.uid = 1003, .gid = 100},
                                carol = {.uid = 1042, .gid = 100}, dave = {.uid = 1050, .gid = 100},
                                in_ai = {.uid = 1060, .gid = 100, .groups = ai, .n_groups = 2},
                                primary_ai = {.uid = 1060, .gid = 2001},
                                nss_ai = {.uid = 1060, .gid = 100, .nss_groups = ai, .n_nss_groups = 2},
                                student = {.uid = 1070, .gid = 100, .groups = students, .n_groups = 1},
                                nss_student = {.uid = 1070, .gid = 100, .nss_groups = students, .n_nss_groups = 1},
                                root = {.uid = 0, .gid = 0},
                                admin_guest = {.uid = 1003, .gid = 100, .groups = admin, .n_groups = 1};
    const struct policy_model *all = policy_find_model(p, "all"), *star = policy_find_model(p, "star"),
                              *some = policy_find_model(p, "some"), *none = policy_find_model(p, "none");

    assert_true(policy_may_use(p, all, &dave));
    assert_true(policy_may_use(p, star, &dave));
    assert_false(policy_may_use(p, star, &guest));
    assert_false(policy_may_use(p, star, &student));
    assert_false(policy_may_use(p, star, &nss_student));
    assert_false(policy_may_use(p, star, &admin_guest)); /* administrators bypass no denial */
    assert_true(policy_may_use(p, some, &alice));
    assert_true(policy_may_use(p, some, &carol));
    assert_true(policy_may_use(p, some, &in_ai));
    assert_true(policy_may_use(p, some, &primary_ai));
    assert_false(policy_may_use(p, some, &nss_ai)); /* NSS alone grants nothing */
    assert_false(policy_may_use(p, some, &dave));
    assert_false(policy_may_use(p, some, &root));
    assert_false(policy_may_use(p, none, &alice));
    /* What runs in somebody's container has the denials of its owner, and of the grants only those to everybody. */
    assert_true(policy_may_use(p, all, &alices_container));
    assert_false(policy_may_use(p, some, &alices_container));
    assert_false(policy_may_use(p, star, &guests_container));
    assert_false(policy_is_admin(p, &roots_container));
    assert_int_equal(p->n_warnings, 1);
    assert_non_null(strstr(p->warnings[0], "nobody-knows"));
    assert_true(policy_may_share(p, some, &alice));
    assert_false(policy_may_share(p, some, &carol));
    assert_false(policy_may_share(p, all, &alice));
    assert_true(policy_is_admin(p, &admin_guest));
    assert_false(policy_is_admin(p, &root));
}

static void finds_the_group_that_shares_a_weight(void **state)
{
    _cleanup_(policy_unrefp) struct policy *p = load_text(
        *state, "{\"quotas\": {\"groups\": {\"students\": {\"weight\": 50, \"total\": {\"weight\": 400}},"
                "\"staff\": {\"total\": {\"weight\": 300}}, \"ai\": {\"total\": {\"tokens_per_day\": 5}}}}}");
    const gid_t students[] = {2002}, both[] = {2002, 2003}, neither[] = {2001};
    uint32_t weight = 1;

    assert_int_equal(policy_class_for(p, &(struct policy_subject){.uid = 1, .gid = 1}, &weight), 0);
    assert_int_equal(policy_class_for(p, &(struct policy_subject){.uid = 1, .gid = 1, .groups = neither, .n_groups = 1},
                                      &weight),
                     0);
    assert_int_equal(weight, 1);
    assert_int_equal(policy_class_for(p, &(struct policy_subject){.uid = 1, .gid = 1, .groups = students, .n_groups = 1},
                                      &weight),
                     2003);
    assert_int_equal(weight, 400);
    /* In both: as little as either leaves. */
    assert_int_equal(
        policy_class_for(p, &(struct policy_subject){.uid = 1, .gid = 1, .nss_groups = both, .n_nss_groups = 2}, &weight),
        2004);
    assert_int_equal(weight, 300);
}

static void adds_quotas_up(void **state)
{
    _cleanup_(policy_unrefp) struct policy *p = load_text(
        *state, "{\"quotas\": {\"default\": {\"concurrent\": 2, \"queued\": 8, \"weight\": 100},"
                "\"groups\": {\"students\": {\"weight\": 50, \"concurrent\": 1}, \"staff\": {\"concurrent\": 4}, \"ai\": {\"weight\": 70}},"
                "\"users\": {\"alice\": {\"weight\": 10, \"priority_max\": 5}, \"nobody-knows\": {\"weight\": 1}}}}");
    const gid_t both[] = {2002, 2003, 2001}, students[] = {2002};
    struct policy_quota q;

    policy_quota_for(p, &(struct policy_subject){.uid = 1002, .gid = 1}, &q);
    assert_int_equal(q.concurrent, 2);
    assert_int_equal(q.queued, 8);
    assert_int_equal(q.weight, 100);
    assert_int_equal(q.kv_bytes, POLICY_UNLIMITED);
    policy_quota_for(p, &(struct policy_subject){.uid = 1002, .gid = 1, .groups = students, .n_groups = 1}, &q);
    assert_int_equal(q.concurrent, 1);
    assert_int_equal(q.weight, 50);
    policy_quota_for(p, &(struct policy_subject){.uid = 1002, .gid = 1, .nss_groups = both, .n_nss_groups = 3}, &q);
    assert_int_equal(q.concurrent, 4);
    assert_int_equal(q.weight, 70);
    assert_int_equal(q.queued, 8);
    policy_quota_for(p, &(struct policy_subject){.uid = 1001, .gid = 1, .groups = both, .n_groups = 3}, &q);
    assert_int_equal(q.weight, 10);
    assert_int_equal(q.priority_max, 5);
    assert_int_equal(q.concurrent, 4);
    assert_int_equal(p->n_warnings, 1);
    assert_int_equal(policy_quota_value(&q, POLICY_QUOTA_QUEUED), 8);
    assert_string_equal(policy_quota_key_name(POLICY_QUOTA_KV), "kv");
}

static void system_places_may_be_missing(void **state)
{
    struct policy_options options = {.own_uid = geteuid(), .names = &names};
    struct policy *p = NULL;
    struct fault f;

    if (access("/etc/residentd", F_OK) == 0 || access("/usr/lib/residentd", F_OK) == 0)
        skip();
    assert_int_equal(policy_load(&options, &p, &f), 0);
    assert_int_equal(p->n_models, 0);
    assert_true(policy_is_admin(p, &(struct policy_subject){.uid = 0}));
    assert_false(policy_is_admin(p, &(struct policy_subject){.uid = 12345}));
    policy_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(types_every_key, setup, teardown),
        cmocka_unit_test_setup_teardown(fills_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(merges_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(differences_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(says_where_an_error_is, setup, teardown),
        cmocka_unit_test_setup_teardown(names_the_file_at_fault, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_files_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_stranger_as_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(decides_who_may_use_a_model, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_the_group_that_shares_a_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(adds_quotas_up, setup, teardown),
        cmocka_unit_test(system_places_may_be_missing),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
