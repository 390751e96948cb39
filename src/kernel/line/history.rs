//! The lines that were run, the newest first to be recalled.
#![forbid(unsafe_code)]

/// Bytes of all lines together, each with the byte that ends it.
const BYTES: usize = 1024;

/// Lines, oldest first, each ended by a line feed. The oldest go when there is no room.
#[derive(Debug)]
pub(super) struct History {
    bytes: [u8; BYTES],
    used: usize,
}

impl History {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; BYTES], used: 0 }
    }

    /// The line that is `age` lines old; 0 is the newest.
    pub(super) fn get(&self, age: usize) -> Option<&[u8]> {
        let lines = self.bytes.get(..self.used)?.strip_suffix(b"\n")?;
        lines.rsplit(|byte| *byte == b'\n').nth(age)
    }

    /// Adds the newest line, unless it is empty, or the same as the newest already.
    pub(super) fn add(&mut self, line: &[u8]) {
        if line.is_empty() || line.len() >= BYTES || self.get(0) == Some(line) {
            return;
        }
        while self.used + line.len() + 1 > BYTES {
            let Some(end) = self.bytes.iter().take(self.used).position(|byte| *byte == b'\n') else { break };
            self.bytes.copy_within(end + 1..self.used, 0);
            self.used -= end + 1;
        }
        for (place, byte) in self.bytes.iter_mut().skip(self.used).zip(line.iter().chain(b"\n")) {
            *place = *byte;
        }
        self.used += line.len() + 1;
    }
}
