/* NVIDIA GPUs through the management library. Layer hw; one thread at a time; calls block for up to
 * milliseconds.
 *
 * The devices are found once, in the order that CUDA uses under CUDA_DEVICE_ORDER=PCI_BUS_ID, which the
 * launcher sets; a card in MIG mode is replaced by its instances. What cannot change is read at open, the
 * rest at every sample by the rows of a table. Invariant: a reading that fails takes its validity bit and
 * nothing else; a card that is lost keeps its identity and its place, and is asked again at the next sample.
 */
#include "hw/nvml_api.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define MOST_GPUS      64
#define MOST_INSTANCES 16
#define MOST_EVENTS    32 /* taken in one sample */

struct card {
    nvml_device handle;
    nvml_device whole; /* of the card that a MIG instance is part of; else the same */
    unsigned domain, bus, slot;
    struct hw_device identity; /* names and what is read once */
    unsigned long long use_since_us;
};

struct nvidia {
    struct nvml_api api;
    void *library;
    struct card cards[HW_MAX_DEVICES];
    size_t n_cards;
    nvml_events events; /* NULL where the driver has none */
    struct nvml_process_reader reader;
    char driver[64];
    unsigned cuda_version;
    bool wsl, pcie_rate;
    char notes[2][160]; /* about cards left out */
    size_t n_notes;
};

/* ---- readings of one number ---- */

struct reading {
    size_t slot; /* a nvml_get_u32 *, or with `which` >= 0 a nvml_get_u32_of * */
    int which;
    size_t field; /* unsigned */
    uint32_t bit; /* valid when every row that names it succeeded */
    bool once;    /* at open */
    bool shared;  /* true of a MIG instance too: read from the whole card */
};

#define SLOT(name)  offsetof(struct nvml_api, name)
#define FIELD(name) offsetof(struct hw_device, name)

static const struct reading readings[] = {
    {SLOT(temperature_limit), NVML_THRESHOLD_SLOWDOWN, FIELD(temp_slowdown_c), HW_TEMP_SLOWDOWN, true, true},
    {SLOT(power_default), -1, FIELD(power_default_mw), HW_POWER_DEFAULT, true, false},
    {SLOT(clock_max), NVML_CLOCK_MEM, FIELD(clock_mem_max_mhz), 0, true, true},
    {SLOT(bus_width), -1, FIELD(bus_width_bits), HW_BUS_WIDTH, true, true},
    {SLOT(pcie_gen_max), -1, FIELD(pcie_gen_max), HW_PCIE_MAX, true, true},
    {SLOT(pcie_width_max), -1, FIELD(pcie_width_max), HW_PCIE_MAX, true, true},
    {SLOT(power), -1, FIELD(power_mw), HW_POWER, false, false},
    {SLOT(power_limit), -1, FIELD(power_limit_mw), HW_POWER_LIMIT, false, false},
    {SLOT(clock), NVML_CLOCK_SM, FIELD(clock_sm_mhz), HW_CLOCKS, false, true},
    {SLOT(clock), NVML_CLOCK_MEM, FIELD(clock_mem_mhz), HW_CLOCKS, false, true},
    {SLOT(pcie_gen), -1, FIELD(pcie_gen), HW_PCIE, false, true},
    {SLOT(pcie_width), -1, FIELD(pcie_width), HW_PCIE, false, true},
};

static const struct reading rate_readings[] = {
    {SLOT(pcie_throughput), NVML_PCIE_RX, FIELD(pcie_rx_kbps), HW_PCIE_RATE, false, false},
    {SLOT(pcie_throughput), NVML_PCIE_TX, FIELD(pcie_tx_kbps), HW_PCIE_RATE, false, false},
};

static bool is_lost(int code)
{
    return code == NVML_GPU_IS_LOST || code == NVML_RESET_REQUIRED;
}

