/* llama.cpp's own paths, relayed to backends that are llama.cpp's server. Layer dialect; pure. */
#include "base/mem.h"
#include "dialect/errors.h"
#include "dialect/progress.h"

#define TOLD .broken = dialect_put_error_event, .progress = progress_put_comment

static const struct dialect_call calls[] = {
    {.path = "/completions", TOLD},
    {.path = "/embeddings"},
    {.path = "/completion", TOLD},
    {.path = "/embedding"},
    {.path = "/infill", TOLD},
    {.path = "/tokenize", .light = true},
    {.path = "/detokenize", .light = true},
    {.path = "/apply-template", .light = true},
};

extern const struct dialect dialect_llamacpp;
const struct dialect dialect_llamacpp = {
    .name = "llamacpp", .put_error = dialect_put_openai_error, .calls = calls, .n_calls = TABLE_COUNT(calls)};
