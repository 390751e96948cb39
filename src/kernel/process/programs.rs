//! The programs that the image brings along, as ELF files.

use core::fmt;

/// A program of the image. Made by [`user_program!`](crate::user_program!).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its ELF file.
    pub file: &'static [u8],
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes", self.name, self.file.len())
    }
}

/// Puts a program into the image: its name, and the path of its ELF file.
#[macro_export]
macro_rules! user_program {
    ($name:literal, $path:expr) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".user_programs")]
            static PROGRAM: $crate::kernel::process::Program =
                $crate::kernel::process::Program { name: $name, file: include_bytes!($path) };
        };
    };
}

/// All programs of the image.
#[must_use]
pub fn programs() -> &'static [Program] {
    unsafe extern "C" {
        static __user_programs_start: [u64; 0];
        static __user_programs_end: [u64; 0];
    }
    let start = (&raw const __user_programs_start).cast::<Program>();
    let bytes = (&raw const __user_programs_end).addr().saturating_sub(start.addr());
    // SAFETY: the linker script puts the two symbols around the section `.user_programs`, which only `user_program!` fills,
    // with whole values of this type.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Program>()) }
}

/// The program of that name.
pub(super) fn find(name: &str) -> Option<&'static Program> {
    programs().iter().find(|program| program.name == name)
}
