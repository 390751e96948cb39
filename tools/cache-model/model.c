/* The caches of all CPUs as one: they are coherent among each other. A line of memory is
 *
 *   DIRTY    in the cache, newer than memory: stored with caches on and not cleaned since, or left by the boot loader;
 *   ABSENT   not in the cache: invalidated, and not accessed through it since;
 *   BEHIND   newer in memory than a copy that the cache may hold: stored with caches off, not invalidated since.
 *
 * A cache may hold any line that is not ABSENT, and may write back any DIRTY one at any time. So
 *
 *   - who reads past the caches must meet no DIRTY line,
 *   - who reads through them must meet no line that is BEHIND,
 *   - who stores past them must have invalidated the line before, and must do so again before caches go on.
 *
 * Maintenance happens at the DSB behind it, and reaches a store past the caches only if a barrier stands between.
 *
 * A CPU that polls a word past the caches may read it between its store and its clean, which is nobody's mistake: it reads the old
 * word and polls again. The line has to be clean when the writer announces what it stored, by SEV or by a call to the firmware. */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIRTY = 1, ABSENT = 2, BEHIND = 4 };

struct line {
    uint8_t flags, writer;
    /* Counts stores: maintenance does not reach one that came after it. */
    uint8_t stores;
    /* The writer's barriers, for what was stored past the caches. */
    uint8_t barriers;
    /* The writer's announcements before the store. */
    uint8_t announced;
    /* The low half of the address of the last store's instruction. */
    uint32_t pc;
};

struct pending {
    enum dc_op op;
    uint64_t phys;
    uint8_t stores;
    bool ordered;
};

static struct {
    uint8_t barriers, announced;
    struct pending *pending;
    size_t count, room;
} cpus[MAX_CPUS];

uint64_t image_start, image_size;
unsigned findings;
bool stop_when_found;
uint64_t off_loads, off_stores, off_fetches, walked_tables, maintained;

/* Lines by chunks of 2 MiB of physical addresses, made when first accessed. */
#define CHUNK_SHIFT 21
#define CHUNKS (1ul << (44 - CHUNK_SHIFT))
#define CHUNK_LINES ((1ul << CHUNK_SHIFT) / LINE)
static struct line **chunks;
/* What was stored past the caches and may be BEHIND. */
static uint64_t *behind;
static size_t behind_count, behind_room;

/* Reads of dirty lines that were not announced yet. */
struct poll {
    struct access at;
    uint64_t phys;
    uint8_t stores;
};
static struct poll *polls;
static size_t poll_count, poll_room;

static void *grown(void *array, size_t *room, size_t count, size_t each)
{
    if (count < *room) return array;
    *room = *room ? 2 * *room : 1024;
    array = realloc(array, *room * each);
    if (!array) abort();
    return array;
}

static struct line *line_of(uint64_t phys)
{
    uint64_t chunk = phys >> CHUNK_SHIFT;
    if (chunk >= CHUNKS) return NULL;
    if (!chunks && !(chunks = calloc(CHUNKS, sizeof *chunks))) abort();
    if (!chunks[chunk] && !(chunks[chunk] = calloc(CHUNK_LINES, sizeof(struct line)))) abort();
    return &chunks[chunk][phys / LINE % CHUNK_LINES];
}

const char *place(uint64_t address)
{
    static char texts[4][64];
    static unsigned next;
    char *text = texts[next++ % 4];
    const uint64_t link = 0xffff800080000000;
    if (image_size && address - image_start < image_size)
        snprintf(text, sizeof texts[0], "image+%#lx", (unsigned long)(address - image_start));
    else if (image_size && address - link < image_size)
        snprintf(text, sizeof texts[0], "image+%#lx", (unsigned long)(address - link));
    else
        snprintf(text, sizeof texts[0], "%#lx", (unsigned long)address);
    return text;
}

/* Where the store that made the line what it is came from: only the low half is kept. */
static const char *writer(const struct line *line)
{
    static char text[96];
    uint64_t high = (line->pc & 0x80000000) && line->pc - 0x80000000u < image_size ? 0xffff8000ull << 32 : 0;
    if (line->writer == LOADER) return "what the boot loader left";
    snprintf(text, sizeof text, "what CPU %u stored at %s", line->writer, place(high | line->pc));
    return text;
}

void finding(struct access at, const char *kind, const char *format, ...)
{
    static struct {
        const char *kind;
        uint64_t pc;
    } known[512];
    if (!image_size) return;
    for (unsigned i = 0; i < findings && i < 512; i++)
        if (known[i].pc == at.pc && !strcmp(known[i].kind, kind)) return;
    if (findings < 512) {
        known[findings].kind = kind;
        known[findings].pc = at.pc;
    }
    findings++;
    fprintf(stderr, "cache-model: %s: CPU %u at %s: ", kind, at.cpu, place(at.pc));
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stderr);
    if (stop_when_found) _exit(3);
}

void model_entry(uint64_t start, uint64_t size, uint64_t file)
{
    if (image_size) return;
    image_start = start;
    image_size = size;
    /* What the loader stored past its own caches is its own affair. */
    for (size_t i = 0; i < behind_count; i++) line_of(behind[i])->flags &= ~BEHIND;
    behind_count = 0;
    /* A loader cleans what it loads to memory, and nothing else of the image's room. */
    for (uint64_t phys = start + (file + LINE - 1) / LINE * LINE; file && phys < start + size; phys += LINE) {
        struct line *line = line_of(phys);
        if (line) *line = (struct line){.flags = DIRTY, .writer = LOADER};
    }
}

#define EACH_LINE(phys, bytes) \
    for (uint64_t at_line = (phys) / LINE * LINE; at_line < (phys) + (bytes); at_line += LINE)

