/* What the files of OpenAI's dialect share. Layer dialect; pure. */
#ifndef DIALECT_OPENAI_PRIV_H
#define DIALECT_OPENAI_PRIV_H

#include "dialect/dialect.h"

#define OPENAI_JSON "application/json; charset=utf-8"

/* openai.c */
void openai_plain_chat(void *state, const struct completion *sum, struct buf *out);

/* openai_remade.c: chat for backends that speak no OpenAI */
extern const struct dialect_call openai_chat_remade;

#endif
