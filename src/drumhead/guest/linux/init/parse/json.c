/* A JSON parser (RFC 8259): recursive descent over one text, in place. The depth is limited; numbers are doubles. */
#include "json.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32 };

static struct json *parse_value(char **at, int depth);

static void skip_blanks(char **at) { *at += strspn(*at, " \t\r\n"); }

static int hex4(const char *digits) {
    static const char known[] = "0123456789abcdefABCDEF";
    int value = 0;
    for (int i = 0; i < 4; i++) {
        const char *found = digits[i] ? strchr(known, digits[i]) : NULL;
        if (!found) return -1;
        value = value * 16 + (int)(found - known) - (found - known > 15 ? 6 : 0);
    }
    return value;
}

static char *put_utf8(char *to, unsigned code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

/* Read the four digits after \u, and a second escape if they are half of a pair. Return the rest of the text, or NULL.
*/
static char *parse_unicode(char *from, char **to) {
    int code = hex4(from);
    if (code <= 0 || (code >= 0xDC00 && code <= 0xDFFF)) return NULL;
    from += 4;
    if (code >= 0xD800 && code < 0xDC00) {
        int low = from[0] == '\\' && from[1] == 'u' ? hex4(from + 2) : -1;
        if (low < 0xDC00 || low > 0xDFFF) return NULL;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        from += 6;
    }
    *to = put_utf8(*to, (unsigned)code);
    return from;
}

static char *parse_string(char **at) {
    char *start = ++*at, *from = start, *to = start;
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    while (*from && *from != '"') {
        if ((unsigned char)*from < 0x20) return NULL;
        if (*from != '\\') {
            *to++ = *from++;
        } else if (*++from == 'u') {
            if (!(from = parse_unicode(from + 1, &to))) return NULL;
        } else {
            const char *found = *from ? strchr(escapes, *from) : NULL;
            if (!found) return NULL;
            *to++ = meanings[found - escapes];
            from++;
        }
    }
    if (!*from) return NULL;
    *at = from + 1;
    *to = 0;
    return start;
}

static bool parse_word(char **at, const char *word) {
    size_t size = strlen(word);
    if (strncmp(*at, word, size) != 0) return false;
    *at += size;
    return true;
}

/* Check the syntax of a number, because strtod also accepts "inf", hexadecimal digits and a leading plus. */
static bool parse_number(char **at, double *number) {
    static const char digits[] = "0123456789";
    char *end = *at + (**at == '-');
    size_t whole = strspn(end, digits);
    if (whole == 0 || (whole > 1 && *end == '0')) return false;
    end += whole;
    if (*end == '.') {
        size_t fraction = strspn(++end, digits);
        if (fraction == 0) return false;
        end += fraction;
    }
    if (*end == 'e' || *end == 'E') {
        end += 1 + (end[1] == '-' || end[1] == '+');
        size_t exponent = strspn(end, digits);
        if (exponent == 0) return false;
        end += exponent;
    }
    *number = strtod(*at, NULL);
    *at = end;
    return true;
}

static bool parse_members(char **at, struct json *parent, char closing, int depth) {
    struct json **last = &parent->child;
    for (++*at, skip_blanks(at); **at != closing; skip_blanks(at)) {
        char *name = NULL;
        if (parent->child) {
            if (!parse_word(at, ",")) return false;
            skip_blanks(at);
        }
        if (closing == '}') {
            if (**at != '"' || !(name = parse_string(at))) return false;
            skip_blanks(at);
            if (!parse_word(at, ":")) return false;
        }
        if (!(*last = parse_value(at, depth + 1))) return false;
        (*last)->name = name;
        last = &(*last)->next;
    }
    ++*at;
    return true;
}

static struct json *parse_value(char **at, int depth) {
    struct json *value = calloc(1, sizeof *value);
    bool good = value && depth < MAX_DEPTH;
    skip_blanks(at);
    if (!good) {
    } else if (**at == '{') {
        value->kind = JSON_OBJECT;
        good = parse_members(at, value, '}', depth);
    } else if (**at == '[') {
        value->kind = JSON_ARRAY;
        good = parse_members(at, value, ']', depth);
    } else if (**at == '"') {
        value->kind = JSON_STRING;
        good = (value->text = parse_string(at)) != NULL;
    } else if (parse_word(at, "true")) {
        value->kind = JSON_BOOL;
        value->number = 1;
    } else if (parse_word(at, "false")) {
        value->kind = JSON_BOOL;
    } else if (!parse_word(at, "null")) {
        value->kind = JSON_NUMBER;
        good = parse_number(at, &value->number);
    }
    if (good) return value;
    json_free(value);
    return NULL;
}

struct json *json_parse(char *text) {
    struct json *value = parse_value(&text, 0);
    skip_blanks(&text);
    if (value && *text) {
        json_free(value);
        return NULL;
    }
    return value;
}

void json_free(struct json *value) {
    while (value) {
        struct json *next = value->next;
        json_free(value->child);
        free(value);
        value = next;
    }
}

const struct json *json_get(const struct json *object, const char *name) {
    const struct json *member = object && object->kind == JSON_OBJECT ? object->child : NULL;
    while (member && strcmp(member->name, name) != 0) member = member->next;
    return member;
}

const char *json_text(const struct json *object, const char *name, const char *otherwise) {
    const struct json *member = json_get(object, name);
    return member && member->kind == JSON_STRING ? member->text : otherwise;
}

double json_number(const struct json *object, const char *name, double otherwise) {
    const struct json *member = json_get(object, name);
    return member && (member->kind == JSON_NUMBER || member->kind == JSON_BOOL) ? member->number : otherwise;
}

char *json_quote(const char *text) {
    char *quoted = malloc(strlen(text) * 6 + 3), *to = quoted;
    if (!quoted) return NULL;
    *to++ = '"';
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') *to++ = '\\';
        if ((unsigned char)*text < 0x20)
            to += sprintf(to, "\\u%04x", *text);
        else
            *to++ = *text;
    }
    *to++ = '"';
    *to = 0;
    return quoted;
}
