/* Estimates and plans as JSON; the names are a contract with those who read them. Layer plan; pure. */
#include "plan/plan.h"

#include <string.h>

static void add_text(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, const char *text)
{
    yyjson_mut_obj_add_strcpy(doc, obj, key, text ? text : "");
}

static const char *type_word(uint32_t type)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    return info ? info->word : "unknown";
}

static yyjson_mut_val *model_json(yyjson_mut_doc *doc, const struct model *m)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    add_text(doc, o, "architecture", m->architecture);
    add_text(doc, o, "name", m->name);
    add_text(doc, o, "quantization", m->quantization);
    yyjson_mut_obj_add_uint(doc, o, "parameters", m->parameters);
    yyjson_mut_obj_add_uint(doc, o, "layers", m->n_layer);
    yyjson_mut_obj_add_uint(doc, o, "context_train", m->context_train);
    yyjson_mut_obj_add_uint(doc, o, "file_bytes", m->file_bytes);
    return o;
}

static yyjson_mut_val *part_json(yyjson_mut_doc *doc, const struct plan_part *p)
{
    static const char *const kinds[] = {[PLAN_GPU] = "gpu", [PLAN_HOST] = "host", [PLAN_REMOTE] = "rpc"};
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    add_text(doc, o, "name", p->name);
    yyjson_mut_obj_add_str(doc, o, "kind", kinds[p->kind]);
    yyjson_mut_obj_add_uint(doc, o, "total_bytes", p->total_bytes);
    yyjson_mut_obj_add_uint(doc, o, "free_bytes", p->free_bytes);
    yyjson_mut_obj_add_uint(doc, o, "model_bytes", p->model_bytes);
    yyjson_mut_obj_add_uint(doc, o, "context_bytes", p->context_bytes);
    yyjson_mut_obj_add_uint(doc, o, "compute_bytes", p->compute_bytes);
    yyjson_mut_obj_add_uint(doc, o, "overhead_bytes", p->overhead_bytes);
    yyjson_mut_obj_add_uint(doc, o, "overhead_spread_bytes", p->overhead_spread_bytes);
    yyjson_mut_obj_add_uint(doc, o, "overhead_loads", p->overhead_loads);
    yyjson_mut_obj_add_uint(doc, o, "projector_bytes", p->projector_bytes);
    yyjson_mut_obj_add_uint(doc, o, "adapter_bytes", p->adapter_bytes);
    yyjson_mut_obj_add_uint(doc, o, "draft_bytes", p->draft_bytes);
    if (p->kind == PLAN_HOST) {
        yyjson_mut_obj_add_uint(doc, o, "repack_bytes", p->repack_bytes);
        yyjson_mut_obj_add_uint(doc, o, "output_bytes", p->output_bytes);
        yyjson_mut_obj_add_uint(doc, o, "pinned_bytes", p->pinned_bytes);
        yyjson_mut_obj_add_uint(doc, o, "prompt_cache_bytes", p->prompt_cache_bytes);
        yyjson_mut_obj_add_uint(doc, o, "checkpoint_bytes", p->checkpoint_bytes);
        yyjson_mut_obj_add_uint(doc, o, "checkpoints", p->checkpoints);
    }
    return o;
}

static yyjson_mut_val *params_json(yyjson_mut_doc *doc, const struct plan_params *p)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_uint(doc, o, "ctx", p->ctx);
    yyjson_mut_obj_add_uint(doc, o, "batch", p->batch);
    yyjson_mut_obj_add_uint(doc, o, "ubatch", p->ubatch);
    yyjson_mut_obj_add_uint(doc, o, "parallel", p->parallel);
    yyjson_mut_obj_add_bool(doc, o, "kv_unified", p->kv_unified);
    yyjson_mut_obj_add_bool(doc, o, "flash_attn", p->flash_attn);
    yyjson_mut_obj_add_str(doc, o, "cache_type_k", type_word(p->type_k));
    yyjson_mut_obj_add_str(doc, o, "cache_type_v", type_word(p->type_v));
    yyjson_mut_obj_add_sint(doc, o, "gpu_layers", p->gpu_layers);
    yyjson_mut_val *split = yyjson_mut_obj_add_arr(doc, o, "tensor_split");
    for (uint32_t i = 0; i < p->n_tensor_split; i++)
        yyjson_mut_arr_add_real(doc, split, (double)p->tensor_split[i]);
    yyjson_mut_obj_add_uint(doc, o, "n_cpu_moe", p->n_cpu_moe);
    yyjson_mut_val *overrides = yyjson_mut_obj_add_arr(doc, o, "override_tensor");
    for (uint32_t i = 0; i < p->n_overrides; i++) {
        yyjson_mut_val *one = yyjson_mut_arr_add_obj(doc, overrides);
        add_text(doc, one, "pattern", p->overrides[i].pattern);
        add_text(doc, one, "buffer", p->overrides[i].buffer);
    }
    yyjson_mut_obj_add_bool(doc, o, "kv_offload", p->kv_offload);
    yyjson_mut_obj_add_bool(doc, o, "repack", p->repack);
    yyjson_mut_obj_add_bool(doc, o, "swa_full", p->swa_full);
    yyjson_mut_obj_add_bool(doc, o, "embedding", p->embedding);
    yyjson_mut_obj_add_bool(doc, o, "pool_last", p->pool_last);
    yyjson_mut_obj_add_bool(doc, o, "mmap", p->mmap);
    yyjson_mut_obj_add_str(doc, o, "outputs", p->outputs == PLAN_OUTPUTS_BATCH ? "batch" : "slots");
    yyjson_mut_obj_add_bool(doc, o, "pins", p->pins);
    return o;
}