static int read_row(const struct nvml_api *api, nvml_device device, const struct reading *row,
                    unsigned *ret_value)
{
    const char *slot = (const char *)api + row->slot;
    if (row->which < 0) {
        nvml_get_u32 *get;
        memcpy(&get, slot, sizeof(get));
        return get ? get(device, ret_value) : NVML_FUNCTION_NOT_FOUND;
    }
    nvml_get_u32_of *get_of;
    memcpy(&get_of, slot, sizeof(get_of));
    return get_of ? get_of(device, row->which, ret_value) : NVML_FUNCTION_NOT_FOUND;
}

/* Returns the code that says the card is lost, else NVML_OK. */
static int read_rows(const struct nvml_api *api, const struct card *card, const struct reading *rows,
                     size_t n, bool once, struct hw_device *d)
{
    uint32_t good = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned value = 0;
        if (rows[i].once != once || (d->mig && !rows[i].shared))
            continue;
        int code = read_row(api, card->whole, &rows[i], &value);
        if (is_lost(code))
            return code;
        if (code == NVML_OK) {
            memcpy((char *)d + rows[i].field, &value, sizeof(value));
            good |= rows[i].bit;
        } else {
            bad |= rows[i].bit;
        }
    }
    d->valid |= good & ~bad;
    return NVML_OK;
}

/* ---- one sample ---- */

/* Chips without memory of their own (GB10, Jetson) refuse the question or answer zero: their memory is the
 * host's. */
static int read_memory(const struct nvml_api *api, const struct card *card, const struct hw_host *host,
                       struct hw_device *d)
{
    struct nvml_memory_v2 v2 = {.version = NVML_STRUCT(struct nvml_memory_v2, 2)};
    int code = api->memory_v2 ? api->memory_v2(card->handle, &v2) : NVML_FUNCTION_NOT_FOUND;
    if (code != NVML_OK && !is_lost(code)) {
        struct nvml_memory_v1 v1 = {0};
        code = api->memory_v1(card->handle, &v1);
        v2 = (struct nvml_memory_v2){.total = v1.total, .free = v1.free, .used = v1.used};
    }
    if (!d->mig && (code == NVML_NOT_SUPPORTED || (code == NVML_OK && v2.total == 0))) {
        d->unified_memory = true;
        v2 = (struct nvml_memory_v2){.total = host->ram_total_bytes, .free = host->ram_available_bytes};
        v2.used = v2.total - v2.free;
        code = NVML_OK;
    }
    if (code != NVML_OK)
        return code;
    if (v2.total == 0 || v2.free > v2.total || v2.used > v2.total)
        return NVML_UNKNOWN;
    d->total_bytes = v2.total;
    d->free_bytes = v2.free;
    d->used_bytes = v2.used;
    d->reserved_bytes = v2.reserved;
    d->valid |= HW_MEMORY;
    return NVML_OK;
}

static int read_temperature(const struct nvml_api *api, const struct card *card, struct hw_device *d)
{
    struct nvml_temperature_v1 t = {NVML_STRUCT(struct nvml_temperature_v1, 1), NVML_SENSOR_GPU, 0};
    unsigned celsius = 0;
    int code =
        api->temperature ? api->temperature(card->whole, NVML_SENSOR_GPU, &celsius) : NVML_FUNCTION_NOT_FOUND;
    if (code != NVML_OK && !is_lost(code) && api->temperature_v) {
        code = api->temperature_v(card->whole, &t);
        celsius = t.celsius > 0 ? (unsigned)t.celsius : 0;
    }
    if (code == NVML_OK) {
        d->temperature_c = celsius;
        d->valid |= HW_TEMPERATURE;
    }
    return code;
}

