/* A JSON parser. It depends on no other part of init, so that tests can run it on the host. */
#pragma once

/* A value and, inside an array or object, its siblings. Strings are valid as long as the document. */
struct json {
    enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } kind;
    char *name;
    char *text;
    double number;
    struct json *child, *next;
};

struct json *json_parse(char *text); /* changes `text`, which must outlive the value; NULL if it is not JSON */
void json_free(struct json *);
const struct json *json_get(const struct json *object, const char *name);
const char *json_text(const struct json *object, const char *name, const char *otherwise);
double json_number(const struct json *object, const char *name, double otherwise);
char *json_quote(const char *text); /* as a JSON string, quotes included; the caller frees it */
