//! The tar inside a blob, however the blob is compressed.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const BUFFER_BYTES: usize = 128 << 10;
/// Memory a decoder may ask for, such as the window of zstd; encoders of images stay at 8 MiB.
pub const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// Reads a blob without its compression: gzip, zstd or none, by its first bytes.
///
/// # Errors
/// When the first bytes cannot be read.
///
/// # Units
/// What comes out is not bounded: whoever reads it is.
pub fn decompress<R: Read + 'static>(blob: R) -> io::Result<Box<dyn Read>> {
    let mut blob = BufReader::with_capacity(BUFFER_BYTES, blob);
    let start = blob.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(blob)),
        // The second is a frame that is to be skipped, which may come first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(Zstd::new(blob, nothing_more))
        }
        _ => Box::new(blob),
    })
}

/// Any number of zstd frames, one behind the other.
pub struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
    end: fn(&mut R) -> io::Result<()>,
}

impl<R: BufRead> Zstd<R> {
    /// Reads `source`; `end` is asked about what does not begin like a frame.
    ///
    /// # Errors
    /// When read: [`io::ErrorKind::OutOfMemory`] for a frame that wants more memory than
    /// [`MAX_WINDOW_BYTES`].
    pub fn new(source: R, end: fn(&mut R) -> io::Result<()>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self { source, decoder, in_frame: false, end }
    }

    /// Starts the next frame; `false` at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            // No frame begins with a zero.
            if self.source.fill_buf()?.first().is_none_or(|byte| *byte == 0) {
                return (self.end)(&mut self.source).map(|()| false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error @ FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, error.to_string()));
                }
                Err(error) => return Err(invalid(&error)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, some).map_err(|error| invalid(&error))?;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            let expected = self.decoder.get_checksum_from_data();
            if expected.is_some() && expected != self.decoder.get_calculated_checksum() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
            }
            self.in_frame = false;
        }
    }
}

fn nothing_more(source: &mut impl BufRead) -> io::Result<()> {
    match source.fill_buf()? {
        [] => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "there is something behind its end")),
    }
}

fn invalid(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn plain(blob: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompress(Cursor::new(blob))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_gzip_and_zstd_wrote_is_read() {
        let data: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let (first, second) = data.split_at(data.len() / 3);
        for (program, arguments) in [("gzip", ["-6", "-c"]), ("zstd", ["-3", "-c"])] {
            let whole = pipe(program, &arguments, &data);
            assert_eq!(plain(whole.clone()).unwrap(), data, "{program}");
            let parts = [pipe(program, &arguments, first), pipe(program, &arguments, second)].concat();
            assert_eq!(plain(parts).unwrap(), data, "{program} in two parts");
            plain(whole[..whole.len() / 2].to_vec()).unwrap_err();
        }
        assert_eq!(plain(data.clone()).unwrap(), data);
        assert_eq!(plain(vec![]).unwrap(), b"");
    }

    #[test]
    fn frames_that_are_to_be_skipped_are() {
        let skip = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frame = pipe("zstd", &["-c"], b"hello");
        assert_eq!(plain([skip.clone(), frame.clone(), skip.clone()].concat()).unwrap(), b"hello");
        plain([frame, skip[..9].to_vec()].concat()).unwrap_err();
    }
}
