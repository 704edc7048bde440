/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The calls that a policy leads to, on machines that are made up: libnuma's functions are replaced by these. */
#include "daemon/numa.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A set of nodes is here its bits. */
struct bitmask {
    uint64_t bits;
};

static int fake_available(void)
{
    return mock_type(int);
}

static int fake_num_configured_nodes(void)
{
    return mock_type(int);
}

static struct bitmask *fake_all_nodes(void)
{
    return mock_ptr_type(struct bitmask *);
}

static struct bitmask *fake_allocate_nodemask(void)
{
    return calloc(1, sizeof(struct bitmask));
}

static struct bitmask *fake_bitmask_setbit(struct bitmask *mask, unsigned node)
{
    mask->bits |= UINT64_C(1) << node;
    return mask;
}

static int fake_bitmask_isbitset(const struct bitmask *mask, unsigned node)
{
    return node < 64 && mask->bits >> node & 1;
}

static void fake_free_nodemask(struct bitmask *mask)
{
    function_called();
    free(mask);
}

static void fake_set_interleave_mask(struct bitmask *mask)
{
    uint64_t bits = mask->bits;

    check_expected(bits);
}

static void fake_set_membind(struct bitmask *mask)
{
    uint64_t bound = mask->bits;

    check_expected(bound);
}

static const struct numa_calls fake = {
    .available = fake_available,
    .num_configured_nodes = fake_num_configured_nodes,
    .all_nodes = fake_all_nodes,
    .allocate_nodemask = fake_allocate_nodemask,
    .bitmask_setbit = fake_bitmask_setbit,
    .bitmask_isbitset = fake_bitmask_isbitset,
    .free_nodemask = fake_free_nodemask,
    .set_interleave_mask = fake_set_interleave_mask,
    .set_membind = fake_set_membind,
};

static void spreads_over_all_nodes(void **state)
{
    static const enum policy_numa both[] = {POLICY_NUMA_AUTO, POLICY_NUMA_INTERLEAVE};
    struct bitmask all = {.bits = 0xb};

    for (size_t i = 0; i < 2; i++) {
        will_return(fake_available, 0);
        will_return(fake_num_configured_nodes, 3);
        will_return(fake_all_nodes, &all);
        expect_value(fake_set_interleave_mask, bits, 0xb);
        assert_int_equal(numa_place(&fake, both[i], 0), 0);
    }
}

static void leaves_one_node_alone(void **state)
{
    will_return(fake_available, 0);
    will_return(fake_num_configured_nodes, 1);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_AUTO, 0), 0);
}

static void calls_nothing_when_off_or_without_numa(void **state)
{
    assert_int_equal(numa_place(&fake, POLICY_NUMA_OFF, 0), 0);
    will_return_count(fake_available, -1, 4);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_AUTO, 0), 0);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_INTERLEAVE, 0), 0);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_BIND, 0), 0);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_BIND, 1), -ENODEV);
}

static void binds_to_a_node_that_there_is(void **state)
{
    struct bitmask all = {.bits = 0xb};

    will_return(fake_available, 0);
    will_return(fake_all_nodes, &all);
    expect_value(fake_set_membind, bound, 0x8);
    expect_function_call(fake_free_nodemask);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_BIND, 3), 0);
    will_return(fake_available, 0);
    will_return(fake_all_nodes, &all);
    assert_int_equal(numa_place(&fake, POLICY_NUMA_BIND, 2), -ENODEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spreads_over_all_nodes),
        cmocka_unit_test(leaves_one_node_alone),
        cmocka_unit_test(calls_nothing_when_off_or_without_numa),
        cmocka_unit_test(binds_to_a_node_that_there_is),
    };

    return cmocka_run_group_tests_name("numa", tests, NULL, NULL);
}
