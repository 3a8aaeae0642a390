/* Who takes the host's memory: processes by the memory of their own. Layer os; blocking (a small file for
 * each process of the machine); any thread; no state. */
#ifndef OS_PROCS_H
#define OS_PROCS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_use {
    pid_t pid;
    char name[32];  /* of its program, as the kernel has it: 15 bytes; control characters are "?" */
    uint64_t bytes; /* resident and not of a file */
};

/* The cap largest under proc_root ("/proc"), largest first, those of skip left out; returns how many. What
 * cannot be read, or ends meanwhile, is left out. */
size_t procs_largest(const char *proc_root, const pid_t *skip, size_t n_skip, struct proc_use *ret,
                     size_t cap);
/* Its name; false when there is no such process. */
bool procs_name(const char *proc_root, pid_t pid, char ret_name[32]);

#endif
