/* Glue over yyjson. Layer base; no state. Reading is strict (no comments, no trailing commas). */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <yyjson.h>

/* Parses text; what names it in the error ("request body"). ret_doc is freed with yyjson_doc_free. */
enum rc json_parse(struct str text, const char *what, yyjson_doc **ret_doc, struct err *err);
/* Member helpers: missing or of another type gives the fallback. Strings are borrowed from the document. */
struct str json_str(yyjson_val *obj, const char *key, struct str fallback);
uint64_t json_u64(yyjson_val *obj, const char *key, uint64_t fallback);
double json_double(yyjson_val *obj, const char *key, double fallback);
bool json_bool(yyjson_val *obj, const char *key, bool fallback);
/* Appends the document as text; pretty gives two-space indentation and a final newline. Bytes that are no
 * UTF-8 (file names) become U+FFFD. */
enum rc json_write(const yyjson_mut_doc *doc, bool pretty, struct buf *out, struct err *err);
/* Adds a copied, possibly non-terminated string member (yyjson keeps only pointers otherwise). */
bool json_add_str(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *static_key, struct str value);
/* {"message", "hint", "code"} of an error as a new object of doc. */
yyjson_mut_val *json_err(yyjson_mut_doc *doc, const struct err *err);

#endif
