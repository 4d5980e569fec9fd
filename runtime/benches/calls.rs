//! Calls of a component, compiling and loading it, and making layers.
//!
//! Whole commands beside their peers are `cargo xtask bench`'s; this is what
//! happens inside one process. Needs `cargo xtask embed`.

use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::executor::wasm::InProcessExecutor;
use wapack_runtime::limits::Limits;
use wapack_runtime::oci::digest::HashingWriter;
use wapack_runtime::oci::encoder::{Encoders, Encoding, ZstdLevel};
use wapack_runtime::oci::layer::{LayerWriter, Owner};
use wapack_runtime::testkit::TestKit;
use wapack_runtime::tree::{EntryKind, Tree, TreeLimits};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn target_directory() -> PathBuf {
    let program = std::env::current_exe().expect("cargo started this program");
    // <target>/<profile>/deps/<program>
    program.ancestors().nth(3).expect("it is in the target directory").to_owned()
}

fn static_site() -> PathBuf {
    let directory = target_directory().join("embed/builder/buildpacks/wapack_static-site/0.1.0");
    assert!(directory.is_dir(), "`{}` is missing: run `cargo xtask embed` first", directory.display());
    directory
}

fn kit() -> TestKit {
    let directory = static_site();
    TestKit::load(directory.join("buildpack.wasm"))
        .and_then(|kit| kit.buildpack_directory(&directory))
        .expect("the built-in buildpack loads")
}

fn calls(criterion: &mut Criterion) {
    let app = repository().join("samples/website");
    let mut kit = kit();
    // The first calls compile the component and fill the cache.
    kit.build(&app).expect("the sample builds");
    criterion
        .bench_function("detect call, warm", |bencher| bencher.iter(|| kit.detect(&app).expect("detect")));
    criterion.bench_function("build call, warm, layer restored", |bencher| {
        bencher.iter(|| kit.build(&app).expect("build"));
    });
}

fn components(criterion: &mut Criterion) {
    let bytes = std::fs::read(static_site().join("buildpack.wasm")).expect("a component");
    let executor = InProcessExecutor::new(Limits::default()).expect("an engine");
    let code = executor.compile(&bytes).expect("it compiles");
    let mut group = criterion.benchmark_group("component");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.sample_size(20);
    group.bench_function("compile, cold", |bencher| bencher.iter(|| executor.compile(black_box(&bytes))));
    group.bench_function("load compiled code", |bencher| {
        bencher.iter(|| executor.load_compiled(black_box(&code)));
    });
    group.finish();
}

/// A tree like an application's: many files of a few kilobytes that compress about three to one.
fn tree() -> (tempfile::TempDir, u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut state = 1_u64;
    let mut bytes = 0;
    for number in 0..2_000 {
        let path = directory.path().join(format!("{:02}", number % 50));
        std::fs::create_dir_all(&path).expect("a directory");
        let mut file = std::fs::File::create(path.join(format!("{number}.js"))).expect("a file");
        for _ in 0..400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let line =
                format!("export const value_{:x} = require(\"module/{}\");\n", state >> 40, state >> 60);
            file.write_all(line.as_bytes()).expect("written");
            bytes += line.len() as u64;
        }
    }
    (directory, bytes)
}

fn layers(criterion: &mut Criterion) {
    let (directory, bytes) = tree();
    let tree = Tree::of(directory.path());
    let owner = Owner { uid: 1000, gid: 1000 };
    let pack = |output: &mut dyn std::io::Write| {
        let listing = tree.list(TreeLimits::default(), &Cancel::default()).expect("a listing");
        let reader = tree.reader().expect("a reader");
        let mut writer = LayerWriter::new(output);
        for entry in &listing.entries {
            let name = [b"/layers/bench/", entry.path.as_slice()].concat();
            match &entry.kind {
                EntryKind::Directory => writer.directory(&name, 0o755, owner).expect("a directory"),
                EntryKind::File { size, .. } => {
                    let file = reader.open(entry).expect("a file");
                    writer.file(&name, 0o644, owner, *size, &mut &file).expect("a file");
                }
                EntryKind::Symlink { target } => writer.symlink(&name, target, 0o777, owner).expect("a link"),
                EntryKind::Special(_) => unreachable!("there is none in the tree"),
            }
        }
        writer.finish().expect("the end");
    };
    let mut group = criterion.benchmark_group("layer");
    group.throughput(Throughput::Bytes(bytes));
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("tar and hash", |bencher| {
        bencher.iter(|| {
            let mut hashed = HashingWriter::new(std::io::sink());
            pack(&mut hashed);
            hashed.finish().0
        });
    });
    for encoding in [Encoding::Gzip, Encoding::Zstd(ZstdLevel::default())] {
        let encoders = Encoders::new(encoding);
        group.bench_function(format!("tar, hash, {encoding}, hash"), |bencher| {
            bencher.iter(|| {
                let blob = encoders.writer(HashingWriter::new(std::io::sink()));
                let mut layer = HashingWriter::new(blob);
                pack(&mut layer);
                let (diff_id, _, encoded) = layer.finish();
                let (digest, _, _) = encoded.finish().expect("the end").finish();
                (diff_id, digest)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls, components, layers);
criterion_main!(benches);
