/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The tables of status, ps and top, which show the same things.
 */

#include <json-c/json.h>
#include <stdbool.h>

/**
 * status_print_models() - a table of ModelStatus objects; false when memory is short
 */
bool status_print_models(json_object *models);

/**
 * status_print_requests() - a table of RequestStatus objects; false when memory is short
 */
bool status_print_requests(json_object *requests);
