//! G16: connects to `ADDRESS` over TCP. The import of sockets alone is enough
//! to refuse the component.

use std::net::TcpStream;

use wapack_sdk::Built;
use wapack_test_guests::{report, text};

wapack_test_guests::in_build!(|context| {
    let address = text(context, "ADDRESS", "127.0.0.1:80");
    report("connect", &TcpStream::connect(address).map_err(|error| error.kind()));
    Ok(Built::new())
});
