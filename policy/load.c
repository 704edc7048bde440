/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From files to a policy: which files there are, whether they may be trusted, their text, and the merged document.
 * check.c then gives it types. Everything is built aside and handed over whole, so a reload that fails changes nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/trust.h"
#include "policy/internal.h"

/* A policy for thousands of users is some hundred kilobytes; parsing is done in the event loop. */
static const struct json_limits limits = {
    .bytes_max = 4u << 20,
    .depth_max = 16,
    .values_max = 200000,
    .comments = true,
};

static const char *const system_places[] = {
    "/usr/lib/residentd/policy.d",
    "/etc/residentd/policy.json",
    "/etc/residentd/policy.d",
};

struct loader {
    const struct policy_options *options;
    struct policy *policy;
    struct fault *fault;
};

static int wrong(struct loader *l, const char *file, uint32_t line, uint32_t column, const char *key,
                 const char *expected)
{
    if (l->fault) {
        fault_set(l->fault, FAULT_POLICY_INVALID, key, "%s", expected);
        snprintf(l->fault->file, sizeof(l->fault->file), "%s", file);
        l->fault->line = line;
        l->fault->column = column;
    }
    return -EINVAL;
}

static int open_error(struct loader *l, const char *path, int r, const struct trust_error *why)
{
    char text[TRUST_PATH_MAX + 96];

    if (r == -ENOMEM)
        return r;
    if (r != -EPERM)
        snprintf(text, sizeof(text), "a policy that can be read (%s)", strerror(-r));
    else if (strcmp(why->path, path) == 0)
        snprintf(text, sizeof(text), "a policy that is %s", why->reason);
    else
        snprintf(text, sizeof(text), "a policy below directories that are trusted: %s to be %s", why->path,
                 why->reason);
    return wrong(l, path, 0, 0, NULL, text);
}

static int read_text(struct loader *l, int fd, const char *path, char **ret, size_t *ret_n)
{
    _cleanup_free_ char *text = NULL;
    size_t n = 0, allocated = 0;

    for (;;) {
        ssize_t got;

        if (n == allocated) {
            char *grown;

            if (allocated > limits.bytes_max)
                return wrong(l, path, 0, 0, NULL, "a file of at most 4 MiB");
            allocated = allocated * 2 + 16384;
            grown = realloc(text, allocated);
            if (!grown)
                return -ENOMEM;
            text = grown;
        }
        got = read(fd, text + n, allocated - n);
        if (got < 0) {
            char reason[96];

            if (errno == EINTR)
                continue;
            snprintf(reason, sizeof(reason), "a policy that can be read (%s)", strerror(errno));
            return wrong(l, path, 0, 0, NULL, reason);
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret = TAKE_PTR(text);
    *ret_n = n;
    return 0;
}

static int add_source(struct policy_sources *sources, const char *path, struct json_index **index_take)
{
    struct policy_source *grown = reallocarray(sources->files, sources->n_files + 1, sizeof(*grown));
    char *file;

    if (!grown)
        return -ENOMEM;
    sources->files = grown;
    file = strdup(path);
    if (!file)
        return -ENOMEM;
    sources->files[sources->n_files++] = (struct policy_source){.file = file, .index = TAKE_PTR(*index_take)};
    return 0;
}

static int load_fd(struct loader *l, int fd, const char *path)
{
    _cleanup_(json_index_freep) struct json_index *index = NULL;
    _cleanup_json_ json_object *document = NULL;
    _cleanup_free_ char *text = NULL;
    struct json_error error = {.line = 0};
    size_t n = 0;
    int r;

    r = read_text(l, fd, path, &text, &n);
    if (r < 0)
        return r;
    r = json_parse(text, n, &limits, &document, &index, &error);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        char reason[256];

        snprintf(reason, sizeof(reason), "JSON with comments (%s)", error.reason);
        return wrong(l, path, error.line, error.column, error.key, reason);
    }
    if (!json_object_is_type(document, json_type_object))
        return wrong(l, path, 1, 1, NULL, "an object");
    r = policy_merge(l->policy->document, document);
    if (r < 0)
        return r;
    return add_source(l->policy->sources, path, &index);
}

static int is_policy_name(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);

    return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".json") == 0;
}

