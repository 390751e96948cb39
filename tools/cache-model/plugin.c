/* What the CPUs do, for the model of the caches (model.c): loads and stores, the instructions of the maintenance of
 * caches and TLBs, barriers, and the moments when the MMU goes on and tables change. QEMU itself has no caches, and every
 * access succeeds; what a machine with caches might have done instead is printed on standard error.
 *
 * Parameters: image=BYTES, the size of the flat Image in the file; list=on, names every executed instruction of
 * maintenance at the end; stop=on, the machine ends with the first finding, with status 3.
 *
 * The image is known by its header, and is what executes it first: nothing is reported before that. Registers are read
 * only where the address of the instruction is low: that is where the MMU may be off. */
#include "model.h"
#include "plugin-api.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT int qemu_plugin_version = PLUGIN_API;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t file_bytes;
static bool list;

/* How far an instruction of maintenance has got: not executed since the last change, executed, waited for, and seen by
 * the instructions that follow. */
enum step { NEVER, ISSUED, WAITED, SEEN };

static struct cpu {
    GByteArray *buffer;
    struct qemu_plugin_register *x[31], *cpsr, *sctlr[4], *tcr, *ttbr[2];
    /* MMU, data caches and instruction cache at its level, at the last low address. */
    bool mmu, cached, icache;
    bool was_on;
    enum step tlb, icache_step;
    /* Whether the last write of a translation register has been followed by an ISB. */
    bool synchronised;
    /* The instruction that left a table which translated something, until the TLB is empty of it; for either TTBR. */
    uint64_t left[2];
    unsigned caches_went_on;
} cpus[MAX_CPUS];

static uint64_t reg(unsigned cpu, struct qemu_plugin_register *handle)
{
    uint64_t value = 0;
    if (!handle) return 0;
    g_byte_array_set_size(cpus[cpu].buffer, 0);
    int bytes = qemu_plugin_read_register(handle, cpus[cpu].buffer);
    memcpy(&value, cpus[cpu].buffer->data, bytes > 8 ? 8 : bytes > 0 ? bytes : 0);
    return value;
}

static void on_cpu(plugin_id id, unsigned number)
{
    struct cpu *cpu = &cpus[number];
    GArray *all = qemu_plugin_get_registers();
    (void)id;
    cpu->buffer = g_byte_array_new();
    for (unsigned i = 0; i < all->len; i++) {
        reg_descriptor *found = (reg_descriptor *)all->data + i;
        const char *name = found->name;
        char *end;
        if (name[0] == 'x' && name[1]) {
            unsigned long index = strtoul(name + 1, &end, 10);
            if (!*end && index < 31) cpu->x[index] = found->handle;
        }
        if (!strcmp(name, "cpsr")) cpu->cpsr = found->handle;
        if (!strcmp(name, "SCTLR") || !strcmp(name, "SCTLR_EL1")) cpu->sctlr[1] = found->handle;
        if (!strcmp(name, "SCTLR_EL2")) cpu->sctlr[2] = found->handle;
        if (!strcmp(name, "SCTLR_EL3")) cpu->sctlr[3] = found->handle;
        if (!strcmp(name, "TCR_EL1")) cpu->tcr = found->handle;
        if (!strcmp(name, "TTBR0_EL1")) cpu->ttbr[0] = found->handle;
        if (!strcmp(name, "TTBR1_EL1")) cpu->ttbr[1] = found->handle;
    }
    g_array_free(all, 1);
    if (!cpu->x[0] || !cpu->x[30] || !cpu->cpsr || !cpu->sctlr[1] || !cpu->tcr || !cpu->ttbr[0] || !cpu->ttbr[1]) {
        fprintf(stderr, "cache-model: this QEMU shows no registers to plugins\n");
        exit(1);
    }
}

/* What an instruction is to the model. */
enum kind {
    PLAIN, DC, DC_ZVA, IC, TLBI, DSB, DMB, ISB, SET_SCTLR, SET_TTBR, SET_TRANSLATION, BRANCH, RETURN, ANNOUNCE,
};

struct insn {
    uint64_t vaddr;
    enum kind kind;
    enum dc_op op;
    unsigned reg, ttbr, executed;
    const char *name;
    struct insn *next;
};

/* Instructions of interest live for good, by address. */
static struct insn *known[1 << 12];

