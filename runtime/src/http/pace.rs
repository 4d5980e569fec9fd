//! When to try again, and when a transfer is too slow.

use std::time::{Duration, Instant, SystemTime};

/// Tries at one base, the first included.
pub(crate) const TRIES: u32 = 5;

/// No wait between two tries is longer, unless the server asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest wait a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// How long a body may be slow on average before it counts as slow.
pub(crate) const WINDOW: Duration = Duration::from_mins(1);

/// How long to wait after the try with this number, counted from 1.
///
/// Doubles from `first`, and then takes a random half off, so that many clients
/// of one server do not come back together. A server that asks for more gets it,
/// within limits.
pub(crate) fn wait_after(tries: u32, first: Duration, asked: Option<Duration>, random: u64) -> Duration {
    let doubled = first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    let share = f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    let own = doubled.mul_f64(1.0 - share / 2.0);
    asked.map_or(own, |asked| own.max(asked.min(LONGEST_ASKED)))
}

/// Reads `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default())
}

/// Watches that a body does not drip: over each window it has to bring a
/// minimum of bytes per second on average (G19).
#[derive(Debug)]
pub(crate) struct Floor {
    bytes_per_second: u64,
    window: Duration,
    began: Instant,
    bytes: u64,
}

impl Floor {
    pub(crate) fn new(bytes_per_second: u64, window: Duration, now: Instant) -> Self {
        Self { bytes_per_second, window, began: now, bytes: 0 }
    }

    /// Counts bytes; `false` when the window that ends had too few.
    pub(crate) fn is_kept(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        if now.duration_since(self.began) < self.window {
            return true;
        }
        let kept = self.bytes >= self.bytes_per_second.saturating_mul(self.window.as_secs());
        (self.began, self.bytes) = (now, 0);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);

    /// R10: 0.5 s doubling to 30 s, with jitter.
    #[test]
    fn r10_waits_double_up_to_a_bound() {
        let longest: Vec<u128> = (1..=9).map(|tries| wait_after(tries, FIRST, None, 0).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(wait_after(3, FIRST, None, u64::MAX).as_millis(), 1000);
        assert!(wait_after(u32::MAX, FIRST, None, 7) <= LONGEST_WAIT);
    }

    #[test]
    fn r10_servers_may_ask_for_a_minute() {
        let asked = |seconds| wait_after(1, FIRST, Some(Duration::from_secs(seconds)), 0).as_millis();
        assert_eq!(
            [asked(0), asked(7), asked(60), asked(61), asked(u64::MAX)],
            [500, 7000, 60000, 60000, 60000]
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // `date -u -d 'Sun, 06 Nov 1994 08:49:37 GMT' +%s`
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:57 GMT"), Some(20));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0));
        assert_eq!([read(""), read("-1"), read("soon"), read("1.5")], [None; 4]);
    }

    #[test]
    fn g19_a_drip_is_noticed_after_a_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut floor = Floor::new(1024, WINDOW, start);
        assert!((1..60).all(|second| floor.is_kept(10, at(second))));
        assert!(!floor.is_kept(10, at(60)));
        let mut floor = Floor::new(1024, WINDOW, start);
        assert!(floor.is_kept(60 * 1024, at(1)));
        assert!(floor.is_kept(0, at(60)), "fast enough on average");
        assert!(floor.is_kept(0, at(119)));
        assert!(!floor.is_kept(0, at(120)), "an early burst does not pay for later windows");
    }
}
