/* Token counts and end marks from the last bytes of an answer, without parsing the whole. Layer proxy; any
 * thread.
 *
 * Servers put "usage" and "timings" at the end of a JSON answer and in the last events of a stream, so a
 * window over the tail is enough; an unescaped "usage" followed by a colon cannot occur inside a JSON string.
 */
#ifndef PROXY_ACCOUNT_H
#define PROXY_ACCOUNT_H

#include "base/str.h"

#define ACCOUNT_WINDOW 2048u

struct account {
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool known;
    /* llama.cpp's own clock, from timings; zeros where it told none, or where a draft model helped: what was
     * computed of the prompt, and what was written, each with its time */
    struct {
        uint64_t prompt_tokens, prompt_us, decode_tokens, decode_us;
    } timing;
};

/* Last ACCOUNT_WINDOW bytes of what was fed. */
struct account_tail {
    uint64_t total;
    char ring[ACCOUNT_WINDOW];
};
void account_tail_feed(struct account_tail *t, const char *p, size_t n);
/* The window in order; scratch has room for ACCOUNT_WINDOW bytes and may be what is returned. */
struct str account_tail_str(const struct account_tail *t, char *scratch);

/* Whether the bytes hold the name of an object that account_read looks for: what does not need no window. */
bool account_wants(struct str bytes);
/* Reads the "usage" objects of the text, the last of which counts (Anthropic's streams tell the prompt's
 * tokens in the first event, the answer's in the last), and "timings" (llama.cpp) where usage does not tell.
 */
void account_read(struct str tail, struct account *ret);

#endif
