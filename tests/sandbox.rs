//! Hostile guests: refused, stopped or contained.

use crate::support::Site;

#[test]
fn a_well_behaved_guest_builds() {
    let outcome = Site::new().guest("well-behaved").build();
    outcome.result.expect("an image");
}