static struct insn *remember(struct insn insn)
{
    struct insn **at = &known[insn.vaddr >> 2 & 0xfff];
    for (struct insn *old = *at; old; old = old->next)
        if (old->vaddr == insn.vaddr && old->kind == insn.kind && old->reg == insn.reg && old->op == insn.op) return old;
    struct insn *made = malloc(sizeof *made);
    if (!made) abort();
    insn.next = *at;
    *made = insn;
    return *at = made;
}

/* `MSR` and `SYS` (Arm ARM C5.1): op1, CRn, CRm, op2, as one number. */
#define SYSTEM(op1, n, m, op2) ((op1) << 11 | (n) << 7 | (m) << 3 | (op2))

static struct insn decode(uint32_t word, uint64_t vaddr)
{
    struct insn insn = {.vaddr = vaddr, .reg = word & 31};
#define IS(what, text) (insn.kind = (what), insn.name = (text))
    if ((word & 0xfffff0ff) == 0xd503309f && (word >> 8 & 3) == 3) IS(DSB, "dsb");
    else if ((word & 0xfffff0ff) == 0xd50330bf && (word >> 8 & 3) == 3) IS(DMB, "dmb");
    else if ((word & 0xfffff0ff) == 0xd50330df) IS(ISB, "isb");
    /* SEV; HVC and SMC. */
    else if (word == 0xd503209f || (word & 0xffe0001f) == 0xd4000002 || (word & 0xffe0001f) == 0xd4000003) insn.kind = ANNOUNCE;
    else if ((word & 0xfffffc1f) == 0xd61f0000) insn.kind = BRANCH, insn.reg = word >> 5 & 31;
    else if ((word & 0xfffffc1f) == 0xd65f0000) insn.kind = RETURN, insn.reg = 31;
    else if ((word & 0xfff80000) == 0xd5080000) {
        unsigned what = word >> 5 & 0x3fff;
#define CACHE(op1, m, op2) SYSTEM(op1, 7, m, op2)
        switch (what) {
        case CACHE(0, 6, 1): IS(DC, "dc ivac"), insn.op = DC_INVALIDATE; break;
        case CACHE(3, 10, 1): case CACHE(3, 12, 1): case CACHE(3, 13, 1): IS(DC, "dc cvac"), insn.op = DC_CLEAN; break;
        case CACHE(3, 14, 1): IS(DC, "dc civac"), insn.op = DC_CLEAN_INVALIDATE; break;
        /* By set and way: the loops that boot loaders end with; each is taken for the whole cache. */
        case CACHE(0, 10, 2): case CACHE(0, 14, 2): IS(DC, "dc csw"), insn.op = DC_CLEAN_ALL; break;
        case CACHE(3, 4, 1): case CACHE(3, 4, 4): IS(DC_ZVA, "dc zva"); break;
        case CACHE(0, 5, 0): case CACHE(0, 1, 0): IS(IC, "ic iallu"); break;
        /* Everything of EL1 only: what leaves something behind empties no TLB. */
        case SYSTEM(0, 8, 7, 0): case SYSTEM(0, 8, 3, 0): IS(TLBI, "tlbi vmalle1"); break;
        }
    } else if ((word & 0xfff80000) == 0xd5180000) {
        switch (word >> 5 & 0x3fff) {
        case SYSTEM(0, 1, 0, 0): case SYSTEM(5, 1, 0, 0): insn.kind = SET_SCTLR; break;
        case SYSTEM(0, 2, 0, 0): insn.kind = SET_TTBR, insn.ttbr = 0; break;
        case SYSTEM(0, 2, 0, 1): insn.kind = SET_TTBR, insn.ttbr = 1; break;
        case SYSTEM(0, 2, 0, 2): case SYSTEM(0, 10, 2, 0): insn.kind = SET_TRANSLATION; break;
        }
    }
    return insn;
}

#define IS_HIGH(address) ((address) >> 63)
static struct access from(unsigned cpu, uint64_t pc)
{
    return (struct access){cpu, pc, IS_HIGH(pc) || cpus[cpu].cached};
}

/* Where virtual pages are: learnt from stores, for maintenance by virtual address. In the linear map the distance is the
 * same everywhere. */
static struct {
    uint64_t virt, phys;
} pages[1 << 20];
static uint64_t unknown_pages, zeroed_unseen, linear_distance;
#define IS_LINEAR(virt) ((virt) >> 47 == 0x1fffe)
#define PAGE_SLOT(virt) ((virt) * 0x9e3779b97f4a7c15 >> 44)

