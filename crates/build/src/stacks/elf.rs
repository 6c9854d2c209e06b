//! What a program or library asks the dynamic loader for.

use std::io::Read as _;
use std::path::Path;

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::file::Class;
use elf::string_table::StringTable;

use crate::files;

/// The largest file that is looked into.
const MAX_FILE: u64 = 1 << 30;

/// The dynamic section of a file for this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// Names of libraries.
    pub(crate) needed: Vec<String>,
    /// The library's own name.
    pub(crate) soname: Option<String>,
    /// Folders to look in first, as written: `$ORIGIN/../lib`.
    pub(crate) search: Vec<String>,
    /// The loader, where it is a program.
    pub(crate) interpreter: Option<String>,
}

/// What the file at `path` needs; nothing where it is none for this machine's processor, or not
/// linked dynamically.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn dynamic(path: &Path) -> std::io::Result<Option<Dynamic>> {
    let mut file = files::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = vec![0; 20];
    if !(64..=MAX_FILE).contains(&length) {
        return Ok(None);
    }
    file.read_exact(&mut bytes)?;
    if !bytes.starts_with(&abi::ELFMAGIC) {
        return Ok(None);
    }
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

/// As [`dynamic`], of the file's bytes.
fn parse(bytes: &[u8]) -> Option<Dynamic> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).ok()?;
    if (file.ehdr.class, file.ehdr.e_machine) != native()? {
        return None;
    }
    let table = file.dynamic().ok()??;
    let segments = file.segments()?;
    let value = |tag: i64| table.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val());
    let address = value(abi::DT_STRTAB)?;
    let at = segments.iter().find_map(|segment| {
        let inside = address.checked_sub(segment.p_vaddr)?;
        let holds = segment.p_type == abi::PT_LOAD && inside < segment.p_filesz;
        segment.p_offset.checked_add(inside).filter(|_| holds)
    })?;
    let start = usize::try_from(at).ok()?;
    let end = start.checked_add(usize::try_from(value(abi::DT_STRSZ)?).ok()?)?;
    let names = StringTable::new(bytes.get(start..end)?);
    let name = |at: u64| names.get(usize::try_from(at).ok()?).ok().map(str::to_owned);
    let all = |tag: i64| {
        table.iter().filter(move |entry| entry.d_tag == tag).filter_map(|entry| name(entry.d_val()))
    };
    let search = all(abi::DT_RPATH).chain(all(abi::DT_RUNPATH));
    let search = search.flat_map(|path| path.split(':').map(str::to_owned).collect::<Vec<_>>());
    let interpreter = segments.iter().find(|segment| segment.p_type == abi::PT_INTERP);
    let interpreter = interpreter.and_then(|segment| {
        let start = usize::try_from(segment.p_offset).ok()?;
        let end = start.checked_add(usize::try_from(segment.p_filesz).ok()?)?;
        let text = bytes.get(start..end)?.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    });
    Some(Dynamic {
        needed: all(abi::DT_NEEDED).collect(),
        soname: all(abi::DT_SONAME).next(),
        search: search.filter(|path| !path.is_empty()).collect(),
        interpreter,
    })
}

/// Class and number of this program's processor.
fn native() -> Option<(Class, u16)> {
    Some(match std::env::consts::ARCH {
        "x86_64" => (Class::ELF64, abi::EM_X86_64),
        "aarch64" => (Class::ELF64, abi::EM_AARCH64),
        "riscv64" => (Class::ELF64, abi::EM_RISCV),
        "powerpc64" => (Class::ELF64, abi::EM_PPC64),
        "s390x" => (Class::ELF64, abi::EM_S390),
        "x86" => (Class::ELF32, abi::EM_386),
        "arm" => (Class::ELF32, abi::EM_ARM),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_loader_and_its_libraries() {
        let program = std::env::current_exe().unwrap();
        let found = dynamic(&program).unwrap().unwrap();
        assert!(found.interpreter.unwrap().contains("ld-"), "{:?}", found.needed);
        assert!(found.needed.iter().any(|name| name.starts_with("libc.")), "{:?}", found.needed);
    }

    #[test]
    fn what_is_cut_off_or_no_program_needs_nothing() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 20, 63, 64, 100, 4096] {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("text");
        std::fs::write(&path, "#!/bin/sh\n".repeat(20)).unwrap();
        assert_eq!(dynamic(&path).unwrap(), None);
    }
}
