use super::*;
use crate::oci::image::{Image, ImageConfiguration, MediaFamily};
use crate::oci::layout::read_image;

fn image(comment: &str) -> Image {
    let configuration = json!({
        "architecture": "amd64", "os": "linux", "author": comment,
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let configuration: ImageConfiguration = serde_json::from_value(configuration).unwrap();
    Image { family: MediaFamily::Oci, configuration, layers: vec![] }
}

fn attachment(name: &str, content: &str) -> Attachment {
    Attachment {
        artifact_type: "application/spdx+json".to_owned(),
        name: name.to_owned(),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
        content: content.as_bytes().to_vec(),
    }
}

/// Writes `image` as `name` and attaches to it.
fn place(directory: &Path, image: &Image, name: &str, attachments: &[Attachment]) -> Digest {
    let layout = ImageLayout::open(directory).unwrap();
    let digest = layout.write(image, name, &(), &mut |_| true).unwrap();
    layout.attach(&image.documents().1.descriptor(), attachments).unwrap();
    digest
}

fn names(directory: &Path, subject: &Digest) -> Vec<String> {
    let found = referrers(directory, subject).unwrap();
    found.into_iter().map(|referrer| referrer.annotations[ATTACHMENT_NAME].clone()).collect()
}

#[test]
fn what_is_attached_is_found_and_read() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path();
    let digest = place(directory, &image("1"), "a", &[attachment("x", "one"), attachment("y", "two")]);
    let other = place(directory, &image("2"), "b", &[]);
    let found = referrers(directory, &digest).unwrap();
    assert_eq!(names(directory, &digest), ["x", "y"]);
    assert_eq!(
        (found[0].artifact_type.as_str(), &found[0].annotations["k"][..]),
        ("application/spdx+json", "v")
    );
    assert_eq!(read_attachment(directory, &found[1]).unwrap(), b"two");
    assert_eq!(referrers(directory, &other).unwrap(), []);
    // An attachment is no image that somebody could mean.
    assert_eq!(read_image(directory, Some("a"), None).unwrap().digest, digest);
    let alone = tempfile::tempdir().unwrap();
    let digest = place(alone.path(), &image("1"), "a", &[attachment("x", "one")]);
    assert_eq!(read_image(alone.path(), None, None).unwrap().digest, digest);
}

/// D8: what is there is not written again; another document takes the place of its namesake.
#[test]
fn d8_attaching_again_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path();
    let attachments = [attachment("x", "one"), attachment("y", "two")];
    let digest = place(directory, &image("1"), "a", &attachments);
    let index = directory.join("index.json");
    let before = (fs_err::read(&index).unwrap(), fs_err::metadata(&index).unwrap().modified().unwrap());
    place(directory, &image("1"), "a", &attachments);
    let after = (fs_err::read(&index).unwrap(), fs_err::metadata(&index).unwrap().modified().unwrap());
    assert_eq!(before, after);
    place(directory, &image("1"), "a", &[attachment("y", "new")]);
    assert_eq!(names(directory, &digest), ["x", "y"]);
    let found = referrers(directory, &digest).unwrap();
    assert_eq!(read_attachment(directory, &found[1]).unwrap(), b"new");
}

/// Attachments go with their image; those of others and of other tools stay.
#[test]
fn attachments_of_images_that_are_gone_are_gone() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path();
    let old = place(directory, &image("1"), "a", &[attachment("x", "one")]);
    let kept = place(directory, &image("kept"), "b", &[attachment("x", "kept")]);
    // As another tool writes it: without our name, and about nothing that is here.
    let index = directory.join("index.json");
    let mut document: Value = serde_json::from_slice(&fs_err::read(&index).unwrap()).unwrap();
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(b"?").as_str(), "size": 1,
    });
    document["manifests"].as_array_mut().unwrap().push(foreign.clone());
    fs_err::write(&index, document.to_string()).unwrap();

    let new = place(directory, &image("2"), "a", &[attachment("x", "two")]);
    assert_eq!(names(directory, &old), [""; 0]);
    assert_eq!(
        (names(directory, &new), names(directory, &kept)),
        (vec!["x".to_owned()], vec!["x".to_owned()])
    );
    let document: Value = serde_json::from_slice(&fs_err::read(&index).unwrap()).unwrap();
    assert!(document["manifests"].as_array().unwrap().contains(&foreign));
}

/// R3: a document counts only when its bytes are those that its manifest names.
#[test]
fn r3_an_attachment_with_other_bytes_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path();
    let digest = place(directory, &image("1"), "a", &[attachment("x", "good")]);
    let blob = directory.join("blobs/sha256").join(Digest::of(b"good").hex());
    fs_err::write(&blob, "evil").unwrap();
    let found = referrers(directory, &digest).unwrap();
    assert!(matches!(read_attachment(directory, &found[0]), Err(LayoutError::WrongDigest { .. })));
    fs_err::write(&blob, "much longer").unwrap();
    assert!(matches!(read_attachment(directory, &found[0]), Err(LayoutError::WrongSize { .. })));
}