static void learn(uint64_t virt, uint64_t phys)
{
    if (IS_LINEAR(virt)) linear_distance = virt - phys;
    virt >>= 12;
    uint64_t at = PAGE_SLOT(virt);
    for (unsigned i = 0; i < 64; i++, at = (at + 1) & 0xfffff)
        if (!pages[at].virt || pages[at].virt == virt) {
            pages[at].virt = virt;
            pages[at].phys = phys >> 12;
            return;
        }
}

static bool to_phys(unsigned cpu, uint64_t virt, uint64_t *phys)
{
    *phys = virt;
    if (!IS_HIGH(virt)) return !cpus[cpu].mmu;
    uint64_t at = PAGE_SLOT(virt >> 12);
    for (unsigned i = 0; i < 64 && pages[at].virt; i++, at = (at + 1) & 0xfffff)
        if (pages[at].virt == virt >> 12) {
            *phys = pages[at].phys << 12 | (virt & 0xfff);
            return true;
        }
    *phys = virt - linear_distance;
    if (IS_LINEAR(virt) && linear_distance) return true;
    unknown_pages++;
    return false;
}

/* Every table below `table`, as the walker will find it. The MMU is off: addresses are physical. */
static void walk(struct access at, uint64_t table, unsigned level, const char *what, GByteArray *buffers[4])
{
    model_walk(at, table, what);
    if (level == 3) return;
    GByteArray *buffer = buffers[level];
    if (!buffer) buffer = buffers[level] = g_byte_array_new();
    if (!qemu_plugin_read_memory_vaddr(table, buffer, 4096)) {
        finding(at, "walk into nothing", "%s at %s", what, place(table));
        return;
    }
    for (unsigned i = 0; i < 512; i++) {
        uint64_t entry;
        memcpy(&entry, buffer->data + 8 * i, 8);
        if ((entry & 3) == 3) walk(at, entry & 0xfffffffff000, level + 1, what, buffers);
    }
}

static void mmu_on(unsigned number, uint64_t pc, uint64_t sctlr)
{
    static GByteArray *buffers[4];
    static const char *const names[] = {"a table of TTBR0", "a table of TTBR1"};
    struct cpu *cpu = &cpus[number];
    uint64_t tcr = reg(number, cpu->tcr);
    struct access at = {number, pc, false};
    for (unsigned half = 0; half < 2; half++) {
        unsigned inner = tcr >> (half ? 24 : 8) & 3, outer = tcr >> (half ? 26 : 10) & 3;
        at.cached = sctlr & 4 && inner && outer;
        if (!(tcr >> (half ? 23 : 7) & 1)) walk(at, reg(number, cpu->ttbr[half]) & 0xfffffffff000, 0, names[half], buffers);
    }
    if (cpu->tlb < WAITED) finding(at, "MMU on with an old TLB", "no TLBI of everything has been waited for");
    if (cpu->icache_step < SEEN && sctlr & 1 << 12)
        finding(at, "caches on with old instructions", "no IC IALLU has been waited for");
    if (!cpu->synchronised) finding(at, "MMU on with old registers", "no ISB since one was written");
    model_caches_on(at);
    cpu->icache_step = NEVER;
    cpu->was_on = true;
    if (image_size) cpu->caches_went_on++;
}

/* Whether a table of the image, which is mapped, translates nothing. */
static bool is_empty(struct cpu *cpu, uint64_t table)
{
    uint64_t offset = (table & 0xfffffffff000) - image_start;
    if (!image_size || offset >= image_size) return false;
    g_byte_array_set_size(cpu->buffer, 0);
    if (!qemu_plugin_read_memory_vaddr(0xffff800080000000 + offset, cpu->buffer, 4096)) return false;
    for (unsigned i = 0; i < 4096; i++)
        if (cpu->buffer->data[i]) return false;
    return true;
}

static void set_ttbr(unsigned number, struct insn *insn)
{
    struct cpu *cpu = &cpus[number];
    struct access at = from(number, insn->vaddr);
    cpu->synchronised = false;
    if (!IS_HIGH(insn->vaddr) && !cpu->mmu) return;
    if (cpu->left[insn->ttbr])
        finding(at, "tables change with an old TLB", "TTBR%u left a table at %s, and its translations stay", insn->ttbr,
                place(cpu->left[insn->ttbr]));
    uint64_t old = reg(number, cpu->ttbr[insn->ttbr]), new = insn->reg == 31 ? 0 : reg(number, cpu->x[insn->reg]);
    bool left = old >> 48 == new >> 48 && old != new && !is_empty(cpu, old);
    cpu->left[insn->ttbr] = left ? insn->vaddr : 0;
    if (left) cpu->tlb = NEVER;
}

