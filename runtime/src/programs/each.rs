//! The same work for many things, several at a time.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work` for each, on as many threads as there are cores; the answers in order.
pub(super) fn each<T: Sync, A: Send>(all: &[T], work: impl Fn(&T) -> A + Sync) -> Vec<A> {
    each_by_size(all, |_| 0, work)
}

/// Like [`each`], and begins with the largest, so that none of them is left over at the end.
pub(super) fn each_by_size<T: Sync, A: Send>(
    all: &[T],
    size: impl Fn(&T) -> u64,
    work: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    let order = largest_first(all, size);
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((*number, work(&all[*number])));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(all.len());
    let mut answers = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(some)).collect();
        let mut answers = some();
        for other in others {
            answers.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        answers
    });
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Positions, by what is there.
fn largest_first<T>(all: &[T], size: impl Fn(&T) -> u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_cached_key(|number| std::cmp::Reverse(size(&all[*number])));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_in_order_whatever_was_begun_first() {
        let sizes: Vec<u64> = (0..100).map(|number| number * 37 % 101).collect();
        let doubled: Vec<u64> = sizes.iter().map(|size| size * 2).collect();
        assert_eq!(each(&sizes, |size| size * 2), doubled);
        assert_eq!(each_by_size(&sizes, |size| *size, |size| size * 2), doubled);
        assert_eq!(largest_first(&[3, 5, 1, 5], |size| *size), [1, 3, 0, 2]);
        assert_eq!(each(&[0; 0], |_| 0), [0; 0]);
    }
}
