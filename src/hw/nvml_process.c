/* Who uses an NVIDIA device, and how much. Layer hw, private to the nvidia adapter; thread of the owner.
 *
 * The library fills arrays whose element size depends on the driver, not on the name of the function: version
 * 3 has 24 bytes an entry, but 32 in the drivers 535. So the buffer always has room for the larger, is filled
 * with a mark, and what was overwritten tells the size. */
#include "hw/nvml_api.h"

#include "base/mem.h"

#include <limits.h>
#include <string.h>

#define FIRST_ENTRIES 64
#define MOST_ENTRIES  4096 /* more processes than this on one GPU is a broken count */
#define MARK          0xaa

/* Room for n entries; false when memory is short. */
static bool list_room(struct nvml_process_reader *reader, unsigned n)
{
    if (n <= reader->list_cap)
        return true;
    unsigned char *list = mem_try_array(n, sizeof(struct nvml_process_v3));
    if (!list)
        return false;
    free(reader->list);
    reader->list = list;
    reader->list_cap = n;
    return true;
}

/* Calls until the list fits; *ret_n entries are in reader->list then. */
static int fetch(nvml_get_processes *get, struct nvml_process_reader *reader, nvml_device device,
                 unsigned *ret_n)
{
    unsigned n = 0;
    int code = NVML_INSUFFICIENT_SIZE;
    for (int attempt = 0; attempt < 4 && code == NVML_INSUFFICIENT_SIZE; attempt++) {
        unsigned want = n < FIRST_ENTRIES ? FIRST_ENTRIES : n + n / 4; /* some may start meanwhile */
        if (n > MOST_ENTRIES || !list_room(reader, want))
            return NVML_MEMORY;
        memset(reader->list, MARK, (size_t)reader->list_cap * sizeof(struct nvml_process_v3));
        n = reader->list_cap;
        code = get(device, &n, reader->list);
    }
    if (code == NVML_OK && n > reader->list_cap)
        return NVML_UNKNOWN;
    if (code == NVML_OK)
        *ret_n = n;
    return code;
}

static size_t entry_size(const struct nvml_process_reader *reader, unsigned n)
{
    size_t small = sizeof(struct nvml_process_v2), large = sizeof(struct nvml_process_v3);
    for (size_t i = n * small; i < n * large; i++)
        if (reader->list[i] != MARK)
            return large;
    return small;
}

static void add_process(struct hw_device *d, unsigned pid, unsigned long long bytes)
{
    struct hw_process *place = NULL;
    bool bytes_valid = bytes != NVML_NOT_AVAILABLE && (d->total_bytes == 0 || bytes <= d->total_bytes);
    uint64_t value = bytes_valid ? bytes : 0;
    if (pid == 0 || pid > INT_MAX)
        return;
    for (size_t i = 0; i < d->n_processes; i++)
        if (d->processes[i].pid == (pid_t)pid) { /* it computes and draws: both lists have all its memory */
            struct hw_process *known = &d->processes[i];
            known->bytes = value > known->bytes ? value : known->bytes;
            known->bytes_valid |= bytes_valid;
            return;
        }
    if (d->n_processes < HW_MAX_PROCESSES) {
        place = &d->processes[d->n_processes++];
    } else { /* the largest are kept */
        place = &d->processes[0];
        for (size_t i = 1; i < d->n_processes; i++)
            if (d->processes[i].bytes < place->bytes)
                place = &d->processes[i];
        if (place->bytes >= value)
            return;
    }
    *place = (struct hw_process){.pid = (pid_t)pid, .bytes = value, .bytes_valid = bytes_valid};
}

static int read_kind(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                     int kind, struct hw_device *d)
{
    unsigned n = 0;
    int code = NVML_FUNCTION_NOT_FOUND;
    size_t size = sizeof(struct nvml_process_v1);
    if (api->processes[kind]) {
        code = fetch(api->processes[kind], reader, device, &n);
        if (code == NVML_OK)
            size = entry_size(reader, n);
    }
    if (code == NVML_FUNCTION_NOT_FOUND && api->processes_v1[kind])
        code = fetch(api->processes_v1[kind], reader, device, &n);
    if (code != NVML_OK)
        return code;
    for (unsigned i = 0; i < n; i++) {
        struct nvml_process_v1 entry; /* the beginning of every version */
        memcpy(&entry, reader->list + i * size, sizeof(entry));
        add_process(d, entry.pid, entry.bytes);
    }
    return NVML_OK;
}

void nvml_read_processes(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                         bool doubtful, struct hw_device *d)
{
    int compute = read_kind(api, reader, device, NVML_COMPUTE, d);
    (void)read_kind(api, reader, device, NVML_GRAPHICS, d);
    (void)read_kind(api, reader, device, NVML_MPS, d);
    if (compute == NVML_OK && (d->n_processes || !doubtful))
        d->valid |= HW_PROCESSES;
    else
        d->n_processes = 0;
}

static int fetch_use(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                     unsigned long long since_us, unsigned *ret_n)
{
    unsigned n = FIRST_ENTRIES;
    int code = NVML_INSUFFICIENT_SIZE;
    for (int attempt = 0; attempt < 4 && code == NVML_INSUFFICIENT_SIZE; attempt++) {
        if (n > MOST_ENTRIES)
            return NVML_MEMORY;
        if (n > reader->use_cap) {
            struct nvml_process_use *use = mem_try_array(n, sizeof(*use));
            if (!use)
                return NVML_MEMORY;
            free(reader->use);
            reader->use = use;
            reader->use_cap = n;
        }
        n = reader->use_cap;
        code = api->process_use(device, reader->use, &n, since_us);
    }
    if (code == NVML_OK && n > reader->use_cap)
        return NVML_UNKNOWN;
    if (code == NVML_OK)
        *ret_n = n;
    return code;
}

void nvml_read_process_use(const struct nvml_api *api, struct nvml_process_reader *reader, nvml_device device,
                           int64_t wall_ms, unsigned long long *since_us, struct hw_device *d)
{
    unsigned n = 0;
    unsigned long long now_us = (unsigned long long)wall_ms * 1000;
    unsigned long long since =
        *since_us ? *since_us : now_us - 2000000; /* the driver's buffer goes far back */
    unsigned long long stamps[HW_MAX_PROCESSES] = {0};
    if (!api->process_use || d->n_processes == 0 || fetch_use(api, reader, device, since, &n) != NVML_OK)
        return;
    for (unsigned i = 0; i < n; i++) {
        const struct nvml_process_use *use = &reader->use[i];
        /* Drivers return entries that were never filled: shares above 100, old or absurd times. */
        if (use->sm > 100 || use->timestamp_us <= since || use->timestamp_us > now_us + 1000000)
            continue;
        if (use->timestamp_us > *since_us)
            *since_us = use->timestamp_us;
        for (size_t k = 0; k < d->n_processes; k++)
            if ((unsigned)d->processes[k].pid == use->pid && use->timestamp_us > stamps[k]) {
                stamps[k] = use->timestamp_us;
                d->processes[k].util_pct = use->sm;
                d->processes[k].util_valid = true;
            }
    }
}

void nvml_process_release(struct nvml_process_reader *reader)
{
    free(reader->list);
    free(reader->use);
    *reader = (struct nvml_process_reader){0};
}
