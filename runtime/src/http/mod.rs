//! Connections to servers: how to get there, which machines may be reached, and when
//! to try again.
//!
//! Everything here is below the meaning of a request: [`crate::sources`] and
//! [`crate::registry`] know what they ask for. Nothing else opens connections, but for the
//! one to a container engine of this machine.

pub(crate) mod address;
pub(crate) mod client;
pub(crate) mod pace;
#[cfg(test)]
pub(crate) mod test_server;
