//! Small device trees made to measure, sound or broken, and the trees of the corpus.

use flate2::read::GzDecoder;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
pub(super) const NOP: u32 = 4;
pub(super) const END: u32 = 9;

/// Offsets of the header's words.
pub(super) const TOTALSIZE: usize = 4;
pub(super) const OFF_STRUCT: usize = 8;
pub(super) const OFF_STRINGS: usize = 12;
pub(super) const OFF_RESERVE_MAP: usize = 16;
pub(super) const VERSION: usize = 20;
pub(super) const LAST_COMPATIBLE: usize = 24;
pub(super) const SIZE_STRINGS: usize = 32;
pub(super) const SIZE_STRUCT: usize = 36;

/// Writes the tokens of a tree one after the other, and checks nothing.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    structure: Vec<u8>,
    strings: Vec<u8>,
    reservations: Vec<u8>,
}

impl Builder {
    /// A tree whose root has begun, with the given cell counts.
    pub(crate) fn root(address_cells: u32, size_cells: u32) -> Self {
        Self::default().begin("").cells("#address-cells", &[address_cells]).cells("#size-cells", &[size_cells])
    }

    pub(super) fn token(mut self, token: u32) -> Self {
        self.structure.extend(token.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn begin(self, name: &str) -> Self {
        self.token(BEGIN_NODE).bytes(&[name.as_bytes(), &[0]].concat())
    }

    pub(crate) fn end(self) -> Self {
        self.token(END_NODE)
    }

    pub(super) fn nop(self) -> Self {
        self.token(NOP)
    }

    pub(super) fn prop(mut self, name: &str, value: &[u8]) -> Self {
        let offset = self.strings.len() as u32;
        self.strings.extend([name.as_bytes(), &[0]].concat());
        self.token(PROP).token(value.len() as u32).token(offset).bytes(value)
    }

    pub(crate) fn flag(self, name: &str) -> Self {
        self.prop(name, &[])
    }

    pub(crate) fn str(self, name: &str, value: &str) -> Self {
        self.prop(name, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn cells(self, name: &str, cells: &[u32]) -> Self {
        self.prop(name, &cells.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<_>>())
    }

    pub(crate) fn reservation(mut self, base: u64, size: u64) -> Self {
        self.reservations.extend(base.to_be_bytes());
        self.reservations.extend(size.to_be_bytes());
        self
    }

    /// A memory node with `reg` made of `cells`.
    pub(crate) fn memory(self, name: &str, cells: &[u32]) -> Self {
        self.begin(name).str("device_type", "memory").cells("reg", cells).end()
    }

    /// Ends the root and the tree.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.end().token(END).assemble()
    }

    /// The blob as it is: header, reservations, structure, strings.
    pub(super) fn assemble(self) -> Vec<u8> {
        let reserve_map = 40;
        let structure = reserve_map + self.reservations.len() + 16;
        let strings = structure + self.structure.len();
        let totalsize = strings + self.strings.len();
        let words = [
            0xd00d_feed,
            totalsize,
            structure,
            strings,
            reserve_map,
            17,
            16,
            0,
            self.strings.len(),
            self.structure.len(),
        ];
        let mut blob: Vec<u8> = words.iter().flat_map(|word| (*word as u32).to_be_bytes()).collect();
        blob.extend(&self.reservations);
        blob.extend([0; 16]);
        blob.extend(&self.structure);
        blob.extend(&self.strings);
        // No spare capacity: a read past the end is a read past the allocation.
        blob.shrink_to_fit();
        blob
    }
}

/// Overwrites the word at `offset`.
pub(super) fn patch(blob: &mut [u8], offset: usize, word: u32) {
    blob[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
}

/// The word at `offset`.
pub(super) fn word(blob: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(blob[offset..offset + 4].try_into().unwrap())
}

/// Where the corpus lies; its README says what is in it.
pub(super) fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dtb")
}

/// A tree of the corpus, by its name without `.dtb.gz`.
pub(crate) fn corpus_tree(name: &str) -> Vec<u8> {
    let folder = if name.starts_with("nop-") { "nop" } else { "boards" };
    let file = std::fs::File::open(corpus().join(folder).join(format!("{name}.dtb.gz"))).unwrap();
    let mut blob = Vec::new();
    GzDecoder::new(file).read_to_end(&mut blob).unwrap();
    blob
}
