//! What became of the layers of an image on their way to a place: counted by whoever moves
//! them, told by whoever asked for it.

use std::ops::{Add, AddAssign};

/// So many layers, with the bytes of their blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub layers: usize,
    pub bytes: u64,
}

impl Amount {
    /// One layer.
    #[must_use]
    pub fn one(bytes: u64) -> Self {
        Self { layers: 1, bytes }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.layers += other.layers;
        self.bytes += other.bytes;
    }
}

/// What became of layers. One that is in an image twice counts once; one that goes to two
/// places, or is in images for two systems, counts for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Their bytes went there from this machine, or through it.
    pub sent: Amount,
    /// A registry took them over from another repository of its own.
    pub mounted: Amount,
    /// The place had them. An engine does not say how large they are.
    pub present: Amount,
}

impl Moved {
    /// A layer whose bytes were written.
    #[must_use]
    pub fn sent(bytes: u64) -> Self {
        Self { sent: Amount::one(bytes), ..Self::default() }
    }

    /// A layer that a registry took over.
    #[must_use]
    pub fn mounted(bytes: u64) -> Self {
        Self { mounted: Amount::one(bytes), ..Self::default() }
    }

    /// A layer that was there.
    #[must_use]
    pub fn present(bytes: u64) -> Self {
        Self { present: Amount::one(bytes), ..Self::default() }
    }
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.mounted += other.mounted;
        self.present += other.present;
    }
}

impl Add for Moved {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Moved {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
