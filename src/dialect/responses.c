/* OpenAI's responses API. Layer dialect; pure. Forms as in its reference and in the types of its official
 * clients. Nothing is stored: a conversation comes whole, in `input`. */
#include "dialect/responses_priv.h"

#include "base/mem.h"
#include "dialect/errors.h"
#include "dialect/progress.h"

static void free_state(void *state)
{
    struct responses *r = state;
    buf_release(&r->model);
    buf_release(&r->echo);
    free(r->items);
    free(r);
}

static const struct dialect_call calls[] = {
    {.path = "/v1/responses",
     .stream_type = "text/event-stream; charset=utf-8",
     .plain_type = "application/json",
     .ask = responses_ask,
     .into = "/v1/chat/completions",
     .keep_text = true,
     .delta = responses_delta,
     .end = responses_end,
     .broken = responses_broken,
     .progress = progress_put_comment,
     .plain = responses_plain,
     .free = free_state},
};

extern const struct dialect dialect_responses;
const struct dialect dialect_responses = {.name = "responses",
                                          .put_error = dialect_put_openai_error,
                                          .calls = calls,
                                          .n_calls = TABLE_COUNT(calls)};
