//! Which caches are debugged, and how: the boot argument `slub_debug=FLAGS,NAME,NAME*;FLAGS,NAME;FLAGS`.
#![forbid(unsafe_code)]

use super::super::object::SlabFlags;

/// Text of the boot argument. It is parsed again for every cache that is made, which is seldom.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm::slab) struct DebugChoice(Option<&'static str>);

/// Settings for one cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    pub(super) flags: SlabFlags,
    /// `O`: no debugging if the cache's smallest slabs would become larger.
    pub(super) keeps_order: bool,
}

impl Wanted {
    /// Reads the letters of a block: F sanity, Z red zones, P poison, U users; none at all means all four, `-` none.
    fn parse(letters: &str) -> Self {
        let mut wanted = Self::default();
        if letters.is_empty() {
            wanted.flags = SlabFlags::DEBUG;
        }
        for letter in letters.chars() {
            match letter.to_ascii_uppercase() {
                'F' => wanted.flags |= SlabFlags::CONSISTENCY_CHECKS,
                'Z' => wanted.flags |= SlabFlags::RED_ZONE,
                'P' => wanted.flags |= SlabFlags::POISON,
                'U' => wanted.flags |= SlabFlags::STORE_USER,
                'O' => wanted.keeps_order = true,
                '-' => return Self::default(),
                _ => {}
            }
        }
        wanted
    }
}

/// Whether a name of a list matches a cache: a `*` matches any rest.
fn means(pattern: &str, name: &str) -> bool {
    pattern.split_once('*').map_or(pattern == name, |(start, _)| name.starts_with(start))
}

impl DebugChoice {
    /// Parses the boot argument, `None` if it is absent, and reports the letters that it does not know.
    pub(in crate::mm::slab) fn parse(value: Option<&'static str>) -> Self {
        let blocks = value.unwrap_or_default().split(';');
        let letters = blocks.flat_map(|block| block.split(',').next().unwrap_or_default().chars());
        for letter in letters.filter(|letter| !"FZPUO-".contains(letter.to_ascii_uppercase())) {
            log::warn!("slub_debug option '{letter}' unknown. skipped");
        }
        Self(value)
    }

    /// The first block that names the cache decides, else the last one without names.
    pub(super) fn wanted(self, name: &str) -> Wanted {
        let mut general = Wanted::default();
        for block in self.0.into_iter().flat_map(|value| value.split(';')) {
            let (letters, names) = block.split_once(',').unwrap_or((block, ""));
            if names.is_empty() {
                general = Wanted::parse(letters);
            } else if names.split(',').any(|pattern| means(pattern, name)) {
                return Wanted::parse(letters);
            }
        }
        general
    }
}
