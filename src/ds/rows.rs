//! Records in rows that are given and kept: an array that grows without moving, and without an allocator of its own.
#![forbid(unsafe_code)]

/// Rows that can be given.
pub const ROWS: usize = 12;
/// The bits of a number that name a record in its array.
const PLACE_BITS: u32 = 24;
/// One past the last number that there can be.
const NUMBERS: u32 = 12 << PLACE_BITS;
const _: () = assert!(NUMBERS as usize == ROWS << PLACE_BITS);

/// Whether a number names a record of another array than the first, if there is one.
#[inline(always)]
const fn is_beyond_first(number: u32) -> bool {
    number >= 1 << PLACE_BITS && number < NUMBERS
}

/// Where in its array a record is.
const fn place(number: u32) -> usize {
    (number & ((1 << PLACE_BITS) - 1)) as usize
}

/// Records by number, in arrays. An array stays, and so does a record's number.
#[derive(Debug)]
pub struct Rows<'a, T> {
    /// The first array, whose numbers are places: it is looked at first, since many users need no other.
    first: &'a mut [T],
    others: [Option<&'a mut [T]>; ROWS - 1],
    given: usize,
}

impl<T> Default for Rows<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T> Rows<'a, T> {
    /// No records.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: &mut [], others: [const { None }; ROWS - 1], given: 0 }
    }

    /// Takes an array for good, as far as numbers reach. Returns the numbers of its records, or `None` if there is no room for
    /// it.
    pub fn add(&mut self, row: &'a mut [T]) -> Option<core::ops::Range<u32>> {
        let (row, _) = row.split_at_mut(row.len().min(1 << PLACE_BITS));
        #[expect(clippy::cast_possible_truncation, reason = "twelve rows of 2^24 records")]
        let (first, count) = ((self.given as u32) << PLACE_BITS, row.len() as u32);
        match self.given.checked_sub(1) {
            None => self.first = row,
            Some(other) => *self.others.get_mut(other)? = Some(row),
        }
        self.given += 1;
        Some(first..first + count)
    }

    /// An array by its number.
    fn row(&self, number: usize) -> Option<&[T]> {
        match number.checked_sub(1) {
            None => (self.given != 0).then_some(&*self.first),
            Some(other) => self.others.get(other)?.as_deref(),
        }
    }

    /// The numbers of the last array's records.
    #[must_use]
    pub fn last_row(&self) -> Option<core::ops::Range<u32>> {
        let number = self.given.checked_sub(1)?;
        let row = self.row(number)?;
        #[expect(clippy::cast_possible_truncation, reason = "twelve rows of 2^24 records")]
        let (first, count) = ((number as u32) << PLACE_BITS, row.len() as u32);
        Some(first..first + count)
    }

    /// Takes the last array out: its numbers become invalid.
    pub fn pop(&mut self) -> Option<&'a mut [T]> {
        self.given = self.given.checked_sub(1)?;
        match self.given.checked_sub(1) {
            None => Some(core::mem::take(&mut self.first)),
            Some(other) => self.others.get_mut(other)?.take(),
        }
    }

    /// Number of arrays.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.given
    }

    /// A record.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&T> {
        match self.first.get(number as usize) {
            None if is_beyond_first(number) => self.get_other(number),
            record => record,
        }
    }

    #[cold]
    #[inline(never)]
    fn get_other(&self, number: u32) -> Option<&T> {
        self.row((number >> PLACE_BITS) as usize)?.get(place(number))
    }

    /// A record to change.
    #[inline(always)]
    #[must_use]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        if (number as usize) < self.first.len() {
            return self.first.get_mut(number as usize);
        }
        if is_beyond_first(number) { self.get_other_mut(number) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn get_other_mut(&mut self, number: u32) -> Option<&mut T> {
        let other = (number >> PLACE_BITS).checked_sub(1)?;
        self.others.get_mut(other as usize)?.as_mut()?.get_mut(place(number))
    }

    /// The number of the record behind `number`, or of the first one: with it all are visited, in constant time each.
    #[must_use]
    pub fn after(&self, number: Option<u32>) -> Option<u32> {
        let Some(number) = number else { return self.get(0).map(|_| 0) };
        let (next, next_row) = (number + 1, ((number >> PLACE_BITS) + 1) << PLACE_BITS);
        [next, next_row].into_iter().find(|number| self.get(*number).is_some())
    }

    /// All records, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0_u32..)
            .zip(0..self.given)
            .filter_map(|(number, row)| Some((number << PLACE_BITS, self.row(row)?)))
            .flat_map(|(first, records)| (first..).zip(records.iter()))
    }
}
