//! G15: prints what terminals and CI systems act on, and puts the same into
//! names and messages.

use wapack_sdk::{Built, Error};
use wapack_test_guests::{say, text};

const TRICKS: &[&str] = &[
    "\u{1b}[31mred\u{1b}[0m",
    "\u{1b}[2J\u{1b}[Hcleared",
    "\u{1b}]0;title\u{7}",
    "\u{1b}]52;c;aGk=\u{7}",
    "\u{1b}]8;;http://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\",
    "\u{1b}P+q544e\u{1b}\\",
    "\u{1b}c",
    "\u{9b}31m8-bit",
    "hidden\rshown",
    "back\u{8}\u{8}\u{8}space",
    "bell\u{7}",
    "form\u{c}feed",
    "vertical\u{b}tab",
    "del\u{7f}",
    "\u{202e}txt.exe",
    "\u{2066}isolate\u{2069}",
    "\u{200f}mark",
    "\u{feff}bom",
    "\u{2028}separator",
    "::set-output name=token::stolen",
    "::add-mask::x",
    "::error::fake",
    "##vso[task.setvariable variable=x]y",
    "##[error]fake",
    "##teamcity[buildStatus text='fake']",
    "error: fake",
    "===> EXPORTING",
    "tab\tstays",
    "größe 😀 stays",
];

wapack_test_guests::in_build!(|context| {
    for trick in TRICKS {
        say(trick);
    }
    if text(context, "FAIL", "").is_empty() {
        return Ok(Built::new().label("tricks", "printed"));
    }
    Err(Error::app(format!("message {}", TRICKS.join(" "))).hint("hint \u{1b}[31m\r::error::fake"))
});
