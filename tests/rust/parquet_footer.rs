//! Footers of real files, byte by byte, and of damaged ones. Real files lie at `../shared/data/parquet-testing`, or under
//! where `REGRAFT_SAMPLE_DATA` points.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use regraft::error::{Kind, Result};
use regraft::parquet::{Change, EncodedColumns, File, Layout, Parsed, Ranges, decide, rewrite};
use regraft::store::Piece;

/// The real Parquet files in order of their names; none where they are not at hand, which CI does not accept.
pub(crate) fn sample_files() -> Vec<PathBuf> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path
                .extension()
                .is_some_and(|extension| ["parquet", "encrypted"].iter().any(|known| extension == *known))
            {
                files.push(path);
            }
        }
    }
    let root = std::env::var_os("REGRAFT_SAMPLE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let mut files = Vec::new();
    collect(&root.join("parquet-testing"), &mut files);
    assert!(
        !files.is_empty() || std::env::var_os("CI").is_none(),
        "no sample files in `{}`: name their folder in REGRAFT_SAMPLE_DATA",
        root.display()
    );
    files.sort();
    files
}

fn parse(name: &str, bytes: &[u8]) -> Result<File> {
    match File::parse(name, bytes.len() as u64, bytes)? {
        Parsed::File(file) => Ok(file),
        Parsed::Needs(length) => panic!("`{name}` whole, and `{length}` bytes are needed"),
    }
}

#[test]
fn real_footers_are_read_or_refused_and_come_back_byte_by_byte() {
    let mut read = 0;
    for path in sample_files() {
        let (name, bytes) = (path.display().to_string(), std::fs::read(&path).unwrap());
        let file = match parse(&name, &bytes) {
            Ok(file) => file,
            Err(error) => {
                assert!([Kind::Invalid, Kind::Corrupt].contains(&error.kind()), "{error}");
                println!("{error}\n");
                continue;
            }
        };
        let footer = &bytes[file.footer_start() as usize..bytes.len() - 8];
        assert!(file.tree().to_bytes() == footer, "{name}");
        read += 1;
    }
    println!("{read} files read");
}

#[test]
fn the_tail_says_how_much_of_it_is_needed() {
    for path in sample_files() {
        let (name, bytes) = (path.display().to_string(), std::fs::read(&path).unwrap());
        let Ok(whole) = parse(&name, &bytes) else { continue };
        let (length, mut wanted, mut asked) = (bytes.len() as u64, 0, 0);
        let file = loop {
            match File::parse(&name, length, &bytes[bytes.len() - wanted..]).unwrap() {
                Parsed::File(file) => break file,
                Parsed::Needs(more) => {
                    assert!(more > wanted as u64 && more <= length);
                    (wanted, asked) = (more as usize, asked + 1);
                }
            }
        };
        assert!(asked <= 2, "{name}");
        assert_eq!(file.tree(), whole.tree());
        assert_eq!((file.rows(), file.row_groups(), file.length()), (whole.rows(), whole.row_groups(), length));
        // A file that was cut anywhere has no footer at its end.
        for cut in [0, 3, 11, 12, bytes.len() / 2, bytes.len() - 8, bytes.len() - 1] {
            let error = parse(&name, &bytes[..cut]).unwrap_err();
            assert!(error.message().contains(&name), "{error}");
        }
    }
}

/// The pieces of a file without its first column, the last of another name.
fn rewritten(file: &File, bytes: &[u8], layout: Layout) -> Result<Vec<Piece>> {
    let names: Vec<&String> = file.roots().iter().map(|root| &root.name).collect();
    let change = Change {
        drops: names.iter().take(names.len() - 1).take(1).map(ToString::to_string).collect(),
        renames: names.last().map(|last| ((*last).clone(), "another name".into())).into_iter().collect(),
        ..Change::default()
    };
    let ranges = file.index_ranges().into_iter();
    let slice = |range: &std::ops::Range<u64>| Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]);
    let indexes = Ranges::new(ranges.map(|range| (range.clone(), slice(&range))))?;
    let decision = decide(file, &change, 0, layout)?;
    let none = EncodedColumns { fields: Vec::new(), footer: Bytes::new(), row_groups: Vec::new() };
    rewrite(file, &indexes, &change, none, &decision)
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

#[test]
fn mutants_of_real_footers_are_read_or_refused_in_time() {
    let mut numbers = Numbers(20_261_122);
    let mutants = if std::env::var_os("REGRAFT_LONG").is_some() { 200 } else { 10 };
    let (mut read, mut refused, mut rewrites) = (0, 0, 0);
    for path in sample_files() {
        let (name, whole) = (path.display().to_string(), std::fs::read(&path).unwrap());
        let Ok(file) = parse(&name, &whole) else { continue };
        let (start, end) = (file.footer_start() as usize, whole.len() - 8);
        for _ in 0..mutants {
            let mut bytes = whole.clone();
            for _ in 0..=numbers.below(4) {
                let at = start + numbers.below(end - start);
                bytes[at] = numbers.below(256) as u8;
            }
            let began = Instant::now();
            match parse(&name, &bytes) {
                Ok(file) => {
                    // Whatever is let through can be written again, and its ranges lie in the file.
                    assert!(file.live_ranges().iter().all(|range| range.end <= file.footer_start()), "{name}");
                    let _ = file.tree().to_bytes();
                    for layout in [Layout::Widened, Layout::Contiguous] {
                        match rewritten(&file, &bytes, layout) {
                            Ok(_) => rewrites += 1,
                            Err(error) => {
                                assert!([Kind::Invalid, Kind::Corrupt].contains(&error.kind()), "{name}: {error}");
                            }
                        }
                    }
                    read += 1;
                }
                Err(error) => {
                    assert!([Kind::Invalid, Kind::Corrupt].contains(&error.kind()), "{name}: {error}");
                    refused += 1;
                }
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{name}");
        }
    }
    println!("{read} mutants read, {refused} refused; {rewrites} rewrites");
}
