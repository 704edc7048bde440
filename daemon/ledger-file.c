/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In WAL mode with synchronous=NORMAL: a commit is a write to the log, without waiting for the disk. The end of this
 * process loses nothing of it; a power cut may lose what was added after the last ledger_file_sync(), and never
 * leaves half a transaction. Turned down: synchronous=FULL, which would make every answer wait for the disk, for
 * clients that run on the same machine and lose power with it.
 *
 * A commit that reports an error may have been written all the same. So each request's number is kept for some hours,
 * and adding it a second time changes nothing.
 */
#include "daemon/ledger-file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* "rsdl": other programs' files are not taken for ours. */
#define APPLICATION_ID 0x7273646c
#define FORMAT_VERSION 1
/* Another process may look at the file; it may not hold us up for long. */
#define BUSY_MS 1000
/* What SQLite keeps of the file in memory: 2 MiB if nobody says otherwise, which it would grow to with the days. */
#define CACHE_KIB "256"
/* A year and a month for whoever makes a bill of it. */
#define KEEP_USAGE_S (INT64_C(400) * 86400)
/* From the first try to add a request to the last: far less. */
#define KEEP_RECORDED_S (INT64_C(2) * 86400)

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    ADD_RECORDED,
    ADD_USAGE,
    ADD_TOTAL,
    NOTE,
    STATEMENT_MAX,
};

static const char *const texts[STATEMENT_MAX] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [ADD_RECORDED] = "INSERT OR IGNORE INTO recorded(epoch, request, hour) VALUES(?1, ?2, ?3)",
    [ADD_USAGE] = "INSERT INTO usage VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET "
                  "requests = requests + ?4, prompt_tokens = prompt_tokens + ?5, cached_tokens = cached_tokens + ?6, "
                  "output_tokens = output_tokens + ?7, duration_us = duration_us + ?8",
    [ADD_TOTAL] = "INSERT INTO totals VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET tokens = tokens + ?3",
    [NOTE] = "INSERT OR REPLACE INTO notes VALUES(1, ?1, ?2)",
};

static const char *const schema =
    "CREATE TABLE usage(hour INTEGER NOT NULL, uid INTEGER NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL, "
    "prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, "
    "duration_us INTEGER NOT NULL, PRIMARY KEY(hour, uid, model)) WITHOUT ROWID;"
    "CREATE TABLE totals(hour INTEGER NOT NULL, gid INTEGER NOT NULL, tokens INTEGER NOT NULL, "
    "PRIMARY KEY(hour, gid)) WITHOUT ROWID;"
    "CREATE TABLE recorded(epoch INTEGER NOT NULL, request INTEGER NOT NULL, hour INTEGER NOT NULL, "
    "PRIMARY KEY(epoch, request)) WITHOUT ROWID;"
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, day INTEGER NOT NULL, text TEXT);";

struct ledger_file {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_MAX];
};

uint64_t ledger_entry_tokens(const struct ledger_entry *e)
{
    uint64_t computed = e->prompt_tokens > e->cached_tokens ? e->prompt_tokens - e->cached_tokens : 0;

    return computed + e->output_tokens;
}

static int outcome(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
        return 0;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    /* The tables are not as we made them. */
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return LEDGER_DAMAGED;
    default:
        return LEDGER_FAILED;
    }
}

static int failed(sqlite3 *db, int code, char *reason, size_t n_reason)
{
    snprintf(reason, n_reason, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    return outcome(code);
}

struct ledger_file *ledger_file_close(struct ledger_file *f)
{
    if (!f)
        return NULL;
    for (size_t i = 0; i < STATEMENT_MAX; i++)
        sqlite3_finalize(f->statements[i]);
    sqlite3_close(f->db);
    free(f);
    return NULL;
}

static int pragma_int(sqlite3 *db, const char *text, int64_t *ret)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &s, NULL);

    if (code == SQLITE_OK) {
        code = sqlite3_step(s);
        if (code == SQLITE_ROW) {
            *ret = sqlite3_column_int64(s, 0);
            code = SQLITE_OK;
        }
    }
    sqlite3_finalize(s);
    return code;
}

