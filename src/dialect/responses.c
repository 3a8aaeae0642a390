/* OpenAI's responses API. Layer dialect; pure. */
#include "base/mem.h"
#include "dialect/errors.h"

static const struct dialect_call calls[] = {
    {.path = "/v1/responses"},
};

extern const struct dialect dialect_responses;
const struct dialect dialect_responses = {.name = "responses",
                                          .put_error = dialect_put_openai_error,
                                          .calls = calls,
                                          .n_calls = TABLE_COUNT(calls)};
