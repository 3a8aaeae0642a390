/* Finds a vendor's cards on the PCI bus, to tell "no card" from "a card without a driver". Layer hw; no
 * state. */
#include "hw/hw_priv.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_hex(const char *path, unsigned *ret_value)
{
    char line[32], *end;
    if (!hw_text_line(path, line, sizeof(line)))
        return false;
    unsigned long value = strtoul(line, &end, 16);
    if (*end || end == line || value > 0xffffffffu)
        return false;
    *ret_value = (unsigned)value;
    return true;
}

/* A display controller (base class 0x03) or a processing accelerator (0x12) of the vendor. */
static bool read_device(const struct hw_roots *roots, const char *address, unsigned vendor_id,
                        struct hw_pci *ret)
{
    char path[HW_PATH], target[HW_PATH];
    unsigned vendor, device_class, device_id = 0;
    if (strlen(address) >= sizeof(ret->address))
        return false;
    if (!hw_path(path, "%s/bus/pci/devices/%s/vendor", roots->sys, address) || !read_hex(path, &vendor) ||
        vendor != vendor_id)
        return false;
    if (!hw_path(path, "%s/bus/pci/devices/%s/class", roots->sys, address) ||
        !read_hex(path, &device_class) || (device_class >> 16 != 0x03 && device_class >> 16 != 0x12))
        return false;
    if (hw_path(path, "%s/bus/pci/devices/%s/device", roots->sys, address))
        (void)read_hex(path, &device_id);
    *ret = (struct hw_pci){.device_id = device_id};
    memcpy(ret->address, address, strlen(address));
    ssize_t n = -1;
    if (hw_path(path, "%s/bus/pci/devices/%s/driver", roots->sys, address))
        n = readlink(path, target, sizeof(target) - 1);
    if (n > 0) {
        target[n] = '\0';
        const char *slash = strrchr(target, '/');
        (void)snprintf(ret->driver, sizeof(ret->driver), "%.31s", slash ? slash + 1 : target);
    }
    return true;
}

static int by_address(const void *a, const void *b)
{
    return strcmp(((const struct hw_pci *)a)->address, ((const struct hw_pci *)b)->address);
}

size_t hw_pci_find(const struct hw_roots *roots, unsigned vendor_id, struct hw_pci *ret_list, size_t cap)
{
    char path[HW_PATH];
    DIR *dir = hw_path(path, "%s/bus/pci/devices", roots->sys) ? opendir(path) : NULL;
    size_t n = 0;
    if (!dir)
        return 0;
    for (const struct dirent *e; n < cap && (e = readdir(dir));)
        if (e->d_name[0] != '.' && read_device(roots, e->d_name, vendor_id, &ret_list[n]))
            n++;
    closedir(dir);
    qsort(ret_list, n, sizeof(*ret_list), by_address);
    return n;
}
