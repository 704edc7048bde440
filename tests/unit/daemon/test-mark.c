/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/mark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* As of another implementation, whose encryption of the cipher's published block is the published one. */
static void the_cipher_is_speck(void **state)
{
    const struct mark_key key = {{0x03020100, 0x0b0a0908, 0x13121110, 0x1b1a1918}};
    uid_t uid = 0;

    assert_true(mark_of(&key, 1000) == UINT64_C(0x138861b66ea5943b));
    assert_true(mark_uid(&key, UINT64_C(0x138861b66ea5943b), &uid));
    assert_int_equal(uid, 1000);
}

static void a_mark_is_its_users_and_of_its_key(void **state)
{
    static const uid_t uids[] = {0, 1, 1000, 65534, 100000, UINT32_MAX - 1};
    struct mark_key key, other;
    uid_t uid;

    assert_int_equal(mark_key_new(&key), 0);
    assert_int_equal(mark_key_new(&other), 0);
    for (size_t i = 0; i < sizeof(uids) / sizeof(*uids); i++) {
        uint64_t mark = mark_of(&key, uids[i]);

        assert_true(mark_uid(&key, mark, &uid));
        assert_int_equal(uid, uids[i]);
        assert_false(mark_uid(&other, mark, &uid));
        assert_false(mark_uid(&key, mark ^ 1, &uid));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cipher_is_speck),
        cmocka_unit_test(a_mark_is_its_users_and_of_its_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
