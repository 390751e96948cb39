/* The part of QEMU's public plugin interface that the cache model uses, version 4 (QEMU 9.2 and newer), as QEMU's
 * documentation of TCG plugins states it. Declared here because Debian packages no header; a QEMU that has another
 * interface refuses the plugin by its version. The arrays are GLib's, whose first two members are public. */
#ifndef QUARRY_PLUGIN_API_H
#define QUARRY_PLUGIN_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUGIN_API 4
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;

typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
} plugin_info;

enum { CB_NO_REGS, CB_R_REGS, CB_RW_REGS };
enum { MEM_R = 1, MEM_W, MEM_RW };

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
struct qemu_plugin_register;
typedef uint32_t meminfo;

typedef struct {
    struct qemu_plugin_register *handle;
    const char *name, *feature;
} reg_descriptor;

typedef struct {
    char *data;
    unsigned len;
} GArray;
typedef struct {
    uint8_t *data;
    unsigned len;
} GByteArray;

/* GLib is in every QEMU's address space. */
GByteArray *g_byte_array_new(void);
GByteArray *g_byte_array_set_size(GByteArray *array, unsigned length);
void *g_array_free(GArray *array, int free_segment);

typedef void (*vcpu_cb)(plugin_id id, unsigned cpu);
typedef void (*udata_cb)(unsigned cpu, void *udata);
typedef void (*mem_cb)(unsigned cpu, meminfo info, uint64_t vaddr, void *udata);

void qemu_plugin_register_vcpu_init_cb(plugin_id id, vcpu_cb cb);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*cb)(plugin_id id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*cb)(plugin_id id, void *udata), void *udata);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, udata_cb cb, int flags, void *udata);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, udata_cb cb, int flags, void *udata);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb, int flags, int rw, void *udata);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t bytes);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);

unsigned qemu_plugin_mem_size_shift(meminfo info);
bool qemu_plugin_mem_is_store(meminfo info);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(meminfo info, uint64_t vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *at);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *at);

GArray *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *into);
bool qemu_plugin_read_memory_vaddr(uint64_t vaddr, GByteArray *into, size_t bytes);

#endif
