/* AMD cards through the sysfs files of the amdgpu kernel driver: no library, no root. Layer hw; one thread at
 * a time.
 *
 * Cards are numbered by PCI address, which is how the ROCm runtime lists them. Value files stay open; a file
 * that stops answering (the card was removed or fell asleep for good) takes its fields' validity with it.
 * Units of the files: Documentation/gpu/amdgpu and Documentation/hwmon of the Linux kernel. */
#include "hw/hw_priv.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define AMD_VENDOR 0x1002

enum amd_value {
    VRAM_TOTAL,
    VRAM_USED,
    BUSY,
    MEM_BUSY,
    LINK_WIDTH,
    LINK_WIDTH_MAX,
    TEMP,
    TEMP_CRIT,
    POWER,
    POWER_CAP,
    SCLK,
    MCLK,
    AMD_VALUES,
};

/* Below device/, or below device/hwmon/hwmonN/; the second name is tried when the first is missing. */
static const struct {
    const char *names[2];
    bool hwmon;
} files[AMD_VALUES] = {
    [VRAM_TOTAL] = {{"mem_info_vram_total"}, false},      /* bytes */
    [VRAM_USED] = {{"mem_info_vram_used"}, false},        /* bytes */
    [BUSY] = {{"gpu_busy_percent"}, false},               /* % */
    [MEM_BUSY] = {{"mem_busy_percent"}, false},           /* % */
    [LINK_WIDTH] = {{"current_link_width"}, false},       /* lanes */
    [LINK_WIDTH_MAX] = {{"max_link_width"}, false},       /* lanes */
    [TEMP] = {{"temp1_input"}, true},                     /* 1/1000 °C, edge */
    [TEMP_CRIT] = {{"temp1_crit"}, true},                 /* 1/1000 °C */
    [POWER] = {{"power1_average", "power1_input"}, true}, /* µW */
    [POWER_CAP] = {{"power1_cap"}, true},                 /* µW */
    [SCLK] = {{"freq1_input"}, true},                     /* Hz */
    [MCLK] = {{"freq2_input"}, true},                     /* Hz */
};

struct amd_card {
    struct hw_device identity;
    int fds[AMD_VALUES];
    char device_dir[HW_PATH], hwmon_dir[HW_PATH]; /* the latter "" where there is none */
};

struct amd {
    struct amd_card *cards; /* HW_MAX_DEVICES of them */
    size_t n;
};

static bool find_hwmon(const char *device_dir, char ret_path[HW_PATH])
{
    char dir_path[HW_PATH];
    bool found = false;
    DIR *dir = hw_path(dir_path, "%s/hwmon", device_dir) ? opendir(dir_path) : NULL;
    if (!dir)
        return false;
    for (const struct dirent *e; !found && (e = readdir(dir));)
        if (strncmp(e->d_name, "hwmon", 5) == 0)
            found = hw_path(ret_path, "%s/%s", dir_path, e->d_name);
    closedir(dir);
    return found;
}

static void open_files(struct amd_card *card)
{
    char path[HW_PATH];
    card->hwmon_dir[0] = '\0';
    bool has_hwmon = find_hwmon(card->device_dir, card->hwmon_dir);
    for (int v = 0; v < AMD_VALUES; v++) {
        card->fds[v] = -1;
        for (int k = 0; k < 2 && card->fds[v] < 0; k++) {
            if (!files[v].names[k] || (files[v].hwmon && !has_hwmon))
                continue;
            if (hw_path(path, "%s/%s", files[v].hwmon ? card->hwmon_dir : card->device_dir,
                        files[v].names[k]))
                card->fds[v] = hw_text_open(path);
        }
    }
}

/* "16.0 GT/s PCIe" → 4. */
static unsigned link_generation(const char *device_dir, const char *name)
{
    static const unsigned tenths[] = {25, 50, 80, 160, 320, 640};
    char path[HW_PATH], line[64];
    if (!hw_path(path, "%s/%s", device_dir, name) || !hw_text_line(path, line, sizeof(line)))
        return 0;
    double speed = strtod(line, NULL);
    for (size_t i = 0; i < TABLE_COUNT(tenths); i++)
        if (speed * 10 > tenths[i] - 1 && speed * 10 < tenths[i] + 1)
            return (unsigned)i + 1;
    return 0;
}

