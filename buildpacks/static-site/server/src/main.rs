//! static-web-server with the defaults that an image needs.
//!
//! The port comes from `PORT` or is 8080, on IPv6 and IPv4 where the machine has
//! both. Every option and `SERVER_…` variable of static-web-server works and wins.
//!
//! Files of an image all have the same time, so their time says nothing about
//! whether a page changed: see [`uncached`].

use std::env;
use std::net::TcpListener;

use globset::Glob;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, LAST_MODIFIED};
use static_web_server::settings::{Advanced, Headers};
use static_web_server::{Result, Server, Settings};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result {
    let mut args: Vec<String> = env::args().collect();
    if args.is_empty() {
        args.push("static-web-server".to_owned());
    }
    let port = env::var("PORT").ok().filter(|port| !port.is_empty());
    set_default(&mut args, "--port", "-p", "SERVER_PORT", port.as_deref().unwrap_or("8080"));
    set_default(&mut args, "--host", "-a", "SERVER_HOST", any_address());
    set_default(&mut args, "--cache-control-headers", "-e", "SERVER_CACHE_CONTROL_HEADERS", "false");

    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut settings = Settings::get_unparsed(true, &args)?;
    if settings.general.version {
        return static_web_server::settings::cli_output::display_version();
    }
    let headers = &mut settings.advanced.get_or_insert_with(Advanced::default).headers;
    // In front, so that headers of a configuration file win.
    headers.get_or_insert_with(Vec::new).insert(0, uncached(settings.general.cache_control_headers)?);

    let general = &settings.general;
    println!("serving {} on port {}", general.root.display(), general.port);
    // Ends by itself on SIGTERM, after the requests that are under way.
    Server::new(settings)?.run_standalone(None)
}

/// The headers of every response.
///
/// A browser that was told the time of a file asks whether the file is newer,
/// and in a new image it never is: the old page would stay for ever. So it is
/// told a time before that of every file, which makes the answer always "yes",
/// and to ask each time. `keep` leaves how long pages stay to static-web-server,
/// for sites whose file names change with their contents.
fn uncached(keep: bool) -> Result<Headers> {
    let mut headers = HeaderMap::new();
    headers.insert(LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    if !keep {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    Ok(Headers { source: Glob::new("**")?.compile_matcher(), headers })
}

/// Adds an option unless it was given, as an argument or as a variable.
fn set_default(args: &mut Vec<String>, long: &str, short: &str, variable: &str, value: &str) {
    let given = |arg: &String| arg == short || arg.split('=').next() == Some(long);
    if !args.iter().any(given) && env::var_os(variable).is_none() {
        args.extend([long.to_owned(), value.to_owned()]);
    }
}

/// All addresses of the machine; some containers have no IPv6.
fn any_address() -> &'static str {
    if TcpListener::bind("[::]:0").is_ok() { "::" } else { "0.0.0.0" }
}
