//! The instructions that an instruction count hides: barriers, TLB and cache maintenance, exclusives. Encodings from the
//! Arm ARM, C4.1 and C5.

use super::row::Executed;

impl Executed {
    /// Counts the instruction `word`.
    pub(crate) fn count(&mut self, word: u32) {
        self.instructions += 1;
        match word & 0xffff_f0ff {
            0xd503_309f => self.dsb += 1,
            0xd503_30df => self.isb += 1,
            _ => {}
        }
        if word & 0xfff8_0000 == 0xd508_0000 {
            self.count_system((word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7));
        }
        // Load/store exclusive: o2 (bit 23) = 0; with o1 (bit 21) only if it is a pair of registers and no CASP.
        if word & 0x3f80_0000 == 0x0800_0000 && (word >> 21 & 1 == 0 || word >> 31 == 1) && word >> 22 & 1 == 1 {
            self.exclusives += 1;
        }
        let compare_and_swap = word & 0x3fa0_7c00 == 0x08a0_7c00 || word & 0xbfa0_7c00 == 0x0820_7c00;
        let read_modify_write = word & 0x3f20_0c00 == 0x3820_0000;
        self.atomics += u64::from(compare_and_swap || read_modify_write);
    }

    /// Counts `SYS #op1, Cn, Cm, #op2`.
    fn count_system(&mut self, (op1, cn, cm, op2): (u32, u32, u32, u32)) {
        let dc = |kind: &str| kind.to_owned();
        let cache = match (op1, cn, cm, op2) {
            (3, 7, 4, 1) => Some(dc("zva")),
            (0, 7, 6, 1) => Some(dc("ivac")),
            (0, 7, 6, 2) => Some(dc("isw")),
            (3, 7, 10, 1) => Some(dc("cvac")),
            (0, 7, 10, 2) => Some(dc("csw")),
            (3, 7, 11, 1) => Some(dc("cvau")),
            (3, 7, 12, 1) => Some(dc("cvap")),
            (3, 7, 14, 1) => Some(dc("civac")),
            (0, 7, 14, 2) => Some(dc("cisw")),
            (3, 7, 4, 3) => Some(dc("gva")),
            (3, 7, 4, 4) => Some(dc("gzva")),
            _ => None,
        };
        if let Some(kind) = cache {
            *self.dc.entry(kind).or_default() += 1;
        }
        if cn == 8 || cn == 9 {
            *self.tlbi.entry(tlbi(op1, cm, op2)).or_default() += 1;
        }
    }
}

/// The name of a TLBI: what it reaches, then the domain.
fn tlbi(op1: u32, cm: u32, op2: u32) -> String {
    let what = match (op1, cm, op2) {
        (0, 1 | 3 | 7, 0) => "vmalle1",
        (0, 1 | 3 | 7, 1) => "vae1",
        (0, 1 | 3 | 7, 2) => "aside1",
        (0, 1 | 3 | 7, 3) => "vaae1",
        (0, 1 | 3 | 7, 5) => "vale1",
        (0, 1 | 3 | 7, 7) => "vaale1",
        (0, 2 | 5 | 6, 1) => "rvae1",
        (0, 2 | 5 | 6, 3) => "rvaae1",
        (0, 2 | 5 | 6, 5) => "rvale1",
        (0, 2 | 5 | 6, 7) => "rvaale1",
        _ => return format!("op1_{op1}_c{cm}_op2_{op2}"),
    };
    let domain = match cm {
        2 | 3 => "is",
        1 | 5 => "os",
        _ => "",
    };
    format!("{what}{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the assembler writes them.
    const WORDS: [(&str, u32); 14] = [
        ("dsb ishst", 0xd503_3a9f),
        ("dsb ish", 0xd503_3b9f),
        ("isb", 0xd503_3fdf),
        ("tlbi vaale1is, x0", 0xd508_83e0),
        ("tlbi vmalle1is", 0xd508_831f),
        ("tlbi vmalle1", 0xd508_871f),
        ("tlbi rvaale1is, x3", 0xd508_82e3),
        ("dc zva, x0", 0xd50b_7420),
        ("dc civac, x1", 0xd50b_7e21),
        ("ldaxr x8, [x0]", 0xc85f_fc08),
        ("stlxr w9, x8, [x0]", 0xc809_fc08),
        ("ldadd x1, x2, [x0]", 0xf821_0002),
        ("cas x1, x2, [x0]", 0xc8a1_7c02),
        ("stlr x1, [x0]", 0xc89f_fc01),
    ];

    #[test]
    fn kinds_are_told_apart() {
        let mut all = Executed::default();
        WORDS.iter().for_each(|&(_, word)| all.count(word));
        assert_eq!((all.instructions, all.dsb, all.isb), (14, 2, 1));
        assert_eq!((all.exclusives, all.atomics), (1, 2));
        let tlbi: Vec<(&str, u64)> = all.tlbi.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        assert_eq!(tlbi, [("rvaale1is", 1), ("vaale1is", 1), ("vmalle1", 1), ("vmalle1is", 1)]);
        let dc: Vec<&str> = all.dc.keys().map(String::as_str).collect();
        assert_eq!(dc, ["civac", "zva"]);
    }

    #[test]
    fn ordinary_instructions_are_only_counted() {
        // ldr x0, [x1]; str x0, [x1]; ldp, stp; nop; dmb ish; mrs x0, par_el1; ldr x0, [x1, x2]
        let words =
            [0xf940_0020, 0xf900_0020, 0xa940_0420, 0xa900_0420, 0xd503_201f, 0xd503_3bbf, 0xd538_7400, 0xf862_6820];
        let mut all = Executed::default();
        words.iter().for_each(|&word| all.count(word));
        assert_eq!(all, Executed { instructions: 8, ..Executed::default() });
    }
}