static void on_insn(unsigned number, void *udata)
{
    struct insn *insn = udata;
    struct cpu *cpu = &cpus[number];
    uint64_t value = insn->reg == 31 ? 0 : reg(number, cpu->x[insn->reg]), phys;
    struct access at = from(number, insn->vaddr);
    pthread_mutex_lock(&lock);
    if (image_size) insn->executed++;
    switch (insn->kind) {
    case DC:
        if (insn->op == DC_CLEAN_ALL) model_dc(at, insn->op, 0);
        else if (to_phys(number, value, &phys)) model_dc(at, insn->op, phys);
        break;
    case DC_ZVA: {
        /* No maintenance: a store, of which QEMU does not tell where it goes. Through a window that nothing was stored
         * through yet, the line is first seen when an entry of the new table is stored. */
        uint64_t before = unknown_pages;
        if (to_phys(number, value, &phys)) model_store(at, phys / LINE * LINE, LINE);
        zeroed_unseen += unknown_pages - before;
        unknown_pages = before;
        break;
    }
    case IC: cpu->icache_step = ISSUED; break;
    case TLBI:
        if (cpu->synchronised) cpu->tlb = ISSUED;
        break;
    case DMB: model_order(number); break;
    case DSB:
        if (cpu->tlb == ISSUED) cpu->tlb = WAITED, cpu->left[0] = cpu->left[1] = 0;
        if (cpu->icache_step == ISSUED) cpu->icache_step = WAITED;
        model_complete(number);
        break;
    case ISB:
        cpu->synchronised = true;
        if (cpu->icache_step == WAITED) cpu->icache_step = SEEN;
        break;
    case SET_SCTLR:
        if (value & 1 && !cpu->mmu && !IS_HIGH(insn->vaddr)) mmu_on(number, insn->vaddr, value);
        break;
    case SET_TTBR: set_ttbr(number, insn); break;
    case SET_TRANSLATION: cpu->synchronised = false; break;
    case BRANCH:
        if (IS_HIGH(value) && cpu->icache_step < SEEN && cpu->was_on && cpu->icache && cpu->caches_went_on)
            finding(at, "old instructions", "no IC IALLU since the MMU went on has been waited for");
        /* Changes of the tables later on are none of the instruction cache's. */
        if (IS_HIGH(value)) cpu->icache_step = SEEN;
        break;
    case RETURN:
        for (unsigned half = 0; half < 2; half++)
            if (cpu->left[half]) {
                finding(at, "return with an old TLB", "TTBR%u left a table at %s, and its translations stay", half,
                        place(cpu->left[half]));
                cpu->left[half] = 0;
            }
        break;
    case ANNOUNCE: model_announce(number); break;
    case PLAIN: break;
    }
    pthread_mutex_unlock(&lock);
}

static void on_header(unsigned number, void *udata)
{
    struct insn *insn = udata;
    (void)number;
    pthread_mutex_lock(&lock);
    if (!image_size) {
        for (unsigned i = 0; i < MAX_CPUS; i++) cpus[i].tlb = cpus[i].icache_step = NEVER;
        model_entry(insn->vaddr, (uint64_t)insn->executed << 12, file_bytes);
    }
    pthread_mutex_unlock(&lock);
}

/* A block at a low address begins: is the MMU on? */
static void on_low_block(unsigned number, void *udata)
{
    struct insn *insn = udata;
    struct cpu *cpu = &cpus[number];
    unsigned level = reg(number, cpu->cpsr) >> 2 & 3;
    uint64_t sctlr = reg(number, cpu->sctlr[level ? level : 1]);
    pthread_mutex_lock(&lock);
    cpu->mmu = sctlr & 1;
    cpu->cached = (sctlr & 5) == 5;
    cpu->icache = sctlr >> 12 & 1;
    if (!cpu->mmu && cpu->was_on && level == 1) {
        /* It was switched off, and is back. */
        cpu->was_on = false;
        cpu->tlb = cpu->icache_step = NEVER;
    }
    if (!cpu->mmu) model_fetch((struct access){number, insn->vaddr, false}, insn->vaddr, 4 * insn->reg);
    pthread_mutex_unlock(&lock);
}

