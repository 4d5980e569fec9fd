//! How far layers are on their way to a place of this machine, told in the words and at the
//! pace that registries are.

use std::time::{Duration, Instant};

use crate::event::{Event, EventSink, Transfer};

/// Between two events.
const PACE: Duration = Duration::from_millis(100);

/// Layers on their way.
pub(super) struct Telling<'a> {
    events: &'a mut dyn EventSink,
    done_bytes: u64,
    total_bytes: u64,
    told: Option<(Instant, u64)>,
    started: Instant,
}

impl<'a> Telling<'a> {
    /// Layers of `total_bytes` that have to be moved, for all that is known.
    pub(super) fn new(total_bytes: u64, events: &'a mut dyn EventSink) -> Self {
        Self { events, done_bytes: 0, total_bytes, told: None, started: Instant::now() }
    }

    /// So many more bytes are there.
    pub(super) fn add(&mut self, bytes: u64) {
        self.reach(self.done_bytes + bytes);
    }

    /// So many bytes are there in all.
    pub(super) fn reach(&mut self, bytes: u64) {
        self.done_bytes = bytes;
        self.total_bytes = self.total_bytes.max(bytes);
        let last = self.told.map_or(self.started, |(last, _)| last);
        if last.elapsed() >= PACE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
        if done_bytes > 0 && self.told.is_none_or(|(_, told)| told != done_bytes) {
            self.told = Some((Instant::now(), done_bytes));
            self.events.event(Event::Transfer { transfer: Transfer::Publish, done_bytes, total_bytes });
        }
    }
}

impl Drop for Telling<'_> {
    /// The last word is how far it came.
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(total: u64, steps: &[u64], pause: Duration) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        let mut sink = |event| match event {
            Event::Transfer { transfer: Transfer::Publish, done_bytes, total_bytes } => {
                told.push((done_bytes, total_bytes));
            }
            other => panic!("{other:?}"),
        };
        let mut telling = Telling::new(total, &mut sink);
        for step in steps {
            std::thread::sleep(pause);
            telling.add(*step);
        }
        drop(telling);
        told
    }

    #[test]
    fn the_end_is_told_and_nothing_in_between_that_nobody_could_read() {
        assert_eq!(told(100, &[1; 100], Duration::ZERO), [(100, 100)]);
        assert_eq!(told(100, &[], Duration::ZERO), []);
        assert_eq!(told(0, &[0, 0], Duration::ZERO), []);
        // A layer that seemed to be there.
        assert_eq!(told(0, &[7], Duration::ZERO), [(7, 7)]);
        assert_eq!(told(30, &[10, 10, 10], PACE), [(10, 30), (20, 30), (30, 30)]);
    }
}
