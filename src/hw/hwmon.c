/* The temperature of the processors, from the sensors that the kernel's hwmon drivers show. Layer hw; one
 * thread at a time; no root needed.
 *
 * Sensors are found once, and their files stay open. Names and files: Documentation/hwmon/{coretemp,k10temp}
 * of the Linux kernel; the first temperature of each is that of the whole package, or the one that the
 * processor's own control goes by. Several processors are one device, as hot as the hottest. */
#include "hw/hw_priv.h"

#include "base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST_SENSORS 8
#define MILLI        1000u
#define SENSIBLE_C   200u /* more is a broken sensor */

/* Drivers whose sensors are a processor's; others are of disks, mainboards, network cards. */
static const char *const drivers[] = {"coretemp", "k10temp", "zenpower", "cpu_thermal"};

struct hw_sensors {
    struct {
        int input;
        unsigned limit_c; /* 0 = not told */
    } list[MOST_SENSORS];
    size_t n;
};

static bool is_processor(const char *dir)
{
    char path[HW_PATH], name[64];
    if (!hw_path(path, "%s/name", dir) || !hw_text_line(path, name, sizeof(name)))
        return false;
    for (size_t i = 0; i < TABLE_COUNT(drivers); i++)
        if (strcmp(name, drivers[i]) == 0)
            return true;
    return false;
}

static void add_sensor(struct hw_sensors *s, const char *dir)
{
    char path[HW_PATH];
    uint64_t limit = 0;
    int fd = hw_path(path, "%s/temp1_input", dir) ? hw_text_open(path) : -1;
    if (fd < 0)
        return;
    if (!hw_path(path, "%s/temp1_crit", dir) || !hw_text_u64(path, &limit) || limit / MILLI > SENSIBLE_C)
        limit = 0;
    s->list[s->n].input = fd;
    s->list[s->n++].limit_c = (unsigned)(limit / MILLI);
}

struct hw_sensors *hw_sensors_open(const struct hw_roots *roots)
{
    struct hw_sensors *s = mem_new(struct hw_sensors);
    char root[HW_PATH], dir[HW_PATH];
    bool fits =
        roots->hwmon ? hw_path(root, "%s", roots->hwmon) : hw_path(root, "%s/class/hwmon", roots->sys);
    DIR *d = fits ? opendir(root) : NULL;
    if (!d)
        return s;
    for (const struct dirent *e; s->n < MOST_SENSORS && (e = readdir(d));)
        if (strncmp(e->d_name, "hwmon", 5) == 0 && hw_path(dir, "%s/%s", root, e->d_name) &&
            is_processor(dir))
            add_sensor(s, dir);
    closedir(d);
    return s;
}

void hw_sensors_sample(const struct hw_sensors *s, struct hw_host *host)
{
    char text[64];
    uint64_t value;
    for (size_t i = 0; i < s->n; i++) {
        if (!hw_text_pread(s->list[i].input, text, sizeof(text)) ||
            !str_u64(str_trim(str_from(text)), &value) || value / MILLI > SENSIBLE_C)
            continue;
        unsigned celsius = (unsigned)(value / MILLI), limit = s->list[i].limit_c;
        if (!(host->valid & HW_TEMPERATURE) || celsius > host->temperature_c)
            host->temperature_c = celsius;
        host->valid |= HW_TEMPERATURE;
        if (limit && (!(host->valid & HW_TEMP_SLOWDOWN) || limit < host->temp_slowdown_c)) {
            host->temp_slowdown_c = limit;
            host->valid |= HW_TEMP_SLOWDOWN;
        }
    }
}

void hw_sensors_close(struct hw_sensors *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        close(s->list[i].input);
    free(s);
}