static void identify(struct amd_card *card, const struct hw_pci *pci)
{
    struct hw_device *d = &card->identity;
    char path[HW_PATH], line[64];
    uint64_t node;
    d->vendor = hw_adapter_amd.name;
    memcpy(d->pci, pci->address, sizeof(d->pci));
    d->valid = HW_PCI;
    if (!hw_path(path, "%s/product_name", card->device_dir) ||
        !hw_text_line(path, d->model, sizeof(d->model)))
        (void)snprintf(d->model, sizeof(d->model), "AMD GPU [1002:%04x]", pci->device_id & 0xffff);
    if (hw_path(path, "%s/unique_id", card->device_dir) && hw_text_line(path, line, sizeof(line))) {
        (void)snprintf(d->uuid, sizeof(d->uuid), "GPU-%s", line); /* what HIP_VISIBLE_DEVICES takes */
        d->valid |= HW_UUID;
    }
    if (hw_path(path, "%s/numa_node", card->device_dir) && hw_text_u64(path, &node)) { /* -1: unknown */
        d->numa_node = (int)(node % HW_SET_BITS);
        d->valid |= HW_NUMA;
    }
    d->pcie_gen_max = link_generation(card->device_dir, "max_link_speed");
}

/* ---- power limits: µW in the files, an errno as code ---- */

static int power_file(const struct amd_card *card, const char *name, unsigned *ret_mw)
{
    char path[HW_PATH];
    uint64_t microwatts;
    if (!card->hwmon_dir[0] || !hw_path(path, "%s/%s", card->hwmon_dir, name) ||
        !hw_text_u64(path, &microwatts) || microwatts / 1000 > UINT32_MAX)
        return ENOENT;
    *ret_mw = (unsigned)(microwatts / 1000);
    return 0;
}

static int power_range(void *arg, unsigned *ret_least_mw, unsigned *ret_most_mw)
{
    int code = power_file(arg, "power1_cap_min", ret_least_mw);
    return code ? code : power_file(arg, "power1_cap_max", ret_most_mw);
}

static int power_get(void *arg, unsigned *ret_mw)
{
    return power_file(arg, "power1_cap", ret_mw);
}

static int power_set(void *arg, unsigned mw)
{
    const struct amd_card *card = arg;
    char path[HW_PATH], text[32];
    (void)snprintf(text, sizeof(text), "%u000", mw);
    if (!hw_path(path, "%s/power1_cap", card->hwmon_dir))
        return ENAMETOOLONG;
    return hw_text_write(path, text) ? 0 : errno;
}

static const char *power_words(int code, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s", strerror(code));
    return out;
}

static bool power_denied(int code)
{
    return code == EACCES || code == EPERM || code == EROFS;
}

static const struct hw_power_driver power_driver = {.range = power_range,
                                                    .get = power_get,
                                                    .set = power_set,
                                                    .words = power_words,
                                                    .is_denied = power_denied};

static void amd_close(void *state)
{
    struct amd *amd = state;
    if (!amd)
        return;
    for (size_t i = 0; i < amd->n; i++)
        if (amd->cards[i].identity.power_restore_mw)
            (void)power_set(&amd->cards[i], amd->cards[i].identity.power_restore_mw);
    for (size_t i = 0; i < amd->n; i++)
        for (int v = 0; v < AMD_VALUES; v++)
            if (amd->cards[i].fds[v] >= 0)
                close(amd->cards[i].fds[v]);
    free(amd->cards);
    free(amd);
}

static enum rc amd_open(const struct hw_roots *roots, void **ret_state, struct err *err)
{
    struct hw_pci pci[HW_MAX_DEVICES];
    size_t n = hw_pci_find(roots, AMD_VENDOR, pci, HW_MAX_DEVICES);
    if (n == 0)
        return err_set(err, RC_NOT_FOUND, "no AMD card on the PCI bus");
    struct amd *amd = mem_new(struct amd);
    amd->cards = mem_calloc(HW_MAX_DEVICES, sizeof(*amd->cards));
    for (size_t i = 0; i < n; i++) {
        struct amd_card *card = &amd->cards[amd->n];
        if (!hw_path(card->device_dir, "%s/bus/pci/devices/%s", roots->sys, pci[i].address))
            continue;
        open_files(card);
        if (card->fds[VRAM_TOTAL] < 0) { /* another driver's, or none */
            for (int v = 0; v < AMD_VALUES; v++)
                if (card->fds[v] >= 0)
                    close(card->fds[v]);
            continue;
        }
        identify(card, &pci[i]);
        card->identity.index = (unsigned)amd->n;
        (void)snprintf(card->identity.name, sizeof(card->identity.name), "ROCm%u", (unsigned)amd->n);
        hw_power_apply(roots, &power_driver, card, &card->identity);
        amd->n++;
    }
    if (amd->n == 0) {
        amd_close(amd);
        enum rc rc = err_set(err, RC_UNSUPPORTED, "the card at %s is not driven by amdgpu", pci[0].address);
        err_hint(err, "load the amdgpu kernel module");
        return rc;
    }
    *ret_state = amd;
    return RC_OK;
}

