/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The administrator's policy as typed, checked data, and the answers it gives: who may use what, and how much of it.
 * Made from files by policy_load() (load.c reads, merge.c merges, check.c types), immutable afterwards and shared by
 * reference, so that a request can finish under the rules it started with while a reload has swapped them for others.
 * Pure decisions: the only I/O is reading policy files and, at load, asking NSS for numbers of names.
 * Every value has its default filled in, so readers never ask whether a key was given, except where noted.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/fault.h"

struct json_object;

#define POLICY_NAME_MAX 64 /* characters in the name of a model or an alias: [A-Za-z0-9._-]{1,64} */
#define POLICY_UNLIMITED UINT64_MAX
#define POLICY_AUTO UINT32_MAX
#define POLICY_ALL (UINT32_MAX - 1)
#define POLICY_PRIORITY_MAX 1000 /* priorities lie in [-1000, 1000] */

/* "8G" or "80%" of a whole that only the reader knows (RAM, a device). */
struct policy_size {
    bool is_share;
    uint32_t share_ppm; /* millionths of the whole, of a share */
    uint64_t bytes;     /* otherwise */
};

/* A set of users and groups. Names were resolved when the policy was loaded; those that NSS does not know are left
 * out and warned of. */
struct policy_set {
    bool given; /* the key was there */
    bool everybody; /* "*" among the users */
    uid_t *uids; /* [n_uids] sorted */
    size_t n_uids;
    gid_t *gids; /* [n_gids] sorted */
    size_t n_gids;
};

enum policy_ram { POLICY_RAM_MAP, POLICY_RAM_LOCK, POLICY_RAM_COPY, POLICY_RAM_MAX };
enum policy_when { POLICY_WHEN_ON_DEMAND, POLICY_WHEN_ALWAYS, POLICY_WHEN_MAX };
enum policy_huge { POLICY_HUGE_AUTO, POLICY_HUGE_OFF, POLICY_HUGE_ON, POLICY_HUGE_MAX };
enum policy_experts { POLICY_EXPERTS_AUTO, POLICY_EXPERTS_RAM, POLICY_EXPERTS_VRAM, POLICY_EXPERTS_MAX };
enum policy_flash { POLICY_FLASH_AUTO, POLICY_FLASH_OFF, POLICY_FLASH_ON, POLICY_FLASH_MAX };
enum policy_numa { POLICY_NUMA_AUTO, POLICY_NUMA_OFF, POLICY_NUMA_INTERLEAVE, POLICY_NUMA_BIND, POLICY_NUMA_MAX };
enum policy_ready { POLICY_READY_LISTENING, POLICY_READY_RESIDENT, POLICY_READY_MAX };
enum policy_offloaded { POLICY_OFFLOADED_RELEASE, POLICY_OFFLOADED_KEEP, POLICY_OFFLOADED_MAX };

struct policy_residency {
    enum policy_ram ram;
    enum policy_when when;
    uint64_t idle_us; /* an on-demand model leaves after this long without a request; POLICY_UNLIMITED: never */
    enum policy_numa numa;
    uint32_t numa_node; /* of POLICY_NUMA_BIND */
    enum policy_huge huge;
    struct policy_size limit; /* so much of a larger model stays in RAM, the rest is read in each step; 0: all of it */
    enum policy_offloaded offloaded; /* what becomes of the RAM of tensors that live in VRAM */
};

struct policy_placement {
    uint32_t gpu_layers; /* or POLICY_AUTO, POLICY_ALL */
    struct policy_size vram;
    bool vram_given;
    uint32_t *devices; /* [n_devices]; none: all that there are */
    size_t n_devices;
    enum policy_experts experts;
};

struct policy_context {
    uint32_t tokens; /* of one sequence; 0: as the model was trained */
    uint32_t sequences;
    char k[16], v[16]; /* names of tensor types, "f16"; checked against the list of KV types */
    enum policy_flash flash;
};

struct policy_pair {
    char *name;
    char *value;
};

