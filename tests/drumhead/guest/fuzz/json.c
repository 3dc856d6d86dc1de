/* Any text: it is read or refused without touching other memory, and what was read can be quoted and read again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static void check(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check_text(const char *text) {
    char *quoted = json_quote(text);
    check(quoted != NULL, "a text was not quoted");
    struct json *again = json_parse(quoted);
    check(again && again->kind == JSON_STRING && strcmp(again->text, text) == 0, "a quoted text reads differently");
    json_free(again);
    free(quoted);
}

static void walk(const struct json *value, int depth) {
    check(depth < 32, "a document is deeper than the limit");
    for (; value; value = value->next) {
        if (value->name) check_text(value->name);
        check((value->kind == JSON_STRING) == (value->text != NULL), "only strings have a text");
        if (value->text) check_text(value->text);
        walk(value->child, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = 0;
    struct json *value = json_parse(text);
    walk(value, 0);
    json_number(value, "grace", 0);
    json_text(value, "do", "");
    json_free(value);
    free(text);
    return 0;
}