static int compare_entries(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static unsigned trust_flags(const struct loader *l)
{
    return l->options->skip_ownership ? TRUST_ANYBODY : TRUST_NO_GROUP;
}

static int load_entries(struct loader *l, int dir_fd, const char *dir, struct dirent **entries, size_t n_entries)
{
    for (size_t i = 0; i < n_entries; i++) {
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *path = NULL;
        struct trust_error why;
        int r;

        if (asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0)
            return -ENOMEM;
        r = trust_open_at(dir_fd, entries[i]->d_name, path, l->options->own_uid, trust_flags(l), &fd, &why);
        if (r < 0)
            return open_error(l, path, r, &why);
        r = load_fd(l, fd, path);
        if (r < 0)
            return r;
    }
    return 0;
}

static int load_directory(struct loader *l, const char *dir)
{
    _cleanup_close_ int fd = -EBADF;
    struct dirent **entries = NULL;
    struct trust_error why;
    int r, n;

    r = trust_open(dir, l->options->own_uid, trust_flags(l) | TRUST_DIRECTORY, &fd, &why);
    if (r < 0)
        return open_error(l, dir, r, &why);
    n = scandirat(fd, ".", &entries, is_policy_name, compare_entries);
    if (n < 0)
        return open_error(l, dir, -errno, NULL);
    r = load_entries(l, fd, dir, entries, (size_t)n);
    for (int i = 0; i < n; i++)
        free(entries[i]);
    free(entries);
    return r;
}

static int load_place(struct loader *l, const char *path, bool must_exist)
{
    _cleanup_close_ int fd = -EBADF;
    struct trust_error why;
    struct stat st;
    int r;

    if (stat(path, &st) < 0) {
        if ((errno == ENOENT || errno == ENOTDIR) && !must_exist)
            return 0;
        return open_error(l, path, -errno, NULL);
    }
    if (S_ISDIR(st.st_mode))
        return load_directory(l, path);
    r = trust_open(path, l->options->own_uid, trust_flags(l), &fd, &why);
    if (r < 0)
        return open_error(l, path, r, &why);
    return load_fd(l, fd, path);
}

static int nss_size(int name)
{
    long n = sysconf(name);

    return n > 0 && n < 1 << 20 ? (int)n : 16384;
}

static int nss_error(int r)
{
    /* What getpwnam_r(3) lists as "not found" besides 0. */
    return r == 0 || r == ENOENT || r == ESRCH || r == EBADF || r == EPERM ? -ESRCH : -r;
}

static int nss_user(const char *name, uid_t *ret, void *userdata)
{
    struct passwd entry, *found = NULL;
    size_t n = (size_t)nss_size(_SC_GETPW_R_SIZE_MAX);

    for (;; n *= 2) {
        _cleanup_free_ char *buffer = malloc(n);
        int r;

        if (!buffer)
            return -ENOMEM;
        r = getpwnam_r(name, &entry, buffer, n, &found);
        if (r == ERANGE && n < 1 << 24)
            continue;
        if (!found)
            return nss_error(r);
        *ret = entry.pw_uid;
        return 0;
    }
}

static int nss_group(const char *name, gid_t *ret, void *userdata)
{
    struct group entry, *found = NULL;
    size_t n = (size_t)nss_size(_SC_GETGR_R_SIZE_MAX);

    for (;; n *= 2) {
        _cleanup_free_ char *buffer = malloc(n);
        int r;

        if (!buffer)
            return -ENOMEM;
        r = getgrnam_r(name, &entry, buffer, n, &found);
        if (r == ERANGE && n < 1 << 24)
            continue;
        if (!found)
            return nss_error(r);
        *ret = entry.gr_gid;
        return 0;
    }
}

int policy_load(const struct policy_options *options, struct policy **ret, struct fault *reterr_fault)
{
    static const struct policy_names nss = {.user = nss_user, .group = nss_group};
    _cleanup_(policy_unrefp) struct policy *p = calloc(1, sizeof(*p));
    bool given = options->n_paths > 0;
    const char *const *paths = given ? options->paths : system_places;
    size_t n_paths = given ? options->n_paths : sizeof(system_places) / sizeof(*system_places);
    struct loader l = {.options = options, .policy = p, .fault = reterr_fault};
    int r;

    if (!p)
        return -ENOMEM;
    p->n_ref = 1;
    p->own_uid = options->own_uid;
    p->document = json_object_new_object();
    p->sources = calloc(1, sizeof(*p->sources));
    if (!p->document || !p->sources)
        return -ENOMEM;
    for (size_t i = 0; i < n_paths; i++) {
        r = load_place(&l, paths[i], given);
        if (r < 0)
            return r;
    }
    r = policy_check(p, options->names ? options->names : &nss, reterr_fault);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(p);
    return 0;
}

struct policy *policy_ref(struct policy *p)
{
    p->n_ref++;
    return p;
}

static void pairs_free(struct policy_pair *pairs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(pairs[i].name);
        free(pairs[i].value);
    }
    free(pairs);
}

static void texts_free(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(texts[i]);
    free(texts);
}

static void model_done(struct policy_model *m)
{
    free(m->name);
    free(m->path);
    free(m->sha256);
    free(m->placement.devices);
    json_object_put(m->defaults);
    texts_free(m->public_prefixes, m->n_public_prefixes);
    pairs_free(m->adapters, m->n_adapters);
    free(m->draft);
    policy_set_done(&m->allow);
    policy_set_done(&m->deny);
    policy_set_done(&m->share);
}

static void entries_free(struct policy_quota_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(entries[i].name);
    free(entries);
}

struct policy *policy_unref(struct policy *p)
{
    if (!p || --p->n_ref > 0)
        return NULL;
    for (size_t i = 0; i < p->n_models; i++)
        model_done(&p->models[i]);
    free(p->models);
    pairs_free(p->aliases, p->n_aliases);
    entries_free(p->quota_groups, p->n_quota_groups);
    entries_free(p->quota_users, p->n_quota_users);
    free(p->vram_devices);
    free(p->maintenance);
    policy_set_done(&p->admins);
    texts_free(p->warnings, p->n_warnings);
    json_object_put(p->document);
    for (size_t i = 0; p->sources && i < p->sources->n_files; i++) {
        free(p->sources->files[i].file);
        json_index_free(p->sources->files[i].index);
    }
    if (p->sources)
        free(p->sources->files);
    free(p->sources);
    free(p);
    return NULL;
}