struct policy_model {
    char *name;
    char *path;   /* absolute; the first file of a split model names the others */
    char *sha256; /* 64 lower-case digits, NULL: not checked */
    struct policy_residency residency;
    struct policy_placement placement;
    struct policy_context context;
    struct json_object *defaults; /* of a request's parameters, names and types as in the Inference interface;
                                     "system" is a text. NULL: none */
    uint32_t max_tokens;          /* output of one request, POLICY_AUTO: no limit */
    uint32_t sequences_per_user;  /* POLICY_AUTO: no limit */
    char **public_prefixes;       /* [n_public_prefixes] absolute paths */
    size_t n_public_prefixes;
    struct policy_pair *adapters; /* [n_adapters] name, absolute path */
    size_t n_adapters;
    char *draft; /* name of another model or NULL */
    int32_t priority;
    struct policy_set allow, deny; /* allow not given: everybody whom NSS knows */
    struct policy_set share;       /* not given: nobody */
};

/* A ceiling that was not given is POLICY_UNLIMITED. */
struct policy_quota {
    uint64_t concurrent;
    uint64_t queued;
    uint64_t requests_per_minute;
    uint64_t tokens_per_minute;
    uint64_t tokens_per_day;
    uint64_t context_tokens;
    uint64_t output_tokens;
    uint64_t kv_bytes;
    uint64_t connections;
    uint64_t weight; /* default 100; never unlimited */
    int32_t priority_max; /* default 0 */
};

/* Bits of struct policy_quota's members, to tell the given ones. */
enum policy_quota_key {
    POLICY_QUOTA_CONCURRENT,
    POLICY_QUOTA_QUEUED,
    POLICY_QUOTA_REQUESTS_PER_MINUTE,
    POLICY_QUOTA_TOKENS_PER_MINUTE,
    POLICY_QUOTA_TOKENS_PER_DAY,
    POLICY_QUOTA_CONTEXT_TOKENS,
    POLICY_QUOTA_OUTPUT_TOKENS,
    POLICY_QUOTA_KV,
    POLICY_QUOTA_CONNECTIONS,
    POLICY_QUOTA_WEIGHT,
    POLICY_QUOTA_PRIORITY_MAX,
    POLICY_QUOTA_KEY_MAX,
};

struct policy_quota_entry {
    char *name;   /* as written */
    bool known;   /* NSS had a number for it */
    uint32_t id;  /* uid or gid */
    uint32_t given; /* 1 << enum policy_quota_key */
    struct policy_quota values;
    bool has_total; /* groups only */
    uint32_t total_given;
    struct policy_quota total; /* of the group as a whole */
};

struct policy_device {
    uint32_t index;
    struct policy_size budget;
};

struct policy {
    unsigned n_ref;
    /* host */
    struct policy_size ram_budget, ram_reserve;
    struct policy_size vram_budget;
    struct policy_device *vram_devices; /* [n_vram_devices] */
    size_t n_vram_devices;
    uint32_t threads; /* POLICY_AUTO: one per core */
    enum policy_ready ready;
    uint64_t upgrade_deadline_us;
    char *maintenance; /* what new requests are told, NULL: nothing */

    struct policy_model *models; /* [n_models] sorted by name */
    size_t n_models;
    struct policy_pair *aliases; /* [n_aliases] alias, model; sorted by alias */
    size_t n_aliases;
    struct policy_quota_entry quota_default;
    struct policy_quota_entry *quota_groups; /* [n_quota_groups] */
    size_t n_quota_groups;
    struct policy_quota_entry *quota_users; /* [n_quota_users] */
    size_t n_quota_users;
    struct policy_set admins; /* not given: root and the service's own user */
    uid_t own_uid;            /* the service's */

    char **warnings; /* [n_warnings] one line each, for the log: unknown names and the like */
    size_t n_warnings;
    struct json_object *document; /* the merged text, for `policy show` */
    struct policy_sources *sources;
};

