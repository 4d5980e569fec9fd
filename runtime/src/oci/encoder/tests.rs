use std::process::{Command, Stdio};

use super::block::{BLOCK_BYTES, Codec, OUTPUT_BYTES};
use super::*;
use crate::oci::digest::Digest;
use std::io::{self, Read as _, Write};

const ZSTD_3: Encoding = Encoding::Zstd(ZstdLevel(3));
const ENCODINGS: [Encoding; 4] =
    [Encoding::Gzip, Encoding::Zstd(ZstdLevel(1)), ZSTD_3, Encoding::Zstd(ZstdLevel(19))];

/// Half noise, half text, so that blocks differ in how well they compress.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut data = Vec::with_capacity(bytes + 64);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state & 1 == 0 {
            data.extend_from_slice(&state.to_le_bytes());
        } else {
            data.extend_from_slice(b"the quick brown fox jumps over the lazy dog");
        }
    }
    data.truncate(bytes);
    data
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    data.truncate(bytes);
    data
}

/// Few letters at random, of which a compressor makes much of what it has seen.
fn letters(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from((state >> 33) % 4).unwrap()
    };
    (0..bytes).map(|_| letter()).collect()
}

fn encode(encoding: Encoding, data: &[u8], threads: usize, piece: usize) -> Vec<u8> {
    encode_with(&Encoders::with_threads(encoding, threads), data, piece)
}

fn encode_with(encoders: &Encoders, data: &[u8], piece: usize) -> Vec<u8> {
    let mut writer = encoders.writer(Vec::new());
    for part in data.chunks(piece) {
        writer.write_all(part).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} is needed for this test: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    output.stdout
}

const SIZES: [usize; 7] = [0, 1, 1024, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 77];

#[test]
fn outside_tools_read_all_members_of_gzip() {
    for bytes in SIZES {
        let data = sample(bytes);
        let compressed = encode(Encoding::Gzip, &data, 2, 70_000);
        assert_eq!(run(Command::new("gzip").arg("-dc"), &compressed), data, "gzip, {bytes} bytes");
        let script = "import gzip,sys;sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
        assert_eq!(run(Command::new("python3").args(["-c", script]), &compressed), data, "{bytes} bytes");
        assert_eq!(run(Command::new("pigz").arg("-dc"), &compressed), data, "pigz, {bytes} bytes");
    }
}

#[test]
fn outside_tools_read_all_frames_of_zstd() {
    for bytes in SIZES {
        let data = sample(bytes);
        let compressed = encode(ZSTD_3, &data, 2, 70_000);
        assert_eq!(run(Command::new("zstd").args(["-q", "-dc"]), &compressed), data, "{bytes} bytes");
    }
}

#[test]
fn our_own_reader_reads_it_back() {
    for encoding in ENCODINGS {
        let data = sample(2 * BLOCK_BYTES + 5);
        let compressed = encode(encoding, &data, 2, 4096);
        let mut found = Vec::new();
        let mut reader = crate::oci::compression::decompress(io::Cursor::new(compressed)).unwrap();
        reader.read_to_end(&mut found).unwrap();
        assert!(found == data, "{encoding}");
    }
}

/// Nothing is behind the last block of a layer that ends with one, and nothing before
/// the first: the reader of the first member finds just its block.
#[test]
fn every_block_is_a_member_of_its_own() {
    let script = "import sys,zlib\ndata=sys.stdin.buffer.read()\nwhile data:\n d=zlib.decompressobj(31)\n \
                  print(len(d.decompress(data)),d.eof)\n data=d.unused_data";
    for (bytes, expected) in [
        (0, "0 True\n".to_owned()),
        (2 * BLOCK_BYTES, format!("{BLOCK_BYTES} True\n").repeat(2)),
        (2 * BLOCK_BYTES + 5, format!("{BLOCK_BYTES} True\n{BLOCK_BYTES} True\n5 True\n")),
    ] {
        let compressed = encode(Encoding::Gzip, &sample(bytes), 2, BLOCK_BYTES);
        let found = run(Command::new("python3").args(["-c", script]), &compressed);
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }
}

/// IMG-12
#[test]
fn img_12_bytes_do_not_depend_on_threads_or_on_the_size_of_writes() {
    let data = sample(4 * BLOCK_BYTES + 123);
    for encoding in [Encoding::Gzip, ZSTD_3] {
        let expected = encode(encoding, &data, 1, data.len());
        for threads in [1, 2, 3, 8] {
            for piece in [1000, 4096, BLOCK_BYTES, 999_983] {
                let found = encode(encoding, &data, threads, piece);
                assert!(found == expected, "{encoding}, {threads} threads, pieces of {piece}");
            }
        }
    }
}

