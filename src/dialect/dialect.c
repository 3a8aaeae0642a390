/* The tables of dialects and of backends: see dialect.h, backend.h. */
#include "dialect/backend_anthropic.h"

#include <string.h>

#include "base/mem.h"

#define DIALECT(ID, symbol) extern const struct dialect symbol;
#include "dialect/dialect.def"
#undef DIALECT

static const struct dialect *const table[DIALECTS] = {
#define DIALECT(ID, symbol) [DIALECT_##ID] = &(symbol),
#include "dialect/dialect.def"
#undef DIALECT
};

const struct dialect *dialect_at(enum dialect_id id)
{
    return table[id];
}

enum dialect_id dialect_find(struct str name)
{
    for (unsigned id = 0; id < DIALECTS; id++)
        if (str_eq_c(name, table[id]->name))
            return (enum dialect_id)id;
    return DIALECTS;
}

static const struct dialect_backend *const backends[] = {&dialect_anthropic_backend};

const struct dialect_backend *dialect_backend(unsigned speaks)
{
    for (size_t i = 0; i < TABLE_COUNT(backends) && !(speaks & DIALECT_BIT(OPENAI)); i++)
        if (speaks & 1u << backends[i]->id)
            return backends[i];
    return NULL;
}

/* Those that have a call at this path themselves, and those that have a counterpart of it. */
static unsigned have_path(const char *path)
{
    unsigned bits = 0;
    for (unsigned id = 0; id < DIALECTS; id++)
        for (size_t i = 0; i < table[id]->n_calls; i++)
            if (strcmp(table[id]->calls[i].path, path) == 0)
                bits |= 1u << id;
    for (size_t i = 0; i < TABLE_COUNT(backends); i++)
        if (strcmp(backends[i]->path, path) == 0)
            bits |= 1u << backends[i]->id;
    return bits;
}

unsigned dialect_answered_by(enum dialect_id id, const struct dialect_call *call,
                             const struct dialect_ask *asked)
{
    const char *path;
    if (asked && asked->reply == DIALECT_NOTHING)
        return ~0u; /* nobody is asked */
    if (asked)
        path = asked->via ? asked->via->path : asked->path;
    else
        path = call->remade ? call->remade->path : call->into;
    return 1u << id | (path ? have_path(path) : 0);
}

enum rc dialect_ask_as(struct dialect_ask *ask, unsigned speaks, struct err *err)
{
    const struct dialect_backend *via = dialect_backend(speaks);
    enum rc rc = via ? via->ask(ask, err) : RC_OK;
    ask->via = rc == RC_OK ? via : NULL;
    return rc;
}

void dialect_ask_release(const struct dialect_call *call, struct dialect_ask *ask)
{
    buf_release(&ask->body);
    embed_ask_free(ask->embed);
    if (call->free && ask->state)
        call->free(ask->state);
    *ask = (struct dialect_ask){.reply = DIALECT_EVENTS};
}