static bool value_of(const struct amd_card *card, enum amd_value v, uint64_t divisor, unsigned *ret_value)
{
    char text[64];
    uint64_t value;
    if (!hw_text_pread(card->fds[v], text, sizeof(text)) || !str_u64(str_trim(str_from(text)), &value))
        return false;
    *ret_value = value / divisor > 0xffffffffu ? 0xffffffffu : (unsigned)(value / divisor);
    return true;
}

static bool bytes_of(const struct amd_card *card, enum amd_value v, uint64_t *ret_bytes)
{
    char text[64];
    return hw_text_pread(card->fds[v], text, sizeof(text)) && str_u64(str_trim(str_from(text)), ret_bytes);
}

static void sample_card(const struct amd_card *card, struct hw_device *d)
{
    static const struct {
        enum amd_value value;
        uint64_t divisor;
        size_t offset;
        uint32_t bit;
    } plain[] = {
        {BUSY, 1, offsetof(struct hw_device, util_pct), HW_UTIL},
        {MEM_BUSY, 1, offsetof(struct hw_device, mem_busy_pct), HW_MEM_BUSY},
        {TEMP, 1000, offsetof(struct hw_device, temperature_c), HW_TEMPERATURE},
        {TEMP_CRIT, 1000, offsetof(struct hw_device, temp_slowdown_c), HW_TEMP_SLOWDOWN},
        {POWER, 1000, offsetof(struct hw_device, power_mw), HW_POWER},
        {POWER_CAP, 1000, offsetof(struct hw_device, power_limit_mw), HW_POWER_LIMIT},
    };
    *d = card->identity;
    if (bytes_of(card, VRAM_TOTAL, &d->total_bytes) && d->total_bytes &&
        bytes_of(card, VRAM_USED, &d->used_bytes)) {
        if (d->used_bytes > d->total_bytes)
            d->used_bytes = d->total_bytes;
        d->free_bytes = d->total_bytes - d->used_bytes;
        d->valid |= HW_MEMORY;
    } else {
        d->total_bytes = d->used_bytes = 0;
    }
    for (size_t i = 0; i < TABLE_COUNT(plain); i++)
        if (value_of(card, plain[i].value, plain[i].divisor, (unsigned *)((char *)d + plain[i].offset)))
            d->valid |= plain[i].bit;
    if (value_of(card, SCLK, 1000000, &d->clock_sm_mhz) && value_of(card, MCLK, 1000000, &d->clock_mem_mhz))
        d->valid |= HW_CLOCKS;
    d->pcie_gen = link_generation(card->device_dir, "current_link_speed");
    if (value_of(card, LINK_WIDTH, 1, &d->pcie_width) && d->pcie_gen)
        d->valid |= HW_PCIE;
    if (value_of(card, LINK_WIDTH_MAX, 1, &d->pcie_width_max) && d->pcie_gen_max)
        d->valid |= HW_PCIE_MAX;
}

static void amd_sample(void *state, struct hw_inventory *inv)
{
    const struct amd *amd = state;
    for (size_t i = 0; i < amd->n && inv->n_devices < HW_MAX_DEVICES; i++) {
        struct hw_device *d = &inv->devices[inv->n_devices++];
        sample_card(&amd->cards[i], d);
        if (!(d->valid & HW_MEMORY))
            hw_note(inv, "amd: %s at %s no longer answers", d->name, d->pci);
    }
}

const struct hw_adapter hw_adapter_amd = {
    .name = "amd",
    .open = amd_open,
    .sample = amd_sample,
    .close = amd_close,
};