static int read_others(const struct nvml_api *api, const struct card *card, struct hw_device *d)
{
    struct nvml_utilization use = {0};
    struct nvml_bar1 bar1 = {0};
    unsigned long long reasons = 0;
    unsigned on = 0;
    int code = read_temperature(api, card, d);
    if (is_lost(code))
        return code;
    if (!d->mig && api->utilization) { /* not known of an instance */
        code = api->utilization(card->handle, &use);
        if (is_lost(code))
            return code;
        if (code == NVML_OK && use.gpu <= 100 && use.memory <= 100) {
            d->util_pct = use.gpu;
            d->mem_busy_pct = use.memory;
            d->valid |= HW_UTIL | HW_MEM_BUSY;
        }
    }
    if (api->throttle && api->throttle(card->whole, &reasons) == NVML_OK) {
        d->throttle_reasons = reasons;
        d->valid |= HW_THROTTLE;
    }
    if (!d->mig && api->bar1 && api->bar1(card->handle, &bar1) == NVML_OK && bar1.total) {
        d->bar1_total_bytes = bar1.total;
        d->bar1_used_bytes = bar1.used;
        d->valid |= HW_BAR1;
    }
    if (api->persistence && api->persistence(card->whole, &on) == NVML_OK) {
        d->persistence = on != 0;
        d->valid |= HW_PERSISTENCE;
    }
    return NVML_OK;
}

static int sample_card(struct nvidia *nv, struct card *card, const struct hw_inventory *inv,
                       struct hw_device *d)
{
    const struct nvml_api *api = &nv->api;
    int memory = read_memory(api, card, &inv->host, d);
    if (is_lost(memory))
        return memory;
    int code = read_others(api, card, d);
    if (!is_lost(code))
        code = read_rows(api, card, readings, TABLE_COUNT(readings), false, d);
    if (!is_lost(code) && nv->pcie_rate)
        code = read_rows(api, card, rate_readings, TABLE_COUNT(rate_readings), false, d);
    if (is_lost(code))
        return code;
    nvml_read_processes(api, &nv->reader, card->handle, nv->wsl, d);
    if (!d->mig)
        nvml_read_process_use(api, &nv->reader, card->handle, inv->wall_ms, &card->use_since_us, d);
    return memory;
}

static void take_events(struct nvidia *nv)
{
    struct nvml_event event = {0};
    for (int i = 0; nv->events && i < MOST_EVENTS; i++) {
        if (nv->api.events_wait(nv->events, &event, 0) != NVML_OK)
            return;
        for (size_t k = 0; (event.type & NVML_EVENT_XID) && k < nv->n_cards; k++)
            if (nv->cards[k].whole == event.device) {
                nv->cards[k].identity.last_xid = event.data;
                nv->cards[k].identity.xid_count++;
            }
    }
}

static void nvidia_sample(void *state, struct hw_inventory *inv)
{
    struct nvidia *nv = state;
    take_events(nv);
    memcpy(inv->driver, nv->driver, sizeof(inv->driver));
    inv->cuda_version = nv->cuda_version;
    for (size_t i = 0; i < nv->n_notes; i++)
        hw_note(inv, "nvidia: %s", nv->notes[i]);
    for (size_t i = 0; i < nv->n_cards && inv->n_devices < HW_MAX_DEVICES; i++) {
        struct hw_device *d = &inv->devices[inv->n_devices++];
        char words[64];
        *d = nv->cards[i].identity;
        int code = sample_card(nv, &nv->cards[i], inv, d);
        if (is_lost(code)) {
            *d = nv->cards[i].identity;
            d->lost = true;
            d->valid &= HW_UUID | HW_PCI | HW_NUMA;
        }
        if (code != NVML_OK)
            hw_note(inv, "nvidia: %s (%s): %s", d->name, d->pci, nvml_words(code, words, sizeof(words)));
    }
}

/* ---- finding the devices ---- */

static void left_out(struct nvidia *nv, const char *text)
{
    if (nv->n_notes < TABLE_COUNT(nv->notes))
        (void)snprintf(nv->notes[nv->n_notes++], sizeof(nv->notes[0]), "%s", text);
}

