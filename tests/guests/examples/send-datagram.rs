//! G16: sends a datagram to `ADDRESS`, a name by default, which asks for DNS.

use std::net::UdpSocket;

use wapack_sdk::Built;
use wapack_test_guests::{report, text};

wapack_test_guests::in_build!(|context| {
    let sent = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.send_to(b"canary", text(context, "ADDRESS", "canary.example:53")));
    report("send", &sent.map_err(|error| error.kind()));
    Ok(Built::new())
});