static void past_a_dirty_line(struct access at, uint64_t phys, const struct line *line)
{
    finding(at, "load past a dirty line", "%s may still be in the cache: %s", place(phys), writer(line));
}

static void remember_poll(struct access at, uint64_t phys, const struct line *line)
{
    for (size_t i = 0; i < poll_count; i++)
        if (polls[i].phys == phys && polls[i].at.cpu == at.cpu && polls[i].stores == line->stores) return;
    polls = grown(polls, &poll_room, poll_count, sizeof *polls);
    polls[poll_count++] = (struct poll){at, phys, line->stores};
}

void model_announce(unsigned cpu)
{
    size_t kept = 0;
    for (size_t i = 0; i < poll_count; i++) {
        struct line *line = line_of(polls[i].phys);
        if (line->writer != cpu)
            polls[kept++] = polls[i];
        else if (line->flags & DIRTY && line->stores == polls[i].stores)
            past_a_dirty_line(polls[i].at, polls[i].phys, line);
    }
    poll_count = kept;
    cpus[cpu].announced++;
}

void model_load(struct access at, uint64_t phys, unsigned bytes)
{
    if (!at.cached && image_size) off_loads++;
    EACH_LINE(phys, bytes)
    {
        struct line *line = line_of(at_line);
        if (!line) return;
        if (at.cached) {
            if (line->flags & BEHIND)
                finding(at, "stale load", "%s is behind %s", place(at_line), writer(line));
            line->flags &= ~ABSENT;
        } else if (line->flags & DIRTY) {
            bool is_others = line->writer != LOADER && line->writer != at.cpu;
            if (is_others && line->announced == cpus[line->writer].announced) remember_poll(at, at_line, line);
            else past_a_dirty_line(at, at_line, line);
        }
    }
}

void model_store(struct access at, uint64_t phys, unsigned bytes)
{
    if (!at.cached && image_size) off_stores++;
    EACH_LINE(phys, bytes)
    {
        struct line *line = line_of(at_line);
        if (!line) return;
        if (at.cached) {
            if (line->flags & BEHIND)
                finding(at, "store into a stale line", "%s is behind %s", place(at_line), writer(line));
            line->flags = DIRTY;
        } else {
            if (!(line->flags & ABSENT))
                finding(at, "store past a line that was not invalidated before", "%s may be written back: %s", place(at_line),
                        line->flags & DIRTY ? writer(line) : "anything");
            if (!(line->flags & BEHIND)) {
                behind = grown(behind, &behind_room, behind_count, sizeof *behind);
                behind[behind_count++] = at_line;
            }
            line->flags = BEHIND | ABSENT;
            line->barriers = cpus[at.cpu].barriers;
        }
        line->writer = at.cpu;
        line->announced = cpus[at.cpu].announced;
        line->stores++;
        line->pc = at.pc;
    }
}

void model_fetch(struct access at, uint64_t phys, unsigned bytes)
{
    if (image_size) off_fetches++;
    EACH_LINE(phys, bytes)
    {
        struct line *line = line_of(at_line);
        if (line && line->flags & DIRTY)
            finding(at, "fetch past a dirty line", "%s may still be in the cache: %s", place(at_line), writer(line));
    }
}

void model_walk(struct access at, uint64_t table, const char *what)
{
    walked_tables++;
    EACH_LINE(table, 4096)
    {
        struct line *line = line_of(at_line);
        if (!line) return;
        if (at.cached && line->flags & BEHIND)
            return finding(at, "walk of a stale table", "%s, %s, is behind %s", what, place(at_line), writer(line));
        if (!at.cached && line->flags & DIRTY)
            return finding(at, "walk past a dirty line", "%s, %s, may still be in the cache: %s", what, place(at_line),
                           writer(line));
    }
}

void model_dc(struct access at, enum dc_op op, uint64_t phys)
{
    struct line *line = line_of(phys);
    if (!line) return;
    if (image_size) maintained++;
    bool ordered = !(line->flags & BEHIND) || line->writer != at.cpu || line->barriers != cpus[at.cpu].barriers;
    __auto_type cpu = &cpus[at.cpu];
    cpu->pending = grown(cpu->pending, &cpu->room, cpu->count, sizeof *cpu->pending);
    cpu->pending[cpu->count++] = (struct pending){op, phys, line->stores, ordered};
}

void model_order(unsigned cpu)
{
    cpus[cpu].barriers++;
}

static void clean_all(void)
{
    for (size_t chunk = 0; chunks && chunk < CHUNKS; chunk++)
        for (size_t i = 0; chunks[chunk] && i < CHUNK_LINES; i++) chunks[chunk][i].flags &= ~DIRTY;
}

void model_complete(unsigned number)
{
    __auto_type cpu = &cpus[number];
    bool all = false;
    cpu->barriers++;
    for (size_t i = 0; i < cpu->count; i++) {
        struct pending *done = &cpu->pending[i];
        struct line *line = line_of(done->phys);
        all |= done->op == DC_CLEAN_ALL;
        if (done->op == DC_CLEAN_ALL || !line || line->stores != done->stores) continue;
        line->flags &= ~DIRTY;
        if (done->op != DC_CLEAN && done->ordered) line->flags = ABSENT;
    }
    if (all) clean_all();
    cpu->count = 0;
}

void model_caches_on(struct access at)
{
    for (size_t i = 0; i < behind_count; i++) {
        struct line *line = line_of(behind[i]);
        if (!line || !(line->flags & BEHIND)) continue;
        struct access stored = {line->writer, line->pc, false};
        finding(stored, "store past a line that was not invalidated after", "%s, before caches go on at %s", place(behind[i]),
                place(at.pc));
        line->flags &= ~BEHIND;
    }
    behind_count = 0;
}
