/* Other processes: which one a number stands for, and hold of one that is not our child. Layer os; any
 * thread; reads /proc, which does not block on disks.
 *
 * A process is known by its number, the time of its start (in clock ticks since boot) and the boot: the
 * kernel gives a number to another process soon enough, and the time of a start with it never. */
#ifndef OS_PROCESS_H
#define OS_PROCESS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat; false when there is no such process, or it is a zombie. */
bool process_start_ticks(pid_t pid, uint64_t *ret_ticks);
/* Hash of its command line; false when it has none (a zombie, a kernel thread) or cannot be read. */
bool process_command_hash(pid_t pid, uint64_t *ret_hash);
/* Whether it belongs to the user that we run as. */
bool process_is_ours(pid_t pid);

#define PROCESS_BOOT_CHARS 37
/* The kernel's id of this boot, "" when it tells none; out is at least PROCESS_BOOT_CHARS. */
void process_boot_id(char *out, size_t cap);

/* Hold of a process, as a descriptor that is readable at its end; close(2) it. The start is checked with the
 * descriptor open, so that it is of that very process. RC_NOT_FOUND: it is gone, or another one has its
 * number; RC_UNSUPPORTED: the kernel has no such descriptors (before 5.3). */
enum rc process_hold(pid_t pid, uint64_t start_ticks, int *ret_fd, struct err *err);
/* Whether process_hold works here. */
bool process_can_hold(void);
bool process_is_over(int fd);
/* A signal to the process and, as far as it leads a process group, to that group; never to another one. */
void process_signal(int fd, pid_t pid, int signo);

#endif
