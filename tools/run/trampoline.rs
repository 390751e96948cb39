//! The few instructions that `loader=raw` starts at: they set registers and jump to the Image. QEMU takes them for a
//! flat kernel without a header, so it makes the device tree and enters them as it would enter a kernel.

use crate::machine::Spec;

/// `msr cntfrq_el0, xzr`
const NO_FREQUENCY: u32 = 0xd51b_e01f;
/// `br x16`
const BR_X16: u32 = 0xd61f_0200;
/// `mov sp, x17`
const MOV_SP_X17: u32 = 0x9100_023f;
/// `msr DAIFClr, #4`: SError unmasked, as U-Boot leaves it.
const UNMASK_SERROR: u32 = 0xd503_44ff;

/// From EL2 to the code behind, at EL1, with the ID registers trapped (`HCR_EL2.TID3`): `adr x1, .+0x800; msr vbar_el2,
/// x1; movz x1, #0x8004, lsl #16; msr hcr_el2, x1; mov x1, #0x3c5; msr spsr_el2, x1; adr x1, .+16; msr elr_el2, x1; isb;
/// eret`. To be the first code.
const TRAP_ID_REGISTERS: [u32; 10] = [
    0x1000_4001,
    0xd51c_c001,
    0xd2b0_0081,
    0xd51c_1101,
    0xd280_78a1,
    0xd51c_4001,
    0x1000_0081,
    0xd51c_4021,
    0xd503_3fdf,
    0xd69f_03e0,
];
/// Where a synchronous exception from EL1 goes, from the start of the code: vectors at 0x800, and there at 0x400.
const TRAPPED: usize = 0xc00;
/// Every ID register is `0xf000_0000`, in x0, into which the boot stub reads them: no 4 KiB granule, and no feature.
/// `msr tpidr_el2, x1; mrs x1, elr_el2; add x1, x1, #4; msr elr_el2, x1; mrs x1, tpidr_el2; movz x0, #0xf000, lsl #16;
/// eret`
const ANSWER_NO_GRANULE: [u32; 7] =
    [0xd51c_d041, 0xd53c_4021, 0x9100_1021, 0xd51c_4021, 0xd53c_d041, 0xd2be_0000, 0xd69f_03e0];

/// Value that a careless loader leaves in a register: not aligned, not canonical.
const GARBAGE: u64 = 0xdead_beef_0bad_f00d;

/// Code that enters `entry` as the machine's specification says.
pub(crate) fn code(entry: u64, spec: &Spec) -> Vec<u8> {
    let mut code = Vec::new();
    if !spec.granule {
        code.extend(TRAP_ID_REGISTERS);
    }
    if spec.clock.is_some() {
        code.push(NO_FREQUENCY);
    }
    if spec.dirty {
        for register in 1..=30 {
            set(&mut code, register, GARBAGE);
        }
        code.push(MOV_SP_X17);
        code.push(UNMASK_SERROR);
    }
    if let Some(x0) = spec.x0.or(spec.fdt_at) {
        set(&mut code, 0, x0);
    }
    set(&mut code, 16, entry);
    code.push(BR_X16);
    if !spec.granule {
        code.resize(TRAPPED / 4, 0);
        code.extend(ANSWER_NO_GRANULE);
    }
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// `movz` and three `movk`.
fn set(code: &mut Vec<u32>, register: u32, value: u64) {
    const MOVZ: u32 = 0xd280_0000;
    const MOVK: u32 = 0xf280_0000;
    for (half, quarter) in value.to_le_bytes().as_chunks::<2>().0.iter().zip(0..) {
        let opcode = if quarter == 0 { MOVZ } else { MOVK };
        code.push(opcode | quarter << 21 | u32::from(u16::from_le_bytes(*half)) << 5 | register);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_set_in_quarters() {
        let code = code(0x4020_0000, &Spec { x0: Some(0x1_0002_0003), ..Spec::default() });
        let words: Vec<u32> = code.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
        // movz x0, #3; movk x0, #2, lsl 16; movk x0, #1, lsl 32; movk x0, #0, lsl 48; movz x16, #0; movk x16, #0x4020 …
        assert_eq!(words[..6], [0xd280_0060, 0xf2a0_0040, 0xf2c0_0020, 0xf2e0_0000, 0xd280_0010, 0xf2a8_0410]);
        assert_eq!(words.last(), Some(&BR_X16));
    }

    #[test]
    fn x0_stays_as_the_loader_set_it() {
        assert_eq!(code(0, &Spec::default()).len(), 5 * 4);
    }
}
