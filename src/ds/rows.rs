//! Records in rows that are given and kept: an array that grows without moving, and without an allocator of its own.
#![forbid(unsafe_code)]

/// Rows that can be given.
pub const ROWS: usize = 12;
/// The bits of a number that name a record in its array.
const PLACE_BITS: u32 = 24;

/// Records by number, in arrays. An array stays, and so does a record's number.
#[derive(Debug)]
pub struct Rows<'a, T> {
    rows: [Option<&'a mut [T]>; ROWS],
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
        Self { rows: [const { None }; ROWS] }
    }

    /// Takes an array for good, as far as numbers reach. Returns the numbers of its records, or `None` if there is no room for
    /// it.
    pub fn add(&mut self, row: &'a mut [T]) -> Option<core::ops::Range<u32>> {
        let (number, place) = self.rows.iter_mut().enumerate().find(|(_, place)| place.is_none())?;
        let (row, _) = row.split_at_mut(row.len().min(1 << PLACE_BITS));
        #[expect(clippy::cast_possible_truncation, reason = "twelve rows of 2^24 records")]
        let (first, count) = ((number as u32) << PLACE_BITS, row.len() as u32);
        *place = Some(row);
        Some(first..first + count)
    }

    /// The numbers of the last array's records.
    #[must_use]
    pub fn last_row(&self) -> Option<core::ops::Range<u32>> {
        let (number, row) =
            (0_u32..).zip(&self.rows).filter_map(|(number, row)| Some((number, row.as_ref()?))).last()?;
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^24 records")]
        let count = row.len() as u32;
        Some(number << PLACE_BITS..(number << PLACE_BITS) + count)
    }

    /// Takes the last array out: its numbers become invalid.
    pub fn pop(&mut self) -> Option<&'a mut [T]> {
        self.rows.iter_mut().rfind(|row| row.is_some())?.take()
    }

    /// Number of arrays.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// A record.
    #[inline]
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&T> {
        self.rows.get((number >> PLACE_BITS) as usize)?.as_ref()?.get((number & ((1 << PLACE_BITS) - 1)) as usize)
    }

    /// A record to change.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let place = (number & ((1 << PLACE_BITS) - 1)) as usize;
        self.rows.get_mut((number >> PLACE_BITS) as usize)?.as_mut()?.get_mut(place)
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
            .zip(&self.rows)
            .filter_map(|(row, records)| Some((row << PLACE_BITS, records.as_ref()?)))
            .flat_map(|(first, records)| (first..).zip(records.iter()))
    }
}