/* A new file gets its tables in one transaction: it is ours and whole, or empty. */
static int make_tables(sqlite3 *db)
{
    char text[1400];
    int n = snprintf(text, sizeof(text),
                     "BEGIN IMMEDIATE; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;", schema,
                     APPLICATION_ID, FORMAT_VERSION);

    assert(n > 0 && (size_t)n < sizeof(text));
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

static int check_or_make(sqlite3 *db, char *reason, size_t n_reason)
{
    int64_t id = 0, version = 0, n_pages = 0;
    int code = pragma_int(db, "PRAGMA application_id", &id);

    if (code == SQLITE_OK)
        code = pragma_int(db, "PRAGMA user_version", &version);
    if (code == SQLITE_OK)
        code = pragma_int(db, "PRAGMA page_count", &n_pages);
    if (code != SQLITE_OK)
        return failed(db, code, reason, n_reason);
    if (n_pages > 0 && id == 0 && version == 0) {
        int64_t n_tables = 0;

        code = pragma_int(db, "SELECT count(*) FROM sqlite_schema", &n_tables);
        if (code != SQLITE_OK)
            return failed(db, code, reason, n_reason);
        n_pages = n_tables;
    }
    if (n_pages == 0) {
        code = make_tables(db);
        return code == SQLITE_OK ? 0 : failed(db, code, reason, n_reason);
    }
    if (id != APPLICATION_ID || version != FORMAT_VERSION) {
        snprintf(reason, n_reason, "it is no ledger of this version (application %" PRId64 ", format %" PRId64 ")", id,
                 version);
        return LEDGER_DAMAGED;
    }
    return 0;
}

static int prepare(struct ledger_file *f, char *reason, size_t n_reason)
{
    for (size_t i = 0; i < STATEMENT_MAX; i++) {
        int code = sqlite3_prepare_v3(f->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &f->statements[i], NULL);

        if (code != SQLITE_OK)
            return failed(f->db, code, reason, n_reason);
    }
    return 0;
}

int ledger_file_open(const char *dir, struct ledger_file **ret, char *reason, size_t n_reason)
{
    _cleanup_(ledger_file_closep) struct ledger_file *f = calloc(1, sizeof(*f));
    _cleanup_free_ char *path = NULL;
    int code, r;

    if (!f || asprintf(&path, "%s/" LEDGER_FILE_NAME, dir) < 0)
        return -ENOMEM;
    code = sqlite3_open_v2(path, &f->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK)
        return failed(f->db, code, reason, n_reason);
    sqlite3_busy_timeout(f->db, BUSY_MS);
    /* The file is not ours alone while nobody has looked into it: no functions of it, no clever schemas. */
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    code = sqlite3_exec(f->db,
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; "
                        "PRAGMA cache_size = -" CACHE_KIB,
                        NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return failed(f->db, code, reason, n_reason);
    r = check_or_make(f->db, reason, n_reason);
    if (r == 0)
        r = prepare(f, reason, n_reason);
    if (r != 0)
        return r;
    *ret = TAKE_PTR(f);
    return 0;
}

/* Runs a statement whose parameters are bound. */
static int run(struct ledger_file *f, enum statement which)
{
    sqlite3_stmt *s = f->statements[which];
    int code = sqlite3_step(s);

    sqlite3_reset(s);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* Numbers of SQLite have a sign; a request with 2^63 tokens there is not. */
static void bind(struct ledger_file *f, enum statement which, int at, uint64_t value)
{
    sqlite3_bind_int64(f->statements[which], at, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

static int add_usage(struct ledger_file *f, const struct ledger_entry *e)
{
    sqlite3_bind_int64(f->statements[ADD_USAGE], 1, e->hour);
    bind(f, ADD_USAGE, 2, e->uid);
    sqlite3_bind_text(f->statements[ADD_USAGE], 3, e->model, -1, SQLITE_STATIC);
    bind(f, ADD_USAGE, 4, 1);
    bind(f, ADD_USAGE, 5, e->prompt_tokens);
    bind(f, ADD_USAGE, 6, e->cached_tokens);
    bind(f, ADD_USAGE, 7, e->output_tokens);
    bind(f, ADD_USAGE, 8, e->duration_us);
    return run(f, ADD_USAGE);
}

static int add_total(struct ledger_file *f, int64_t hour, gid_t gid, uint64_t tokens)
{
    sqlite3_bind_int64(f->statements[ADD_TOTAL], 1, hour);
    bind(f, ADD_TOTAL, 2, gid);
    bind(f, ADD_TOTAL, 3, tokens);
    return run(f, ADD_TOTAL);
}

static int add_entry(struct ledger_file *f, const struct ledger_entry *e, bool *ret_is_new)
{
    int code;

    /* Numbers for comparison only: all 64 bits are kept. */
    sqlite3_bind_int64(f->statements[ADD_RECORDED], 1, (int64_t)e->epoch);
    sqlite3_bind_int64(f->statements[ADD_RECORDED], 2, (int64_t)e->request);
    sqlite3_bind_int64(f->statements[ADD_RECORDED], 3, e->hour);
    code = run(f, ADD_RECORDED);
    *ret_is_new = code == SQLITE_OK && sqlite3_changes(f->db) > 0;
    if (!*ret_is_new)
        return code;
    code = add_usage(f, e);
    for (size_t i = 0; code == SQLITE_OK && i < e->n_groups; i++)
        code = add_total(f, e->hour, e->groups[i], ledger_entry_tokens(e));
    return code;
}

/* The end of a transaction of which one statement said @code. */
static int finish(struct ledger_file *f, int code, char *reason, size_t n_reason)
{
    int r;

    if (code == SQLITE_OK)
        code = run(f, COMMIT);
    if (code == SQLITE_OK)
        return 0;
    r = failed(f->db, code, reason, n_reason);
    if (!sqlite3_get_autocommit(f->db))
        (void)run(f, ROLLBACK);
    return r;
}

int ledger_file_add(struct ledger_file *f, const struct ledger_entry *const *entries, size_t n, bool *ret_is_new,
                    char *reason, size_t n_reason)
{
    int code = run(f, BEGIN);

    if (code != SQLITE_OK)
        return failed(f->db, code, reason, n_reason);
    for (size_t i = 0; code == SQLITE_OK && i < n; i++)
        code = add_entry(f, entries[i], &ret_is_new[i]);
    return finish(f, code, reason, n_reason);
}

/* ---- the day ---- */

struct day_list {
    struct ledger_day *items; /* [n], room for n_room; in the order in which they came */
    size_t n, n_room;
};

static int append(struct day_list *list, uint64_t id, uint64_t tokens)
{
    if (list->n == list->n_room) {
        size_t n_room = 2 * list->n_room + 64;
        struct ledger_day *grown = reallocarray(list->items, n_room, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        list->items = grown;
        list->n_room = n_room;
    }
    list->items[list->n++] = (struct ledger_day){.id = id, .tokens = tokens};
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = ((const struct ledger_day *)a)->id, y = ((const struct ledger_day *)b)->id;

    return (x > y) - (x < y);
}

/* One row for each id. */
static void sum_up(struct day_list *list)
{
    size_t n = 0;

    if (list->n > 0)
        qsort(list->items, list->n, sizeof(*list->items), compare);
    for (size_t i = 0; i < list->n; i++) {
        if (n > 0 && list->items[n - 1].id == list->items[i].id)
            list->items[n - 1].tokens += list->items[i].tokens;
        else
            list->items[n++] = list->items[i];
    }
    list->n = n;
}

/* Row by row: of a damaged table that is what stands before the damage. */
static int read_rows(sqlite3 *db, const char *text, int64_t day, uint64_t flag, struct day_list *list)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &s, NULL), r = 0;

    if (code == SQLITE_OK)
        sqlite3_bind_int64(s, 1, day);
    while (code == SQLITE_OK && r == 0 && (code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(s, 0), tokens = sqlite3_column_int64(s, 1);

        if (id >= 0 && id <= UINT32_MAX && tokens > 0)
            r = append(list, (uint64_t)id | flag, (uint64_t)tokens);
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return r < 0 ? r : code;
}

int ledger_file_day(struct ledger_file *f, int64_t day, struct ledger_day **ret, size_t *ret_n, char *reason,
                    size_t n_reason)
{
    struct day_list list = {.items = NULL};
    int users, groups;

    users = read_rows(f->db,
                      "SELECT uid, prompt_tokens - min(cached_tokens, prompt_tokens) + output_tokens FROM usage "
                      "WHERE hour >= ?1 ORDER BY hour, uid, model",
                      day, 0, &list);
    groups = users < 0 ? users
                       : read_rows(f->db, "SELECT gid, tokens FROM totals WHERE hour >= ?1 ORDER BY hour, gid", day,
                                   LEDGER_GROUP, &list);
    if (groups < 0) {
        free(list.items);
        return groups;
    }
    sum_up(&list);
    *ret = list.items;
    *ret_n = list.n;
    if (users != SQLITE_DONE)
        return failed(NULL, users, reason, n_reason);
    return groups == SQLITE_DONE ? 0 : failed(NULL, groups, reason, n_reason);
}

int ledger_file_carry(struct ledger_file *f, int64_t day, const struct ledger_day *list, size_t n, char *reason,
                      size_t n_reason)
{
    int code = run(f, BEGIN);

    if (code != SQLITE_OK)
        return failed(f->db, code, reason, n_reason);
    for (size_t i = 0; code == SQLITE_OK && i < n; i++) {
        if (list[i].id & LEDGER_GROUP) {
            code = add_total(f, day, (gid_t)list[i].id, list[i].tokens);
        } else {
            sqlite3_bind_int64(f->statements[ADD_USAGE], 1, day);
            bind(f, ADD_USAGE, 2, list[i].id);
            sqlite3_bind_text(f->statements[ADD_USAGE], 3, "", -1, SQLITE_STATIC);
            for (int at = 4; at <= 8; at++)
                bind(f, ADD_USAGE, at, at == 5 ? list[i].tokens : 0);
            code = run(f, ADD_USAGE);
        }
    }
    return finish(f, code, reason, n_reason);
}

/* ---- keeping house ---- */

int ledger_file_sync(struct ledger_file *f, char *reason, size_t n_reason)
{
    int code = sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

    /* Somebody reads: the next time. */
    if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED)
        return 0;
    return failed(f->db, code, reason, n_reason);
}

static int delete_before(sqlite3 *db, const char *text, int64_t hour)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &s, NULL);

    if (code == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, hour);
        code = sqlite3_step(s);
    }
    sqlite3_finalize(s);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

int ledger_file_prune(struct ledger_file *f, int64_t now_s, char *reason, size_t n_reason)
{
    int code = run(f, BEGIN);

    if (code != SQLITE_OK)
        return failed(f->db, code, reason, n_reason);
    code = delete_before(f->db, "DELETE FROM recorded WHERE hour < ?1", now_s - KEEP_RECORDED_S);
    if (code == SQLITE_OK)
        code = delete_before(f->db, "DELETE FROM usage WHERE hour < ?1", now_s - KEEP_USAGE_S);
    if (code == SQLITE_OK)
        code = delete_before(f->db, "DELETE FROM totals WHERE hour < ?1", now_s - KEEP_USAGE_S);
    return finish(f, code, reason, n_reason);
}

int ledger_file_note(struct ledger_file *f, int64_t day, const char *text, char *reason, size_t n_reason)
{
    int code;

    sqlite3_bind_int64(f->statements[NOTE], 1, day);
    if (text)
        sqlite3_bind_text(f->statements[NOTE], 2, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(f->statements[NOTE], 2);
    code = run(f, NOTE);
    return code == SQLITE_OK ? 0 : failed(f->db, code, reason, n_reason);
}

int ledger_file_get_note(struct ledger_file *f, int64_t day, char **ret)
{
    sqlite3_stmt *s = NULL;
    static const char *const text = "SELECT text FROM notes WHERE id = 1 AND day = ?1 AND text IS NOT NULL";
    int code = sqlite3_prepare_v2(f->db, text, -1, &s, NULL);
    int r = 0;

    *ret = NULL;
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, day);
        code = sqlite3_step(s);
    }
    if (code == SQLITE_ROW) {
        const unsigned char *found = sqlite3_column_text(s, 0);

        *ret = found ? strdup((const char *)found) : NULL;
        r = *ret ? 0 : -ENOMEM;
    } else if (code != SQLITE_DONE) {
        r = LEDGER_FAILED;
    }
    sqlite3_finalize(s);
    return r;
}

static int move(const char *from, const char *to, const char *suffix)
{
    _cleanup_free_ char *a = NULL, *b = NULL;

    if (asprintf(&a, "%s%s", from, suffix) < 0)
        return -ENOMEM;
    if (asprintf(&b, "%s%s", to, suffix) < 0)
        return -ENOMEM;
    return rename(a, b) == 0 || errno == ENOENT ? 0 : -errno;
}

int ledger_file_set_aside(const char *dir, int64_t now_s, char **ret)
{
    _cleanup_free_ char *from = NULL, *to = NULL;
    time_t now = (time_t)now_s;
    char stamp[32] = "";
    struct tm tm;
    int r;

    if (gmtime_r(&now, &tm))
        strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm);
    if (asprintf(&from, "%s/" LEDGER_FILE_NAME, dir) < 0)
        return -ENOMEM;
    /* Two in one second: the number tells them apart. */
    for (unsigned i = 0;; i++) {
        free(to);
        to = NULL;
        if (asprintf(&to, i == 0 ? "%s.damaged-%s" : "%s.damaged-%s.%u", from, stamp, i) < 0)
            return -ENOMEM;
        if (access(to, F_OK) < 0)
            break;
    }
    /* The log first: a file without its log is older, a log without its file would be taken for the new one's. */
    r = move(from, to, "-wal");
    if (r == 0)
        r = move(from, to, "-shm");
    if (r == 0)
        r = move(from, to, "");
    if (r < 0)
        return r;
    *ret = TAKE_PTR(to);
    return 0;
}
