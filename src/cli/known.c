/* What was measured and learned, for commands: see known.h. Layer cli; main thread. */
#include "cli/known.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cli/control.h"
#include "os/pagecache.h"

struct knowledge *known_apply(const struct model *m, bool flash_attn, struct plan_machine *machine)
{
    char path[4200];
    uint64_t cached = 0, size = 0;
    knowledge_path(path, sizeof path);
    struct knowledge *k = knowledge_load(path);
    if (pagecache_resident(m->path, &cached, &size, NULL) == RC_OK && size > 0)
        machine->host.file_cached = (double)cached / (double)size;
    knowledge_apply(k, m, "", flash_attn, machine);
    return k;
}

static uint64_t age_ms(int64_t wall_ms)
{
    int64_t now = clock_wall_ms();
    return now > wall_ms ? (uint64_t)(now - wall_ms) : 0;
}

void known_print(const struct knowledge *k)
{
    char age[32];
    if (k->note[0])
        printf("\nNote: %s\n", k->note);
    if (k->host.wall_ms)
        printf("\nThe host was measured %s ago: %.1f GB/s of memory.\n",
               control_duration(age_ms(k->host.wall_ms), age, sizeof age), k->host.read_gbps);
    else
        printf("\nThe host's speed is a guess: arriero bench host measures it.\n");
    for (size_t i = 0; i < k->n_gpus; i++)
        printf("%.12s… was measured %s ago: %.0f GB/s, %.0f TFLOP/s.\n", k->gpus[i].uuid,
               control_duration(age_ms(k->gpus[i].wall_ms), age, sizeof age), k->gpus[i].copy_gbps,
               k->gpus[i].fp16_tflops);
}

static void add_when(yyjson_mut_doc *doc, yyjson_mut_val *o, int64_t wall_ms)
{
    char at[40];
    yyjson_mut_obj_add_strcpy(doc, o, "at", clock_rfc3339(wall_ms, at, sizeof at));
    yyjson_mut_obj_add_uint(doc, o, "age_seconds", age_ms(wall_ms) / 1000);
}

void known_json(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct knowledge *k)
{
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(doc, root, "figures");
    if (k->host.wall_ms) {
        yyjson_mut_val *h = yyjson_mut_obj_add_obj(doc, o, "host");
        add_when(doc, h, k->host.wall_ms);
        yyjson_mut_obj_add_real(doc, h, "read_gbps", k->host.read_gbps);
        yyjson_mut_obj_add_real(doc, h, "read_core_gbps", k->host.read_core_gbps);
        yyjson_mut_obj_add_real(doc, h, "fp32_core_gflops", k->host.fp32_core_gflops);
        yyjson_mut_obj_add_real(doc, h, "int8_core_gops", k->host.int8_core_gops);
        yyjson_mut_obj_add_real(doc, h, "disk_gbps", k->host.disk_gbps);
    } else {
        yyjson_mut_obj_add_null(doc, o, "host");
    }
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, o, "gpus");
    for (size_t i = 0; i < k->n_gpus; i++) {
        yyjson_mut_val *g = yyjson_mut_arr_add_obj(doc, list);
        json_add_str(doc, g, "uuid", str_from(k->gpus[i].uuid));
        add_when(doc, g, k->gpus[i].wall_ms);
        yyjson_mut_obj_add_real(doc, g, "copy_gbps", k->gpus[i].copy_gbps);
        yyjson_mut_obj_add_real(doc, g, "to_device_gbps", k->gpus[i].to_device_gbps);
        yyjson_mut_obj_add_real(doc, g, "from_device_gbps", k->gpus[i].from_device_gbps);
        yyjson_mut_obj_add_real(doc, g, "fp16_tflops", k->gpus[i].fp16_tflops);
    }
    json_add_str(doc, o, "note", str_from(k->note));
}