static void read_numa(const struct hw_roots *roots, const struct nvml_api *api, struct card *card)
{
    struct hw_device *d = &card->identity;
    char path[HW_PATH];
    uint64_t node;
    unsigned own;
    /* The kernel tells the node near the card (-1: there is only one); the library the node that the card's
     * own memory forms, on machines where it does. */
    if ((d->valid & HW_PCI) && hw_path(path, "%s/bus/pci/devices/%s/numa_node", roots->sys, d->pci) &&
        hw_text_u64(path, &node) && node < HW_SET_BITS) {
        d->numa_node = (int)node;
        d->valid |= HW_NUMA;
    } else if (api->numa_node && api->numa_node(card->whole, &own) == NVML_OK && own < HW_SET_BITS) {
        d->numa_node = (int)own;
        d->valid |= HW_NUMA;
    }
}

static void read_bandwidth(struct hw_device *d)
{
    /* MHz × bits: two transfers a clock, eight bits a byte, 1000 MB a GB. */
    if (d->clock_mem_max_mhz && (d->valid & HW_BUS_WIDTH) && d->bus_width_bits)
        d->bandwidth_gbps = 2.0 * d->clock_mem_max_mhz * d->bus_width_bits / 8 / 1000;
    else
        d->bandwidth_gbps = hw_bandwidth_of(d->model);
    if (d->bandwidth_gbps > 0)
        d->valid |= HW_BANDWIDTH;
}

static void identify(const struct hw_roots *roots, const struct nvml_api *api, struct card *card,
                     unsigned index)
{
    struct hw_device *d = &card->identity;
    struct nvml_pci pci = {0};
    int major, minor;
    d->vendor = hw_adapter_nvidia.name;
    d->index = index;
    if (api->name(card->handle, d->model, sizeof(d->model)) != NVML_OK || !d->model[0])
        (void)snprintf(d->model, sizeof(d->model), "NVIDIA GPU");
    d->model[sizeof(d->model) - 1] = '\0';
    if (api->uuid && api->uuid(card->handle, d->uuid, sizeof(d->uuid)) == NVML_OK) {
        d->uuid[sizeof(d->uuid) - 1] = '\0';
        d->valid |= HW_UUID;
    }
    if (api->pci && api->pci(card->whole, &pci) == NVML_OK) {
        card->domain = pci.domain;
        card->bus = pci.bus;
        card->slot = pci.device;
        /* Built from the numbers: the text of the library has eight digits of domain, the kernel's four. */
        (void)snprintf(d->pci, sizeof(d->pci), "%04x:%02x:%02x.0", pci.domain, pci.bus & 0xff,
                       pci.device & 0x1f);
        d->valid |= HW_PCI;
    }
    if (api->compute_capability && api->compute_capability(card->whole, &major, &minor) == NVML_OK) {
        d->cc_major = (unsigned)major;
        d->cc_minor = (unsigned)minor;
        d->valid |= HW_COMPUTE_CAP;
    }
    (void)read_rows(api, card, readings, TABLE_COUNT(readings), true, d);
    read_numa(roots, api, card);
    read_bandwidth(d);
}

/* An instance has the share of the card's bandwidth that its memory has of the card's, in eighths. */
static void share_bandwidth(const struct nvml_api *api, struct card *card)
{
    struct nvml_memory_v1 whole = {0}, own = {0};
    struct hw_device *d = &card->identity;
    if (api->memory_v1(card->whole, &whole) != NVML_OK || api->memory_v1(card->handle, &own) != NVML_OK ||
        !whole.total || own.total > whole.total) {
        d->valid &= ~(uint32_t)HW_BANDWIDTH;
        return;
    }
    double eighths = (double)(unsigned)(8.0 * (double)own.total / (double)whole.total + 0.5);
    d->bandwidth_gbps *= (eighths < 1 ? 1 : eighths) / 8;
}

static bool add_card(struct nvidia *nv, const struct card *card)
{
    if (nv->n_cards == HW_MAX_DEVICES) {
        left_out(nv, "more GPUs than fit the inventory: the last ones are left out");
        return false;
    }
    nv->cards[nv->n_cards++] = *card;
    return true;
}