/// IMG-12
#[test]
fn img_12_what_a_thread_compressed_before_leaves_no_trace() {
    let mut data = letters(2 * BLOCK_BYTES);
    data.extend(sample(BLOCK_BYTES));
    data.extend(noise(BLOCK_BYTES));
    data.extend(letters(BLOCK_BYTES + 5));
    for encoding in ENCODINGS {
        // Each block by a compressor that has seen nothing before.
        let mut expected = Vec::new();
        for block in data.chunks(BLOCK_BYTES) {
            let mut output = vec![0; OUTPUT_BYTES];
            let used = Codec::new(encoding).unwrap().encode(block, &mut output).unwrap();
            expected.extend_from_slice(&output[..used]);
        }
        let encoders = Encoders::with_threads(encoding, 1);
        for round in 1..=3 {
            assert!(encode_with(&encoders, &data, 4096) == expected, "{encoding}, round {round}");
        }
    }
}

/// Layers that are made at the same time, some through full queues.
#[test]
fn img_12_writers_beside_each_other_change_nothing_and_stay_within_their_memory() {
    const WRITERS: usize = 8;
    let layers: Vec<Vec<u8>> = (1..=WRITERS).map(|number| sample(number * BLOCK_BYTES + number)).collect();
    let alone: Vec<Vec<u8>> = layers.iter().map(|data| encode(Encoding::Gzip, data, 1, 1 << 16)).collect();
    for threads in [1, 2, 8] {
        let encoders = Encoders::with_threads(Encoding::Gzip, threads);
        let beside: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                layers.iter().map(|data| scope.spawn(|| encode_with(&encoders, data, 1 << 16))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(beside == alone, "{threads} threads");
        let bound = (2 * threads + 2) + threads + 2 * WRITERS;
        assert!(encoders.buffers() <= bound, "{} buffers, {bound} are announced", encoders.buffers());
    }
}

/// One thread that fills two layers by turns.
#[test]
fn a_writer_without_room_does_not_wait_for_others() {
    let data = sample(20 * BLOCK_BYTES);
    let expected = encode(Encoding::Gzip, &data, 1, BLOCK_BYTES);
    let encoders = Encoders::with_threads(Encoding::Gzip, 1);
    let mut writers = [encoders.writer(Vec::new()), encoders.writer(Vec::new()), encoders.writer(Vec::new())];
    for part in data.chunks(3 * BLOCK_BYTES) {
        for writer in &mut writers {
            writer.write_all(part).unwrap();
        }
    }
    for writer in writers {
        assert!(writer.finish().unwrap() == expected);
    }
}

#[test]
fn a_long_layer_takes_no_more_memory_than_a_short_one() {
    let data = letters(BLOCK_BYTES);
    let encoders = Encoders::with_threads(ZSTD_3, 2);
    let mut writer = encoders.writer(io::sink());
    for _ in 0..200 {
        writer.write_all(&data).unwrap();
    }
    writer.finish().unwrap();
    // Six on their way, one for each thread, and two of the writer.
    assert!(encoders.buffers() <= 10, "{} buffers", encoders.buffers());
}

#[test]
fn noise_is_stored_and_grows_by_next_to_nothing() {
    let data = noise(3 * BLOCK_BYTES + 100);
    for encoding in ENCODINGS {
        let compressed = encode(encoding, &data, 2, 1 << 16).len();
        // Five bytes in 64 KiB, and 18 for each member.
        let most = data.len() + data.len() / 10_000 + 4 * 18;
        assert!(compressed <= most, "{encoding}: {compressed} of {}", data.len());
    }
    // Stored blocks of deflate (RFC 1951, 3.2.4): the bytes are there as they are.
    let compressed = encode(Encoding::Gzip, &data, 2, 1 << 16);
    assert!(compressed.windows(64).any(|window| window == &data[BLOCK_BYTES..BLOCK_BYTES + 64]));
}

/// It looks like noise, every letter as often as the other, but says everything twice.
#[test]
fn what_only_looks_like_noise_is_compressed() {
    let half = noise(16 << 10);
    let data: Vec<u8> = half.iter().copied().cycle().take(2 * BLOCK_BYTES).collect();
    let compressed = encode(Encoding::Gzip, &data, 2, 1 << 16).len();
    assert!(compressed < data.len() / 10, "{compressed} of {}", data.len());
}

#[test]
fn no_output_is_larger_than_its_buffer() {
    let deflate = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).unwrap())
        .gzip_compress_bound(BLOCK_BYTES);
    let zstd = zstd::zstd_safe::compress_bound(BLOCK_BYTES);
    assert!(deflate.max(zstd) <= OUTPUT_BYTES, "{deflate}, {zstd}");
}

/// No file name, time 0, operating system unknown (RFC 1952, 2.3).
#[test]
fn img_12_the_header_of_gzip_says_nothing_of_the_machine() {
    for data in [sample(100), noise(BLOCK_BYTES)] {
        let header = &encode(Encoding::Gzip, &data, 1, 1 << 20)[..10];
        assert_eq!((&header[..8], header[9]), (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], 0xff));
    }
}

