//! What a program or library says it needs to start.
//!
//! Reads the few headers that the kernel and the dynamic loader read, and
//! nothing else. Files may be hostile: every read is bounded, and whatever does
//! not fit together is no ELF file. It must not know where files are looked for.

use std::io::{Read, Seek};

use object::elf;
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef, StringTable};
use serde::{Deserialize, Serialize};

/// Largest table or string that is read; real ones have a few kilobytes.
const MAX_READ_BYTES: u64 = 1 << 20;
/// Most libraries that one file may name; large desktop programs have two hundred.
const MAX_NEEDED: usize = 2_000;
/// Longest name or list of directories; the kernel takes no longer path, and a list has some.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// The headers of an ELF file, as far as starting depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elf {
    /// For which processors.
    pub abi: Abi,
    /// The dynamic loader (`PT_INTERP`); a static program has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// Libraries (`DT_NEEDED`), in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// Where it looks for its libraries and those of its libraries (`DT_RPATH`), with `:` between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpath: Option<String>,
    /// Where it looks for its own libraries (`DT_RUNPATH`), with `:` between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runpath: Option<String>,
    /// The name a library goes by (`DT_SONAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soname: Option<String>,
    /// Whether it wants nothing from the usual directories (`DF_1_NODEFLIB`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_default_directories: bool,
}

/// What has to be equal for code to be loaded into the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// `e_machine`.
    pub machine: u16,
    /// Whether addresses have 64 bits.
    pub is_64: bool,
    pub is_little_endian: bool,
}

impl Abi {
    /// Whether the kernel of `architecture`, in the words of image-spec, runs
    /// it; architectures that are not known here run anything.
    #[must_use]
    pub fn runs_on(self, architecture: &str) -> bool {
        match architecture {
            "amd64" => matches!(self.machine, elf::EM_X86_64 | elf::EM_386),
            "386" => self.machine == elf::EM_386,
            "arm64" => matches!(self.machine, elf::EM_AARCH64 | elf::EM_ARM),
            "arm" => self.machine == elf::EM_ARM,
            "ppc64le" => self.machine == elf::EM_PPC64 && self.is_little_endian,
            "s390x" => self.machine == elf::EM_S390 && self.is_64,
            "riscv64" => self.machine == elf::EM_RISCV && self.is_64,
            "loong64" => self.machine == elf::EM_LOONGARCH,
            _ => true,
        }
    }

    /// The name of the processors, in the words of image-spec where it has one.
    #[must_use]
    pub fn name(self) -> String {
        match self.machine {
            elf::EM_X86_64 => "amd64".to_owned(),
            elf::EM_386 => "386".to_owned(),
            elf::EM_AARCH64 => "arm64".to_owned(),
            elf::EM_ARM => "arm".to_owned(),
            elf::EM_PPC64 => "ppc64le".to_owned(),
            elf::EM_S390 => "s390x".to_owned(),
            elf::EM_RISCV => "riscv64".to_owned(),
            elf::EM_LOONGARCH => "loong64".to_owned(),
            other => format!("machine {other}"),
        }
    }
}

impl Elf {
    /// Reads the headers; `None` when it is no ELF file, or one that no kernel would start.
    pub fn read(source: impl Read + Seek) -> Option<Self> {
        let cache = ReadCache::new(source);
        let data = Bounded(&cache);
        let identification = data.read_bytes_at(0, 16).ok()?;
        match (identification.get(..4)?, identification.get(4)?) {
            (magic, &elf::ELFCLASS64) if magic == elf::ELFMAG => {
                Self::parse::<elf::FileHeader64<Endianness>, _>(data)
            }
            (magic, &elf::ELFCLASS32) if magic == elf::ELFMAG => {
                Self::parse::<elf::FileHeader32<Endianness>, _>(data)
            }
            _ => None,
        }
    }

    fn parse<'a, H: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(data: R) -> Option<Self> {
        let header = H::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        let mut found = Self {
            abi: Abi {
                machine: header.e_machine(endian),
                is_64: header.is_class_64(),
                is_little_endian: endian == Endianness::Little,
            },
            interpreter: None,
            needed: Vec::new(),
            rpath: None,
            runpath: None,
            soname: None,
            no_default_directories: false,
        };
        for segment in segments {
            if let Some(interpreter) = segment.interpreter(endian, data).ok()? {
                found.interpreter = Some(text(interpreter)?);
            }
        }
        let Some(dynamic) = segments.iter().find_map(|segment| segment.dynamic(endian, data).transpose())
        else {
            return Some(found);
        };
        let entries: Vec<(i64, u64)> = dynamic
            .ok()?
            .iter()
            .map(|entry| (entry.tag(endian), entry.val(endian)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect();
        let value = |wanted| entries.iter().find_map(|&(tag, value)| (tag == wanted).then_some(value));
        let Some(address) = value(elf::DT_STRTAB) else { return Some(found) };
        // The table is named by its address in memory; the segment that has it says where it is in the file.
        let (start, end) = segments.iter().find_map(|segment| {
            let (memory, size): (u64, u64) =
                (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
            let file: u64 = segment.p_offset(endian).into();
            let inside = address.checked_sub(memory).filter(|&inside| inside < size)?;
            let is_loaded = segment.p_type(endian) == elf::PT_LOAD;
            is_loaded.then_some((file.checked_add(inside)?, file.checked_add(size)?))
        })?;
        let strings = StringTable::new(data, start, end);
        for (tag, value) in entries {
            let string = || text(strings.get(value.try_into().ok()?).ok()?);
            match tag {
                elf::DT_NEEDED if found.needed.len() >= MAX_NEEDED => return None,
                elf::DT_NEEDED => found.needed.push(string()?),
                elf::DT_RPATH => found.rpath = Some(string()?),
                elf::DT_RUNPATH => found.runpath = Some(string()?),
                elf::DT_SONAME => found.soname = Some(string()?),
                elf::DT_FLAGS_1 => {
                    found.no_default_directories = value & u64::from(elf::DF_1_NODEFLIB) != 0;
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// Names are UTF-8 everywhere in practice; one that is not could not be told to anybody.
fn text(bytes: &[u8]) -> Option<String> {
    let is_sensible = !bytes.is_empty() && bytes.len() <= MAX_TEXT_BYTES;
    is_sensible.then(|| std::str::from_utf8(bytes).ok().map(str::to_owned)).flatten()
}

/// Refuses to read much at once, whatever a header says of a size.
#[derive(Debug, Clone, Copy)]
struct Bounded<R>(R);

impl<'a, R: ReadRef<'a>> ReadRef<'a> for Bounded<R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > MAX_READ_BYTES { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, range: std::ops::Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests;
