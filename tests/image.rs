//! The image: its digest, its layers, and what tools of the field make of it.

use crate::support::Site;

#[test]
fn the_same_input_gives_the_same_digest_twice() {
    let digest = || Site::new().guest("well-behaved").build().result.expect("an image").digest;
    assert_eq!(digest(), digest());
}
