/* The model of the caches: what each line of memory could be to a reader that goes through the caches, and to one that
 * does not. See model.c. */
#ifndef QUARRY_CACHE_MODEL_H
#define QUARRY_CACHE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define LINE 64
#define MAX_CPUS 256
/* The writer of what a boot loader may have left. */
#define LOADER 0xff

/* Where the image is, and its size in memory; 0 before its first instruction. Nothing is reported before. */
extern uint64_t image_start, image_size;

/* One step of a CPU: which CPU, the address of its instruction, whether its data caches are on. */
struct access {
    unsigned cpu;
    uint64_t pc;
    bool cached;
};

enum dc_op { DC_CLEAN, DC_INVALIDATE, DC_CLEAN_INVALIDATE, DC_CLEAN_ALL };

void model_entry(uint64_t start, uint64_t size, uint64_t file);
void model_load(struct access at, uint64_t phys, unsigned bytes);
void model_store(struct access at, uint64_t phys, unsigned bytes);
void model_fetch(struct access at, uint64_t phys, unsigned bytes);
/* A walker's read of a whole table. */
void model_walk(struct access at, uint64_t table, const char *what);
void model_dc(struct access at, enum dc_op op, uint64_t phys);
/* Stores before it come before maintenance behind it. */
void model_order(unsigned cpu);
/* Maintenance before it has happened. */
void model_complete(unsigned cpu);
/* This CPU tells others of what it stored: what they have read past the caches must have reached memory. */
void model_announce(unsigned cpu);
/* This CPU's caches go on: what it stored without them must have been invalidated. */
void model_caches_on(struct access at);

/* One line for each kind of finding and each instruction. */
void finding(struct access at, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* An address with its place in the image, if it is one. Good until the fourth call from here. */
const char *place(uint64_t address);
extern unsigned findings;
/* Ends the machine with the first finding. */
extern bool stop_when_found;
/* Loads, stores, walks past the caches, and maintenance, for the last line. */
extern uint64_t off_loads, off_stores, off_fetches, walked_tables, maintained;

#endif
