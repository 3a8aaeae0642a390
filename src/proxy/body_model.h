/* Finds the top-level members of a JSON body that routing needs, at their byte offsets, while the body
 * arrives. Layer proxy; no state of its own; any thread.
 *
 * The text is validated in full (RFC 8259 grammar, UTF-8, surrogate pairs), so that nothing malformed reaches
 * a backend, but no document is built and nothing is re-encoded: the model's name is replaced by splicing.
 * Scanning resumes where it stopped; a byte is looked at once. */
#ifndef PROXY_BODY_MODEL_H
#define PROXY_BODY_MODEL_H

#include "base/err.h"
#include "base/str.h"

#define BODY_MODEL_DEPTH 512u /* nesting allowed */

enum body_member { BODY_MODEL, BODY_STREAM, BODY_MESSAGES, BODY_PROMPT, BODY_LOADING_STATE, BODY_MEMBERS };

enum body_option {
#define OPTION(id, name, absent, why) BODY_OPTION_##id,
#include "proxy/option.def"
#undef OPTION
    BODY_OPTIONS
};

struct body_value {
    size_t at, n; /* of the raw value, quotes included; n 0 = absent */
    bool is_string, escaped;
};

struct body_model {
    size_t pos;                   /* scanned so far */
    uint8_t state, after_literal; /* see body_model.c */
    uint8_t more, low, high;      /* UTF-8: bytes to come, bounds of the next one */
    uint8_t hex_left;
    bool in_key, key_escaped, escaped, low_surrogate;
    bool object; /* the text is an object */
    uint16_t hex;
    uint16_t depth;
    int8_t member; /* enum body_member that the value belongs to, or -1 */
    uint8_t seen[BODY_MEMBERS];
    uint8_t option;      /* enum body_option that the value belongs to, plus 1; 0 = none */
    uint8_t options;     /* a bit for each enum body_option that is given */
    const char *literal; /* rest of true, false, null */
    size_t token;        /* where the current string starts */
    size_t value_at;     /* where the current top-level value starts */
    const char *problem; /* why it is refused (static) */
    struct body_value value[BODY_MEMBERS];
    uint64_t is_object[BODY_MODEL_DEPTH / 64]; /* a bit per open level */
};

void body_model_init(struct body_model *m);
/* Scans base[m->pos .. n). base is the whole body so far and may have moved since the last call. False when
 * the text cannot become valid JSON: m->problem says why, m->pos where. */
bool body_model_scan(struct body_model *m, const char *base, size_t n);
/* At the end of the body: RC_OK when it is one complete JSON object whose model occurs at most once and is
 * a string. RC_INVALID else. */
enum rc body_model_end(struct body_model *m, const char *base, size_t n, struct err *err);
/* The member's text, unescaped, into out; false if absent, not a string, too long, or if it holds a NUL. */
bool body_model_text(const struct body_value *v, const char *base, char *out, size_t cap, size_t *ret_n);

#endif
