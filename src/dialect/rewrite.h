/* Rewriting one JSON request as another, member by member. Layer dialect; one owner, any thread.
 *
 * A translator lists the members that it knows in a table, in the order in which they are to be read; what
 * the table does not name is passed on as it is, so that a backend's own options stay usable. Values are
 * taken over from the client's document, which outlives the rewrite. */
#ifndef DIALECT_REWRITE_H
#define DIALECT_REWRITE_H

#include "dialect/dialect.h"

struct rewrite {
    const struct dialect_terms *terms;
    yyjson_mut_doc *doc;
    yyjson_mut_val *root;     /* the request that is being made */
    yyjson_mut_val *messages; /* its messages, where it has any */
    yyjson_val *body;         /* the client's */
    char place[96];           /* what is being read, for errors: "messages.2.content.0" */
    struct dialect_ask *ask;
    struct err *err;
};

struct rewrite_member {
    const char *name;
    bool (*put)(struct rewrite *w, const char *name, yyjson_val *v); /* NULL = left out */
    bool required;
};

/* The root is an empty object. RC_NOMEM only. */
enum rc rewrite_init(struct rewrite *w, const struct dialect_terms *terms, yyjson_val *body,
                     struct dialect_ask *ask, struct err *err);
/* Reads the table's members and copies the rest; null counts as absent. False: *err is set. */
bool rewrite_members(struct rewrite *w, const struct rewrite_member *table, size_t n);
/* Reads the table's members and leaves the rest out: for backends that refuse what they do not know. */
bool rewrite_known(struct rewrite *w, const struct rewrite_member *table, size_t n);
/* The root as the body of the ask; releases the document. */
enum rc rewrite_end(struct rewrite *w, bool ok);

/* RC_INVALID "place: …". Always false. */
__attribute__((format(printf, 2, 3))) bool rewrite_bad(struct rewrite *w, const char *fmt, ...);
/* Says what is being read from here on. */
__attribute__((format(printf, 2, 3))) void rewrite_at(struct rewrite *w, const char *fmt, ...);

/* Members of the table: taken over under the same name if they are of the type. */
bool rewrite_number(struct rewrite *w, const char *name, yyjson_val *v);
bool rewrite_boolean(struct rewrite *w, const char *name, yyjson_val *v);
bool rewrite_stream(struct rewrite *w, const char *name, yyjson_val *v); /* sets ask->stream */

/* Under another name, or as part of something. */
void rewrite_put(struct rewrite *w, yyjson_mut_val *object, const char *static_name, yyjson_val *v);
void rewrite_put_str(struct rewrite *w, yyjson_mut_val *object, const char *static_name, struct str text);
/* A new message of the role, without content. */
yyjson_mut_val *rewrite_message(struct rewrite *w, const char *static_role);
/* {"type":"text","text":…} and {"type":"image_url","image_url":{"url":…}} as elements of an array. */
void rewrite_text_part(struct rewrite *w, yyjson_mut_val *parts, struct str text);
void rewrite_image_part(struct rewrite *w, yyjson_mut_val *parts, struct str url);
/* {"type":"function","function":{…}} as an element of an array; description and parameters may be NULL. */
void rewrite_tool(struct rewrite *w, yyjson_mut_val *tools, struct str name, yyjson_val *description,
                  yyjson_val *parameters);
/* {"id":…,"type":"function","function":{"name":…,"arguments":"…"}}; arguments as JSON text. */
void rewrite_tool_call(struct rewrite *w, yyjson_mut_val *calls, struct str id, struct str name,
                       struct str arguments);
struct str rewrite_str(yyjson_val *v); /* empty if it is none */

#endif