/* Who asks, as the kernel and NSS say it. The arrays are borrowed. */
struct policy_subject {
    uid_t uid; /* of a subordinate uid: of its owner, who is denied and counted for what it does */
    bool is_subordinate; /* nothing is granted to it by the owner's name, and it is never an administrator */
    gid_t gid;
    const gid_t *groups; /* [n_groups] SO_PEERGROUPS: what grants look at, with @gid */
    size_t n_groups;
    const gid_t *nss_groups; /* [n_nss_groups] what NSS says: counts for denials and quotas only */
    size_t n_nss_groups;
};

/* How names become numbers; NSS unless a test hands in its own. */
struct policy_names {
    int (*user)(const char *name, uid_t *ret, void *userdata);  /* 0, -ESRCH (no such user), other errno */
    int (*group)(const char *name, gid_t *ret, void *userdata);
    void *userdata;
};

struct policy_options {
    const char *const *paths; /* [n_paths] files or directories in merge order; none: the three system places */
    size_t n_paths;
    uid_t own_uid;         /* besides root, who may own policy files */
    bool skip_ownership;   /* `policy check` of a draft in someone's home directory */
    const struct policy_names *names; /* NULL: NSS */
};

/**
 * policy_load() - read, merge and check policy files
 * Paths named by @options must exist; of the system places any may be missing, and without any the policy is empty.
 * A directory stands for its *.json files in order of their names.
 * @ret:          the policy, with one reference that the caller owns
 * @reterr_fault: FAULT_POLICY_INVALID with file, line, column, key (dots between its parts) and what was expected
 * Returns 0, -EINVAL, -ENOMEM.
 */
int policy_load(const struct policy_options *options, struct policy **ret, struct fault *reterr_fault);

/**
 * policy_ref() - one more owner; returns @p
 */
struct policy *policy_ref(struct policy *p);

/**
 * policy_unref() - one owner less; takes NULL, returns NULL
 */
struct policy *policy_unref(struct policy *p);

DEFINE_CLEANUP(struct policy *, policy_unref)

/**
 * policy_origin() - which file a value of the merged document comes from, and where it stands there
 * @path: as json_index_find() takes it. Returns false when no file has such a value.
 */
bool policy_origin(const struct policy *p, const char *path, const char **ret_file, uint32_t *ret_line,
                   uint32_t *ret_column);

/* So many differences are named; a frame of the socket has to hold them. */
#define POLICY_DIFF_MAX 4096

/**
 * policy_diff() - the keys whose values differ, as "models.m.context.tokens"; a whole object that only one of the two
 * has is named once
 * @ret: an array of texts, in the order of @before, then those that are new; owned by the caller
 * Returns 0 or -ENOMEM.
 */
int policy_diff(const struct policy *before, const struct policy *after, struct json_object **ret);

/**
 * policy_find_model() - the model behind a name or an alias; NULL when there is none
 */
const struct policy_model *policy_find_model(const struct policy *p, const char *name_or_alias);

/**
 * policy_is_admin() - whether @s is among the administrators
 */
bool policy_is_admin(const struct policy *p, const struct policy_subject *s);

/**
 * policy_may_use() - whether @s may send requests to @model
 * allow is a union of users and groups; deny wins, also over administrators.
 */
bool policy_may_use(const struct policy *p, const struct policy_model *model, const struct policy_subject *s);

/**
 * policy_may_share() - whether @s may be handed the model's memory (Inference.Share)
 */
bool policy_may_share(const struct policy *p, const struct policy_model *model, const struct policy_subject *s);

/**
 * policy_quota_for() - what @s may have: default, replaced by the most generous of its groups, replaced by its own
 */
void policy_quota_for(const struct policy *p, const struct policy_subject *s, struct policy_quota *ret);

/**
 * policy_size_of() - a size, or the share of @whole that it stands for
 */
uint64_t policy_size_of(const struct policy_size *size, uint64_t whole);

/**
 * policy_name_is_valid() - whether a model or alias may be called so
 */
bool policy_name_is_valid(const char *name);

/**
 * policy_ram_to_string(), policy_when_to_string() - as the policy writes it; a static string
 */
const char *policy_ram_to_string(enum policy_ram ram);
const char *policy_when_to_string(enum policy_when when);
