//! The few instructions that `loader=raw` starts at: they set registers and jump to the Image. QEMU takes them for a
//! flat kernel without a header, so it makes the device tree and enters them as it would enter a kernel.

/// `br x16`
const BR_X16: u32 = 0xd61f_0200;
/// `mov sp, x17`
const MOV_SP_X17: u32 = 0x9100_023f;
/// `msr DAIFClr, #4`: SError unmasked, as U-Boot leaves it.
const UNMASK_SERROR: u32 = 0xd503_44ff;

/// What a careless loader leaves in a register: not aligned, not canonical.
const GARBAGE: u64 = 0xdead_beef_0bad_f00d;

/// Code that enters `entry` with `x0`, or with x0 untouched; `dirty` as in the machine's specification.
pub(crate) fn code(entry: u64, x0: Option<u64>, dirty: bool) -> Vec<u8> {
    let mut code = Vec::new();
    if dirty {
        for register in 1..=30 {
            set(&mut code, register, GARBAGE);
        }
        code.push(MOV_SP_X17);
        code.push(UNMASK_SERROR);
    }
    if let Some(x0) = x0 {
        set(&mut code, 0, x0);
    }
    set(&mut code, 16, entry);
    code.push(BR_X16);
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
        let code = code(0x4020_0000, Some(0x1_0002_0003), false);
        let words: Vec<u32> = code.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
        // movz x0, #3; movk x0, #2, lsl 16; movk x0, #1, lsl 32; movk x0, #0, lsl 48; movz x16, #0; movk x16, #0x4020 …
        assert_eq!(words[..6], [0xd280_0060, 0xf2a0_0040, 0xf2c0_0020, 0xf2e0_0000, 0xd280_0010, 0xf2a8_0410]);
        assert_eq!(words.last(), Some(&BR_X16));
    }

    #[test]
    fn x0_stays_as_the_loader_set_it() {
        assert_eq!(code(0, None, false).len(), 5 * 4);
    }
}
