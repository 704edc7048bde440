/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A second program that uses a resident model without a second copy of it: it maps the files that the service hands
 * out, touches every page, and says what they cost it. Pss divides each page among those who map it.
 *
 *      cc example-share.c $(pkg-config --cflags --libs libresident) -o share && ./share llama3-8b
 *
 * It keeps the mappings until its standard input ends.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <resident.h>

struct mapped {
    const uint8_t *data;
    uint64_t n_bytes;
};

static int map(int fd, struct mapped *ret)
{
    struct stat st;
    void *at;

    if (fstat(fd, &st) < 0)
        return -1;
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -1;
    *ret = (struct mapped){.data = at, .n_bytes = (uint64_t)st.st_size};
    return 0;
}

/* One byte of each page is enough to have it mapped. */
static uint64_t touch(const struct mapped *m)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < m->n_bytes; i += 4096)
        sum += ((const volatile uint8_t *)m->data)[i];
    return sum;
}

/* A line @name of /proc/self/smaps, in bytes, of the mapping at @m. */
static uint64_t figure(const struct mapped *m, const char *name)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    uint64_t from, to, kb = 0;
    size_t n = strlen(name);
    char line[512];
    int inside = 0;

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
            inside = from == (uintptr_t)m->data;
        else if (inside && strncmp(line, name, n) == 0 && sscanf(line + n, ": %" SCNu64 " kB", &kb) == 1)
            break;
    }
    if (f)
        fclose(f);
    return kb * 1024;
}

int main(int argc, char **argv)
{
    struct resident_error *error = NULL;
    uint64_t n_bytes = 0, rss = 0, pss = 0, sum = 0;
    struct resident *r = NULL;
    size_t n = 0;
    int *fds = NULL, k;

    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL\n", argv[0]);
        return 2;
    }
    k = resident_connect(NULL, &r);
    if (k == 0)
        k = resident_share(r, argv[1], &fds, &n, &error);
    if (k != 0) {
        fprintf(stderr, "%s\n", k == RESIDENT_REFUSED ? resident_error_description(error) : strerror(-k));
        resident_error_free(error);
        resident_close(r);
        return EXIT_FAILURE;
    }
    resident_close(r); /* the descriptors do not need it */
    for (size_t i = 0; i < n; i++) {
        struct mapped m;

        if (map(fds[i], &m) < 0) {
            perror("mmap");
            return EXIT_FAILURE;
        }
        close(fds[i]); /* nor the mapping them */
        sum += touch(&m);
        n_bytes += m.n_bytes;
        rss += figure(&m, "Rss");
        pss += figure(&m, "Pss");
    }
    free(fds);
    printf("%zu files, %" PRIu64 " bytes, sum %" PRIu64 ", Rss %" PRIu64 ", Pss %" PRIu64 "\n", n, n_bytes, sum, rss,
           pss);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return EXIT_SUCCESS;
}
