/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The MESSAGE_ID= of log lines that somebody may want to find, or has to do something about. Never changed once
 * published: filters and alarms of administrators hang on them. systemd/residentd.catalog explains each
 * (journalctl -x); tests/packaging/test-messages.py compares both, and finds warnings and errors that have none.
 */

#define MESSAGE_START_FAILED      "aba88479a873427193521c083435b99f"
#define MESSAGE_POLICY_REFUSED    "f2d9d2ab2ee44ff9ab09be14479e14db"
#define MESSAGE_POLICY_RELOADED   "2a90954a1b454353a86eaea33e699439"
#define MESSAGE_POLICY_WARNING    "21f7dba114ae41a091556a4ba915a61a"
#define MESSAGE_MODEL_FAILED      "3b257b682ac34658b07b133f35153a8b"
#define MESSAGE_WORKER_ENDED      "0008cfc986534d2093823289fe3d21a7"
#define MESSAGE_MODEL_LOST_MEMORY "922da0f4c79b4e91bda080da1f19d167"
#define MESSAGE_MODEL_HELD_AGAIN  "1517cd6419f54cb18bf14e5e8c5895fd"
#define MESSAGE_MODEL_UNPLANNED   "022c0f5fcb044d34bd174d7eb7ca61d5"
#define MESSAGE_KEPT_DROPPED      "911e3113e2044e928f92f0b930b9853c"
#define MESSAGE_STORE_FAILED      "f4ed43b65bfb41c5ae1d9fca925a0b1b"
#define MESSAGE_STARTS_TOO_MANY   "10c80a5ab3674cf8ae3e329a986bcefe"
#define MESSAGE_LEDGER_DAMAGED    "de28ee65d4744241bd7c9b860641a25d"
#define MESSAGE_LEDGER_UNWRITTEN  "f7db9f429c5444099cf49d6a6ae2ce4b"
#define MESSAGE_LEDGER_WRITTEN    "a591330707b1432da5317f75f9a7c856"
#define MESSAGE_LEDGER_LOST       "e9db672edd2544228309ae2261ac2336"
#define MESSAGE_ACCEPT_FAILED     "fc8c08f0782b449f9b7c8057fe3ae3ca"
#define MESSAGE_OUT_OF_MEMORY     "116c5de3c95f45d3a83ab1c77b50e276"
#define MESSAGE_MEMORY_PRESSURE   "928ddb9e110e43c5b2669356965a1b67"
#define MESSAGE_PREFIX_LEFT_OUT   "5460f29a2c534fc0a4c003fed754d292"
#define MESSAGE_UID_AMBIGUOUS     "8d2a3cc8ce5f4473b012336ef604d117"
#define MESSAGE_USERS_UNKNOWN     "7de151d598474c6f8a0f81b54225b286"
#define MESSAGE_GPUS_UNKNOWN      "615c8a2617c844de86523b46e17fb325"
#define MESSAGE_WORKER_SAYS       "7fcd25001804487e85fad222467d1798"
