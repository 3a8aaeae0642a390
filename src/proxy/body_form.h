/* Finds the form field "model" of a multipart/form-data body (RFC 7578; audio is sent so) while the body
 * arrives. Layer proxy; no state of its own; any thread.
 *
 * Only the lines between the parts and the heads of parts are looked at; what a part holds passes untouched.
 * Stricter than RFC 2046 where readers differ: nothing may follow a boundary on its line, and no line may
 * merely begin like one. Scanning resumes where it stopped. */
#ifndef PROXY_BODY_FORM_H
#define PROXY_BODY_FORM_H

#include "base/err.h"
#include "base/str.h"

#define BODY_FORM_BOUNDARY 70u   /* RFC 2046, 5.1.1 */
#define BODY_FORM_PARTS    1000u /* more are refused */

struct body_form {
    char mark[BODY_FORM_BOUNDARY + 4]; /* CR LF, two dashes, the boundary; not NUL-terminated */
    size_t mark_n;
    size_t pos;               /* no mark begins before it */
    size_t part_at;           /* where the current part begins */
    size_t first_at;          /* the two dashes of the first boundary */
    size_t model_at, model_n; /* of the field's value, if model_seen */
    unsigned parts;
    bool in_part, ended, model_seen;
    const char *problem; /* why it is refused (static) */
};

/* False if the Content-Type is not that of a form with one usable boundary: f->problem says why, and the
 * other functions refuse any body. */
bool body_form_init(struct body_form *f, struct str content_type);
/* Scans base[0 .. n), the whole body so far, which may have moved since the last call. False when it cannot
 * become a valid form any more: f->problem says why. */
bool body_form_scan(struct body_form *f, const char *base, size_t n);
/* At the end of the body: RC_OK when it is one whole form whose field "model" occurs at most once and is a
 * text. RC_INVALID else. */
enum rc body_form_end(struct body_form *f, const char *base, size_t n, struct err *err);
/* The field's text into out; false if it is empty, too long, or holds a control character. */
bool body_form_text(const struct body_form *f, const char *base, char *out, size_t cap, size_t *ret_n);

#endif