/* True when the card is in MIG mode: work runs on its instances only. */
static bool add_instances(struct nvidia *nv, const struct hw_roots *roots, const struct card *whole,
                          unsigned index)
{
    const struct nvml_api *api = &nv->api;
    unsigned current = 0, pending = 0, n = 0, found = 0;
    if (!api->mig_mode || !api->mig_max || !api->mig_handle ||
        api->mig_mode(whole->handle, &current, &pending) != NVML_OK || !current)
        return false;
    if (api->mig_max(whole->handle, &n) != NVML_OK)
        n = 0;
    for (unsigned i = 0; i < n && i < MOST_INSTANCES; i++) {
        struct card card = {.whole = whole->handle};
        if (api->mig_handle(whole->handle, i, &card.handle) != NVML_OK)
            continue; /* instances are numbered with holes */
        card.identity.mig = true;
        identify(roots, api, &card, index);
        share_bandwidth(api, &card);
        found++;
        if (!add_card(nv, &card))
            break;
    }
    if (!found)
        left_out(nv, "a card is in MIG mode without an instance: make one, or end MIG mode");
    return true;
}

static bool is_before(const struct card *a, const struct card *b)
{
    if (a->domain != b->domain)
        return a->domain < b->domain;
    return a->bus != b->bus ? a->bus < b->bus : a->slot < b->slot;
}

/* Stable: the instances of a card stay in their order, cards without an address in the library's. */
static void sort_cards(struct nvidia *nv)
{
    for (size_t i = 1; i < nv->n_cards; i++) {
        struct card card = nv->cards[i];
        size_t k = i;
        for (; k > 0 && is_before(&card, &nv->cards[k - 1]); k--)
            nv->cards[k] = nv->cards[k - 1];
        nv->cards[k] = card;
    }
}

static bool token_names(const struct nvidia *nv, struct str token, size_t card)
{
    uint64_t number;
    const struct hw_device *d = &nv->cards[card].identity;
    if (str_u64(token, &number)) { /* of whole cards: an instance shares its card's number */
        uint64_t position = 0;
        for (size_t i = 1; i <= card; i++)
            position += nv->cards[i].whole != nv->cards[i - 1].whole;
        return position == number;
    }
    return token.n >= 5 && (d->valid & HW_UUID) && strncmp(d->uuid, token.p, token.n) == 0;
}

/* Leaves the cards of a list as in CUDA_VISIBLE_DEVICES; as there, what follows a wrong entry does not count.
 */
static void keep_visible(struct nvidia *nv, const char *visible)
{
    bool keep[HW_MAX_DEVICES] = {false};
    struct str rest = str_from(visible);
    while (rest.n) {
        struct str token = str_trim(str_cut(&rest, ','));
        size_t n_named = 0, last = 0;
        for (size_t i = 0; i < nv->n_cards; i++)
            if (token_names(nv, token, i)) {
                n_named++;
                last = i;
            }
        /* The beginning of a UUID must be of one device; a number means all instances of its card. */
        if (n_named == 0 || (n_named > 1 && nv->cards[last].whole == nv->cards[last].handle))
            break;
        for (size_t i = 0; i < nv->n_cards; i++)
            keep[i] |= token_names(nv, token, i);
    }
    size_t n = 0;
    for (size_t i = 0; i < nv->n_cards; i++)
        if (keep[i])
            nv->cards[n++] = nv->cards[i];
    if (n < nv->n_cards) {
        char text[128];
        (void)snprintf(text, sizeof(text), "%zu of %zu GPUs are hidden by CUDA_VISIBLE_DEVICES",
                       nv->n_cards - n, nv->n_cards);
        left_out(nv, text);
    }
    nv->n_cards = n;
}

