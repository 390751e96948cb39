//! The largest of many, kept in a fixed place: no memory is taken while they are looked at.
#![forbid(unsafe_code)]

/// The `N` items with the largest amounts, the largest first; of two with as much the one that came first.
#[derive(Clone, Copy, Debug)]
pub struct Largest<T: Copy, const N: usize> {
    items: [Option<(u64, T)>; N],
    /// How many there were.
    count: usize,
    /// The sum of all, of those that are not kept too.
    sum: u64,
}

impl<T: Copy, const N: usize> Default for Largest<T, N> {
    fn default() -> Self {
        Self { items: [None; N], count: 0, sum: 0 }
    }
}

impl<T: Copy, const N: usize> Largest<T, N> {
    /// Looks at one more.
    pub fn add(&mut self, amount: u64, item: T) {
        self.count += 1;
        self.sum += amount;
        let is_larger = |place: &Option<(u64, T)>| place.is_none_or(|(kept, _)| amount > kept);
        if let Some(at) = self.items.iter().position(is_larger)
            && let Some(behind) = self.items.get_mut(at..)
        {
            behind.rotate_right(1);
            if let Some(place) = behind.first_mut() {
                *place = Some((amount, item));
            }
        }
    }

    /// Those that are kept, with their amounts.
    pub fn iter(&self) -> impl Iterator<Item = (u64, T)> {
        self.items.iter().flatten().copied()
    }

    /// How many were looked at.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The sum of all that were looked at.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}
