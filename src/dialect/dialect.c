/* The table of dialects: see dialect.h. */
#include "dialect/dialect.h"

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

void dialect_ask_release(const struct dialect_call *call, struct dialect_ask *ask)
{
    buf_release(&ask->body);
    if (call->free && ask->state)
        call->free(ask->state);
    *ask = (struct dialect_ask){.reply = DIALECT_EVENTS};
}