static void find_cards(struct nvidia *nv, const struct hw_roots *roots, unsigned n)
{
    for (unsigned i = 0; i < n && i < MOST_GPUS; i++) {
        struct card card = {0};
        int code = nv->api.handle(i, &card.handle);
        if (code != NVML_OK) {
            char text[128], words[64];
            (void)snprintf(text, sizeof(text), "GPU %u is left out: %s", i,
                           nvml_words(code, words, sizeof(words)));
            left_out(nv, text);
            continue;
        }
        card.whole = card.handle;
        if (add_instances(nv, roots, &card, i))
            continue;
        identify(roots, &nv->api, &card, i);
        if (!add_card(nv, &card))
            break;
    }
    sort_cards(nv);
    if (roots->visible)
        keep_visible(nv, roots->visible);
    for (size_t i = 0; i < nv->n_cards; i++)
        (void)snprintf(nv->cards[i].identity.name, sizeof(nv->cards[i].identity.name), "CUDA%u", (unsigned)i);
}

static void watch_events(struct nvidia *nv)
{
    const struct nvml_api *api = &nv->api;
    bool any = false;
    if (!api->events_new || !api->events_free || !api->events_add || !api->events_wait ||
        api->events_new(&nv->events) != NVML_OK) {
        nv->events = NULL;
        return;
    }
    for (size_t i = 0; i < nv->n_cards; i++)
        if (i == 0 || nv->cards[i].whole != nv->cards[i - 1].whole)
            any |= api->events_add(nv->cards[i].whole, NVML_EVENT_XID, nv->events) == NVML_OK;
    if (!any) {
        (void)api->events_free(nv->events);
        nv->events = NULL;
    }
}

static void nvidia_close(void *state)
{
    struct nvidia *nv = state;
    if (!nv)
        return;
    if (nv->events)
        (void)nv->api.events_free(nv->events);
    nvml_process_release(&nv->reader);
    for (size_t i = 0; i < nv->n_cards; i++)
        nvml_power_restore(&nv->api, nv->cards[i].whole, &nv->cards[i].identity);
    nvml_unload(&nv->api, nv->library);
    free(nv);
}

static bool is_wsl(const struct hw_roots *roots)
{
    char path[HW_PATH], release[256];
    if (!hw_path(path, "%s/sys/kernel/osrelease", roots->proc) ||
        !hw_text_line(path, release, sizeof(release)))
        return false;
    for (char *p = release; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return strstr(release, "microsoft") != NULL;
}

static enum rc nvidia_open(const struct hw_roots *roots, void **ret_state, struct err *err)
{
    struct nvidia *nv = mem_new(struct nvidia);
    unsigned n = 0;
    int cuda = 0;
    enum rc rc = nvml_load(roots, &nv->api, &nv->library, err);
    if (rc != RC_OK) {
        nvidia_close(nv);
        return rc;
    }
    char version[48] = "", words[64];
    if (nv->api.driver_version && nv->api.driver_version(version, sizeof(version)) == NVML_OK && version[0])
        (void)snprintf(nv->driver, sizeof(nv->driver), "NVIDIA %.*s", (int)sizeof(version) - 1, version);
    if (nv->api.cuda_version && nv->api.cuda_version(&cuda) == NVML_OK && cuda > 0)
        nv->cuda_version = (unsigned)cuda;
    nv->wsl = is_wsl(roots);
    nv->pcie_rate = roots->pcie_rate;
    int code = nv->api.count(&n);
    if (code != NVML_OK) {
        rc =
            err_set(err, RC_UNSUPPORTED, "cannot count the GPUs: %s", nvml_words(code, words, sizeof(words)));
    } else if (n == 0) {
        rc = err_set(err, RC_NOT_FOUND, "the driver is loaded but sees no GPU");
        err_hint(err, "in a container, pass the devices in: --gpus all");
    }
    if (rc != RC_OK) {
        nvidia_close(nv);
        return rc;
    }
    find_cards(nv, roots, n);
    for (size_t i = 0; i < nv->n_cards; i++)
        nvml_power_apply(&nv->api, roots, nv->cards[i].whole, &nv->cards[i].identity);
    watch_events(nv);
    *ret_state = nv;
    return RC_OK;
}

const struct hw_adapter hw_adapter_nvidia = {
    .name = "nvidia",
    .open = nvidia_open,
    .sample = nvidia_sample,
    .close = nvidia_close,
};