yyjson_mut_val *plan_estimate_json(yyjson_mut_doc *doc, const struct model *m, const struct plan_estimate *e)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_obj_add_val(doc, o, "model", model_json(doc, m));
    yyjson_mut_val *devices = yyjson_mut_obj_add_arr(doc, o, "devices");
    for (size_t i = 0; i < e->n_parts; i++)
        yyjson_mut_arr_add_val(devices, part_json(doc, &e->parts[i]));
    yyjson_mut_obj_add_val(doc, o, "params", params_json(doc, &e->params));
    return o;
}

static const char *kv_location(const struct plan_estimate *e)
{
    bool device = false, host = false;
    for (size_t i = 0; i < e->n_parts; i++) {
        if (!e->parts[i].context_bytes)
            continue;
        if (e->parts[i].kind == PLAN_HOST)
            host = true;
        else
            device = true;
    }
    return device && host ? "split" : device ? "gpu" : "cpu";
}

static void add_utilization(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct plan_estimate *e)
{
    yyjson_mut_val *u = yyjson_mut_obj_add_obj(doc, o, "utilization_pct");
    for (size_t i = 0; i < e->n_parts; i++) {
        const struct plan_part *p = &e->parts[i];
        double pct = p->total_bytes ? 100.0 * (double)plan_part_total(p) / (double)p->total_bytes : 0;
        yyjson_mut_obj_add(u, yyjson_mut_strcpy(doc, p->name),
                           yyjson_mut_real(doc, (double)(int64_t)(pct * 10 + 0.5) / 10));
    }
}

static void add_reasons(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key,
                        const struct plan_reason *list, uint32_t n)
{
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, o, key);
    for (uint32_t i = 0; i < n; i++) {
        yyjson_mut_val *r = yyjson_mut_arr_add_obj(doc, rows);
        add_text(doc, r, "code", list[i].code);
        add_text(doc, r, "text", list[i].text);
    }
}

yyjson_mut_val *plan_json(yyjson_mut_doc *doc, const struct model *m, const struct plan *p)
{
    yyjson_mut_val *o = plan_estimate_json(doc, m, &p->estimate);
    yyjson_mut_obj_add_bool(doc, o, "fits", p->fits);
    yyjson_mut_obj_add_str(doc, o, "strategy", plan_strategy_word(p->strategy));
    yyjson_mut_val *layers = yyjson_mut_obj_add_obj(doc, o, "layers");
    yyjson_mut_obj_add_uint(doc, layers, "gpu", p->estimate.layers_gpu);
    yyjson_mut_obj_add_uint(doc, layers, "cpu", p->estimate.layers_cpu);
    yyjson_mut_obj_add_uint(doc, layers, "npu", 0);
    yyjson_mut_obj_add_str(doc, o, "kv_location", kv_location(&p->estimate));
    yyjson_mut_val *speed = yyjson_mut_obj_add_obj(doc, o, "speed");
    yyjson_mut_obj_add_real(doc, speed, "prefill_tps", p->speed.prefill_tps);
    yyjson_mut_obj_add_real(doc, speed, "decode_tps", p->speed.decode_tps);
    yyjson_mut_obj_add_real(doc, speed, "load_seconds", p->speed.load_seconds);
    yyjson_mut_obj_add_uint(doc, speed, "decode_samples", p->speed.decode_samples);
    yyjson_mut_obj_add_uint(doc, speed, "prefill_samples", p->speed.prefill_samples);
    add_utilization(doc, o, &p->estimate);
    yyjson_mut_obj_add_arr(doc, o, "victims");
    add_reasons(doc, o, "reasons", p->reasons, p->n_reasons);
    add_reasons(doc, o, "rejected", p->rejected, p->n_rejected);
    yyjson_mut_obj_add_uint(doc, o, "threads", p->threads);
    yyjson_mut_obj_add_uint(doc, o, "threads_batch", p->threads_batch);
    yyjson_mut_val *others = yyjson_mut_obj_add_arr(doc, o, "alternatives");
    for (uint32_t i = 0; i < p->n_alternatives; i++) {
        yyjson_mut_val *a = yyjson_mut_arr_add_obj(doc, others);
        add_text(doc, a, "strategy", plan_strategy_word(p->alternatives[i].strategy));
        yyjson_mut_obj_add_bool(doc, a, "fits", p->alternatives[i].fits);
        add_text(doc, a, "text", p->alternatives[i].text);
    }
    return o;
}
