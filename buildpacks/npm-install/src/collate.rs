//! The order in which npm sorts names: that of its locale comparison in
//! English, for the characters that names are made of.

use std::cmp::Ordering;

/// Everything before the digits and letters, in its order.
const MARKS: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

/// Compares as npm does: first without looking at the case of letters, then
/// small letters before capital ones.
///
/// Outside ASCII the order is that of code points, behind all of ASCII. That
/// is npm's only by chance, but names of packages have no such characters.
pub fn compare(left: &str, right: &str) -> Ordering {
    left.chars()
        .filter_map(rank)
        .cmp(right.chars().filter_map(rank))
        .then_with(|| capitals(left).cmp(capitals(right)))
}

/// Where a character stands, with the two forms of a letter as one. Control
/// characters do not count.
fn rank(character: char) -> Option<u32> {
    let mark = |position: usize| u32::try_from(position).unwrap_or_default();
    match character {
        '0'..='9' => Some(100 + (u32::from(character) - u32::from('0'))),
        'a'..='z' => Some(200 + (u32::from(character) - u32::from('a'))),
        'A'..='Z' => Some(200 + (u32::from(character) - u32::from('A'))),
        _ if character.is_ascii() => MARKS.find(character).map(mark),
        _ => Some(1000 + u32::from(character)),
    }
}

/// For each character that counts, whether it is a capital letter.
fn capitals(text: &str) -> impl Iterator<Item = bool> {
    text.chars()
        .filter(|character| rank(*character).is_some())
        .map(|character| character.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected orders are what Node 20 says (`localeCompare(b, 'en')`).
    #[test]
    fn names_stand_in_the_order_of_npm() {
        let mut marks: Vec<String> = ('!'..='~').rev().map(String::from).collect();
        marks.sort_by(|left, right| compare(left, right));
        assert_eq!(
            marks.concat(),
            "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789\
             aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ"
        );
        let words = "a A a_b a-b a.b a/b a1 a10 a2 ab aB Ab node_modules/@a/b node_modules/a node_modules/a-b \
                     node_modules/a.b node_modules/a/node_modules/b";
        let mut sorted: Vec<&str> = words.split(' ').rev().collect();
        sorted.sort_by(|left, right| compare(left, right));
        assert_eq!(sorted.join(" "), words.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(compare("a b", "ab"), Ordering::Less);
    }
}