#[test]
fn sizes_stay_near_those_of_the_usual_tools() {
    let data = sample(3 * BLOCK_BYTES);
    let usual = run(Command::new("gzip").args(["-1", "-nc"]), &data).len();
    let ours = encode(Encoding::Gzip, &data, 2, 4096).len();
    assert!(ours < usual, "{ours} bytes, gzip -1 makes {usual}");
    let usual = run(Command::new("zstd").args(["-q", "-3", "-c"]), &data).len();
    let ours = encode(ZSTD_3, &data, 2, 4096).len();
    assert!(ours < usual + usual / 20, "{ours} bytes, zstd -3 makes {usual}");
}

/// When this fails after an upgrade, [`Encoding::id`] has to change with it.
#[test]
fn the_ids_stand_for_these_bytes() {
    let lock: toml::Table = toml::from_str(include_str!("../../../../Cargo.lock")).unwrap();
    let packages = lock["package"].as_array().unwrap();
    let version = |name: &str| {
        let package = packages.iter().find(|package| package["name"].as_str() == Some(name)).unwrap();
        package["version"].as_str().unwrap().to_owned()
    };
    let (deflate, zstd) = (version("libdeflate-sys"), version("zstd-sys"));
    let mut data = sample(BLOCK_BYTES + 4096);
    // Decides also when a block is stored.
    data.extend(noise(2 * BLOCK_BYTES));
    let found = [Encoding::Gzip, Encoding::Zstd(ZstdLevel(1)), ZSTD_3].map(|encoding| {
        let digest = Digest::of(&encode(encoding, &data, 2, 4096));
        (encoding.id(), digest.to_string())
    });
    let expected = [
        (
            format!("gzip-1m-members-1;libdeflate-sys-{deflate};1"),
            "sha256:80275dea22f819b30b7dca1f89c1faf9dee066c355630a6e5f0c745508f45876".to_owned(),
        ),
        (
            format!("zstd-1m-frames-1;zstd-sys-{zstd};1"),
            "sha256:edee2a5792c598626c387caa049b2294ff3d1e740a26bb239c80a2d3850064a2".to_owned(),
        ),
        (
            format!("zstd-1m-frames-1;zstd-sys-{zstd};3"),
            "sha256:be3859eb7246ff9a412ba40a18e407b0d97bec18ea9538e948b44b97cc032b75".to_owned(),
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn ids_differ() {
    let ids: std::collections::BTreeSet<String> = ENCODINGS.into_iter().map(Encoding::id).collect();
    assert_eq!(ids.len(), ENCODINGS.len());
}

/// image-spec `layer.md`; Docker's family has no type for zstd that its readers know.
#[test]
fn img_10_zstd_is_for_the_family_of_the_oci() {
    let name = |encoding: Encoding, family| encoding.media_type(family).map(|kind| kind.to_string());
    assert_eq!(
        name(ZSTD_3, MediaFamily::Oci).as_deref(),
        Some("application/vnd.oci.image.layer.v1.tar+zstd")
    );
    assert_eq!(name(ZSTD_3, MediaFamily::Docker), None);
    assert_eq!(
        name(Encoding::Gzip, MediaFamily::Oci).as_deref(),
        Some("application/vnd.oci.image.layer.v1.tar+gzip")
    );
    assert_eq!(
        name(Encoding::Gzip, MediaFamily::Docker).as_deref(),
        Some("application/vnd.docker.image.rootfs.diff.tar.gzip")
    );
}

#[test]
fn encodings_are_named() {
    for (text, encoding) in [
        ("gzip", Encoding::Gzip),
        ("zstd", ZSTD_3),
        ("zstd:1", Encoding::Zstd(ZstdLevel(1))),
        ("zstd:19", Encoding::Zstd(ZstdLevel(19))),
    ] {
        assert_eq!(text.parse(), Ok(encoding));
        assert_eq!(encoding.to_string().parse(), Ok(encoding));
    }
    for text in ["zstd:0", "zstd:20", "zstd:", "zstd:+3", "zstd:03", "zstd:x", "zstd:256", "zstd:-1"] {
        assert_eq!(text.parse::<Encoding>(), Err(InvalidEncoding::Level), "{text}");
    }
    assert_eq!("gzip:6".parse::<Encoding>(), Err(InvalidEncoding::GzipLevel));
    for text in ["", "Gzip", "gz", "none", "zstd3", " gzip"] {
        assert_eq!(text.parse::<Encoding>(), Err(InvalidEncoding::Name), "{text}");
    }
}

#[test]
fn an_error_of_the_inner_writer_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let encoders = Encoders::with_threads(Encoding::Gzip, 2);
    let data = sample(20 * BLOCK_BYTES);
    for round in 0..20 {
        let mut writer = encoders.writer(Full(100));
        let error = writer.write_all(&data).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "round {round}");
    }
    // What failed gave everything back that it had taken.
    assert_eq!(encode_with(&encoders, &data, 1 << 16), encode(Encoding::Gzip, &data, 1, 1 << 16));
    assert!(encoders.buffers() <= 10, "{} buffers", encoders.buffers());
}
