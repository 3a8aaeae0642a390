/* The record of a request that ended, for the history. Layer proxy; loop thread only. */
#include "proxy/proxy_priv.h"

#include "base/clock.h"

void relay_record(struct conn *c)
{
    struct http_server *s = c->s;
    if (c->recorded || !s->opt.record)
        return;
    c->recorded = true;
    struct buf response = {0};
    capture_response(c, &response);
    uint64_t now = clock_mono_us(), total = now - c->t_head;
    uint64_t upstream = c->t_sent && c->t_upstream_end > c->t_sent ? c->t_upstream_end - c->t_sent : 0;
    const struct http_record r = {
        .wall_ms = c->wall_ms,
        .model = *c->lease.model ? c->lease.model : c->model_text,
        .instance = c->lease.instance,
        .asked = c->model_text,
        .path = c->route->path,
        .status = c->status,
        .outcome = c->outcome         ? c->outcome
                   : c->status >= 500 ? "upstream_error"
                                      : "ok",
        .streamed = c->streamed,
        .request_bytes = c->request_bytes,
        .response_bytes = c->response_bytes,
        .prompt_tokens = c->usage.prompt_tokens,
        .completion_tokens = c->usage.completion_tokens,
        .cached_tokens = c->usage.cached_tokens,
        .tokens_known = c->usage.known,
        .timing_prompt_tokens = c->usage.timing.prompt_tokens,
        .timing_prompt_us = c->usage.timing.prompt_us,
        .timing_decode_tokens = c->usage.timing.decode_tokens,
        .timing_decode_us = c->usage.timing.decode_us,
        .wait_us = c->t_wait_us,
        .ttfb_us = c->t_body ? c->t_body - c->t_head : 0,
        .total_us = total,
        .overhead_us = total > c->t_wait_us + upstream ? total - c->t_wait_us - upstream : 0,
        .request_id = c->id_text,
        .key_id = str_from(c->key ? c->key->spec.id : ""),
        .request_text = capture_request(c),
        .response_text = buf_str(&response),
    };
    s->opt.record(s->opt.record_arg, &r);
    buf_release(&response);
}
