//! Prints everything a process is given: variables, arguments, context.

use wapack_sdk::Built;
use wapack_test_guests::say;

wapack_test_guests::in_build!(|context| {
    for (name, value) in std::env::vars() {
        say(format_args!("env {name}={value}"));
    }
    for argument in std::env::args() {
        say(format_args!("arg {argument}"));
    }
    for (name, value) in &context.user_env {
        say(format_args!("user-env {name}={value}"));
    }
    say(format_args!("target {:?}, exec-env {}", context.target, context.exec_env));
    for entry in &context.plan {
        say(format_args!("plan {}", entry.name));
    }
    Ok(Built::new())
});