static void on_memory(unsigned number, meminfo info, uint64_t vaddr, void *udata)
{
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    if (!where || qemu_plugin_hwaddr_is_io(where)) return;
    uint64_t phys = qemu_plugin_hwaddr_phys_addr(where), pc = (uint64_t)udata;
    unsigned bytes = 1u << qemu_plugin_mem_size_shift(info);
    pthread_mutex_lock(&lock);
    struct access at = from(number, pc);
    if (qemu_plugin_mem_is_store(info)) {
        if (IS_HIGH(vaddr)) learn(vaddr, phys);
        model_store(at, phys, bytes);
    } else {
        model_load(at, phys, bytes);
    }
    pthread_mutex_unlock(&lock);
}

/* The 64 bytes of an arm64 Image's header, at the address that executes it. */
static bool is_header(struct qemu_plugin_insn *insn, uint64_t vaddr, uint64_t *size)
{
    const char *bytes = qemu_plugin_insn_haddr(insn);
    if (vaddr & 0xfff || !bytes || memcmp(bytes + 56, "ARM\x64", 4)) return false;
    memcpy(size, bytes + 16, 8);
    return true;
}

static void on_block(plugin_id id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    (void)id;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t vaddr = qemu_plugin_insn_vaddr(insn), size;
        uint32_t word = 0;
        qemu_plugin_insn_data(insn, &word, 4);
        pthread_mutex_lock(&lock);
        struct insn decoded = decode(word, vaddr), *kept = decoded.kind == PLAIN ? NULL : remember(decoded), *header = NULL;
        struct insn *block = i || IS_HIGH(vaddr) ? NULL : remember((struct insn){.vaddr = vaddr, .reg = count});
        if (!IS_HIGH(vaddr) && is_header(insn, vaddr, &size))
            header = remember((struct insn){.vaddr = vaddr, .reg = ~0u, .executed = (size + 4095) >> 12});
        pthread_mutex_unlock(&lock);
        if (header) qemu_plugin_register_vcpu_insn_exec_cb(insn, on_header, CB_NO_REGS, header);
        if (block) qemu_plugin_register_vcpu_tb_exec_cb(tb, on_low_block, CB_R_REGS, block);
        if (kept) qemu_plugin_register_vcpu_insn_exec_cb(insn, on_insn, CB_R_REGS, kept);
        qemu_plugin_register_vcpu_mem_cb(insn, on_memory, CB_NO_REGS, MEM_RW, (void *)vaddr);
    }
}

static void at_exit(plugin_id id, void *udata)
{
    unsigned on = 0;
    (void)id, (void)udata;
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        on += cpus[i].caches_went_on;
    }
    for (unsigned i = 0; list && i < 1 << 12; i++)
        for (struct insn *insn = known[i]; insn; insn = insn->next)
            if (insn->executed && insn->name)
                fprintf(stderr, "cache-model: executed: %s %s %u\n", place(insn->vaddr), insn->name, insn->executed);
    fprintf(stderr,
            "cache-model: end: %u findings; MMU on %u times, %lu tables walked then; with caches off %lu loads, %lu stores, %lu "
            "blocks; %lu lines zeroed unseen; %lu lines maintained, %lu more at unknown addresses\n",
            findings, on, (unsigned long)walked_tables, (unsigned long)off_loads, (unsigned long)off_stores,
            (unsigned long)off_fetches, (unsigned long)zeroed_unseen, (unsigned long)maintained, (unsigned long)unknown_pages);
    fflush(stderr);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    if (!info->system_emulation || strcmp(info->target_name, "aarch64")) {
        fprintf(stderr, "cache-model: only for qemu-system-aarch64\n");
        return 1;
    }
    if (info->system.max_vcpus > MAX_CPUS) {
        fprintf(stderr, "cache-model: %d CPUs are more than %d\n", info->system.max_vcpus, MAX_CPUS);
        return 1;
    }
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "image=", 6)) file_bytes = strtoull(argv[i] + 6, NULL, 0);
        else if (!strcmp(argv[i], "list=on")) list = true;
        else if (!strcmp(argv[i], "stop=on")) stop_when_found = true;
        else {
            fprintf(stderr, "cache-model: unknown parameter %s\n", argv[i]);
            return 1;
        }
    }
    qemu_plugin_register_vcpu_init_cb(id, on_cpu);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
