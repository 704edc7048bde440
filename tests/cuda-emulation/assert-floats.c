/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/gguf/half.h"
#include "tests/cuda-emulation/emulated-device.h"

void assert_floats_equal(const char *what, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float a = got[i], b = expected[i];

        if (float_to_bits(a) != float_to_bits(b) && !(a != a && b != b))
            fail_msg("%s: [%zu] is %.9g (%08x), expected %.9g (%08x)", what, i, (double)a, float_to_bits(a), (double)b,
                     float_to_bits(b));
    }
}
