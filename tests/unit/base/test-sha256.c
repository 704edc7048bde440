/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/sha256.h"
#include "base/sha256-blocks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void gives_the_published_digests(void **state)
{
    /* FIPS 180-4's examples (NIST CAVP) and the empty text. */
    static const struct {
        const char *text, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char text[SHA256_TEXT_MAX];
    struct sha256 s;

    for (size_t i = 0; i < 3; i++) {
        sha256_init(&s);
        sha256_add(&s, cases[i].text, strlen(cases[i].text));
        assert_string_equal(sha256_text(&s, text), cases[i].digest);
    }
}

static void does_not_depend_on_the_pieces(void **state)
{
    static const size_t steps[] = {1, 3, 55, 56, 63, 64, 65, 1000, 1000000};
    char *million = malloc(1000000), text[SHA256_TEXT_MAX];

    assert_non_null(million);
    memset(million, 'a', 1000000);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        struct sha256 s;

        sha256_init(&s);
        for (size_t at = 0; at < 1000000; at += steps[i])
            sha256_add(&s, million + at, 1000000 - at < steps[i] ? 1000000 - at : steps[i]);
        assert_string_equal(sha256_text(&s, text), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    free(million);
}

static void every_form_computes_the_same(void **state)
{
    uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t bytes[9 * SHA256_BLOCK_BYTES + 1];

    if (sha256_blocks_best() == sha256_blocks_portable)
        skip();
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 167 + (i >> 3));
    for (size_t n = 0; n <= 9; n++) {
        sha256_blocks_portable(a, bytes + 1, n);
        sha256_blocks_best()(b, bytes + 1, n);
        assert_memory_equal(a, b, sizeof(a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_digests),
        cmocka_unit_test(does_not_depend_on_the_pieces),
        cmocka_unit_test(every_form_computes_the_same),
    };

    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
