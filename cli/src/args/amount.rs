//! Sizes and ages as they are written, with a unit behind a number.

use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl std::str::FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_number(text);
        let factor: u64 = match unit {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            _ => return Err("it is not a number with `KiB`, `MiB`, `GiB` or nothing after it"),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or("it is not a whole number of bytes, or too large")
    }
}

/// How long ago something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Duration);

impl std::str::FromStr for Age {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_number(text);
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err("it is not a number with `s`, `m`, `h`, `d` or `w` after it"),
        };
        let age = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
        age.map(Duration::from_secs).map(Self).ok_or("it is not a whole number, or too large")
    }
}

/// Digits, and what is after them.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("4B", 4), ("2K", 2048), ("500MiB", 524_288_000), ("3G", 3_221_225_472)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "G", "-1", "+1", "1.5G", "1 G", "1g", "1GB", "18446744073709551616", "99999999T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
        for (text, seconds) in
            [("0s", 0), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
        {
            assert_eq!(text.parse(), Ok(Age(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "d", "30", "1.5d", "-1d", "30days", "18446744073709551615w"] {
            assert!(text.parse::<Age>().is_err(), "{text:?}");
        }
    }
}
