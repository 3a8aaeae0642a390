/* Man pages out of the tables of commands and options, as roff for man(7). Layer cli; main thread; writes
 * into buffers only. */
#ifndef CLI_MAN_H
#define CLI_MAN_H

#include "base/buf.h"

/* s with everything escaped that roff would act on, lines starting with a dot or an apostrophe too. */
void man_text(struct buf *out, const char *s);
/* Paragraphs separated by empty lines; lines that start with two spaces become an example. */
void man_paragraphs(struct buf *out, const char *text);
/* The page arriero(1), all commands in it. */
void man_program(struct buf *out);

#endif
