//! Who reads the objects of a repository.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};
use tolv_sandbox::Cancel;

use super::git::Git;
use crate::caps::bytes;
use crate::repository::{GitAccess, GitCommand, Repository};
use crate::{Error, files};

/// Whose git reads a repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader<'a> {
    /// The developer's, with their rights: it is their own.
    Own(&'a Git, &'a Path),
    /// Strangers push to it: git is shut in.
    Shut(&'a Repository),
}

impl Reader<'_> {
    /// Runs a git command, whose output goes to `on_out`. An error of git's is one.
    pub(crate) fn stream(
        &self,
        args: &[&[u8]],
        stdin: Option<OwnedFd>,
        on_out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut refused = None;
        let mut take = |chunk: &[u8]| match on_out(chunk) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        };
        let ended = match self {
            Self::Own(git, git_dir) => git.stream(git_dir, args, stdin, &mut take, cancel),
            Self::Shut(repository) => {
                let words = args.iter().map(|word| super::as_path(word));
                let command = GitCommand::new(GitAccess::Read, words);
                repository.stream(&command, stdin, &mut take, cancel)
            }
        };
        if let Some(error) = refused {
            return Err(error);
        }
        match ended? {
            (0, _) => Ok(()),
            (_, said) => Err(Error::Source(format!("git: {said}"))),
        }
    }

    /// The bytes of one object.
    pub(crate) fn blob(&self, id: &str, most: u64, cancel: &Cancel) -> Result<Vec<u8>, Error> {
        let mut blob = Vec::new();
        let mut take = |chunk: &[u8]| {
            blob.extend_from_slice(chunk);
            if blob.len() as u64 > most {
                return Err(Error::Limit { what: "a file".into(), limit: bytes(most) });
            }
            Ok(())
        };
        self.stream(&[b"cat-file", b"blob", id.as_bytes()], None, &mut take, cancel)?;
        Ok(blob)
    }
}

/// A file's bytes at a commit; nothing where there is none.
pub(crate) fn file(
    reader: Reader<'_>,
    commit: &str,
    path: &[u8],
    cancel: &Cancel,
) -> Result<Option<Vec<u8>>, Error> {
    let asked = memory(&[commit.as_bytes(), b":", path, b"\n"].concat());
    let asked = asked.map_err(Error::io("write", "a list of objects"))?;
    let mut said = Vec::new();
    let mut take = |chunk: &[u8]| {
        said.extend_from_slice(chunk);
        if said.len() as u64 > files::MAX_READ {
            let (what, limit) =
                (format!("the file `{}`", super::shown(path)), bytes(files::MAX_READ));
            return Err(Error::Limit { what, limit });
        }
        Ok(())
    };
    reader.stream(&[b"cat-file", b"--batch"], Some(asked), &mut take, cancel)?;
    let end = said.iter().position(|&byte| byte == b'\n').ok_or_else(strange)?;
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let mut words = head.rsplit(' ');
    let (size, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (kind, size.parse::<usize>()) {
        ("blob", Ok(size)) => {
            let file = said.get(end + 1..end + 1 + size).ok_or_else(strange)?;
            Ok(Some(file.to_vec()))
        }
        _ => Ok(None),
    }
}

/// A file without a name, to be read.
pub(crate) fn memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut list = File::from(memfd_create(c"input", MemfdFlags::CLOEXEC)?);
    list.write_all(bytes)?;
    list.rewind()?;
    Ok(list.into())
}

/// git does not keep to its own formats.
pub(crate) fn strange() -> Error {
    Error::Source("git gives other objects than it was asked for".to_owned())
}
