//! static-web-server with the defaults that an image needs: the port comes from
//! `PORT` or is 8080, on IPv6 and IPv4 where the machine has both. Every option
//! and `SERVER_…` variable of static-web-server works and wins.

use std::env;
use std::net::TcpListener;

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

    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let settings = Settings::get_unparsed(true, &args)?;
    if settings.general.version {
        return static_web_server::settings::cli_output::display_version();
    }
    let general = &settings.general;
    println!("serving {} on port {}", general.root.display(), general.port);
    // Ends by itself on SIGTERM, after the requests that are under way.
    Server::new(settings)?.run_standalone(None)
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
