//! One layer of an image, read to its end and verified.

use std::io::{BufReader, Read};

use super::InspectionError;
use crate::cancel::Cancel;
use crate::oci::digest::DiffId;
use crate::oci::tar_reader::{TarError, TarReader};
use crate::oci::verify::{VerifyingReader, WrongDigest};

/// Gives the uncompressed tar of a layer, such as [`Images::layer`](crate::images::Images::layer).
pub type OpenLayer<'a> =
    &'a dyn Fn(&DiffId) -> Result<Box<dyn Read>, Box<dyn std::error::Error + Send + Sync>>;

const BUFFER_BYTES: usize = 128 << 10;

/// A tar that is verified while it is read; what came out counts only when its end was reached.
pub(super) struct LayerTar {
    pub(super) tar: TarReader<BufReader<VerifyingReader<Box<dyn Read>>>>,
    diff_id: DiffId,
}

impl LayerTar {
    pub(super) fn open(diff_id: &DiffId, open: OpenLayer<'_>) -> Result<Self, InspectionError> {
        let tar =
            open(diff_id).map_err(|cause| InspectionError::Layer { diff_id: diff_id.clone(), cause })?;
        let tar = BufReader::with_capacity(BUFFER_BYTES, VerifyingReader::new(tar, diff_id.0.clone()));
        Ok(Self { tar: TarReader::new(tar), diff_id: diff_id.clone() })
    }

    /// An error of the tar as one of this layer; wrong bytes explain every other one.
    pub(super) fn failed(&self, cause: TarError) -> InspectionError {
        if let TarError::Read(error) = &cause
            && let Some(wrong) = error.get_ref().and_then(|inner| inner.downcast_ref::<WrongDigest>())
        {
            return InspectionError::WrongContents {
                expected: self.diff_id.clone(),
                actual: wrong.actual.clone(),
            };
        }
        InspectionError::Tar { diff_id: self.diff_id.clone(), cause }
    }
}

/// Whether an entry is a device or the like, behind which the tar goes on; a sparse file
/// has contents that are not read.
pub(super) fn is_no_file(error: &TarError) -> bool {
    matches!(error, TarError::BadType { kind: "device" | "FIFO", .. })
}

/// Ends when whoever waits asked to stop.
pub(super) struct Watched<'a, R> {
    pub(super) inner: R,
    pub(super) cancel: &'a Cancel,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.cancel.check().map_err(std::io::Error::other)?;
        self.inner.read(buffer)
    }
}
