/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Usage.Get. One's own quotas are those of who is connected; of others their groups have to be asked for first, one
 * after the other, and the answer waits for that.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"
#include "daemon/usage.h"
#include "policy/quota.h"

struct asking {
    struct call *call;
    struct nss_query *query;
    uid_t *uids; /* [n_uids] */
    size_t n_uids, i_uid;
    bool all;
    json_object *users;
};

static void asking_free(struct asking *a)
{
    nss_query_cancel(a->query);
    free(a->uids);
    json_object_put(a->users);
    free(a);
}

/* limits, used and renews_ms into @o. */
static bool add_usage(json_object *o, const struct usage *usage)
{
    json_object *limits = json_object_new_object(), *used = json_object_new_object(),
                *renews = json_object_new_object();
    bool ok = add_take(o, "limits", limits);

    ok = add_take(o, "used", used) && ok;
    ok = add_take(o, "renews_ms", renews) && ok;
    for (enum policy_quota_key key = 0; ok && key < POLICY_QUOTA_KEY_MAX; key++) {
        const struct usage_item *item = &usage->items[key];
        const char *name = policy_quota_key_name(key);

        ok = add_count_if(limits, item->limit != POLICY_UNLIMITED, name, item->limit) &&
             add_count_if(used, item->has_used, name, item->used) &&
             add_count_if(renews, item->has_used && item->renews_ms >= 0, name, (uint64_t)item->renews_ms);
    }
    return ok;
}

static json_object *user_to_json(struct manager *m, const struct policy_subject *s, const char *name)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    struct usage usage;

    manager_usage(m, s, &usage);
    if (!o || !add_count(o, "uid", s->uid) || !add_text_if(o, "name", name) || !add_usage(o, &usage))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *groups_to_json(struct manager *m)
{
    _cleanup_json_ json_object *array = json_object_new_array();
    const struct policy *p = manager_policy(m);

    for (size_t i = 0; array && i < p->n_quota_groups; i++) {
        const struct policy_quota_entry *group = &p->quota_groups[i];
        _cleanup_json_ json_object *o = NULL;
        struct usage usage;

        if (!group->known || !group->has_total)
            continue;
        manager_group_usage(m, group, &usage);
        o = json_object_new_object();
        if (!o || !add_count(o, "gid", group->id) || !add_text(o, "name", group->name) || !add_usage(o, &usage) ||
            !append_take(array, TAKE_PTR(o)))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *everybody_to_json(struct asking *a)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_int(o, "uid", -1) || !add_take(o, "limits", json_object_new_object()) ||
        !add_take(o, "used", json_object_new_object()) || !add_take(o, "renews_ms", json_object_new_object()) ||
        !add_take(o, "users", TAKE_PTR(a->users)) || !add_take(o, "groups", groups_to_json(call_manager(a->call))))
        return NULL;
    return TAKE_PTR(o);
}

static int ask_next(struct asking *a);

static void on_named(int error, const struct nss_user *user, void *userdata)
{
    struct asking *a = userdata;
    struct policy_subject s = {.uid = a->uids[a->i_uid], .gid = (gid_t)-1};
    json_object *o;

    a->query = NULL;
    if (user) {
        s.nss_groups = user->groups;
        s.n_nss_groups = user->n_groups;
    }
    o = user_to_json(call_manager(a->call), &s, user ? user->name : NULL);
    if (!a->all) {
        call_reply_take(a->call, o);
        asking_free(a);
        return;
    }
    a->i_uid++;
    if (!append_take(a->users, o) || ask_next(a) < 0) {
        call_reply_take(a->call, NULL);
        asking_free(a);
    }
}

/* The next question, or the answer. */
static int ask_next(struct asking *a)
{
    if (a->i_uid < a->n_uids)
        return nss_ask(call_nss(a->call), a->uids[a->i_uid], on_named, a, &a->query);
    call_reply_take(a->call, everybody_to_json(a));
    asking_free(a);
    return 0;
}

static void cancel(void *data)
{
    asking_free(data);
}

static const struct call_ops ops = {.cancel = cancel};

int method_usage_get(struct call *call, struct fault *reterr_fault)
{
    struct asking *a;
    uid_t uid;
    bool all;
    int r;

    r = usage_whose(call, &all, &uid, reterr_fault);
    if (r != 0)
        return r;
    if (!all && uid == call_subject(call)->uid) {
        call_reply_take(call, user_to_json(call_manager(call), call_subject(call), call_user_name(call, uid)));
        return 0;
    }
    a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    *a = (struct asking){.call = call, .all = all, .users = json_object_new_array()};
    if (all) {
        r = manager_usage_uids(call_manager(call), &a->uids, &a->n_uids);
    } else {
        a->uids = calloc(1, sizeof(*a->uids));
        a->n_uids = 1;
        if (a->uids)
            a->uids[0] = uid;
        r = a->uids ? 0 : -ENOMEM;
    }
    if (r < 0 || !a->users) {
        asking_free(a);
        return -ENOMEM;
    }
    call_begin(call, &ops, a);
    r = ask_next(a);
    if (r < 0) {
        call_reply_take(call, NULL);
        asking_free(a);
    }
    return 0;
}
