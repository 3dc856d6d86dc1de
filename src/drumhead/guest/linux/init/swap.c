/* Swap to compressed memory (zram), so that a service that fills the memory slows down instead of ending. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/swap.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "init.h"

enum { PAGE = 4096 };

/* The first page of a swap area (linux/swap.h), version 1. */
static void make_header(char page[PAGE], uint64_t size) {
    uint32_t version = 1, last = (uint32_t)(size / PAGE - 1);
    memset(page, 0, PAGE);
    memcpy(page + 1024, &version, sizeof version);
    memcpy(page + 1028, &last, sizeof last);
    memcpy(page + PAGE - 10, "SWAPSPACE2", 10);
}

/* If the kernel has zram, set up swap of half the memory's size. A full one takes about a third of its size. */
void set_up_swap(void) {
    struct sysinfo memory;
    char page[PAGE], text[32];
    if (access("/sys/block/zram0/disksize", W_OK) != 0 || sysinfo(&memory) != 0) return;
    uint64_t size = (uint64_t)memory.totalram * memory.mem_unit / 2 / PAGE * PAGE;
    snprintf(text, sizeof text, "%llu", (unsigned long long)size);
    write_file("/sys/block/zram0/disksize", text);
    make_header(page, size);
    int disk = open("/dev/zram0", O_RDWR | O_CLOEXEC);
    if (disk < 0) return;
    write_all(disk, page, sizeof page);
    close(disk);
    if (swapon("/dev/zram0", 0) != 0) say("no swap on zram");
    write_file("/proc/sys/vm/page-cluster", "0");  /* reading ahead has no benefit */
    write_file("/proc/sys/vm/swappiness", "180"); /* decompressing memory is cheaper than reading a layer again */
}
